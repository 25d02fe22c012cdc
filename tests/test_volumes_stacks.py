"""Stacks of sections: order, odd files among them, colour, damage, and what other tools see."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    UnsafeFileError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.stacks import natural_order


def png(path: Path, value: int, *, shape: tuple[int, int] = (4, 5), dtype: str = "uint8") -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype)).save(path)


def test_sections_come_in_natural_order_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    for name, value in (("z10", 10), ("z2", 2), ("Z1", 1), ("z0100", 100), ("a9", 9)):
        png(tmp_path / f"{name}.png", value)
    png(tmp_path / "._z3.png", 3)
    (tmp_path / "Thumbs.db").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    with open_volume(tmp_path) as volume:
        assert volume.read()[:, 0, 0].tolist() == [9, 1, 2, 10, 100]


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20), st.sampled_from(["", "z", "生"]))
def test_natural_order_is_the_order_of_numbers(numbers: list[int], word: str) -> None:
    names = [f"{word}{number}.png" for number in numbers]
    ordered = [f"{word}{number}.png" for number in sorted(numbers)]
    assert sorted(names, key=natural_order) == ordered


@given(st.lists(st.text(alphabet="a1²٣.0Z", min_size=1, max_size=6), max_size=8))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    ordered = sorted(names, key=natural_order)
    names.reverse()
    assert sorted(names, key=natural_order) == ordered


def test_a_section_of_another_size_is_named(tmp_path: Path) -> None:
    png(tmp_path / "z0.png", 0)
    png(tmp_path / "z1.png", 0, shape=(4, 6))
    with pytest.raises(VolumeFormatError, match=r"z1\.png has 4 x 6 pixels.*z0\.png has 4 x 5"):
        open_volume(tmp_path)


def test_a_section_of_another_type_is_named(tmp_path: Path) -> None:
    png(tmp_path / "z0.png", 0)
    png(tmp_path / "z1.png", 0, dtype="uint16")
    with pytest.raises(VolumeFormatError, match=r"z1\.png holds uint16 and z0\.png holds uint8"):
        open_volume(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_is_refused_in_one_sentence(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (5, 4)).save(tmp_path / "z0.png")
    with pytest.raises(VolumeFormatError, match=r"z0\.png is a colour image"):
        open_volume(tmp_path)


def test_a_png_of_one_bit_is_refused(tmp_path: Path) -> None:
    Image.new("1", (5, 4)).save(tmp_path / "z0.png")
    with pytest.raises(VolumeFormatError, match=r"z0\.png has 1 bit per pixel"):
        open_volume(tmp_path)


def test_a_colour_tiff_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "z0.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(VolumeFormatError, match=r"z0\.tif is a colour image"):
        open_volume(tmp_path)
    with pytest.raises(VolumeFormatError, match=r"z0\.tif is a colour image"):
        open_volume(tmp_path / "z0.tif")


def test_one_image_is_no_volume(tmp_path: Path) -> None:
    png(tmp_path / "z0.png", 0)
    tifffile.imwrite(tmp_path / "z0.tif", np.zeros((4, 5), np.uint16))
    for name in ("z0.png", "z0.tif"):
        with pytest.raises(VolumeFormatError, match=r"is a 2-D image \(4 x 5\)"):
            open_volume(tmp_path / name)
    with pytest.raises(VolumeFormatError, match="name a folder"):
        create_volume(tmp_path / "out.png", shape=(2, 3, 4), dtype="uint8")


def test_an_empty_folder_of_sections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeFormatError, match="holds no png sections"):
        open_volume(f"png://{tmp_path}")


def test_other_tools_read_what_is_written(tmp_path: Path) -> None:
    array = np.arange(12 * 4 * 5, dtype=np.uint16).reshape(12, 4, 5)
    for uri in (f"png://{tmp_path / 'p'}", f"tiff://{tmp_path / 't'}", tmp_path / "pages.tif"):
        with create_volume(uri, shape=array.shape, dtype="uint16") as volume:
            volume.write(volume.box, array)
    names = [f"z{z:04}" for z in range(12)]
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [f"{n}.png" for n in names]
    for z, name in enumerate(names):
        with Image.open(tmp_path / "p" / f"{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), array[z])
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "t" / f"{name}.tif"), array[z])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "pages.tif"), array)


def test_part_of_a_stack_still_knows_where_it_lies(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.uint8).repeat(20).reshape(6, 4, 5)
    for format_ in ("png", "tiff"):
        uri = f"{format_}://{tmp_path / format_}"
        with create_volume(
            uri, shape=array.shape, dtype="uint8", voxel_size=VoxelSize(30, 6, 6), offset=(10, 2, 3)
        ) as volume:
            volume.write(volume.box, array)
        for section in sorted((tmp_path / format_).iterdir())[:2]:
            section.unlink()
        with open_volume(uri) as volume:
            assert volume.box == Box((12, 2, 3), (16, 6, 8))
            assert volume.read()[:, 0, 0].tolist() == [2, 3, 4, 5]


def test_only_the_sections_of_a_box_are_read(tmp_path: Path) -> None:
    for z in range(4):
        png(tmp_path / f"{z}.png", z)
    with open_volume(tmp_path) as volume:
        (tmp_path / "3.png").write_bytes(b"")
        assert volume.read(Box((0, 1, 1), (3, 2, 2))).ravel().tolist() == [0, 1, 2]
        with pytest.raises(VolumeFormatError, match=r"3\.png cannot be read"):
            volume.read()


def test_a_section_that_changes_while_open_is_noticed(tmp_path: Path) -> None:
    png(tmp_path / "0.png", 0)
    with open_volume(tmp_path) as volume:
        png(tmp_path / "0.png", 0, shape=(3, 5))
        with pytest.raises(VolumeFormatError, match=r"0\.png has changed"):
            volume.read()


@pytest.mark.parametrize("format_", ["png", "tiff"])
def test_boxes_that_cut_sections_are_refused(tmp_path: Path, format_: str) -> None:
    with (
        create_volume(f"{format_}://{tmp_path / 's'}", shape=(2, 4, 5), dtype="uint8") as volume,
        pytest.raises(GeometryError, match="written by whole sections of 4 x 5"),
    ):
        volume.write(Box((0, 0, 0), (2, 4, 4)), np.zeros((2, 4, 4), np.uint8))


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "sections"
    png(folder / "z0.png", 1)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DestinationExistsError, match=r"also holds notes\.txt"):
        create_volume(f"png://{folder}", shape=(1, 4, 5), dtype="uint8", overwrite=True)
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def read_whole(uri: str | Path) -> np.ndarray:
    with open_volume(uri) as volume:
        return volume.read()


# --- damage -----------------------------------------------------------------------


def png_bytes(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_png_that_declares_more_than_it_can_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "z0.png").write_bytes(png_bytes(2**31 - 1, 2**31 - 1, zlib.compress(b"")))
    with (
        open_volume(tmp_path) as volume,
        pytest.raises(UnsafeFileError, match="cannot unpack to that"),
    ):
        volume.read(Box((0, 0, 0), (1, 2, 2)))


def test_large_sections_are_no_bombs(tmp_path: Path) -> None:
    """Pillow on its own warns from 89 million pixels on, and warnings are errors here."""
    rows = zlib.compressobj(1)
    data = b"".join(rows.compress(bytes(10_001)) for _ in range(10_000)) + rows.flush()
    (tmp_path / "z0.png").write_bytes(png_bytes(10_000, 10_000, data))
    with open_volume(tmp_path) as volume:
        assert volume.shape == (1, 10_000, 10_000)
        assert not volume.read(Box((0, 9_000, 9_000), (1, 10_000, 10_000))).any()


@pytest.mark.parametrize("kept", [0, 4, 20, 30, 45, 0.5, 0.9])
@pytest.mark.parametrize("format_", ["png", "tiff"])
def test_a_section_cut_short_gives_one_sentence(
    tmp_path: Path, format_: str, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    with create_volume(f"{format_}://{tmp_path / 's'}", shape=(2, 40, 50), dtype="uint8") as volume:
        volume.write(volume.box, rng.integers(0, 255, (2, 40, 50), np.uint8))
    section = sorted((tmp_path / "s").iterdir())[1]
    whole = section.read_bytes()
    section.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(VolumeFormatError, match=rf"{section.name} cannot be read") as caught:
        read_whole(f"{format_}://{tmp_path / 's'}")
    assert "\n" not in str(caught.value)


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


# --- TIFF files from elsewhere -----------------------------------------------------------


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


def test_an_imagej_stack_of_several_channels_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "em.tif",
        np.zeros((5, 2, 6, 7), np.uint8),
        imagej=True,
        metadata={"axes": "ZCYX"},
    )
    with pytest.raises(VolumeFormatError, match="save one channel"):
        open_volume(tmp_path / "em.tif")


def test_pages_of_different_size_are_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "em.tif") as writer:
        writer.write(np.zeros((4, 5), np.uint8))
        writer.write(np.zeros((4, 6), np.uint8))
    with pytest.raises(VolumeFormatError, match=r"page 1 of .* has 4 x 6 pixels"):
        open_volume(tmp_path / "em.tif")


def test_files_of_several_pages_in_a_folder_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 7), np.uint8))
    with pytest.raises(VolumeFormatError, match=r"a\.tif has 5 pages in a folder"):
        open_volume(tmp_path)


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


def test_the_shared_sections_are_read(shared_data: Path) -> None:
    folder = shared_data / "snemi3d" / "segment"
    with open_volume(folder) as volume:
        assert (volume.shape, volume.dtype) == ((100, 384, 512), np.uint16)
        box = Box((50, 100, 200), (51, 150, 280))
        with Image.open(sorted(folder.iterdir())[50]) as image:
            np.testing.assert_array_equal(volume.read(box)[0], np.asarray(image)[100:150, 200:280])
