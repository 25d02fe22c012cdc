"""Whole agglomerations: what is merged, that nothing but the voxels decides it, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from agglomeration_cases import (
    CUT_AT,
    FAR,
    OFFSET,
    OPTIONS,
    SHAPE,
    edges_of,
    labels_of,
    run,
    values_of,
    write,
    write_inputs,
)
from floodem.assembly.agglomeration.graph.applying import apply_merges
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.cluster import Crew, Shard
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    GeometryError,
    LabelError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
)
from floodem.geometry import Box, VoxelSize


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One finished agglomeration that no test changes."""
    folder = tmp_path_factory.mktemp("made")
    inputs = write_inputs(folder)
    return folder, inputs, run(inputs, folder / "merges.graph")


@pytest.fixture
def inputs(made):
    return made[1]


def is_merge(graph, a, b):
    with SegmentGraph.open(graph) as opened:
        table = opened.edges()
    return bool(table.accepted[table.row(a, b)])


def test_what_was_cut_in_two_becomes_one_and_nothing_else_does(made):
    folder, _, result = made
    edges = edges_of(folder / "merges.graph")
    pairs = list(zip(edges["ids_a"], edges["ids_b"], strict=True))
    merged = [pair for pair, is_merge in zip(pairs, edges["accepted"], strict=True) if is_merge]
    tubes = np.unique(labels_of(folder / "truth.zarr"))
    assert merged == [(tube, tube + FAR) for tube in tubes[tubes > 0].tolist()]
    assert result.merges == len(merged) < result.points == len(pairs)
    assert (result.segments, result.objects) == (2 * len(merged), len(merged))
    assert result.calls == sum(edges["calls"]) > 0


def test_merges_lie_where_the_cut_was_in_the_frame_of_the_volume(made):
    folder, _, _ = made
    edges = edges_of(folder / "merges.graph")
    at = np.array(edges["positions"])[np.array(edges["accepted"])]
    assert (at[:, 2] == OFFSET[2] + CUT_AT - 1).all()
    truth = labels_of(folder / "truth.zarr")
    assert (truth[tuple((at - OFFSET).T)] > 0).all()


def test_the_merged_volume_is_the_truth_and_without_merges_the_base(made, tmp_path):
    folder, inputs, _ = made
    graph = tmp_path / "merges.graph"
    run(inputs, graph)
    apply_merges(graph, tmp_path / "merged.zarr")
    np.testing.assert_array_equal(
        labels_of(tmp_path / "merged.zarr"), labels_of(folder / "truth.zarr")
    )
    with SegmentGraph.open(graph, writable=True) as opened:
        opened.undo_all()
    apply_merges(graph, tmp_path / "base.zarr")
    np.testing.assert_array_equal(labels_of(tmp_path / "base.zarr"), labels_of(folder / "seg.zarr"))


@pytest.mark.parametrize(
    ("block", "crew"),
    [((11, 40, 16), Crew()), ((5, 11, 13), Crew()), ((11, 20, 48), Crew(workers=2))],
    ids=["blocks", "odd blocks", "two processes"],
)
def test_cuts_and_workers_change_nothing(made, tmp_path, block, crew):
    folder, inputs, first = made
    again = run(inputs, tmp_path / "g", options=replace(OPTIONS, block=block), crew=crew)
    assert edges_of(tmp_path / "g") == edges_of(folder / "merges.graph")
    assert values_of(again) == values_of(first)


def test_a_stopped_run_goes_on_and_ends_as_an_undisturbed_one(made, tmp_path):
    folder, inputs, _ = made
    graph, stops = tmp_path / "g", 0
    for allowed in range(3, 400, 60):
        asked = 0

        def should_stop(allowed=allowed):
            nonlocal asked
            asked += 1
            return asked > allowed

        try:
            run(inputs, graph, should_stop=should_stop)
            break
        except StoppedError:
            stops += 1
            assert not graph.exists()
    else:
        run(inputs, graph)
    assert stops > 1
    assert edges_of(graph) == edges_of(folder / "merges.graph")


def test_shards_share_the_points_and_the_last_one_writes_the_graph(made, tmp_path):
    folder, inputs, _ = made
    graph = tmp_path / "g"
    for number in (2, 1):
        crew = Crew(shard=Shard(number=number, count=2))
        if number == 2:
            with pytest.raises(ShardDoneError):
                run(inputs, graph, crew=crew)
            assert not graph.exists()
        else:
            run(inputs, graph, crew=crew)
    assert edges_of(graph) == edges_of(folder / "merges.graph")


def test_a_finished_graph_keeps_what_people_decided(inputs, tmp_path):
    graph = tmp_path / "g"
    run(inputs, graph)
    with SegmentGraph.open(graph, writable=True) as opened:
        opened.undo(1, 1 + FAR)
    said = []
    again = run(inputs, graph, notice=said.append)
    assert again.was_finished
    assert not said
    assert not is_merge(graph, 1, 1 + FAR)
    run(inputs, graph, options=replace(OPTIONS, rule=MergeRule(iou=0.5)), notice=said.append)
    assert "keeps its rule" in said[0]
    fresh = run(inputs, graph, overwrite=True)
    assert not fresh.was_finished
    assert is_merge(graph, 1, 1 + FAR)


def test_a_removed_graph_is_gathered_again_without_a_network_call(inputs, tmp_path, monkeypatch):
    graph = tmp_path / "g"
    run(inputs, graph)
    before = edges_of(graph)
    graph.unlink()

    def never(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("floodem.flooding.predictor.Predictor.predict", never)
    run(inputs, graph)
    assert edges_of(graph) == before


def test_only_decisions_in_a_box_are_made(inputs, tmp_path):
    z, y, _ = (first + length for first, length in zip(OFFSET, SHAPE, strict=True))
    low = Box(OFFSET, (z, y, OFFSET[2] + CUT_AT - 4))
    run(inputs, tmp_path / "g", options=replace(OPTIONS, box=low))
    edges = edges_of(tmp_path / "g")
    assert edges["ids_b"]
    assert max(edges["ids_b"]) < FAR


def test_both_sides_are_flooded_when_asked(inputs, tmp_path):
    run(inputs, tmp_path / "early")
    run(inputs, tmp_path / "both", options=replace(OPTIONS, both_sides=True))
    early, both = edges_of(tmp_path / "early"), edges_of(tmp_path / "both")
    assert early["accepted"] == both["accepted"]
    assert all(a > 0 and b > 0 for a, b in zip(both["seeds_a"], both["seeds_b"], strict=True))
    assert sum(early["calls"]) < sum(both["calls"])


def test_a_segmentation_without_neighbours_gives_a_graph_without_edges(inputs, tmp_path):
    labels = np.zeros(SHAPE, np.uint64)
    labels[6:9, 8:12, 8:12] = 5
    write(tmp_path / "one.zarr", labels)
    said = []
    found = run(inputs, tmp_path / "g", segmentation=str(tmp_path / "one.zarr"), notice=said.append)
    assert (found.points, found.merges, found.calls) == (0, 0, 0)
    assert "no two segments come within 50 nm" in said[0]


def test_another_run_of_the_same_name_is_refused_and_left_as_it_was(inputs, tmp_path):
    graph = tmp_path / "g"
    run(inputs, graph)
    before = graph.read_bytes()
    with pytest.raises(RunConflictError, match="begun with floods.disco_seed_threshold"):
        run(
            inputs,
            graph,
            options=replace(OPTIONS, floods=replace(OPTIONS.floods, disco_seed_threshold=-1.0)),
        )
    assert graph.read_bytes() == before


@pytest.mark.parametrize("kind", ["a file of somebody", "a folder"])
def test_what_others_have_made_is_kept(inputs, tmp_path, kind):
    graph = tmp_path / "g"
    if kind == "a folder":
        graph.mkdir()
    else:
        graph.write_text("mine")
    with pytest.raises(DestinationExistsError):
        run(inputs, graph)
    assert graph.is_dir() or graph.read_text() == "mine"
    assert not (tmp_path / "g.floodem" / "agglomeration.json").exists()


def elsewhere(inputs, folder):
    write(folder / "far.zarr", np.zeros(SHAPE, np.uint8), offset=(900, 900, 900))
    return {"image": str(folder / "far.zarr")}


def coarser(inputs, folder):
    voxels = np.zeros(SHAPE, np.uint8)
    write(folder / "coarse.zarr", voxels, voxel_size=VoxelSize(30, 12, 12))
    return {"image": str(folder / "coarse.zarr")}


def floating(inputs, folder):
    write(folder / "grey.zarr", np.zeros(SHAPE, np.float32))
    return {"segmentation": str(folder / "grey.zarr")}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (elsewhere, GeometryError, "no voxel in common"),
        (coarser, GeometryError, "voxels of 30,6,6 nm"),
        (floating, LabelError, "float32, not labels"),
        (lambda *_: {"image": "missing.zarr"}, FloodemError, "missing.zarr"),
        (
            lambda *_: {"options": replace(OPTIONS, box=Box((0, 0, 0), (9, 9, 9)))},
            GeometryError,
            "is not inside",
        ),
        (
            lambda *_: {"options": replace(OPTIONS, resegmentation={"radius": (1, 1, 1)})},
            FloodemError,
            "radius",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(inputs, tmp_path, change, error, words):
    changes = change(inputs, tmp_path)
    with pytest.raises(error, match=words):
        run(inputs, tmp_path / "g", **changes)
    assert not (tmp_path / "g").exists()
    assert not (tmp_path / "g.floodem").exists()


def test_the_command_makes_a_graph_and_a_merged_volume(made, inputs, tmp_path):
    command = [
        *(sys.executable, "-m", "floodem", "agglomerate", inputs["segmentation"], inputs["image"]),
        *(str(tmp_path / "g"), "--model", str(inputs["model"]), "--device", "cpu"),
        *("--radius", "8,10,20", "--analysis-radius", "5,6,16", "--json"),
        *("--apply", str(tmp_path / "merged.zarr")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values = json.loads(done.stdout)
    assert values["merges"] > 0
    assert values["applied"]["wholes"] == values["objects"]
    np.testing.assert_array_equal(
        labels_of(tmp_path / "merged.zarr"), labels_of(made[0] / "truth.zarr")
    )
