"""MRC: what mrcfile reads of ours and we of its own, IMOD's ways, axes, damage."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from floodem.errors import FloodemError, OptionError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.arrays.mrc import DTYPES
from floodem.volumes.volume import Kind

SHAPE = (3, 4, 5)
IMOD_STAMP = 1146047817


def voxels(dtype: str = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 100).reshape(shape).astype(dtype)


def by_mrcfile(path: Path, array: np.ndarray, *, angstrom_zyx=(300, 60, 40), **fields) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(array)
        z, y, x = angstrom_zyx
        file.voxel_size = (x, y, z)
        for name, value in fields.items():
            file.header[name] = value
    return path


def patch(path: Path, at: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [VoxelSize(30.5, 6, 4), None])
def test_mrcfile_reads_and_accepts_what_is_written(
    tmp_path: Path, dtype: str, size: VoxelSize | None
) -> None:
    path = tmp_path / "em.mrc"
    with create_volume(
        path, shape=SHAPE, dtype=dtype, voxel_size=size, offset=(10, -2, 7), kind=Kind.IMAGE
    ) as volume:
        volume.write(volume.box, voxels(dtype))
    said = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mrcfile.validate(path, print_file=said), said.getvalue()
    with mrcfile.open(path) as file:
        assert file.data.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(file.data, voxels(dtype))
        expected = (40, 60, 305) if size else (1, 1, 1)
        found = [float(file.voxel_size[letter]) for letter in "xyz"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert [int(file.header[f"n{letter}start"]) for letter in "xyz"] == [7, -2, 10]
    with open_volume(path) as volume:
        assert (volume.voxel_size, volume.offset) == (size, (10, -2, 7))
        assert (volume.kind, volume.notices) == (Kind.IMAGE, ())


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
@pytest.mark.parametrize("ending", ["mrc", "map", "rec", "st"])
def test_what_mrcfile_writes_is_read(tmp_path: Path, dtype: str, ending: str) -> None:
    path = by_mrcfile(tmp_path / f"em.{ending}", voxels(dtype), nxstart=7, nystart=-2, nzstart=10)
    with open_volume(path) as volume:
        assert volume.dtype == (np.float32 if dtype == "float16" else np.dtype(dtype))
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        assert volume.offset == (10, -2, 7)
        np.testing.assert_array_equal(volume.read(), voxels(dtype))
        box = Box((11, -1, 8), (13, 1, 12))
        np.testing.assert_array_equal(volume.read(box), voxels(dtype)[1:3, 1:3, 1:5])


def test_uint8_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(VolumeFormatError, match="not uint8; choose uint16 .convert --dtype"):
        create_volume(tmp_path / "em.mrc", shape=SHAPE, dtype="uint8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8")])
def test_bytes_are_what_imod_says_they_are(tmp_path: Path, flags: int, dtype: str) -> None:
    array = np.arange(60).reshape(SHAPE).astype(np.uint8) * 4
    path = by_mrcfile(tmp_path / "em.mrc", array.view(np.int8))
    patch(path, 152, struct.pack("<2i", IMOD_STAMP, flags))
    with open_volume(path) as volume:
        assert volume.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(volume.read(), array.view(dtype))


def test_bytes_whose_header_reaches_beyond_127_are_unsigned(tmp_path: Path) -> None:
    array = np.arange(60).reshape(SHAPE).astype(np.uint8) * 4
    path = by_mrcfile(tmp_path / "em.mrc", array.view(np.int8), dmin=0, dmax=236)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(), array)
        assert ["taken as unsigned" in notice for notice in volume.notices] == [True]


def test_half_bytes_of_imod_are_refused(tmp_path: Path) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels("int8"))
    patch(path, 152, struct.pack("<2i", IMOD_STAMP, 16))
    with pytest.raises(VolumeFormatError, match="4-bit"):
        open_volume(path)


@pytest.mark.parametrize("has_stamp", [True, False])
def test_a_big_endian_file_is_read(tmp_path: Path, has_stamp: bool) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels())
    header = np.frombuffer(path.read_bytes()[:1024], mrcfile.dtypes.HEADER_DTYPE)
    swapped = header.astype(header.dtype.newbyteorder(">"))
    swapped["machst"] = (0x11, 0x11, 0, 0) if has_stamp else 0
    path.write_bytes(swapped.tobytes() + voxels(">i2").tobytes())
    with open_volume(path) as volume:
        assert volume.dtype.isnative
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        np.testing.assert_array_equal(volume.read(), voxels())


def test_an_extended_header_is_passed_over(tmp_path: Path) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels())
    data = path.read_bytes()
    path.write_bytes(data[:1024] + bytes(range(256)) * 3 + data[1024:])
    patch(path, 92, struct.pack("<i", 768))
    patch(path, 104, b"SERI")
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(), voxels())


def test_axes_are_those_that_the_header_numbers(tmp_path: Path) -> None:
    """Columns are z, rows are x, sections are y; starts count columns, rows and sections."""
    path = by_mrcfile(
        tmp_path / "em.mrc", voxels(), mapc=3, mapr=1, maps=2, nxstart=1, nystart=2, nzstart=3
    )
    patch(path, 28, struct.pack("<3i", 4, 3, 5))
    patch(path, 40, struct.pack("<3f", 4 * 40, 3 * 60, 5 * 300))
    with open_volume(path) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        assert volume.offset == (1, 3, 2)
        np.testing.assert_array_equal(volume.read(), voxels().transpose(2, 0, 1))
    with open_volume(path, axes="zyx") as volume:
        assert volume.voxel_size == VoxelSize(6, 4, 30)
        assert volume.offset == (3, 2, 1)
        np.testing.assert_array_equal(volume.read(), voxels())


def test_a_stack_of_volumes_is_opened_one_by_one(tmp_path: Path) -> None:
    array = voxels(shape=(2, *SHAPE))
    path = by_mrcfile(tmp_path / "em.mrc", array)
    with pytest.raises(OptionError, match="has 2 channels"):
        open_volume(path)
    with open_volume(path, channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), array[1])


def test_colours_of_imod_ask_for_a_channel(tmp_path: Path) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels("int8"))
    rgb = voxels("uint8", (*SHAPE, 3))
    path.write_bytes(path.read_bytes()[:1024] + rgb.tobytes())
    patch(path, 12, struct.pack("<i", 16))
    with pytest.raises(VolumeFormatError, match="colour image.*3 channels"):
        open_volume(path)
    with open_volume(path, channel=2) as volume:
        np.testing.assert_array_equal(volume.read(), rgb[..., 2])


@pytest.mark.parametrize(("mode", "says"), [(3, "complex int16"), (4, "complex"), (101, "4-bit")])
def test_modes_that_are_no_numbers_are_refused_by_name(
    tmp_path: Path, mode: int, says: str
) -> None:
    path = patch(by_mrcfile(tmp_path / "em.mrc", voxels()), 12, struct.pack("<i", mode))
    with pytest.raises(VolumeFormatError, match=f"{says}.*mode {mode}"):
        open_volume(path)


def test_one_angstrom_is_an_unknown_voxel_size(tmp_path: Path) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels(), angstrom_zyx=(1, 1, 1))
    with open_volume(path) as volume:
        assert volume.voxel_size is None


def test_what_others_change_is_where_they_say(tmp_path: Path) -> None:
    path = tmp_path / "em.mrc"
    create_volume(
        path, shape=SHAPE, dtype="int16", voxel_size=VoxelSize(30, 6, 4), offset=(1, 2, 3)
    ).close()
    with mrcfile.open(path, "r+") as file:
        file.voxel_size = (80, 120, 600)
    with open_volume(path) as volume:
        assert volume.voxel_size == VoxelSize(60, 12, 8)
        assert any("changed by another program" in notice for notice in volume.notices)


def test_an_offset_beyond_the_header_is_kept_in_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "em.mrc"
    create_volume(path, shape=SHAPE, dtype="int16", offset=(2**40, 2, 3)).close()
    with open_volume(path) as volume:
        assert volume.offset == (2**40, 2, 3)
    assert mrcfile.validate(path, print_file=io.StringIO())


def test_a_file_without_an_ending_is_recognised(tmp_path: Path) -> None:
    by_mrcfile(tmp_path / "em.mrc", voxels()).rename(tmp_path / "tomogram")
    with open_volume(tmp_path / "tomogram") as volume:
        assert volume.shape == SHAPE


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, struct.pack("<i", 0)),
        (0, struct.pack("<i", 2**31 - 1)),
        (4, struct.pack("<i", -4)),
        (12, struct.pack("<i", 77)),
        (64, struct.pack("<i", 2)),
        (64, struct.pack("<i", 9)),
        (92, struct.pack("<i", -4)),
        (92, struct.pack("<i", 2**30)),
        (88, struct.pack("<i", 401) + bytes(0)),
    ],
)
def test_an_impossible_header_gives_one_sentence(tmp_path: Path, at: int, value: bytes) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels(shape=(3, 4, 5)), mz=2)
    patch(path, at, value)
    with pytest.raises(FloodemError) as caught, open_volume(path) as volume:
        volume.read()
    assert "em.mrc" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 100, 1023, 1024, 0.9])
def test_a_file_cut_short_gives_one_sentence(tmp_path: Path, kept: float) -> None:
    path = by_mrcfile(tmp_path / "em.mrc", voxels())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(VolumeFormatError) as caught:
        open_volume(path)
    assert "\n" not in str(caught.value)
