"""Digital Micrograph files: types, calibrations, thumbnails, and files made to harm."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dm_files import write_dm
from floodem.errors import FloodemError, OptionError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume

pytest.importorskip("ncempy")

SHAPE = (3, 4, 5)


def voxels(dtype: str = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 100).reshape(shape).astype(dtype)


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("has_thumbnail", [True, False])
def test_values_and_sizes_are_read(
    tmp_path: Path, version: int, dtype: str, has_thumbnail: bool
) -> None:
    path = write_dm(
        tmp_path / f"em.dm{version}", voxels(dtype), version=version, has_thumbnail=has_thumbnail
    )
    with open_volume(path) as volume:
        assert volume.dtype == np.dtype(dtype)
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        np.testing.assert_array_equal(volume.read(), voxels(dtype))
        box = Box((1, 1, 2), (3, 3, 5))
        np.testing.assert_array_equal(volume.read(box), voxels(dtype)[box.slices()])


@pytest.mark.parametrize(
    ("sizes", "units", "expected"),
    [
        ((0.004, 0.006, 0.03), ("µm",) * 3, VoxelSize(30, 6, 4)),
        ((0.004, 0.006, 30), ("um", "um", "nm"), VoxelSize(30, 6, 4)),
        ((1, 1, 1), ("", "", ""), None),
        ((0.1, 0.1, 1), ("1/nm", "1/nm", "nm"), None),
        ((0, 6, 30), ("nm",) * 3, None),
        ((4, 6, 1), ("nm", "nm", "s"), None),
    ],
)
def test_units_become_nanometres(tmp_path: Path, sizes, units, expected) -> None:
    path = write_dm(tmp_path / "em.dm4", voxels(), version=4, sizes_xyz=sizes, units=units)
    with open_volume(path) as volume:
        assert volume.voxel_size == expected


def test_a_fourth_axis_is_channels(tmp_path: Path) -> None:
    array = voxels(shape=(2, *SHAPE))
    path = write_dm(
        tmp_path / "em.dm4", array, version=4, sizes_xyz=(4, 6, 30, 1), units=("nm",) * 3 + ("s",)
    )
    with pytest.raises(OptionError, match="has 2 channels"):
        open_volume(path)
    with open_volume(path, channel=1) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        np.testing.assert_array_equal(volume.read(), array[1])


def test_axes_that_the_user_names_turn_the_volume(tmp_path: Path) -> None:
    with open_volume(write_dm(tmp_path / "em.dm3", voxels()), axes="xyz") as volume:
        assert volume.voxel_size == VoxelSize(4, 6, 30)
        np.testing.assert_array_equal(volume.read(), voxels().transpose(2, 1, 0))


def test_a_file_of_hundreds_of_tags_in_one_group_is_read(tmp_path: Path) -> None:
    more = {"Notes": [np.float32(number) for number in range(300)]}
    with open_volume(write_dm(tmp_path / "em.dm3", voxels(), more=more)) as volume:
        np.testing.assert_array_equal(volume.read(), voxels())


def test_an_image_is_no_volume(tmp_path: Path) -> None:
    path = write_dm(
        tmp_path / "em.dm3", voxels(shape=(40, 50)), sizes_xyz=(1, 1), units=("nm", "nm")
    )
    with pytest.raises(VolumeFormatError, match=r"is a 2-D image \(40 x 50\)"):
        open_volume(path)


@pytest.mark.parametrize(("code", "says"), [(23, "colour image"), (3, "type 3")])
def test_other_values_are_refused(tmp_path: Path, code: int, says: str) -> None:
    with pytest.raises(VolumeFormatError, match=says):
        open_volume(write_dm(tmp_path / "em.dm3", voxels("i4"), code=code))


def test_writing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VolumeFormatError, match="dm volumes .* can be read, not written"):
        create_volume(tmp_path / "em.dm3", shape=SHAPE, dtype="uint8")


def test_without_its_package_the_user_is_told_what_to_install(tmp_path: Path) -> None:
    write_dm(tmp_path / "em.dm3", voxels())
    script = (
        "import sys; sys.modules['ncempy'] = None\n"
        "from floodem.volumes import open_volume\n"
        "from floodem.errors import DependencyError\n"
        "try: open_volume(sys.argv[1])\n"
        "except DependencyError as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "em.dm3")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pip install floodem[dm]" in said


# --- damage -----------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(FloodemError) as caught, open_volume(path) as volume:
        volume.read()
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("kept", [0, 3, 12, 100, 0.5, 0.95])
def test_a_file_cut_short_gives_one_sentence(tmp_path: Path, version: int, kept: float) -> None:
    path = write_dm(tmp_path / "em.dm3", voxels(shape=(9, 20, 20)), version=version)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    assert "em.dm3" in refusal(path)


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "em.dm3", voxels())
    data = bytearray(path.read_bytes())
    data[8:12] = bytes(4)
    path.write_bytes(data)
    assert "does not begin like one" in refusal(path)


def test_declared_sizes_are_held_against_the_file(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "em.dm3", voxels())
    data = path.read_bytes()
    tag = struct.pack(">III", 1, 5, 0)[:8]
    at = data.index(b"Dimensions", data.index(b"Dimensions") + 1)
    first = data.index(tag, at) + len(tag)
    path.write_bytes(data[:first] + struct.pack("<I", 2**31 - 1) + data[first + 4 :])
    assert "cut short" in refusal(path)


def test_names_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Half a megabyte whose tags would be kept under names of a gigabyte in all."""
    inner: dict = {"": [np.float32(0)] * 10_000}
    for _ in range(6):
        inner = {"n" * 60_000: inner}
    assert "too long" in refusal(write_dm(tmp_path / "em.dm3", voxels(), more=inner))


def test_tags_without_end_are_refused(tmp_path: Path) -> None:
    inner: dict = {"n" * 4000: [np.float32(0)] * 20_000}
    assert "too many tags" in refusal(write_dm(tmp_path / "em.dm3", voxels(), more=inner))


def test_a_text_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = write_dm(tmp_path / "em.dm3", voxels(), more={"Notes": np.uint32(7)})
    data = path.read_bytes()
    tag = b"%%%%" + struct.pack(">II", 1, 5) + struct.pack("<I", 7)
    text = b"%%%%" + struct.pack(">III", 1, 18, 2**21) + bytes(2**21)
    assert tag in data
    path.write_bytes(data.replace(tag, text))
    assert "too long" in refusal(path)
