"""numpy's files: keys, headers that lie, and nothing unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from numpy.lib import format as npy_format

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    ResourceError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.volume import Kind

SHAPE = (3, 4, 5)
ARRAY = np.arange(60, dtype=np.uint16).reshape(SHAPE)


def read_whole(uri: str | Path) -> np.ndarray:
    with open_volume(uri) as volume:
        return volume.read()


def npy_bytes(shape: tuple[int, ...], dtype: str, data: bytes = b"") -> bytes:
    """A npy file whose header may say anything."""
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + data


def test_the_segmentation_is_taken_when_no_key_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "seg.npz", other=ARRAY + 1, segmentation=ARRAY)
    np.testing.assert_array_equal(read_whole(tmp_path / "seg.npz"), ARRAY)


def test_the_only_3d_array_is_taken(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "em.npz", lut=np.arange(256), raw=ARRAY, note="text")
    np.testing.assert_array_equal(read_whole(tmp_path / "em.npz"), ARRAY)


def test_several_arrays_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "em.npz", a=ARRAY, b=ARRAY)
    with pytest.raises(VolumeFormatError, match=r"holds a, b: name one, as in .*em\.npz@NAME"):
        open_volume(tmp_path / "em.npz")
    np.testing.assert_array_equal(read_whole(f"{tmp_path / 'em.npz'}@b"), ARRAY)


def test_a_wrong_key_lists_those_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "em.npz", origins=ARRAY, qprob=ARRAY)
    with pytest.raises(VolumeNotFoundError, match="'prob' is not there; it holds qprob, origins"):
        open_volume(f"{tmp_path / 'em.npz'}@prob")


def test_pickled_arrays_beside_the_volume_are_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "seg.npz", segmentation=ARRAY, origins=np.array({1: "x"}, dtype=object))
    np.testing.assert_array_equal(read_whole(tmp_path / "seg.npz"), ARRAY)
    with pytest.raises(VolumeFormatError):
        open_volume(f"{tmp_path / 'seg.npz'}@origins")


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    data = npy_bytes((3, 4, 5), "|O", pickle.dumps([_Bomb()] * 60))
    (tmp_path / "em.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "em.npz", "w") as archive:
        archive.writestr("segmentation.npy", data)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(_Bomb()))
    for name in ("em.npy", "em.npz", "bare.npy"):
        with pytest.raises(VolumeFormatError):
            read_whole(tmp_path / name)


def test_voxel_size_and_offset_are_plain_arrays(tmp_path: Path) -> None:
    with create_volume(
        f"{tmp_path / 'em.npz'}@file",
        shape=SHAPE,
        dtype="uint16",
        voxel_size=VoxelSize(30, 6, 4),
        offset=(1, -2, 3),
    ) as volume:
        volume.write(volume.box, ARRAY)
    with np.load(tmp_path / "em.npz", allow_pickle=False) as archive:
        assert archive["voxel_size_nm_zyx"].tolist() == [30, 6, 4]
        assert archive["offset_zyx"].tolist() == [1, -2, 3]
        np.testing.assert_array_equal(archive["file"], ARRAY)


def test_an_archive_of_other_arrays_is_not_replaced(tmp_path: Path) -> None:
    np.savez(tmp_path / "em.npz", raw=ARRAY, lut=np.arange(3))
    before = (tmp_path / "em.npz").read_bytes()
    with pytest.raises(DestinationExistsError, match="also holds lut"):
        create_volume(f"{tmp_path / 'em.npz'}@raw", shape=SHAPE, dtype="uint8", overwrite=True)
    assert (tmp_path / "em.npz").read_bytes() == before


@pytest.mark.parametrize("dtype", [">u2", ">f4", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["em.npy", "em.npz"])
def test_any_byte_and_axis_order_is_read(tmp_path: Path, name: str, order: str, dtype: str) -> None:
    array = np.asarray(ARRAY.astype(dtype), order=order)
    if name == "em.npy":
        np.save(tmp_path / name, array)
    else:
        np.savez(tmp_path / name, array)
    with open_volume(tmp_path / name) as volume:
        found = volume.read(Box((1, 1, 1), (3, 3, 3)))
        assert found.dtype == volume.dtype
        assert found.dtype.isnative
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, array[1:3, 1:3, 1:3])


@pytest.mark.parametrize("name", ["em.npy", "em.npz"])
def test_channels_and_flat_images_are_treated_as_in_hdf5(tmp_path: Path, name: str) -> None:
    def save(array: np.ndarray) -> None:
        if name == "em.npy":
            np.save(tmp_path / name, array)
        else:
            np.savez(tmp_path / name, segmentation=array)

    save(np.stack([ARRAY, ARRAY + 1]))
    with pytest.raises(FloodemError, match="has 2 channels"):
        open_volume(tmp_path / name)
    with open_volume(tmp_path / name, channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY + 1)
    save(ARRAY[0])
    with pytest.raises(VolumeFormatError, match=r"is a 2-D image \(4 x 5\)"):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["em.npy", "em.npz"])
def test_axes_can_be_named_as_they_are_stored(tmp_path: Path, name: str) -> None:
    stored = np.ascontiguousarray(np.stack([ARRAY, ARRAY + 1], axis=-1).transpose(2, 1, 0, 3))
    if name == "em.npy":
        np.save(tmp_path / name, stored)
    else:
        facts = {"offset_zyx": [1, 2, 3], "voxel_size_nm_zyx": [4.0, 6.0, 30.0]}
        np.savez(tmp_path / name, segmentation=stored, **facts)
    with open_volume(tmp_path / name, axes="xyzc", channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY + 1)
        if name == "em.npz":
            assert volume.offset == (3, 2, 1)
            assert volume.voxel_size == VoxelSize(30, 6, 4)


def test_an_archive_keeps_what_its_values_mean(tmp_path: Path) -> None:
    with create_volume(
        tmp_path / "em.npz", shape=SHAPE, dtype="uint16", kind=Kind.LABELS
    ) as volume:
        volume.write(volume.box, ARRAY)
    with open_volume(tmp_path / "em.npz") as volume:
        assert volume.kind is Kind.LABELS
        np.testing.assert_array_equal(volume.read(), ARRAY)


@pytest.mark.parametrize("word", ["neither", ["labels"], 7, "labels" * 100])
def test_an_archive_with_another_kind_is_refused(tmp_path: Path, word: object) -> None:
    np.savez(tmp_path / "em.npz", segmentation=ARRAY, floodem_kind=np.asarray(word))
    with pytest.raises(VolumeFormatError, match=r"kind|not one word"):
        open_volume(tmp_path / "em.npz")


@pytest.mark.parametrize("kept", [0, 6, 30, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["em.npy", "em.npz"])
def test_a_file_cut_short_gives_one_sentence(tmp_path: Path, name: str, kept: float) -> None:
    with create_volume(tmp_path / name, shape=SHAPE, dtype="uint16") as volume:
        volume.write(volume.box, ARRAY)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(VolumeFormatError, match="cut short") as caught:
        read_whole(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_damaged_member_gives_one_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "em.npz", raw=rng.integers(0, 255, (20, 20, 20), np.uint8))
    data = bytearray((tmp_path / "em.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "em.npz").write_bytes(data)
    with pytest.raises(VolumeFormatError, match="cannot be read as a numpy file"):
        read_whole(tmp_path / "em.npz")


def test_a_header_larger_than_its_member_is_refused_before_allocating(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "em.npz", "w") as archive:
        archive.writestr("raw.npy", npy_bytes((2**20, 2**20, 2**20), "<u8", bytes(100)))
    with pytest.raises(VolumeFormatError, match="the file is damaged"):
        open_volume(tmp_path / "em.npz")


def with_declared_size(path: Path, size: int) -> None:
    """Make a zip file's directory declare another unpacked size for its only member."""
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = size.to_bytes(4, "little")
    path.write_bytes(data)


def test_an_archive_that_declares_more_than_it_can_unpack_is_refused(tmp_path: Path) -> None:
    head = npy_bytes((1000, 1000, 1000), "|u1")
    with zipfile.ZipFile(tmp_path / "em.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("raw.npy", head + bytes(1000))
    with_declared_size(tmp_path / "em.npz", len(head) + 1000**3)
    with pytest.raises(UnsafeFileError, match="cannot unpack to that"):
        open_volume(tmp_path / "em.npz")


def test_a_zip_bomb_larger_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "em.npz", raw=np.zeros((100, 100, 100), np.uint8))
    monkeypatch.setattr("floodem.memory.available_memory", lambda: 500_000)
    with (
        open_volume(tmp_path / "em.npz") as volume,
        pytest.raises(ResourceError, match="unpacking"),
    ):
        volume.read(Box((0, 0, 0), (1, 1, 1)))


def test_an_archive_that_would_not_fit_in_memory_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floodem.memory.available_memory", lambda: 500_000)
    with pytest.raises(ResourceError, match="choose a chunked format"):
        create_volume(tmp_path / "em.npz", shape=(100, 100, 100), dtype="uint8")
    assert not list(tmp_path.iterdir())


def test_an_npy_header_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "em.npy").write_bytes(npy_bytes((2**20, 2**20, 2**20), "<u8", bytes(100)))
    with pytest.raises(VolumeFormatError, match="cut short"):
        open_volume(tmp_path / "em.npy")


def test_an_npy_header_of_negative_lengths_is_refused(tmp_path: Path) -> None:
    (tmp_path / "em.npy").write_bytes(npy_bytes((-1, 4, 5), "<u8", bytes(100)))
    with pytest.raises(VolumeFormatError):
        read_whole(tmp_path / "em.npy")


def test_an_npy_volume_is_read_by_numpy(tmp_path: Path) -> None:
    with create_volume(tmp_path / "em.npy", shape=SHAPE, dtype="uint16") as volume:
        volume.write(volume.box, ARRAY)
    np.testing.assert_array_equal(np.load(tmp_path / "em.npy", allow_pickle=False), ARRAY)


def test_the_published_segmentation_is_read(shared_data: Path) -> None:
    path = shared_data / "fib25" / "sample-training2.npz"
    with np.load(path) as archive:
        expected = archive["segmentation"]
    with open_volume(path) as volume:
        assert volume.voxel_size is None
        np.testing.assert_array_equal(volume.read(), expected)


@pytest.mark.parametrize("name", ["em.npy", "em.zarr"])
def test_a_small_last_axis_is_perhaps_the_channels(tmp_path: Path, name: str) -> None:
    shape = (40, 6, 7, 2)
    if name == "em.npy":
        np.save(tmp_path / name, np.zeros(shape, np.uint8))
    else:
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(tmp_path / name)}}
        ts.open(spec, create=True, dtype=ts.uint8, shape=shape).result()
    with pytest.raises(OptionError) as refusal:
        open_volume(tmp_path / name)
    assert str(refusal.value).endswith(
        "has 40 channels: choose one with --channel 0 to 39 (in Python channel=), or, if the last "
        "axis holds its channels, say so with --axes zyxc (in Python axes=)"
    )
    with open_volume(tmp_path / name, axes="zyxc", channel=1) as volume:
        assert volume.shape == (40, 6, 7)
