"""One TIFF file: pages of every make, axes and sizes, what is read of them, damage."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, OptionError, UnsafeFileError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.sections.tiff_segments import Source


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_imagej_finds_axes_unit_and_spacing(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 250, (5, 6, 7)).astype(dtype)
    size, offset = VoxelSize(30, 6, 8.5), (1, 2, 3)
    with create_volume(
        tmp_path / "em.tif", shape=array.shape, dtype=dtype, voxel_size=size, offset=offset
    ) as volume:
        for z in (3, 0, 4, 1, 2):
            volume.write(Box((z + 1, 2, 3), (z + 2, 8, 10)), array[z : z + 1])
    with tifffile.TiffFile(tmp_path / "em.tif") as file:
        assert file.is_imagej
        assert (file.series[0].axes, file.series[0].shape) == ("ZYX", array.shape)
        np.testing.assert_array_equal(file.asarray(), array)
        said = file.imagej_metadata
        assert (said["unit"], said["spacing"], said["images"], said["slices"]) == ("nm", 30, 5, 5)
        tags = file.pages.first.tags
        (x_count, x_nm), (y_count, y_nm) = tags["XResolution"].value, tags["YResolution"].value
        assert (x_nm / x_count, y_nm / y_count) == pytest.approx((8.5, 6))
    with open_volume(tmp_path / "em.tif") as volume:
        assert (volume.voxel_size, volume.offset) == (size, offset)
        assert volume.notices == ()
        np.testing.assert_array_equal(volume.read(), array)


def test_imagej_finds_a_stack_without_a_voxel_size(tmp_path: Path) -> None:
    create_volume(tmp_path / "em.tif", shape=(2, 3, 4), dtype="uint8").close()
    with tifffile.TiffFile(tmp_path / "em.tif") as file:
        assert file.is_imagej
        assert "unit" not in file.imagej_metadata
    with open_volume(tmp_path / "em.tif") as volume:
        assert volume.voxel_size is None


def test_what_imagej_does_not_show_has_a_plain_description(tmp_path: Path) -> None:
    size = VoxelSize(30, 6, 8)
    create_volume(tmp_path / "em.tif", shape=(2, 3, 4), dtype="uint32", voxel_size=size).close()
    with tifffile.TiffFile(tmp_path / "em.tif") as file:
        page = file.pages.first
        assert json.loads(page.description) == {
            "floodem": {"version": 1, "offset_zyx": [0, 0, 0], "voxel_size_nm_zyx": [30, 6, 8]}
        }
        assert page.get_resolution(tifffile.RESUNIT.MICROMETER) == (125, pytest.approx(1000 / 6))


def test_sections_state_their_resolution(tmp_path: Path) -> None:
    size = VoxelSize(30, 6, 8)
    create_volume(
        f"tiff://{tmp_path / 'sections'}", shape=(2, 3, 4), dtype="uint8", voxel_size=size
    ).close()
    with tifffile.TiffFile(tmp_path / "sections" / "z0001.tif") as file:
        resolution = file.pages.first.get_resolution(tifffile.RESUNIT.MICROMETER)
    assert resolution == (125, pytest.approx(1000 / 6))


def test_a_plain_description_below_many_pages_is_read(tmp_path: Path) -> None:
    block = {"version": 1, "offset_zyx": [1, 2, 3], "voxel_size_nm_zyx": [30, 6, 8]}
    tifffile.imwrite(
        tmp_path / "em.tif",
        np.zeros((5, 6, 7), np.uint8),
        description=json.dumps({"floodem": block}),
        metadata=None,
    )
    with open_volume(tmp_path / "em.tif") as volume:
        assert (volume.offset, volume.voxel_size) == ((1, 2, 3), VoxelSize(30, 6, 8))


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


# --- how pages are packed ------------------------------------------------------------

SHAPE = (3, 70, 90)


def voxels(dtype: str = "uint8", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


PACKINGS = [
    {},
    {"rowsperstrip": 7},
    {"rowsperstrip": 7, "compression": "zlib"},
    {"tile": (16, 32)},
    {"tile": (32, 16), "compression": "zlib", "predictor": True},
    {"tile": (128, 128), "compression": "lzw"},
    {"compression": "lzw", "rowsperstrip": 16, "predictor": True},
    {"compression": "zlib", "predictor": True},
    {"compression": "packbits"},
    {"compression": "zstd", "rowsperstrip": 33},
    {"compression": "lzma"},
    {"byteorder": ">", "compression": "lzw"},
    {"bigtiff": True, "tile": (16, 16)},
]
DTYPES = ("uint8", "int8", "uint16", "int32", "uint32", "uint64", "float32", "float64")


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_box_of_any_packing_is_read(tmp_path: Path, packing: dict, data: st.DataObject) -> None:
    # tifffile writes no predictor for 64 bit.
    dtype = data.draw(st.sampled_from(DTYPES[:5] if "predictor" in packing else DTYPES))
    array = voxels(dtype)
    path = tmp_path / f"{dtype}.tif"
    if not path.exists():
        tifffile.imwrite(path, array, photometric="minisblack", **packing)
    bounds = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in SHAPE]
    (z0, z1), (y0, y1), (x0, x1) = bounds
    box = Box((z0, y0, x0), (z1, y1, x1))
    with open_volume(path) as volume:
        assert volume.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(volume.read(box), array[box.slices()])


def test_only_the_pieces_that_a_box_needs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (2, 512, 512), np.uint8)
    packings = {
        "tiles": {"tile": (64, 64), "compression": "zlib"},
        "strips": {"rowsperstrip": 32, "compression": "zlib"},
        "plain": {"contiguous": False},
    }
    read = Source.read
    counts: list[int] = []

    def watched(self: Source, start: int, count: int) -> bytes:
        counts.append(count)
        return read(self, start, count)

    monkeypatch.setattr(Source, "read", watched)
    for name, packing in packings.items():
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            for section in array:
                writer.write(section, photometric="minisblack", **packing)
        counts.clear()
        box = Box((1, 100, 200), (2, 133, 233))
        with open_volume(tmp_path / f"{name}.tif") as volume:
            np.testing.assert_array_equal(volume.read(box), array[box.slices()])
        limit = {"tiles": 4 * 64 * 64, "strips": 3 * 32 * 512, "plain": 33 * 512}[name]
        assert 0 < sum(counts) <= limit * 1.01


def test_tiles_that_are_left_out_are_background(tmp_path: Path) -> None:
    array = voxels(shape=(2, 64, 64)) + np.uint8(1)
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, array, tile=(32, 32), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        tag = file.pages[1].tags["TileByteCounts"]
        width = 4 if tag.dtype.name == "LONG" else 2
    data = bytearray(path.read_bytes())
    data[tag.valueoffset + width : tag.valueoffset + 2 * width] = bytes(width)
    path.write_bytes(data)
    array[1, :32, 32:] = 0
    np.testing.assert_array_equal(read_whole(path), array)


def test_lossy_tiles_are_read_as_tifffile_reads_them(tmp_path: Path) -> None:
    array = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (2, 40, 1))
    tifffile.imwrite(
        tmp_path / "em.tif", array, photometric="minisblack", tile=(16, 16), compression="jpeg"
    )
    expected = tifffile.imread(tmp_path / "em.tif")
    np.testing.assert_array_equal(read_whole(tmp_path / "em.tif"), expected)


def test_a_jpeg_tile_of_more_pixels_than_its_page_is_refused(tmp_path: Path) -> None:
    array = np.zeros((2, 32, 32), np.uint8)
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, array, photometric="minisblack", tile=(32, 32), compression="jpeg")
    data = path.read_bytes()
    header = re.search(rb"\xff\xc0\x00\x0b\x08(....)", data, re.DOTALL)
    assert header
    at = header.start(1)
    path.write_bytes(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
    with pytest.raises(UnsafeFileError, match="one of them 65535 x 65535"):
        read_whole(path)


def test_an_unknown_packing_is_refused_by_number(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "em.tif", voxels(), photometric="minisblack", compression="jpeg2000"
    )
    with pytest.raises(VolumeFormatError, match="TIFF compression 34712.*save it with LZW"):
        open_volume(tmp_path / "em.tif")


WITHOUT_IMAGECODECS = """
import sys
sys.modules["imagecodecs"] = None
from floodem.errors import DependencyError
from floodem.volumes import open_volume
for path in sys.argv[1:]:
    try:
        print(open_volume(path).read().sum())
    except DependencyError as error:
        print(error)
"""


def test_what_imagecodecs_unpacks_is_told_where_it_is_missing(tmp_path: Path) -> None:
    array = voxels()
    packings = {"lzw": {"compression": "lzw"}, "zip": {"compression": "zlib"}, "none": {}}
    for name, packing in packings.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", array, photometric="minisblack", **packing)
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_IMAGECODECS, *(tmp_path / f"{n}.tif" for n in packings)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "compressed with LZW" in said[0]
    assert "pip install floodem[tiff]" in said[0]
    assert said[1:] == [str(array.sum(dtype=np.uint64))] * 2


def test_several_threads_read_one_file(tmp_path: Path) -> None:
    array = voxels(shape=(20, 64, 64))
    tifffile.imwrite(
        tmp_path / "em.tif", array, photometric="minisblack", tile=(16, 16), compression="zlib"
    )
    found: dict[int, np.ndarray] = {}
    with open_volume(tmp_path / "em.tif") as volume:

        def read(z: int) -> None:
            found[z] = volume.read(Box((z, 0, 0), (z + 1, 64, 64)))

        threads = [threading.Thread(target=read, args=(z,)) for z in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(np.concatenate([found[z] for z in range(20)]), array)


def test_more_than_4_gb_are_written_as_bigtiff(tmp_path: Path) -> None:
    """The file has a hole where nothing was written, so that it takes little room."""
    path = tmp_path / "em.tif"
    shape = (70, 8192, 8192)
    last = Box((69, 8191, 8190), (70, 8192, 8192))
    with create_volume(path, shape=shape, dtype="uint8") as volume:
        volume.write(last, np.array([[[3, 4]]], np.uint8))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert len(file.pages) == 70
    with open_volume(path) as volume:
        assert volume.shape == shape
        assert volume.read(last).tolist() == [[[3, 4]]]


# --- axes, sizes and channels ---------------------------------------------------------


def ome(path: Path, array: np.ndarray, axes: str = "ZYX", **more) -> Path:
    metadata = {
        "axes": axes,
        "PhysicalSizeX": 4,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.006,
        "PhysicalSizeZ": 3e-5,
        "PhysicalSizeZUnit": "mm",
        **more.pop("metadata", {}),
    }
    tifffile.imwrite(path, array, ome=True, metadata=metadata, photometric="minisblack", **more)
    return path


@pytest.mark.parametrize("packing", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_ome_tells_sizes_and_channels(tmp_path: Path, packing: dict) -> None:
    with open_volume(ome(tmp_path / "one.ome.tif", voxels(), **packing)) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        np.testing.assert_array_equal(volume.read(), voxels())
    array = voxels(shape=(2, *SHAPE))
    for axes in ("CZYX", "ZCYX"):
        stored = array if axes == "CZYX" else array.swapaxes(0, 1)
        path = ome(tmp_path / f"{axes}.ome.tif", stored, axes, **packing)
        with pytest.raises(OptionError, match="has 2 channels"):
            open_volume(path)
        for channel in range(2):
            with open_volume(path, channel=channel) as volume:
                np.testing.assert_array_equal(volume.read(), array[channel])


def test_ome_without_a_unit_means_micrometres(tmp_path: Path) -> None:
    metadata = {"PhysicalSizeXUnit": "µm", "PhysicalSizeX": 0.004}
    with open_volume(ome(tmp_path / "em.ome.tif", voxels(), metadata=metadata)) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
    metadata = {"PhysicalSizeZUnit": "pixel"}
    with open_volume(ome(tmp_path / "px.ome.tif", voxels(), metadata=metadata)) as volume:
        assert volume.voxel_size is None


def test_ome_in_several_files_is_refused_and_no_other_file_is_opened(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", voxels())
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata
        assert xml
        uuid = re.search(r'UUID="([^"]+)"', xml)
    assert uuid
    data = re.sub(
        r"<TiffData[^>]*/>|<TiffData.*?</TiffData>",
        '<TiffData IFD="0"><UUID FileName="../../etc/passwd">urn:uuid:other</UUID></TiffData>',
        xml,
    )
    tifffile.tiffcomment(path, data.encode())
    with pytest.raises(VolumeFormatError, match="one of several files of an OME-TIFF"):
        open_volume(path)


def test_the_first_of_several_images_is_read_and_said(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "em.ome.tif", ome=True) as writer:
        writer.write(voxels(), photometric="minisblack", metadata={"axes": "ZYX"})
        writer.write(voxels()[:2, :9], photometric="minisblack", metadata={"axes": "ZYX"})
    with open_volume(tmp_path / "em.ome.tif") as volume:
        assert ["holds 2 images: the first" in notice for notice in volume.notices] == [True]
        np.testing.assert_array_equal(volume.read(), voxels())


def test_a_pyramid_is_read_at_its_finest_level(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "em.ome.tif", ome=True) as writer:
        options = {"photometric": "minisblack", "tile": (16, 16)}
        writer.write(voxels(), subifds=1, metadata={"axes": "ZYX"}, **options)
        writer.write(voxels()[:, ::2, ::2], subfiletype=1, **options)
    with open_volume(tmp_path / "em.ome.tif") as volume:
        assert volume.notices == ()
        np.testing.assert_array_equal(volume.read(), voxels())


@pytest.mark.parametrize("unit", ["nm", "um", "micron", "\\u00B5m", "mm"])
def test_units_of_imagej_are_known(tmp_path: Path, unit: str) -> None:
    tifffile.imwrite(
        tmp_path / "em.tif",
        voxels(),
        imagej=True,
        resolution=(1 / 4, 1 / 8),
        metadata={"axes": "ZYX", "spacing": 30, "unit": unit},
    )
    factor = {"nm": 1, "mm": 1e6}.get(unit, 1e3)
    with open_volume(tmp_path / "em.tif") as volume:
        assert volume.voxel_size is not None
        assert volume.voxel_size.zyx_nm == pytest.approx((30 * factor, 8 * factor, 4 * factor))


def test_time_points_without_sections_are_sections(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "em.tif", voxels(), imagej=True, metadata={"axes": "TYX"})
    with open_volume(tmp_path / "em.tif") as volume:
        assert ["3 images time points" in notice for notice in volume.notices] == [True]
        np.testing.assert_array_equal(volume.read(), voxels())
    tifffile.imwrite(
        tmp_path / "film.tif",
        voxels(shape=(2, *SHAPE)),
        imagej=True,
        metadata={"axes": "TZYX"},
    )
    with pytest.raises(VolumeFormatError, match="has 2 time points"):
        open_volume(tmp_path / "film.tif")


def test_channels_without_sections_are_asked_about(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "em.tif", voxels(), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(VolumeFormatError, match="3 channels and one section.*--axes zyx"):
        open_volume(tmp_path / "em.tif")
    with open_volume(tmp_path / "em.tif", axes="zyx") as volume:
        np.testing.assert_array_equal(volume.read(), voxels())


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("packing", [{}, {"compression": "zlib", "rowsperstrip": 9}], ids=str)
def test_a_channel_of_colour_pages_is_read(tmp_path: Path, planar: str, packing: dict) -> None:
    array = voxels(shape=(*SHAPE, 3))
    stored = array if planar == "contig" else np.moveaxis(array, 3, 1)
    tifffile.imwrite(tmp_path / "em.tif", stored, photometric="rgb", planarconfig=planar, **packing)
    with pytest.raises(VolumeFormatError, match="colour image.*3 channels"):
        open_volume(tmp_path / "em.tif")
    box = Box((1, 10, 20), (3, 50, 60))
    for channel in range(3):
        with open_volume(tmp_path / "em.tif", channel=channel) as volume:
            np.testing.assert_array_equal(volume.read(), array[..., channel])
            found = volume.read(box)
            np.testing.assert_array_equal(found, array[..., channel][box.slices()])


def test_axes_that_the_user_names_turn_the_pages(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "em.tif", voxels(), photometric="minisblack", rowsperstrip=8)
    for axes, order in (("xyz", (2, 1, 0)), ("yzx", (1, 0, 2))):
        with open_volume(tmp_path / "em.tif", axes=axes) as volume:
            np.testing.assert_array_equal(volume.read(), voxels().transpose(order))
    array = voxels(shape=(2, *SHAPE))
    tifffile.imwrite(tmp_path / "4d.tif", array, photometric="minisblack", compression="zlib")
    with open_volume(tmp_path / "4d.tif", axes="zcyx", channel=2) as volume:
        np.testing.assert_array_equal(volume.read(), array[:, 2])


def test_axes_turn_a_folder_too(tmp_path: Path) -> None:
    for z, section in enumerate(voxels()):
        tifffile.imwrite(tmp_path / f"z{z}.tif", section)
    with open_volume(tmp_path, axes="xyz") as volume:
        np.testing.assert_array_equal(volume.read(), voxels().transpose(2, 1, 0))


def test_masks_of_one_bit_are_pages_too(tmp_path: Path) -> None:
    mask = voxels() > 100
    tifffile.imwrite(tmp_path / "em.tif", mask, photometric="minisblack")
    with open_volume(tmp_path / "em.tif") as volume:
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume.read(), mask)


def test_white_zeros_are_noticed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "em.tif", voxels(), photometric="miniswhite")
    with open_volume(tmp_path / "em.tif") as volume:
        assert ["0 is white" in notice for notice in volume.notices] == [True]
        np.testing.assert_array_equal(volume.read(), voxels())


def test_a_page_of_another_size_in_the_middle_is_named(tmp_path: Path) -> None:
    for compression in (None, "zlib"):
        with tifffile.TiffWriter(tmp_path / "em.tif") as writer:
            for z in range(20):
                size = (9, 9) if z == 11 else (8, 9)
                writer.write(
                    np.full(size, z, np.uint8),
                    metadata=None,
                    compression=compression,
                    contiguous=False,
                )
        with pytest.raises(VolumeFormatError, match=r"page 11 of .* has 9 x 9 pixels"):
            open_volume(tmp_path / "em.tif")


# --- elsewhere --------------------------------------------------------------------------


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves ranges of files, and counts the bytes."""

    sent = 0

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = 0, len(data)
        if wanted:
            start, stop = int(wanted[1]), int(wanted[2] or stop - 1) + 1
        part = data[start:stop]
        self.send_response(206 if wanted else 200)
        if wanted:
            end = start + len(part) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(part)
        type(self).sent += len(part)

    def log_message(self, *args) -> None: ...


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    Ranges.sent = 0
    handler = functools.partial(Ranges, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "packing", [{}, {"tile": (64, 64), "compression": "zlib"}, {"rowsperstrip": 16}], ids=str
)
def test_a_file_on_a_server_is_read_by_ranges(tmp_path: Path, served: str, packing: dict) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 2048, 2048), np.uint8)
    tifffile.imwrite(tmp_path / "em.tif", array, photometric="minisblack", **packing)
    box = Box((1, 100, 200), (2, 133, 233))
    with open_volume(f"{served}/em.tif") as volume:
        assert volume.shape == array.shape
        np.testing.assert_array_equal(volume.read(box), array[box.slices()])
        assert Ranges.sent < array.nbytes / 2
        np.testing.assert_array_equal(volume.read(), array)


# --- more damage ---------------------------------------------------------------------------


def test_a_file_of_no_pages_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "em.tif").write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(VolumeFormatError, match="cannot be read as an image"):
        open_volume(tmp_path / "em.tif")


def test_a_piece_beyond_the_end_of_the_file_gives_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "em.tif"
    tifffile.imwrite(path, voxels(), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        place = file.pages[2].tags["StripOffsets"].valueoffset
    data = bytearray(path.read_bytes())
    data[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with open_volume(path) as volume:
        volume.read(Box((0, 0, 0), (2, 70, 90)))
        with pytest.raises(FloodemError, match="hold pixels, and the file has"):
            volume.read()


def test_the_metadata_of_a_hostile_ome_file_do_not_blow_up(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(20))
    xml = f"<?xml version='1.0'?><!DOCTYPE OME [{entities}]><OME><Image>&e19;</Image></OME>"
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, voxels(), description=xml, metadata=None, photometric="minisblack")
    (tmp_path / "em.tif").write_bytes(buffer.getvalue())
    with open_volume(tmp_path / "em.tif") as volume:
        assert volume.shape == SHAPE
