"""One image segmented twice: what both runs agree on, stopped or not, cut or not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bright import bright_model
from consensus_cases import read, twin
from cut_runs import OFFSET, OPTIONS, write_inputs
from floodem.assembly.consensus import ConsensusOptions
from floodem.assembly.consensus.seed_orders import reversed_seeds, segment_by_consensus
from floodem.assembly.request import CutOptions
from floodem.assembly.segment import segment
from floodem.cluster import Crew, Shard
from floodem.errors import (
    DestinationExistsError,
    OptionError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeNotFoundError,
)
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds import SeedPolicySpec
from floodem.geometry import Box
from floodem.network.model_file import save_model
from floodem.volumes import create_volume

SHAPE = (13, 20, 64)
CUT = CutOptions(block=(13, 20, 32), halo=(6, 10, 12), min_shared=1)
SPLIT = ConsensusOptions(split_min_size=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def inputs(folder):
    return write_inputs(folder, shape=SHAPE)


def run(inputs, destination, **changes):
    arguments = {**inputs, "options": SPLIT, **changes}
    return segment_by_consensus(arguments.pop("image"), destination, **arguments)


def runs_of(destination, names=("forward", "reverse")):
    return [f"{destination}.floodem/{name}/labels.zarr" for name in names]


def asking(inputs, **changes):
    values = {"options": OPTIONS, "device": "cpu", **changes}
    return SegmentRequest(**values)


def test_forward_and_reverse_are_two_runs_of_the_same_seeds(inputs, tmp_path):
    made = run(inputs, tmp_path / "out.zarr")
    forward, reverse = (read(uri) for uri in runs_of(made.uri))
    for found, seeds in (
        (forward, OPTIONS.seeds),
        (reverse, SeedPolicySpec("ReverseCoords", {"policy_to_reverse": "PolicyPeaks"})),
    ):
        options = FloodOptions(min_segment_size=OPTIONS.min_segment_size, seeds=seeds)
        alone = segment(
            inputs["image"],
            tmp_path / f"{seeds.name}.zarr",
            model=inputs["model"],
            request=asking(inputs, options=options),
        )
        assert (found == read(alone.uri)).all()
    assert (forward != reverse).any()
    np.testing.assert_array_equal(read(made.uri), twin(forward, reverse, SPLIT))
    assert made.box == Box.from_shape(SHAPE, start=OFFSET)
    calls = [
        json.loads((tmp_path / f"out.zarr.floodem/{name}/labels.zarr.floodem/run.json").read_text())
        for name in ("forward", "reverse")
    ]
    assert made.summary["counters"]["network_calls"] == sum(
        one["summary"]["counters"]["network_calls"] for one in calls
    )


def test_seeds_are_turned_round_with_their_arguments():
    grid = SeedPolicySpec("PolicyGrid3d", {"step": 8})
    there = reversed_seeds(grid)
    assert there == SeedPolicySpec(
        "ReverseCoords", {"policy_to_reverse": "PolicyGrid3d", "step": 8}
    )
    assert reversed_seeds(there) == grid


def test_another_network_may_be_the_second(inputs, folder, tmp_path):
    save_model(bright_model(deltas=(1, 2, 2)), folder / "other.safetensors", overwrite=True)
    made = run(inputs, tmp_path / "out.zarr", consensus=folder / "other.safetensors")
    first, second = (read(uri) for uri in runs_of(made.uri, ("first", "second")))
    np.testing.assert_array_equal(read(made.uri), twin(first, second, SPLIT))
    alone = segment(
        inputs["image"],
        tmp_path / "alone.zarr",
        model=folder / "other.safetensors",
        request=inputs["request"],
    )
    assert (second == read(alone.uri)).all()


def test_a_network_that_is_not_there_is_refused_before_any_flood(inputs, tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no model file reverse-seed"):
        run(inputs, tmp_path / "out.zarr", consensus="reverse-seed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_workers_and_blocks_leave_what_one_process_leaves(inputs, tmp_path):
    alone = run(inputs, tmp_path / "one.zarr", cut=CUT)
    many = run(inputs, tmp_path / "many.zarr", cut=CUT, crew=Crew(workers=2))
    assert (read(alone.uri) == read(many.uri)).all()
    forward, reverse = (read(uri) for uri in runs_of(alone.uri))
    np.testing.assert_array_equal(read(alone.uri), twin(forward, reverse, SPLIT))


@pytest.mark.parametrize("where", ["forward: ", "reverse: ", "consensus: "])
def test_a_chain_goes_on_where_it_was_stopped_and_floods_nothing_twice(inputs, tmp_path, where):
    whole = run(inputs, tmp_path / "whole.zarr", cut=CUT)
    destination, told = tmp_path / "out.zarr", []
    with pytest.raises(StoppedError):
        run(
            inputs,
            destination,
            cut=CUT,
            progress=told.append,
            should_stop=lambda: bool(told) and told[-1].stage.startswith(where),
        )
    assert not destination.exists()
    forward = tmp_path / "out.zarr.floodem" / "forward"
    before = {
        path: path.stat().st_mtime_ns
        for path in (forward / "labels.zarr").rglob("*")
        if path.is_file()
    }
    assert before or where == "forward: "
    again = run(inputs, destination, cut=CUT)
    assert not again.was_finished
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (read(destination) == read(whole.uri)).all()
    assert run(inputs, destination, cut=CUT).was_finished


def test_shards_are_started_for_both_runs_and_the_consensus(inputs, tmp_path):
    whole = run(inputs, tmp_path / "whole.zarr", cut=CUT)
    destination, ended = tmp_path / "out.zarr", 0
    for _stage in ("forward", "reverse", "consensus"):
        for number in (1, 2):
            try:
                run(inputs, destination, cut=CUT, crew=Crew(shard=Shard(number=number, count=2)))
            except ShardDoneError:
                ended += 1
    assert ended
    assert (read(destination) == read(whole.uri)).all()


def test_beginning_again_repeats_both_runs_also_when_stopped(inputs, tmp_path):
    destination = tmp_path / "out.zarr"
    run(inputs, destination)
    smaller = asking(inputs, options=FloodOptions(min_segment_size=200))
    with pytest.raises(RunConflictError, match="min_segment_size"):
        run(inputs, destination, request=smaller)
    told = []
    with pytest.raises(StoppedError):
        run(
            inputs,
            destination,
            request=asking(inputs, options=smaller.options, overwrite=True),
            progress=told.append,
            should_stop=lambda: bool(told) and told[-1].stage.startswith("reverse"),
        )
    assert destination.exists(), "what is there stays until it is replaced"
    made = run(inputs, destination, request=smaller)
    assert not made.was_finished
    forward, reverse = (read(uri) for uri in runs_of(made.uri))
    assert np.bincount(forward.ravel())[1:].min() >= 200
    np.testing.assert_array_equal(read(made.uri), twin(forward, reverse, SPLIT))


def test_other_sizes_are_refused_at_once_and_need_no_flood(inputs, tmp_path):
    destination = tmp_path / "out.zarr"
    run(inputs, destination)
    other = ConsensusOptions(split_min_size=50)
    with pytest.raises(RunConflictError, match="to floodem consensus, which floods nothing again"):
        run(inputs, destination, options=other)


def test_what_another_run_made_is_refused_before_any_flood(inputs, folder, tmp_path):
    segment(
        inputs["image"],
        tmp_path / "single.zarr",
        model=inputs["model"],
        request=inputs["request"],
        cut=CUT,
    )
    with pytest.raises(RunConflictError, match="begun as something else than this consensus"):
        run(inputs, tmp_path / "single.zarr")
    create_volume(tmp_path / "mine.zarr", shape=(2, 2, 2), dtype=np.uint8).close()
    with pytest.raises(DestinationExistsError, match="no run of floodem made it"):
        run(inputs, tmp_path / "mine.zarr")
    with pytest.raises(DestinationExistsError, match="is the image"):
        run(inputs, inputs["image"], request=asking(inputs, overwrite=True))
    for name in ("single", "mine"):
        assert not (tmp_path / f"{name}.zarr.floodem" / "forward").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"probabilities": "p.zarr"}, "of a single run"),
        ({"init_segmentation": "seg.zarr"}, "stays as it is"),
    ],
)
def test_what_two_runs_cannot_share_is_refused(inputs, tmp_path, changes, match):
    with pytest.raises(OptionError, match=match):
        run(inputs, tmp_path / "out.zarr", request=asking(inputs, **changes))
    with pytest.raises(OptionError, match="--join-again is for a single run"):
        run(inputs, tmp_path / "out.zarr", cut=CutOptions(joins_again=True))
    assert list(tmp_path.iterdir()) == []


def test_a_consensus_goes_to_a_server(no_servers, s3, inputs, tmp_path):
    local = run(inputs, tmp_path / "out.zarr", cut=CUT)
    remote = run(inputs, "zarr://s3://bucket/seg", cut=CUT)
    assert (read(remote.uri) == read(local.uri)).all()
    assert any(name.startswith("seg.floodem/reverse/labels.zarr/") for name in s3.objects)
