"""An image and its labels: what does not match is named, the first thing first."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.inspection.pairs import mismatches, require_matching
from floodem.volumes.volume import Kind

SHAPE = (4, 5, 6)


def volume(path: Path, **facts) -> str:
    facts = {"shape": SHAPE, "dtype": "uint8"} | facts
    create_volume(path, **facts).close()
    return str(path)


def stack(folder: Path, names: list[str], *, dtype: str = "uint8", shape=SHAPE[1:]) -> str:
    folder.mkdir()
    for name in names:
        Image.fromarray(np.zeros(shape, dtype)).save(folder / name)
    return str(folder)


def said(image: str, labels: str) -> tuple[str, ...]:
    with open_volume(image) as one, open_volume(labels) as other:
        found = mismatches(one, other)
        if found:
            with pytest.raises(VolumeFormatError) as caught:
                require_matching(one, other)
            assert str(caught.value) == found[0]
        else:
            require_matching(one, other)
        return found


def test_what_matches_is_passed(tmp_path: Path) -> None:
    image = volume(tmp_path / "em.h5", voxel_size=VoxelSize(30, 6, 6), offset=(1, 2, 3))
    for name, facts in (
        ("same.h5", {"voxel_size": VoxelSize(30, 6, 6.000001), "kind": Kind.LABELS}),
        ("unknown.h5", {"voxel_size": None, "dtype": "uint64"}),
    ):
        assert said(image, volume(tmp_path / name, offset=(1, 2, 3), **facts)) == ()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"shape": (3, 5, 6)}, "has 4 sections and labels .*seg.h5 3:"),
        ({"shape": (4, 6, 5)}, r"5 x 6 pixels \(y,x\) and those of labels .* 6 x 5"),
        ({"dtype": "float32"}, "hold float32, and labels are whole numbers"),
        ({"voxel_size": VoxelSize(40, 6, 6)}, "voxels of 30,6,6 nm .* of 40,6,6 nm"),
        ({"offset": (0, 0, 1)}, r"begins at voxel \(0, 0, 0\) .* at \(0, 0, 1\)"),
        ({"kind": Kind.IMAGE}, "given as labels and says that it holds an image"),
    ],
)
def test_each_mismatch_is_named(tmp_path: Path, facts: dict, expected: str) -> None:
    image = volume(tmp_path / "em.h5", voxel_size=VoxelSize(30, 6, 6))
    (sentence,) = said(image, volume(tmp_path / "seg.h5", **facts))
    with pytest.raises(VolumeFormatError, match=expected):
        raise VolumeFormatError(sentence)


@pytest.mark.parametrize("facts", [{"dtype": "uint64"}, {"kind": Kind.LABELS}])
def test_labels_given_as_the_image_are_told(tmp_path: Path, facts: dict) -> None:
    image = volume(tmp_path / "seg.h5", **facts)
    (sentence,) = said(image, volume(tmp_path / "em.h5"))
    assert "give the image first" in sentence


def test_all_mismatches_are_told(tmp_path: Path) -> None:
    found = said(
        volume(tmp_path / "em.h5"),
        volume(tmp_path / "seg.h5", shape=(3, 5, 5), dtype="float32", offset=(1, 0, 0)),
    )
    assert len(found) == 4
    assert "whole numbers" in found[0]


def test_stacks_are_matched_by_the_numbers_of_their_files(tmp_path: Path) -> None:
    numbers = [n for n in range(30) if n != 17]
    image = stack(tmp_path / "em", [f"em_s2_z{n}_4nm.png" for n in range(29)])
    same = stack(tmp_path / "same", [f"seg{n:05}.png" for n in range(29)])
    other = stack(tmp_path / "other", [f"seg_{n:04}.png" for n in numbers])
    assert said(image, same) == ()
    (sentence,) = said(image, other)
    assert re.search(r"section 17 is em_s2_z17_4nm.png of .* but seg_0018.png of", sentence)


def test_the_section_that_one_stack_lacks_is_named(tmp_path: Path) -> None:
    image = stack(tmp_path / "em", [f"z{n}.png" for n in range(5)])
    labels = stack(tmp_path / "seg", [f"s{n}.png" for n in (0, 1, 3, 4)])
    first, second = said(image, labels)
    assert "has 5 sections" in first
    assert "z2.png of" in first
    assert re.search(r"section 2 is z2.png of .*em but s3.png of .*seg", second)


def test_stacks_without_numbers_are_matched_by_place(tmp_path: Path) -> None:
    image = stack(tmp_path / "em", ["a.png", "b.png"])
    labels = stack(tmp_path / "seg", ["0007.png", "0009.png"])
    assert said(image, labels) == ()


def test_a_stack_is_held_against_a_volume(tmp_path: Path) -> None:
    image = stack(tmp_path / "em", [f"z{n}.png" for n in range(4)])
    assert said(image, volume(tmp_path / "seg.h5", dtype="uint32")) == ()


def test_the_shared_stacks_match(shared_data: Path) -> None:
    folder = shared_data / "snemi3d"
    assert said(str(folder / "images"), str(folder / "segment")) == ()
