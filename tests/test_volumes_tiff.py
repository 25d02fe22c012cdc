"""One TIFF file: pages of every make, axes and sizes, what is read of them, damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume


def read_whole(uri: str | Path) -> np.ndarray:
    with open_volume(uri) as volume:
        return volume.read()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_of_other_programs_are_read(
    tmp_path: Path, compression: str | None, byteorder: str, bigtiff: bool
) -> None:
    array = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    tifffile.imwrite(
        tmp_path / "em.tif",
        array.astype(byteorder + "u2"),
        compression=compression,
        byteorder=byteorder,
        bigtiff=bigtiff,
    )
    with open_volume(tmp_path / "em.tif") as volume:
        assert volume.voxel_size is None
        np.testing.assert_array_equal(volume.read(), array)
        box = Box((1, 2, 3), (4, 5, 6))
        np.testing.assert_array_equal(volume.read(box), array[box.slices()])


def test_pages_written_one_by_one_are_read(tmp_path: Path) -> None:
    array = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    with tifffile.TiffWriter(tmp_path / "em.tif") as writer:
        for section in array:
            writer.write(section, contiguous=False)
    with open_volume(tmp_path / "em.tif") as volume:
        np.testing.assert_array_equal(volume.read(), array)


def test_an_imagej_stack_tells_its_voxel_size(tmp_path: Path) -> None:
    array = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
    tifffile.imwrite(
        tmp_path / "em.tif",
        array,
        imagej=True,
        resolution=(1 / 0.006, 1 / 0.004),
        metadata={"spacing": 0.03, "unit": "um", "axes": "ZYX"},
    )
    with open_volume(tmp_path / "em.tif") as volume:
        assert volume.voxel_size is not None
        assert volume.voxel_size.zyx_nm == pytest.approx((30, 4, 6), rel=1e-6)
        np.testing.assert_array_equal(volume.read(), array)


def test_a_channel_of_a_hyperstack_is_read(tmp_path: Path) -> None:
    array = np.arange(5 * 2 * 6 * 7, dtype=np.uint8).reshape(5, 2, 6, 7)
    tifffile.imwrite(tmp_path / "em.tif", array, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(OptionError, match="has 2 channels: choose one"):
        open_volume(tmp_path / "em.tif")
    for channel in range(2):
        with open_volume(tmp_path / "em.tif", channel=channel) as volume:
            np.testing.assert_array_equal(volume.read(), array[:, channel])


def test_pages_of_different_size_are_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "em.tif") as writer:
        writer.write(np.zeros((4, 5), np.uint8))
        writer.write(np.zeros((4, 6), np.uint8))
    with pytest.raises(VolumeFormatError, match=r"page 1 of .* has 4 x 6 pixels"):
        open_volume(tmp_path / "em.tif")


def test_the_description_is_plain_json(tmp_path: Path) -> None:
    create_volume(
        tmp_path / "em.tif", shape=(2, 3, 4), dtype="uint8", voxel_size=VoxelSize(30, 6, 6)
    ).close()
    with tifffile.TiffFile(tmp_path / "em.tif") as file:
        described = json.loads(file.pages.first.description)
    assert described == {
        "floodem": {"version": 1, "offset_zyx": [0, 0, 0], "voxel_size_nm_zyx": [30, 6, 6]}
    }


def test_a_description_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "em.tif",
        np.zeros((5, 6, 7), np.uint8),
        description=json.dumps({"floodem": {"version": 2}}),
        metadata=None,
    )
    with pytest.raises(VolumeFormatError, match="version 2"):
        open_volume(tmp_path / "em.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0, 4, 100, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_pages_cut_short_give_one_sentence(
    tmp_path: Path, kept: float, one_by_one: bool, compression: str | None
) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 255, (5, 40, 50), np.uint8)
    with tifffile.TiffWriter(tmp_path / "em.tif") as writer:
        for part in array if one_by_one else [array]:
            writer.write(part, compression=compression, contiguous=not one_by_one)
    whole = (tmp_path / "em.tif").read_bytes()
    (tmp_path / "em.tif").write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(VolumeFormatError, match=r"em\.tif") as caught:
        read_whole(tmp_path / "em.tif")
    assert "\n" not in str(caught.value)
