"""NIfTI: what nibabel reads of ours and we of its own, scales, spaces, extensions, damage."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from floodem.errors import FloodemError, OptionError, UnsafeFileError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.volume import Kind

SHAPE = (3, 4, 5)
NAMES = ("em.nii", "em.nii.gz")


def voxels(dtype: str = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def by_nibabel(path: Path, array_xyz: np.ndarray, *, unit: str = "micron", **options) -> Path:
    """Write an array (x, y, z, ...) with 0.004, 0.006, 0.03 units a voxel unless told otherwise."""
    affine = options.pop("affine", np.diag([0.004, 0.006, 0.03, 1]))
    image = options.pop("kind", nibabel.Nifti1Image)(array_xyz, affine, dtype=array_xyz.dtype)
    image.header.set_xyzt_units(unit)
    for name, value in options.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64", "float32", "float64"])
def test_nibabel_reads_what_is_written(tmp_path: Path, name: str, dtype: str) -> None:
    path = tmp_path / name
    with create_volume(
        path, shape=SHAPE, dtype=dtype, voxel_size=VoxelSize(30, 6, 4), offset=(10, -2, 7)
    ) as volume:
        volume.write(volume.box, voxels(dtype))
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), voxels(dtype).transpose(2, 1, 0))
    assert image.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(image.header.get_zooms(), [0.004, 0.006, 0.03], rtol=1e-6)
    np.testing.assert_allclose(image.affine[:3, 3], [0.028, -0.012, 0.3], rtol=1e-6)
    (comment,) = image.header.extensions
    assert comment.get_code() == 6
    assert b'"offset_zyx": [10, -2, 7]' in comment.get_content()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_what_nibabel_writes_is_read(tmp_path: Path, name: str, kind: type) -> None:
    affine = np.diag([0.004, 0.006, 0.03, 1])
    affine[:3, 3] = [0.04, -0.06, 0.09]
    array = voxels().transpose(2, 1, 0)
    path = by_nibabel(tmp_path / name, array, affine=affine, kind=kind)
    with open_volume(path) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        assert volume.offset == (3, -10, 10)
        assert volume.notices == ()
        np.testing.assert_array_equal(volume.read(), voxels())
        box = Box((4, -9, 11), (6, -7, 15))
        np.testing.assert_array_equal(volume.read(box), voxels()[1:3, 1:3, 1:5])


@pytest.mark.parametrize(
    ("unit", "size"),
    [("mm", VoxelSize(30e6, 6e6, 4e6)), ("meter", VoxelSize(30e9, 6e9, 4e9)), ("unknown", None)],
)
def test_units_become_nanometres(tmp_path: Path, unit: str, size: VoxelSize | None) -> None:
    affine = np.diag([4.0, 6, 30, 1])
    path = by_nibabel(tmp_path / "em.nii", voxels().T, affine=affine, unit=unit)
    with open_volume(path) as volume:
        assert volume.voxel_size == size
        assert bool(volume.notices) == (size is None)
        assert all("30, 6, 4 (z,y,x) in unknown units" in notice for notice in volume.notices)


def test_a_big_endian_file_is_read(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(voxels().T, np.eye(4), header)
    nibabel.save(image, tmp_path / "em.nii")
    assert (tmp_path / "em.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    with open_volume(tmp_path / "em.nii") as volume:
        assert volume.dtype.isnative
        np.testing.assert_array_equal(volume.read(), voxels())


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_scaled_values_are_given_scaled(tmp_path: Path, dtype: str) -> None:
    path = by_nibabel(tmp_path / "em.nii", voxels(dtype).T)
    data = bytearray(path.read_bytes())
    data[112:120] = np.asarray([0.5, -3], "<f4").tobytes()
    path.write_bytes(data)
    with open_volume(path) as volume:
        assert volume.dtype == (np.float32 if dtype == "uint8" else np.float64)
        np.testing.assert_array_equal(volume.read(), voxels(dtype) * 0.5 - 3)
        assert any("is scaled" in notice for notice in volume.notices)
    np.testing.assert_array_equal(nibabel.load(path).get_fdata().T, voxels(dtype) * 0.5 - 3)


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.diag([-0.004, 0.006, 0.03, 1]), "turned or mirrored"),
        (np.eye(4)[[1, 0, 2, 3]], "turned or mirrored"),
        (
            np.array([[1.0, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "begins between voxels",
        ),
    ],
)
def test_odd_spaces_are_noticed_and_give_no_offset(
    tmp_path: Path, affine: np.ndarray, says: str
) -> None:
    with open_volume(by_nibabel(tmp_path / "em.nii", voxels().T, affine=affine)) as volume:
        assert volume.offset == (0, 0, 0)
        assert [says in notice for notice in volume.notices] == [True]
        np.testing.assert_array_equal(volume.read(), voxels())


def test_the_fourth_dimension_is_channels(tmp_path: Path) -> None:
    array = voxels(shape=(2, *SHAPE))
    path = by_nibabel(tmp_path / "em.nii", array.T)
    with pytest.raises(OptionError, match="has 2 channels"):
        open_volume(path)
    with open_volume(path, channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), array[1])
    with pytest.raises(VolumeFormatError, match="time points"):
        open_volume(path, axes="tzyx")


def test_axes_that_the_user_names_turn_the_volume(tmp_path: Path) -> None:
    affine = np.diag([0.004, 0.006, 0.03, 1])
    affine[:3, 3] = [0.04, -0.06, 0.09]
    path = by_nibabel(tmp_path / "em.nii", voxels().T, affine=affine)
    with open_volume(path, axes="xyz") as volume:
        assert volume.shape == (5, 4, 3)
        assert volume.voxel_size == VoxelSize(4, 6, 30)
        assert volume.offset == (10, -10, 3)
        np.testing.assert_array_equal(volume.read(), voxels().transpose(2, 1, 0))


def test_colour_asks_for_a_channel(tmp_path: Path) -> None:
    rgb = np.zeros((5, 4, 3), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    rgb["G"] = voxels("uint8").T
    path = by_nibabel(tmp_path / "em.nii", rgb)
    with pytest.raises(VolumeFormatError, match="colour image.*3 channels"):
        open_volume(path)
    with open_volume(path, channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), voxels("uint8"))


@pytest.mark.parametrize("shape", [(4, 5), (2, 2, 2, 3, 4, 5)])
def test_other_numbers_of_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = by_nibabel(tmp_path / "em.nii", voxels(shape=shape).T)
    with pytest.raises(VolumeFormatError, match=f"has {len(shape)} dimensions"):
        open_volume(path)


def test_complex_values_are_refused(tmp_path: Path) -> None:
    path = by_nibabel(tmp_path / "em.nii", voxels("complex64").T)
    with pytest.raises(VolumeFormatError, match="complex64"):
        open_volume(path)


def test_labels_are_labels_for_other_programs_too(tmp_path: Path) -> None:
    path = tmp_path / "seg.nii.gz"
    create_volume(path, shape=SHAPE, dtype="uint64", kind=Kind.LABELS).close()
    assert nibabel.load(path).header.get_intent()[0] == "label"
    with open_volume(path) as volume:
        assert volume.kind is Kind.LABELS
    other = by_nibabel(tmp_path / "other.nii", voxels().T, intent_code=1002)
    with open_volume(other) as volume:
        assert volume.kind is Kind.LABELS


def test_an_axis_beyond_the_first_version_is_written_as_the_second(tmp_path: Path) -> None:
    path = tmp_path / "em.nii"
    with create_volume(path, shape=(1, 2, 40_000), dtype="uint8", offset=(1, 2, 3)) as volume:
        volume.write(Box((1, 3, 40_002), (2, 4, 40_003)), np.full((1, 1, 1), 7, np.uint8))
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti2Image)
    assert image.dataobj[39_999, 1, 0] == 7
    with open_volume(path) as volume:
        assert volume.shape == (1, 2, 40_000)
        assert volume.read()[0, 1, 39_999] == 7


def test_what_others_crop_is_where_they_say(tmp_path: Path) -> None:
    path = tmp_path / "em.nii"
    with create_volume(
        path, shape=SHAPE, dtype="int16", voxel_size=VoxelSize(30, 6, 4), offset=(10, 20, 30)
    ) as volume:
        volume.write(volume.box, voxels())
    nibabel.save(nibabel.load(path).slicer[1:, 2:, 1:], tmp_path / "part.nii")
    with open_volume(tmp_path / "part.nii") as part:
        assert part.offset == (11, 22, 31)
        assert part.voxel_size == VoxelSize(30, 6, 4)
        assert any("changed by another program" in notice for notice in part.notices)
        np.testing.assert_array_equal(part.read(), voxels()[1:, 2:, 1:])


def test_a_file_without_an_ending_is_recognised(tmp_path: Path) -> None:
    for name in NAMES:
        by_nibabel(tmp_path / name, voxels().T)
        (tmp_path / name).rename(tmp_path / name.replace(".", "_"))
        with open_volume(tmp_path / name.replace(".", "_")) as volume:
            assert volume.shape == SHAPE


# --- damage -----------------------------------------------------------------------


def damaged(path: Path, at: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\0\0\0\0"),
        (40, b"\0\0"),
        (40, b"\x09\0"),
        (42, b"\0\0"),
        (42, b"\xff\x7f"),
        (70, b"\x63\x63"),
        (108, b"\0\0\x80\x3f"),
        (108, b"\0\0\xc0\x7f"),
        (112, b"\0\0\x80\x7f"),
        (344, b"ni1\0"),
    ],
)
def test_an_impossible_header_gives_one_sentence(tmp_path: Path, at: int, value: bytes) -> None:
    path = damaged(by_nibabel(tmp_path / "em.nii", voxels().T), at, value)
    with pytest.raises(FloodemError) as caught, open_volume(path) as volume:
        volume.read()
    assert "em.nii" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_endless_header_is_refused(tmp_path: Path) -> None:
    path = by_nibabel(tmp_path / "em.nii", voxels().T)
    damaged(path, 108, np.asarray(2**30, "<f4").tobytes())
    with pytest.raises(UnsafeFileError, match="of header"):
        open_volume(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [0, 3, 100, 400, 0.9])
def test_a_file_cut_short_gives_one_sentence(tmp_path: Path, name: str, kept: float) -> None:
    path = by_nibabel(tmp_path / name, np.random.default_rng(0).integers(0, 99, (9, 9, 9), "i2"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(VolumeFormatError) as caught, open_volume(f"nifti://{path}") as volume:
        volume.read()
    assert "\n" not in str(caught.value)


def test_a_small_file_that_declares_much_is_refused(tmp_path: Path) -> None:
    raw = by_nibabel(tmp_path / "em.nii", voxels().T).read_bytes()
    header = bytearray(raw[:352])
    header[42:48] = np.asarray([30_000] * 3, "<i2").tobytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(UnsafeFileError, match="cannot unpack to that"):
        open_volume(tmp_path / "bomb.nii.gz")
