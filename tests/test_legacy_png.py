"""Results of the old inference as images: ids that fit, rows y and columns x, nothing replaced."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from array_volume import ArrayVolume
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    LabelError,
    VolumeNotFoundError,
)
from floodem.legacy.png_stack import COLOUR_TABLE, Pixels, colours_of, write_png_stack
from floodem.legacy.programs import Console, find_program
from floodem.legacy.results import OriginInfo, write_subvolume
from floodem.volumes import convert, open_volume


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def stack(folder, names):
    return np.stack([pixels(folder / name) for name in names])


def labels_of(folder, made):
    """The labels that images stand for, by another way than they were made."""
    found = stack(folder, made.names)
    if made.pixels is not Pixels.COLOUR:
        return found
    with open(folder / COLOUR_TABLE, newline="", encoding="utf-8") as file:
        table = {
            (int(row["red"]), int(row["green"]), int(row["blue"])): int(row["id"])
            for row in csv.DictReader(file)
        }
    table[0, 0, 0] = 0
    flat = [table[tuple(map(int, colour))] for colour in found.reshape(-1, 3)]
    return np.array(flat, np.uint64).reshape(found.shape[:3])


def write_result(path, labels, *, origins=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_subvolume(
        path,
        segmentation=labels,
        origins=origins or {1: OriginInfo((0, 1, 2), 3, 4.5)},
        overlaps={},
        request=b"",
        counters={},
        overwrite=True,
    )


def run(name, *words):
    """Run an old program here; give what it says, what it notes and its translation."""
    program = find_program(name)
    said, noted = [], []
    console = Console(
        say=said.append, notice=noted.append, progress=None, should_stop=lambda: False
    )
    translation = program.translation(program.parse(words))
    translation.work(console)
    return said, noted, translation


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]),
        st.tuples(*[st.integers(1, 4)] * 3),
        elements=st.integers(0, 200),
        fill=st.nothing(),
    ),
    st.sampled_from([1, 300, 70_000, 2**40]),
    st.booleans(),
)
def test_images_hold_every_id_in_the_orientation_of_the_image(
    tmp_path_factory, small, factor, colours
):
    folder = tmp_path_factory.mktemp("images")
    labels = small.astype(np.uint64) * factor
    made = write_png_stack(ArrayVolume(labels), folder, colours=colours)
    assert made.objects == len(np.unique(labels[labels != 0]))
    assert made.largest_id == labels.max()
    assert np.array_equal(labels_of(folder, made), labels)


@pytest.mark.parametrize(
    ("largest", "expected", "mode"),
    [
        (0, Pixels.GREY_8, "L"),
        (255, Pixels.GREY_8, "L"),
        (256, Pixels.GREY_16, "I;16"),
        (65_535, Pixels.GREY_16, "I;16"),
        (65_536, Pixels.COLOUR, "RGB"),
        (2**64 - 1, Pixels.COLOUR, "RGB"),
    ],
)
def test_pixels_are_as_small_as_the_largest_id_allows(tmp_path, largest, expected, mode):
    labels = np.array([[[0, largest]]], np.uint64)
    made = write_png_stack(ArrayVolume(labels), tmp_path / "new" / "folder")
    assert made.pixels is expected
    assert str(largest) in made.reason
    with Image.open(made.folder / "0000.png") as image:
        assert image.mode == mode
        assert image.size == (2, 1)  # columns (x), rows (y)


def test_colours_are_all_different_and_none_is_black():
    colours = colours_of(2**17).astype(np.uint32)
    codes = colours[:, 0] << 16 | colours[:, 1] << 8 | colours[:, 2]
    assert len(np.unique(codes)) == 2**17
    assert codes.min() > 0
    with pytest.raises(LabelError, match="more than the 16,777,215 colours"):
        colours_of(2**24)


def test_nothing_is_replaced_unless_asked(tmp_path):
    labels = np.ones((3, 2, 2), np.uint8)
    (tmp_path / "0001.png").write_bytes(b"mine")
    with pytest.raises(DestinationExistsError, match=r"0001\.png would be replaced.*--overwrite"):
        write_png_stack(ArrayVolume(labels), tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["0001.png"]
    assert (tmp_path / "0001.png").read_bytes() == b"mine"
    made = write_png_stack(ArrayVolume(labels), tmp_path, overwrite=True)
    assert np.array_equal(labels_of(tmp_path, made), labels)


def test_a_table_of_colours_is_not_replaced_either(tmp_path):
    (tmp_path / COLOUR_TABLE).write_bytes(b"mine")
    for labels, colours in ((np.full((1, 1, 1), 65_536), False), (np.ones((1, 1, 1), int), True)):
        with pytest.raises(DestinationExistsError, match=COLOUR_TABLE):
            write_png_stack(ArrayVolume(labels), tmp_path, colours=colours)
    assert [one.name for one in tmp_path.iterdir()] == [COLOUR_TABLE]
    write_png_stack(ArrayVolume(np.ones((1, 1, 1), int)), tmp_path)
    assert (tmp_path / COLOUR_TABLE).read_bytes() == b"mine"


def test_what_are_no_labels_leaves_nothing_behind(tmp_path):
    with pytest.raises(LabelError):
        write_png_stack(ArrayVolume(np.full((1, 2, 2), -1)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_images_of_an_earlier_stack_are_named(tmp_path):
    for name in ("z0001.png", "z0002.png", "z10000.png", "other.png", "0007.png"):
        (tmp_path / name).write_bytes(b"")
    made = write_png_stack(
        ArrayVolume(np.ones((2, 1, 1), int)), tmp_path, prefix="z", overwrite=True
    )
    assert made.older == ("z0002.png", "z10000.png")


@pytest.mark.parametrize(
    ("name", "folder", "first"),
    [("npz_to_png", "inferred_segmentation", "z0000.png"), ("npz_png", ".", "0000.png")],
)
def test_programs_write_the_names_that_their_documentation_says(
    tmp_path, monkeypatch, name, folder, first
):
    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 20
    write_result(tmp_path / "seg-0_0_0.npz", labels)
    monkeypatch.chdir(tmp_path)
    said, noted, translation = run(name)
    assert np.array_equal(pixels(tmp_path / folder / first), labels[0])
    assert np.array_equal(pixels(tmp_path / folder / first.replace("0.", "1.")), labels[1])
    assert any("16-bit" in line for line in said)
    assert any("the largest is 460" in line for line in said)
    assert any("rows y and columns x" in note for note in translation.notes)
    assert noted == []
    with pytest.raises(DestinationExistsError):
        run(name)
    run(name, "--overwrite")
    with open_volume(f"png://{tmp_path / folder}") as volume:
        assert np.array_equal(volume.read(volume.box), labels)


@pytest.mark.parametrize("place", ["seg-0_0_0.npz", "0/0/seg-0_0_0.npz", "x/seg-8_0_0.npz"])
def test_results_are_found_where_the_inference_left_them(tmp_path, monkeypatch, place):
    write_result(tmp_path / place, np.full((1, 1, 1), 7, np.uint8))
    monkeypatch.chdir(tmp_path)
    _, noted, _ = run("npz_png", *([place] if "x" in place else []))
    assert pixels(tmp_path / "0000.png") == 7
    assert any("look black" in note for note in noted)


def test_a_result_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VolumeNotFoundError, match=r"no \./seg-0_0_0\.npz: run in the folder"):
        run("npz_png")
    with pytest.raises(VolumeNotFoundError, match="no mine.npz"):
        run("npz_to_png", "mine.npz")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", b"no archive at all"])
def test_a_broken_result_is_refused_and_nothing_is_written(tmp_path, monkeypatch, data):
    (tmp_path / "seg-0_0_0.npz").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FloodemError):
        run("npz_to_png")
    assert [one.name for one in tmp_path.iterdir()] == ["seg-0_0_0.npz"]


def test_the_command_it_stands_for_writes_the_same_images(tmp_path, monkeypatch):
    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 20
    write_result(tmp_path / "seg-0_0_0.npz", labels)
    monkeypatch.chdir(tmp_path)
    program = find_program("npz_to_png")
    ((tool, verb, source, destination),) = program.translation(program.parse([])).commands
    assert (tool, verb) == ("floodem", "convert")
    convert(source, destination)
    assert np.array_equal(
        stack(tmp_path / "inferred_segmentation", ["z0000.png", "z0001.png"]), labels
    )
    assert program.translation(program.parse(["--colours"])).commands == ()


def test_the_published_segmentation_becomes_images(tmp_path, monkeypatch, shared_data):
    source = shared_data / "fib25" / "sample-training2.npz"
    monkeypatch.chdir(tmp_path)
    said, _, _ = run("npz_to_png", str(source))
    with np.load(source, allow_pickle=False) as archive:
        labels = archive["segmentation"]
    folder = tmp_path / "inferred_segmentation"
    assert len(list(folder.glob("z*.png"))) == len(labels)
    assert np.array_equal(pixels(folder / "z0100.png"), labels[100])
    assert f"the largest is {labels.max()}" in said[1]
