"""What an agglomeration refuses to write over, and what it says before hours of floods."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from agglomeration_cases import OPTIONS, SHAPE, run, write, write_inputs
from floodem.assembly.agglomeration.graph.applying import apply_merges
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.cli.main import main
from floodem.errors import DestinationExistsError, LabelError, OptionError, StoppedError
from floodem.volumes import convert


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("what", ["segmentation", "image", "model"])
def test_a_graph_never_replaces_what_it_is_made_from(inputs, tmp_path, what):
    victim = tmp_path / ("m.safetensors" if what == "model" else f"{what}.npy")
    if what == "model":
        shutil.copy(inputs[what], victim)
    else:
        convert(inputs[what], str(victim))
    before = victim.read_bytes()
    offset_free = {} if what == "model" else both_without_offset(inputs, tmp_path, but=what)
    changes = {**offset_free, what: str(victim)}
    with pytest.raises(DestinationExistsError, match=f"is the {what} of this run"):
        run(inputs, victim, overwrite=True, **changes)
    assert victim.read_bytes() == before


def test_an_image_in_the_place_of_the_segmentation_is_refused(inputs, tmp_path):
    grey = np.random.default_rng(1).integers(1, 250, SHAPE, np.uint8)
    write(tmp_path / "noisy.zarr", grey)
    swapped = {"segmentation": str(tmp_path / "noisy.zarr"), "image": inputs["segmentation"]}
    with pytest.raises(LabelError, match="looks like an image and .* like labels: give the"):
        run(inputs, tmp_path / "g", **swapped)
    assert not (tmp_path / "g.floodem").exists()


def both_without_offset(inputs, folder, *, but):
    """Return copies as .npy, which keeps no offset, so that the two lie over each other."""
    [name] = {"segmentation", "image"} - {but}
    convert(inputs[name], str(folder / f"{name}.npy"))
    return {name: str(folder / f"{name}.npy")}


@pytest.mark.parametrize("what", ["image", "segmentation", "foreign"])
def test_a_merged_volume_that_cannot_be_written_is_refused_before_any_flood(
    inputs, tmp_path, capsys, what
):
    destination = tmp_path / "foreign.zarr"
    destination.mkdir()
    (destination / "mine.txt").write_text("mine")
    if what != "foreign":
        destination = inputs[what]
    more = [] if what == "foreign" else ["--overwrite"]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("agglomerate", inputs["segmentation"], inputs["image"], str(tmp_path / "g")),
                *("--model", str(inputs["model"]), "--apply", str(destination), *more),
            ]
        )
    assert ended.value.code != 0
    words = "was left as it is" if what == "foreign" else "which stays as it is"
    assert words in capsys.readouterr().err
    assert not (tmp_path / "g.floodem").exists()


def test_merges_never_replace_the_image_that_their_graph_names(inputs, tmp_path):
    empty = replace(OPTIONS, points=replace(OPTIONS.points, min_size=10**9))
    run(inputs, tmp_path / "g", options=empty)
    with SegmentGraph.open(tmp_path / "g") as opened:
        assert opened.header.about["image"].endswith(inputs["image"])
    with pytest.raises(OptionError, match="is the image, which stays as it is"):
        apply_merges(tmp_path / "g", inputs["image"], overwrite=True)


@pytest.mark.parametrize(("coverage", "both", "is_told"), [(0.5, False, True), (0.5, True, False)])
def test_a_rule_that_asks_for_floods_that_are_left_out_is_told(
    inputs, tmp_path, coverage, both, is_told
):
    said = []
    options = replace(OPTIONS, rule=MergeRule(coverage=coverage), both_sides=both)
    with pytest.raises(StoppedError):
        run(
            inputs,
            tmp_path / "g",
            options=options,
            notice=said.append,
            should_stop=lambda: True,
        )
    assert any("--both-sides" in sentence for sentence in said) == is_told


def test_a_graph_on_a_server_is_refused_by_its_whole_address(inputs, capsys):
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("agglomerate", inputs["segmentation"], inputs["image"], "s3://bucket/g"),
                *("--model", str(inputs["model"])),
            ]
        )
    assert ended.value.code != 0
    assert "s3://bucket/g is remote" in capsys.readouterr().err
