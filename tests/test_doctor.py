"""The command doctor measures shifts: what it prints, writes and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

import shift_cases
from bright import bright_model
from floodem.cli.main import main
from floodem.flooding.masks import check_masks, parse_mask
from floodem.geometry import Box, VoxelSize
from floodem.network.model_file import save_model
from floodem.volumes import create_volume, open_volume

DEPTH = 12
SMALL = ("--stride", "16", "--patch", "80", "--search", "12", "--workers", "1")


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments])
    return ended.value.code


@pytest.fixture(scope="module")
def sections():
    canvas = shift_cases.tissue(DEPTH, edge=80, noise=3)
    return shift_cases.cut(canvas, [(0, 0)] * 2 + [(9, 5)] * (DEPTH - 2))


@pytest.fixture(autouse=True)
def image(tmp_path, monkeypatch, sections):
    monkeypatch.chdir(tmp_path)
    with create_volume(
        "em.zarr", shape=sections.shape, dtype=np.uint8, voxel_size=VoxelSize(30, 6, 6)
    ) as volume:
        volume.write(volume.box, sections)


def test_it_names_the_shifted_sections_and_a_mask_that_can_be_used(capsys):
    save_model(bright_model(), "model.safetensors")
    words = ("doctor", "em.zarr", "--shift-mask", "f.zarr", "--model", "model.safetensors", *SMALL)
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert "shifts of 11 sections against the next" in told
    assert "fields of view of 7,9,9" in told
    row = next(line for line in told.splitlines() if line.startswith("    1, 2"))
    assert row.split()[3] in ("8", "9", "10")
    assert "100.0%" in row
    mask = told.splitlines()[-1].strip().removeprefix('--mask "').removesuffix('"')
    assert mask == "shift:f.zarr,threshold=4,window=-3:3,-4:5,-4:5,scale=16"
    check_masks(
        [parse_mask(mask)], box=Box((0, 0, 0), (DEPTH, 80, 80)), voxel_size=VoxelSize(30, 6, 6)
    )
    assert run(*words) == 0
    assert "was finished by an earlier run" in capsys.readouterr().out


def test_json_says_the_same_to_programs(capsys):
    assert run("doctor", "em.zarr", "--shift-mask", "f.zarr", "--json", *SMALL) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "f.zarr"
    assert (told["scale"], told["threshold"], told["empty"]) == (16, 4, 0)
    assert told["sections"][0]["z"] == 1
    assert told["mask"].startswith("shift:f.zarr,threshold=4,window=-16:16,-16:17,-16:17,scale=16")
    assert 0.9 < told["masked"] <= 1


def test_an_image_without_jumps_is_told_so(capsys, sections):
    with open_volume("em.zarr", writable=True) as volume:
        volume.write(volume.box, np.repeat(sections[:1], DEPTH, axis=0))
    assert run("doctor", "em.zarr", "--shift-mask", "f.zarr", *SMALL) == 0
    told = capsys.readouterr().out
    assert "no place is shifted by 4 voxels or more" in told
    assert "0.0% of the image are closed" in told


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--shift-mask", "f.zarr"), 2, "give IMAGE before it"),
        (("em.zarr", "--shift-mask", "f.h5"), 3, "have no room for the two channels"),
        (("em.zarr", "--shift-mask", "f.zarr", "--patch", "64"), 2, "give for example 160"),
        (("em.zarr", "--shift-mask", "f.zarr", "--level", "2"), 2, "has no level 2"),
        (("em.zarr", "--shift-mask", "f.zarr", "--shard", "3/2"), 2, "is no shard"),
        (("none.zarr", "--shift-mask", "f.zarr"), 3, "none.zarr"),
        (("em.zarr", "--shift-mask", "f.zarr", "--model", "none"), 3, "no model file none"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(capsys, tmp_path, words, code, says):
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run("doctor", *words) == code
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_threshold_that_lost_places_would_pass_is_refused(capsys):
    words = ("em.zarr", "--shift-mask", "f.zarr", "--threshold", "14", *SMALL)
    assert run("doctor", *words) == 2
    assert "threshold 14 is not from 1 to 13" in capsys.readouterr().err
