"""A full disk, a read-only folder, a killed process: one sentence, and what was there stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, StorageError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.location import parse_location
from volume_cases import CASES, Case

VOXEL_SIZE = VoxelSize(30, 6, 6)
SHAPE = (40, 100, 100)
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on file sizes")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def old_volume(case: Case, folder: Path) -> dict[str, bytes]:
    """Write a small volume, and beside it another one in the same file where that is possible."""
    shape = (2, 3, 4)
    uris = [case.uri(folder)]
    if case.name.startswith("hdf5"):
        uris.append(f"{parse_location(uris[0]).path}@other")
    for uri in uris:
        with create_volume(uri, shape=shape, dtype=case.dtype, voxel_size=VOXEL_SIZE) as volume:
            volume.write(volume.box, np.full(shape, 7, case.dtype))
    return contents(folder)


WRITE_IN_LITTLE_ROOM = """
import resource, sys
import numpy as np
from floodem.errors import FloodemError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume

uri, shape, dtype, limit = sys.argv[1], (40, 100, 100), sys.argv[2], int(sys.argv[3])
facts = {"shape": shape, "dtype": dtype, "voxel_size": VoxelSize(30, 6, 6), "overwrite": True}
image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
# Everything is imported once before files may no longer grow.
create_volume(uri, **facts).discard()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with create_volume(uri, **facts) as volume:
        for z in range(0, 40, 8):
            box = volume.box.from_shape((8, 100, 100), start=(z, 0, 0))
            volume.write(box, image[z : z + 8])
except FloodemError as error:
    print(type(error).__name__, error)
"""


def write_in_little_room(case: Case, folder: Path, *, limit: int) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "utf8",
            "-c",
            WRITE_IN_LITTLE_ROOM,
            case.uri(folder),
            case.dtype,
            str(limit),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@POSIX_ONLY
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_that_may_not_grow_gives_one_sentence_and_keeps_the_old_one(
    tmp_path: Path, case: Case
) -> None:
    before = old_volume(case, tmp_path)
    # Sections and chunks are small files, the others one large one.
    limit = 3_000 if len(before) > 1 or case.by_section else 30_000
    said = write_in_little_room(case, tmp_path, limit=limit)
    assert said.startswith("StorageError cannot ")
    assert said.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where this user may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield place
    # Lazily: a thread of a library may still hold a file that it is about to close.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_full_disk_gives_one_sentence_and_keeps_the_old_one(mounted: Path, case: Case) -> None:
    before = old_volume(case, mounted)
    (mounted / "filler").write_bytes(bytes(700_000))
    before["filler"] = bytes(700_000)
    said = write_in_little_room(case, mounted, limit=0)
    assert said.startswith(("StorageError cannot ", "ResourceError "))
    assert said.count("\n") == 1
    assert contents(mounted) == before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_read_only_disk_gives_one_sentence(mounted: Path, case: Case) -> None:
    before = old_volume(case, mounted)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    for uri in (case.uri(mounted), case.uri(mounted / "new")):
        with pytest.raises(StorageError, match=r"Read-only file system; check") as caught:
            create_volume(uri, shape=SHAPE, dtype=case.dtype, voxel_size=VOXEL_SIZE, overwrite=True)
        assert "\n" not in str(caught.value)
    with open_volume(case.uri(mounted)) as volume:
        assert (volume.read() == 7).all()
    assert contents(mounted) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind this user")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_folder_without_rights_gives_one_sentence(tmp_path: Path, case: Case) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(StorageError, match="Permission denied; check"):
        create_volume(case.uri(folder), shape=SHAPE, dtype=case.dtype, voxel_size=VOXEL_SIZE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_where_a_folder_should_be_gives_one_sentence(tmp_path: Path, case: Case) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises((VolumeNotFoundError, StorageError)):
        create_volume(
            case.uri(tmp_path / "file"), shape=SHAPE, dtype=case.dtype, voxel_size=VOXEL_SIZE
        )
    assert contents(tmp_path) == {"file": b"mine"}


OVERWRITE_FOREVER = """
import sys
import numpy as np
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume

facts = {"shape": (8, 32, 32), "dtype": sys.argv[2], "voxel_size": VoxelSize(30, 6, 6)}
for value in range(1, 200):
    with create_volume(sys.argv[1], **facts, overwrite=True) as volume:
        volume.write(volume.box, np.full(volume.shape, value, volume.dtype))
    print(value, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("case", [c for c in CASES if "-" not in c.name], ids=str)
def test_a_killed_process_leaves_the_old_or_the_new(tmp_path: Path, case: Case) -> None:
    uri = case.uri(tmp_path)
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", OVERWRITE_FOREVER, uri, case.dtype], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert writer.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        with open_volume(uri) as volume:
            values = np.unique(volume.read())
        assert len(values) == 1
        assert values[0] > 0


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_wrong_bytes_are_read_or_refused_in_one_sentence(
    tmp_path: Path, case: Case, data: st.DataObject
) -> None:
    uri = case.uri(tmp_path / "work")
    if not (tmp_path / "work").exists():
        image = np.random.default_rng(0).integers(0, 255, (3, 20, 20)).astype(case.dtype)
        with create_volume(
            uri, shape=image.shape, dtype=case.dtype, voxel_size=VOXEL_SIZE
        ) as volume:
            volume.write(volume.box, image)
    files = sorted(path for path in (tmp_path / "work").rglob("*") if path.is_file())
    damaged = data.draw(st.sampled_from(files))
    whole = damaged.read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([min(300, len(whole)), len(whole)]))
        changed[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    damaged.write_bytes(changed)
    try:
        with open_volume(uri) as volume:
            volume.read(volume.box.intersection(Box(volume.offset, (10**4,) * 3)))
    except FloodemError as error:
        said = str(error)
    else:
        said = ""
    finally:
        damaged.write_bytes(whole)
    assert "\n" not in said
