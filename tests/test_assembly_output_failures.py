"""Full and read-only disks and killed processes: one sentence, and then the same bytes."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from assembly_cases import (
    PLAN,
    SIZE,
    files,
    fill_blocks,
    truth,
    write_all,
    write_levels,
)
from floodem.assembly.block_store import BlockStore
from floodem.assembly.destination import LabelDestination
from floodem.assembly.placing import finish
from floodem.assembly.run_record import RunRecord
from floodem.errors import FloodemError, StorageError
from floodem.volumes import convert, open_volume

NO_SPACE, READ_ONLY = "No space left on device", "Read-only file system"
DISK_BYTES = 4 * 2**20
KILLS = 5
TIMEOUT_S = 120

GO_ON = """
import sys
sys.path.insert(0, sys.argv[1])
from assembly_cases import go_on
go_on(sys.argv[2], overwrite=sys.argv[3])
"""


def blocks_for(
    uri: str | Path, *, levels: int = 0, overwrite: bool = False
) -> tuple[LabelDestination, BlockStore]:
    """Blocks that are flooded and numbered, and nothing written of the result."""
    destination = LabelDestination.choose(
        str(uri), plan=PLAN, voxel_size=SIZE, levels=levels, overwrite=overwrite
    )
    store = BlockStore(address=destination.work, plan=PLAN)
    fill_blocks(store, truth())
    return destination, store


def mount(*words: str) -> None:
    try:
        done = subprocess.run(["mount", *words], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.decode().strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "floodem-test", str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


def steps(destination: LabelDestination, store: BlockStore) -> list:
    return [
        destination.create,
        lambda: write_all(destination, store),
        lambda: write_levels(destination),
        lambda: finish(destination),
    ]


def refusal(step: Callable[[], object]) -> str:
    """Return the sentence with which a step is refused; nothing where it comes through."""
    try:
        step()
    except StorageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["seg.zarr", "seg.ome.zarr", "seg.n5", "seg.h5", "seg.nii.gz"])
def test_a_disk_that_fills_up_is_survived_at_every_step(disk, name):
    has_levels = name in {"seg.zarr", "seg.n5"}
    destination, store = blocks_for(disk / name, levels=2 if has_levels else 0)
    refused = 0
    for step in steps(destination, store):
        before = files(disk)
        fill(disk)
        said = refusal(step)
        if said:
            refused += 1
            assert NO_SPACE in said or "free" in said
            assert str(disk) in said
            assert not (disk / name).exists()
        (disk / "filler").unlink()
        assert {name: files(disk)[name] for name in before if name.endswith(".npz")} == {
            name: before[name] for name in before if name.endswith(".npz")
        }
        step()
    assert refused >= 2
    with open_volume(disk / name) as labels:
        np.testing.assert_array_equal(labels.read(), truth())


def test_places_that_cannot_be_written_are_refused_before_anything_is_computed(disk):
    mount("-o", "remount,ro", str(disk))
    for name in ("seg.zarr", "new/seg.zarr", "seg.h5", "seg.nii"):
        destination = LabelDestination.choose(str(disk / name), plan=PLAN, voxel_size=SIZE)
        with pytest.raises(StorageError, match=f"{READ_ONLY}; check the address"):
            destination.require_possible()
        with pytest.raises(FloodemError, match=READ_ONLY):
            RunRecord(str(disk / name)).begin({}, plan={}, about={}, replaces=False)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of folders differ on Windows")
def test_a_disk_that_becomes_read_only_is_said_and_survived(disk):
    destination, store = blocks_for(disk / "seg.zarr", levels=1)
    destination.create()
    mount("-o", "remount,ro", str(disk))
    for step in steps(destination, store)[1:]:
        with pytest.raises(StorageError):
            step()
    mount("-o", "remount,rw", str(disk))
    for step in steps(destination, store):
        step()
    with open_volume(disk / "seg.zarr") as labels:
        np.testing.assert_array_equal(labels.read(), truth())


def test_labels_behind_a_link_to_another_disk_are_copied_there(disk, tmp_path):
    (disk / "old.zarr").mkdir()
    link = tmp_path / "seg.zarr"
    link.symlink_to(disk / "old.zarr", target_is_directory=True)
    destination, store = blocks_for(link, levels=1, overwrite=True)
    for step in steps(destination, store):
        step()
    assert link.is_symlink()
    with open_volume(disk / "old.zarr") as labels:
        np.testing.assert_array_equal(labels.read(), truth())
        assert len(labels.levels) == 1 + len(destination.factors)


def start(uri: str, *, overwrite: str = "") -> subprocess.Popen[bytes]:
    words = (str(Path(__file__).parent), uri, overwrite)
    return subprocess.Popen([sys.executable, "-c", GO_ON, *words], stderr=subprocess.PIPE)


def kill_often(uri: str, *, life_s: float, kills: int, overwrite: str = "") -> None:
    """Kill the process that writes the labels at random moments, and let one come through."""
    moments = random.Random(uri)
    for _ in range(kills):
        process = start(uri, overwrite=overwrite)
        time.sleep(life_s * moments.uniform(0.4, 1.0))
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    with start(uri, overwrite=overwrite) as process:
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said.decode()


@pytest.mark.parametrize("name", ["seg.ome.zarr", pytest.param("seg.h5", marks=pytest.mark.slow)])
@pytest.mark.parametrize("overwrite", [pytest.param("", marks=pytest.mark.slow), "overwrite"])
def test_killed_processes_leave_what_the_next_one_completes(tmp_path, name, overwrite):
    whole, other = tmp_path / "whole" / name, tmp_path / "killed" / name
    for uri in (whole, other):
        blocks_for(uri)
    if overwrite:
        np.save(tmp_path / "old.npy", np.full((4, 5, 6), 9, np.uint64))
        convert(tmp_path / "old.npy", other)
    began = time.monotonic()
    with start(str(whole)) as process:
        process.communicate(timeout=TIMEOUT_S)
    life_s = time.monotonic() - began
    kill_often(str(other), life_s=life_s, kills=KILLS, overwrite=overwrite)
    if name.endswith(".zarr"):
        assert files(other) == files(whole)
    with open_volume(other) as labels:
        np.testing.assert_array_equal(labels.read(), truth())
    left = set(os.listdir(f"{other}.floodem")) - {"blocks", "mapping", "destination.json"}
    assert left <= {"conversion.json", "receipts.txt", "lock"}


def test_what_stands_in_the_way_of_the_record_is_said(tmp_path):
    (tmp_path / "seg.zarr.floodem").write_text("a file")
    with pytest.raises(FloodemError, match=r"seg.zarr.floodem"):
        RunRecord(str(tmp_path / "seg.zarr")).begin({}, plan={}, about={}, replaces=False)
    assert (tmp_path / "seg.zarr.floodem").read_text() == "a file"
