"""Stacks of sections: order, odd files among them, colour, damage, and what other tools see."""

from __future__ import annotations

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
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
    OptionError,
    RunConflictError,
    UnsafeFileError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume, staging
from floodem.volumes.sections import creation as stack_creation
from floodem.volumes.sections.names import natural_order


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


MODES = {"RGB": 3, "RGBA": 4, "LA": 2}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colour_is_refused_in_one_sentence_and_a_channel_is_read(
    tmp_path: Path, mode: str, ending: str
) -> None:
    channels = MODES[mode]
    pixels = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
    Image.fromarray(pixels, mode).save(tmp_path / f"z0.{ending}")
    advice = rf"z0\.{ending} is a colour image.* choose one of its {channels} channels"
    with pytest.raises(VolumeFormatError, match=advice):
        open_volume(tmp_path)
    for channel in range(channels):
        with open_volume(tmp_path, channel=channel) as volume:
            np.testing.assert_array_equal(volume.read()[0], pixels[:, :, channel])
            box = Box((0, 1, 2), (1, 3, 4))
            np.testing.assert_array_equal(volume.read(box)[0], pixels[1:3, 2:4, channel])
    with pytest.raises(OptionError, match=f"has no channel {channels}"):
        open_volume(tmp_path, channel=channels)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_grey_saved_in_colour_is_told_from_colour(tmp_path: Path, ending: str) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / f"z0.{ending}")
    with pytest.raises(VolumeFormatError, match="all equal, so take the first .--channel 0"):
        open_volume(tmp_path)
    with open_volume(tmp_path, channel=0) as volume:
        np.testing.assert_allclose(volume.read()[0].astype(int), grey, atol=2)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_palettes_are_refused_in_one_sentence(tmp_path: Path, ending: str) -> None:
    Image.new("P", (5, 4)).save(tmp_path / f"z0.{ending}")
    with pytest.raises(VolumeFormatError, match=rf"z0\.{ending} is a palette image"):
        open_volume(tmp_path)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_masks_of_one_bit_are_read_as_0_and_1(tmp_path: Path, ending: str) -> None:
    mask = np.random.default_rng(0).random((9, 13)) > 0.5
    Image.fromarray(mask).save(tmp_path / f"z0.{ending}")
    with open_volume(tmp_path) as volume:
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume.read()[0], mask)


@pytest.mark.parametrize("bits", [2, 4])
def test_pngs_of_few_bits_give_the_numbers_they_store(tmp_path: Path, bits: int) -> None:
    values = np.arange(8, dtype=np.uint8).reshape(1, 8) % 2**bits
    packed = np.packbits(np.unpackbits(values.T, axis=1)[:, -bits:].ravel()).tobytes()
    (tmp_path / "z0.png").write_bytes(png_bytes(8, 1, zlib.compress(b"\0" + packed), bits=bits))
    with open_volume(tmp_path) as volume:
        np.testing.assert_array_equal(volume.read()[0], values)


def test_a_colour_png_of_16_bit_is_refused_rather_than_narrowed(tmp_path: Path) -> None:
    data = zlib.compress(b"\0" + bytes(6))
    (tmp_path / "z0.png").write_bytes(png_bytes(1, 1, data, bits=16, colour=2))
    with pytest.raises(VolumeFormatError, match="colour image of 16 bit, of which only 8"):
        open_volume(tmp_path, channel=0)


def test_jpeg_sections_are_read_and_not_written(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (40, 1))
    for z, ending in enumerate((".jpg", ".JPEG", ".jpeg")):
        Image.fromarray(ramp + z).save(tmp_path / f"z{z}{ending}", format="JPEG", quality=95)
    with open_volume(tmp_path) as volume:
        assert (volume.shape, volume.dtype) == ((3, 40, 48), np.uint8)
        with Image.open(tmp_path / "z1.JPEG") as image:
            np.testing.assert_array_equal(volume.read()[1], np.asarray(image))
    for uri in ("jpeg://new", tmp_path / "new.jpg"):
        with pytest.raises(VolumeFormatError, match="loses detail.*png://"):
            create_volume(uri, shape=(1, 2, 3), dtype="uint8")
    with pytest.raises(VolumeFormatError, match="is a 2-D image"):
        open_volume(tmp_path / "z0.jpg")


def test_a_cmyk_jpeg_is_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (5, 4)).save(tmp_path / "z0.jpg")
    with pytest.raises(VolumeFormatError, match="JPEG of 4 channels"):
        open_volume(tmp_path)


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


# --- what is odd about a folder ------------------------------------------------------


def notices(folder: Path, names: list[str]) -> list[str]:
    for name in names:
        png(folder / name, 0)
    with open_volume(folder) as volume:
        assert all(notice.startswith(f"{folder}: ") for notice in volume.notices)
        return [notice.removeprefix(f"{folder}: ") for notice in volume.notices]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([38, 39, 40, 44, 45, 46], "sections 0041 to 0043 are missing between z0040.png and z0044"),
        ([0, 1, 3, 4], "section 0002 is missing between z0001.png and z0003.png:"),
        ([0, 1, 3, 4, 5, 8, 9], "z0003.png (and 1 more gap later): the volume goes on without"),
        ([0, 10, 20, 50, 60], "sections 0030 to 0040 are missing"),
        ([1, 2, 10], "sections 0003 to 0009 are missing"),
    ],
)
def test_gaps_in_the_numbering_are_noticed(tmp_path: Path, numbers: list[int], says: str) -> None:
    (said,) = notices(tmp_path, [f"z{number:04}.png" for number in numbers])
    assert says in said
    assert "lies too low in z" in said


@pytest.mark.parametrize(
    "names",
    [
        [f"z{n}.png" for n in (8, 9, 10, 11)],
        [f"z{n}.png" for n in (5, 10, 15)],
        [f"z{n}.png" for n in (3, 77)],
        ["z7.png"],
        [f"run2_z{n}_04nm.png" for n in range(3)],
        [f"z{n}.png" for n in (1, 500, 502, 9000, 12345)],
        ["dorsal.png", "ventral.png"],
        ["z1.png", "z2_again.png", "z3_2.png"],
    ],
)
def test_numbers_without_a_gap_are_not_noticed(tmp_path: Path, names: list[str]) -> None:
    assert notices(tmp_path, names) == []


def test_two_sections_of_one_number_are_noticed(tmp_path: Path) -> None:
    (said,) = notices(tmp_path, ["z1.png", "z2.png", "z02.PNG", "z3.png"])
    assert said == "z02.PNG and z2.png have the same number: both are sections"


def test_an_image_without_a_number_among_numbered_sections_is_noticed(tmp_path: Path) -> None:
    assert notices(tmp_path, ["0.png", "1.png", "montage.png"]) == [
        (
            "montage.png among numbered sections bears no number: it is taken as a section; if "
            "it is none, move it to another folder"
        )
    ]
    gap, stranger = notices(tmp_path, ["4.png", "average.png"])
    assert gap.startswith("sections 2 to 3 are missing between 1.png and 4.png")
    assert stranger.startswith("average.png (and 1 more image) among numbered")


def test_one_image_of_the_working_folder_leads_to_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    png(tmp_path / "one.png", 0)
    with pytest.raises(VolumeFormatError) as refusal:
        open_volume("one.png")
    assert str(refusal.value).endswith(
        f"give the folder with all sections, {os.path.join('.', '')}"
    )


def test_what_lies_beside_the_sections_is_noticed(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "._z0.png").write_bytes(b"")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    assert notices(tmp_path, ["z0.png", "z1.png"]) == [
        "2 hidden files beside the sections are passed over (first .DS_Store)",
        "1 other file beside the sections is passed over (Thumbs.db)",
    ]


def test_a_folder_of_folders_names_the_one_with_sections(tmp_path: Path) -> None:
    png(tmp_path / "images" / "z0.png", 0)
    (tmp_path / "notes").mkdir()
    for uri in (tmp_path, f"png://{tmp_path}"):
        with pytest.raises(
            VolumeFormatError, match="no png sections itself, but its folder images"
        ):
            open_volume(uri)


def test_sections_in_capitals_and_other_letters_are_sections(tmp_path: Path) -> None:
    folder = tmp_path / "切片 №1"
    folder.mkdir()
    for z, name in enumerate(("Schnitt-ä1.PNG", "Schnitt-ä2.png", "Schnitt-ä10.Png")):
        png(folder / name, z)
    with open_volume(folder) as volume:
        assert volume.read()[:, 0, 0].tolist() == [0, 1, 2]
        assert volume.section_names == ("Schnitt-ä1.PNG", "Schnitt-ä2.png", "Schnitt-ä10.Png")


def test_a_section_of_another_number_of_channels_is_named(tmp_path: Path) -> None:
    png(tmp_path / "z0.png", 0)
    Image.new("RGB", (5, 4)).save(tmp_path / "z1.png")
    with pytest.raises(VolumeFormatError, match="z1.png holds uint8 in 3 channels and z0.png"):
        open_volume(tmp_path)


# --- how stacks are written ------------------------------------------------------------


@pytest.mark.parametrize("format_", ["png", "tiff"])
def test_several_threads_write_one_stack(tmp_path: Path, format_: str) -> None:
    array = np.random.default_rng(0).integers(0, 255, (40, 30, 20), np.uint8)
    uri = f"{format_}://{tmp_path / 'new'}"
    with (
        create_volume(uri, shape=array.shape, dtype="uint8") as volume,
        ThreadPoolExecutor(8) as pool,
    ):
        boxes = [Box((z, 0, 0), (z + 2, 30, 20)) for z in range(0, 40, 2)]
        for done in [pool.submit(volume.write, box, array[box.slices()]) for box in boxes]:
            done.result()
    np.testing.assert_array_equal(read_whole(uri), array)
    assert len(list((tmp_path / "new").iterdir())) == 40


@pytest.mark.parametrize("format_", ["png", "tiff"])
def test_a_resumed_stack_keeps_the_sections_that_are_there(tmp_path: Path, format_: str) -> None:
    array = np.random.default_rng(0).integers(1, 255, (6, 4, 5), np.uint8)
    uri = f"{format_}://{tmp_path / 'new'}"
    facts = {"shape": array.shape, "dtype": "uint8", "voxel_size": VoxelSize(30, 6, 6)}
    work = tmp_path / ".new.work"
    first = create_volume(uri, **facts, work=work)
    first.write(Box((0, 0, 0), (3, 4, 5)), array[:3])
    first.discard()
    ending = {"png": "png", "tiff": "tif"}[format_]
    assert sorted(path.name for path in work.iterdir()) == [f"z000{z}.{ending}" for z in range(3)]
    # What a killed process leaves: a section cut short under its own name, and half a new one.
    cut = work / f"z0001.{ending}"
    cut.write_bytes(cut.read_bytes()[:20])
    (work / f".z0005.{ending}.partial").write_bytes(b"half")
    untouched = (work / f"z0000.{ending}").stat().st_mtime_ns
    with create_volume(uri, **facts, work=work) as second:
        np.testing.assert_array_equal(second.read()[[0, 2]], array[[0, 2]])
        assert not second.read()[[1, 3, 4, 5]].any()
        second.write(Box((3, 0, 0), (5, 4, 5)), array[3:5])
    found = read_whole(uri)
    np.testing.assert_array_equal(found[[0, 2, 3, 4]], array[[0, 2, 3, 4]])
    assert not found[[1, 5]].any()
    assert (tmp_path / "new" / f"z0000.{ending}").stat().st_mtime_ns == untouched
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
    assert len(list((tmp_path / "new").iterdir())) == 6


def test_sections_of_another_volume_are_not_taken_up(tmp_path: Path) -> None:
    work = tmp_path / ".new.work"
    uri = f"png://{tmp_path / 'new'}"
    for offset in ((0, 0, 0), (5, 0, 0)):
        volume = create_volume(uri, shape=(2, 4, 5), dtype="uint8", offset=offset, work=work)
        assert not volume.read().any()
        volume.write(volume.box, np.full((2, 4, 5), 7, np.uint8))
        volume.discard()


@pytest.mark.parametrize("kept", [True, False])
def test_one_tiff_file_is_taken_up_where_it_was_left(tmp_path: Path, kept: bool) -> None:
    path, work = tmp_path / "em.tif", tmp_path / ".em.work"
    facts = {"shape": (3, 4, 5), "dtype": "uint16", "work": work}
    first = create_volume(path, **facts)
    first.write(Box((1, 0, 0), (2, 4, 5)), np.full((1, 4, 5), 9, np.uint16))
    first.discard()
    if not kept:
        with pytest.raises(RunConflictError, match="another volume in the making"):
            create_volume(path, **{**facts, "shape": (3, 5, 4)})
        assert not path.exists()
    with create_volume(path, **facts) as second:
        second.write(Box((2, 0, 0), (3, 4, 5)), np.full((1, 4, 5), 8, np.uint16))
    assert read_whole(path)[:, 0, 0].tolist() == [0, 9, 8]
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.tif"]


def test_sections_are_made_durable_before_the_stack_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, commit = stack_creation.sync_file, staging.Staged.commit
    monkeypatch.setattr(
        stack_creation, "sync_file", lambda path: (done.append(path.name), sync(path))
    )
    monkeypatch.setattr(
        staging.Staged, "commit", lambda self: (done.append("commit"), commit(self))
    )
    volume = create_volume(f"png://{tmp_path / 'new'}", shape=(3, 4, 5), dtype="uint8")
    volume.write(volume.box, np.ones((3, 4, 5), np.uint8))
    assert done == []
    volume.close()
    assert sorted(done[:3]) == ["z0000.png", "z0001.png", "z0002.png"]
    assert done[3:] == ["commit"]


def read_whole(uri: str | Path) -> np.ndarray:
    with open_volume(uri) as volume:
        return volume.read()


# --- damage -----------------------------------------------------------------------


def png_bytes(width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
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


@pytest.mark.parametrize("axes", ["zyx", "zxy", "yzx", "yxz", "xzy", "xyz"])
def test_sections_cut_along_another_axis_are_turned(tmp_path: Path, axes: str) -> None:
    stored = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    place, edges = (
        dict(zip(axes, (10, 20, 30), strict=True)),
        dict(zip(axes, (7, 8, 9), strict=True)),
    )
    with create_volume(
        f"png://{tmp_path / 's'}",
        shape=stored.shape,
        dtype="uint8",
        offset=(10, 20, 30),
        voxel_size=VoxelSize(7, 8, 9),
    ) as volume:
        volume.write(volume.box, stored)
    expected = np.einsum(f"{axes}->zyx", stored)
    with open_volume(tmp_path / "s", axes=axes) as volume:
        assert volume.offset == (place["z"], place["y"], place["x"])
        assert volume.voxel_size == VoxelSize(edges["z"], edges["y"], edges["x"])
        np.testing.assert_array_equal(volume.read(), expected)
        z, y, x = volume.offset
        corner = Box((z + 1, y + 1, x + 1), (z + 3, y + 2, x + 3))
        np.testing.assert_array_equal(volume.read(corner), expected[1:3, 1:2, 1:3])


def test_files_of_several_pages_in_a_folder_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 7), np.uint8))
    with pytest.raises(VolumeFormatError, match=r"a\.tif has 5 pages in a folder"):
        open_volume(tmp_path)


def test_the_shared_sections_are_read(shared_data: Path) -> None:
    folder = shared_data / "snemi3d" / "segment"
    with open_volume(folder) as volume:
        assert (volume.shape, volume.dtype) == ((100, 384, 512), np.uint16)
        box = Box((50, 100, 200), (51, 150, 280))
        with Image.open(sorted(folder.iterdir())[50]) as image:
            np.testing.assert_array_equal(volume.read(box)[0], np.asarray(image)[100:150, 200:280])
