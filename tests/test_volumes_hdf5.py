"""HDF5: datasets and channels chosen by name, and nothing followed out of the file."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.hdf5.file import PatientFile
from floodem.volumes.volume import Kind

SHAPE = (3, 4, 5)


@pytest.fixture
def ones() -> np.ndarray:
    return np.ones(SHAPE, np.uint8)


def test_the_only_3d_dataset_is_taken(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["deep/inside/raw"] = ones
        file["thresholds"] = np.arange(3)
        file["text"] = "about"
    with open_volume(tmp_path / "em.h5") as volume:
        assert volume.read().sum() == 60


def test_several_datasets_are_listed(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
        file["labels/ids"] = ones
    with pytest.raises(VolumeFormatError, match=r"holds labels/ids, raw: name one, as in .*@NAME"):
        open_volume(tmp_path / "em.h5")


def test_a_wrong_name_lists_what_is_there_nearest_first(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["labels"] = ones
        file["raws"] = ones
    with pytest.raises(VolumeNotFoundError, match="'raw' is not there; it holds raws, labels"):
        open_volume(f"{tmp_path / 'em.h5'}@raw")


def test_a_group_is_no_dataset(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["labels/ids"] = ones
    with pytest.raises(VolumeNotFoundError, match="it holds labels/ids"):
        open_volume(f"{tmp_path / 'em.h5'}@labels")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5), r"is a 2-D image \(4 x 5\), and a volume has three axes \(z, y, x\): put the"),
        ((4,), "is 1-D"),
        ((1, 1, 2, 3, 4, 5), "is 6-D"),
        ((), "is 0-D"),
        ((2, 1, 3, 4, 5), "has 2 time points"),
        ((3, 0, 5), "holds no voxels"),
    ],
)
def test_other_numbers_of_axes_give_one_sentence(
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = np.zeros(shape, np.uint8)
    with pytest.raises(VolumeFormatError, match=message):
        open_volume(f"{tmp_path / 'em.h5'}@raw")


def test_channels_are_chosen_by_number(tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.uint8).reshape(2, *SHAPE)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = array
        file["single"] = array[:1]
    with pytest.raises(
        OptionError,
        match="2 channels: choose one with --channel 0 to 1 .in Python",
    ):
        open_volume(f"{tmp_path / 'em.h5'}@raw")
    with open_volume(f"{tmp_path / 'em.h5'}@raw", channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), array[1])
    with open_volume(f"{tmp_path / 'em.h5'}@single") as volume:
        np.testing.assert_array_equal(volume.read(), array[0])


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize(("axes", "channel"), [("xyz", None), ("yzxc", 1), ("zcyx", 0)])
def test_axes_are_named_by_who_knows_them(
    tmp_path: Path, axes: str, channel: int | None, compression: str | None
) -> None:
    zyx = np.arange(2 * 60, dtype=np.uint16).reshape(2, *SHAPE)
    stored = np.einsum(f"czyx->{axes}", zyx) if "c" in axes else np.einsum(f"zyx->{axes}", zyx[0])
    spatial = [letter for letter in axes if letter != "c"]
    facts = {"z": (30.0, 1), "y": (6.0, 2), "x": (7.0, 3)}
    with h5py.File(tmp_path / "em.h5", "w") as file:
        dataset = file.create_dataset("raw", data=stored, chunks=True, compression=compression)
        # One for each stored axis of space, whatever it is called.
        dataset.attrs["voxel_size_nm_zyx"] = [facts[letter][0] for letter in spatial]
        dataset.attrs["offset_zyx"] = [facts[letter][1] for letter in spatial]
    with open_volume(tmp_path / "em.h5", axes=axes, channel=channel) as volume:
        assert (volume.shape, volume.offset) == (SHAPE, (1, 2, 3))
        assert volume.voxel_size == VoxelSize(30, 6, 7)
        np.testing.assert_array_equal(volume.read(), zyx[channel or 0])
        box = Box((2, 3, 4), (4, 5, 6))
        np.testing.assert_array_equal(volume.read(box), zyx[channel or 0][1:3, 1:3, 1:3])


@pytest.mark.parametrize("kind", [None, *Kind])
def test_the_kind_is_kept(tmp_path: Path, kind: Kind | None) -> None:
    create_volume(tmp_path / "em.h5", shape=SHAPE, dtype="uint8", kind=kind).close()
    with open_volume(tmp_path / "em.h5") as volume:
        assert volume.kind is kind


def test_a_new_dataset_gives_back_what_was_just_written(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(SHAPE)
    with create_volume(tmp_path / "em.h5", shape=SHAPE, dtype="uint8", chunks=(2, 2, 2)) as volume:
        volume.write(volume.box, np.zeros(SHAPE, np.uint8))
        assert not volume.read().any()
        volume.write(volume.box, array)
        np.testing.assert_array_equal(volume.read(), array)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "<i8", "bool"])
def test_any_byte_order_is_read_as_native_numbers(tmp_path: Path, dtype: str) -> None:
    array = np.arange(60).reshape(SHAPE).astype(dtype)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = array
    with open_volume(tmp_path / "em.h5") as volume:
        found = volume.read()
        assert found.dtype == volume.dtype
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, array)


def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file.create_dataset("raw", SHAPE, dtype=[("a", "u1"), ("b", "f4")])
    with pytest.raises(VolumeFormatError, match="not whole or real numbers"):
        open_volume(tmp_path / "em.h5")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("voxel_size_nm_zyx", [30, 6], "declares the voxel size"),
        ("voxel_size_nm_zyx", [30, 6, 0], "declares the voxel size"),
        ("voxel_size_nm_zyx", "30,6,6", "declares the voxel size"),
        ("offset_zyx", [1, 2.5, 3], "declares the offset"),
        ("offset_zyx", 7, "declares the offset"),
    ],
)
def test_damaged_attributes_give_one_sentence(
    tmp_path: Path, ones: np.ndarray, attribute: str, value: object, message: str
) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
        file["raw"].attrs[attribute] = value
    with pytest.raises(VolumeFormatError, match=message):
        open_volume(tmp_path / "em.h5")


# --- what leaves the file --------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = np.full(SHAPE, 7, np.uint8)
    return path


def refused_then_allowed(uri: str, message: str) -> None:
    with pytest.raises(UnsafeFileError, match=message):
        open_volume(uri)
    with open_volume(uri, allow_external=True) as volume:
        assert set(np.unique(volume.read())) == {7}


def test_an_external_link_is_refused(tmp_path: Path, secret: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = h5py.ExternalLink("secret.h5", "/raw")
    refused_then_allowed(f"{tmp_path / 'em.h5'}@raw", r"link into another file \(secret\.h5\)")


def test_an_external_link_on_the_way_is_refused(tmp_path: Path, secret: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["elsewhere"] = h5py.ExternalLink("secret.h5", "/")
    refused_then_allowed(f"{tmp_path / 'em.h5'}@elsewhere/raw", "link into another file")


def test_a_soft_link_to_an_external_link_is_refused(tmp_path: Path, secret: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["group/elsewhere"] = h5py.ExternalLink("secret.h5", "/")
        file["soft"] = h5py.SoftLink("/group")
        file["softer"] = h5py.SoftLink("soft/elsewhere")
    refused_then_allowed(f"{tmp_path / 'em.h5'}@softer/raw", "link into another file")


def test_a_soft_link_inside_the_file_is_followed(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["group/real"] = ones
        file["group/alias"] = h5py.SoftLink("real")
        file["raw"] = h5py.SoftLink("/group/alias")
    with open_volume(f"{tmp_path / 'em.h5'}@raw") as volume:
        assert volume.read().sum() == 60


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/a")
    with pytest.raises(UnsafeFileError, match="circles"):
        open_volume(f"{tmp_path / 'em.h5'}@a")


def test_external_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voxels.bin").write_bytes(b"\7" * 60)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file.create_dataset("raw", SHAPE, "u1", external=[(str(tmp_path / "voxels.bin"), 0, 60)])
    refused_then_allowed(f"{tmp_path / 'em.h5'}@raw", r"voxels in another file \(.*voxels\.bin")


def test_a_virtual_dataset_from_another_file_is_refused(tmp_path: Path, secret: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource(str(secret), "raw", shape=SHAPE)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    refused_then_allowed(f"{tmp_path / 'em.h5'}@raw", r"virtual dataset .*secret\.h5")


def test_a_virtual_dataset_within_the_file_is_read(tmp_path: Path, ones: np.ndarray) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource(".", "real", shape=SHAPE)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["real"] = ones
        file.create_virtual_dataset("raw", layout)
    with open_volume(f"{tmp_path / 'em.h5'}@raw") as volume:
        assert volume.read().sum() == 60


def test_a_virtual_dataset_by_way_of_another_link_is_refused(tmp_path: Path, secret: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource(".", "alias", shape=SHAPE)
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["alias"] = h5py.ExternalLink("secret.h5", "/raw")
        file.create_virtual_dataset("raw", layout)
    with pytest.raises(UnsafeFileError, match="link into another file"):
        open_volume(f"{tmp_path / 'em.h5'}@raw")


def test_nothing_is_written_through_a_link(tmp_path: Path, secret: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["elsewhere"] = h5py.ExternalLink("secret.h5", "/")
    before = secret.read_bytes()
    for name in ("elsewhere/new", "elsewhere/raw", "elsewhere"):
        with pytest.raises(UnsafeFileError, match="link into another file"):
            create_volume(
                f"{tmp_path / 'em.h5'}@{name}", shape=SHAPE, dtype="uint8", overwrite=True
            )
    assert secret.read_bytes() == before


def test_listing_does_not_follow_links_out(tmp_path: Path, secret: Path) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["elsewhere"] = h5py.ExternalLink("secret.h5", "/")
    with pytest.raises(VolumeFormatError, match="holds no 3-D dataset"):
        open_volume(tmp_path / "em.h5")


# --- adding to a file -------------------------------------------------------------


def test_a_dataset_is_added_beside_others(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
        file["raw"].attrs["note"] = "mine"
    with create_volume(f"{tmp_path / 'em.h5'}@seg", shape=SHAPE, dtype="uint64") as volume:
        volume.write(volume.box, np.full(SHAPE, 2**60, np.uint64))
    with h5py.File(tmp_path / "em.h5") as file:
        assert set(file) == {"raw", "seg"}
        assert file["raw"].attrs["note"] == "mine"
        np.testing.assert_array_equal(file["raw"], ones)
        assert file["seg"].compression == "gzip"
        assert (file["seg"][...] == 2**60).all()


def test_the_file_stays_readable_while_a_dataset_is_added(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
    added = create_volume(f"{tmp_path / 'em.h5'}@seg", shape=SHAPE, dtype="uint8")
    added.write(added.box, ones)
    with open_volume(f"{tmp_path / 'em.h5'}@raw") as volume:
        assert volume.read().sum() == 60
    added.close()
    with open_volume(f"{tmp_path / 'em.h5'}@seg") as volume:
        assert volume.read().sum() == 60


def test_of_two_that_add_at_once_the_later_refuses(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
    first = create_volume(f"{tmp_path / 'em.h5'}@first", shape=SHAPE, dtype="uint8")
    second = create_volume(f"{tmp_path / 'em.h5'}@second", shape=SHAPE, dtype="uint8")
    first.close()
    with pytest.raises(StorageError, match="was changed by another program"):
        second.close()
    with h5py.File(tmp_path / "em.h5") as file:
        assert set(file) == {"raw", "first"}
    assert os.listdir(tmp_path) == ["em.h5"]


@pytest.mark.parametrize("kept", [0, 7, 8, 50, 100, 600, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_short_gives_one_sentence(tmp_path: Path, kept: float) -> None:
    rng = np.random.default_rng(0)
    with create_volume(tmp_path / "em.h5", shape=(20, 30, 40), dtype="uint8") as volume:
        volume.write(volume.box, rng.integers(0, 255, (20, 30, 40), np.uint8))
    whole = (tmp_path / "em.h5").read_bytes()
    (tmp_path / "em.h5").write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(VolumeFormatError, match="cannot be read as HDF5") as caught:
        open_volume(tmp_path / "em.h5")
    assert "\n" not in str(caught.value)


def test_overwriting_one_dataset_keeps_the_others(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
        file["seg"] = ones
    with create_volume(
        f"{tmp_path / 'em.h5'}@seg", shape=(1, 2, 3), dtype="uint32", overwrite=True
    ) as volume:
        volume.write(volume.box, np.full((1, 2, 3), 9))
    with h5py.File(tmp_path / "em.h5") as file:
        assert file["seg"].shape == (1, 2, 3)
        np.testing.assert_array_equal(file["raw"], ones)


def test_overwriting_a_file_of_several_datasets_asks_which(
    tmp_path: Path, ones: np.ndarray
) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = ones
        file["seg"] = ones
    before = (tmp_path / "em.h5").read_bytes()
    with pytest.raises(DestinationExistsError, match="holds raw, seg: name the one to overwrite"):
        create_volume(tmp_path / "em.h5", shape=SHAPE, dtype="uint8", overwrite=True)
    assert (tmp_path / "em.h5").read_bytes() == before


def test_a_group_is_not_overwritten_by_a_dataset(tmp_path: Path, ones: np.ndarray) -> None:
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["labels/ids"] = ones
    before = (tmp_path / "em.h5").read_bytes()
    for name in ("labels", "labels/ids/below"):
        with pytest.raises(FloodemError):
            create_volume(
                f"{tmp_path / 'em.h5'}@{name}", shape=SHAPE, dtype="uint8", overwrite=True
            )
    assert (tmp_path / "em.h5").read_bytes() == before
    assert os.listdir(tmp_path) == ["em.h5"]


def test_something_else_named_h5_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "em.h5").write_text("notes", encoding="utf-8")
    with pytest.raises(VolumeFormatError, match="cannot be read as HDF5"):
        create_volume(f"{tmp_path / 'em.h5'}@raw", shape=SHAPE, dtype="uint8", overwrite=True)
    assert (tmp_path / "em.h5").read_text(encoding="utf-8") == "notes"


@pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
def test_a_symbolic_link_stays_one(tmp_path: Path, ones: np.ndarray) -> None:
    real = tmp_path / "disk" / "em.h5"
    real.parent.mkdir()
    with h5py.File(real, "w") as file:
        file["raw"] = ones
    (tmp_path / "em.h5").symlink_to(real)
    create_volume(f"{tmp_path / 'em.h5'}@seg", shape=SHAPE, dtype="uint8").close()
    assert (tmp_path / "em.h5").is_symlink()
    with h5py.File(real) as file:
        assert set(file) == {"raw", "seg"}


def test_others_find_the_attributes_and_chunks_they_expect(tmp_path: Path) -> None:
    create_volume(
        tmp_path / "em.h5",
        shape=(70, 80, 90),
        dtype="uint32",
        voxel_size=VoxelSize(30, 6, 6),
        offset=(1, 2, 3),
        chunks=(16, 32, 64),
    ).close()
    with h5py.File(tmp_path / "em.h5") as file:
        dataset = file["segmentation"]
        assert dataset.chunks == (16, 32, 64)
        assert dataset.attrs["voxel_size_nm_zyx"].tolist() == [30, 6, 6]
        assert dataset.attrs["offset_zyx"].tolist() == [1, 2, 3]


def test_the_shared_image_is_read_like_h5py_reads_it(shared_data: Path) -> None:
    path = shared_data / "golden" / "fib25-image.h5"
    with h5py.File(path) as file:
        (name,) = file
        array = file[name][...]
    with open_volume(path) as volume:
        assert volume.voxel_size is None
        np.testing.assert_array_equal(volume.read(), array)


# --- the file under a new volume ------------------------------------------------------


def test_what_a_full_disk_refused_can_still_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "em.h5").touch()
    file = PatientFile(tmp_path / "em.h5")
    file.write(b"abcdef")

    def refuse(view: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file, "_write_all", refuse)
    file.seek(4)
    file.write(b"XYZ")
    file.seek(20)
    file.write(b"end")
    file.seek(0)
    assert file.read(30) == b"abcdXYZ" + bytes(13) + b"end"
    assert file.seek(0, os.SEEK_END) == 23
    assert file.refusal is not None
    file.close()
    assert (tmp_path / "em.h5").read_bytes() == b"abcdef"
