"""The examination as a whole: what is read, proposed and printed, and how the command ends."""

from __future__ import annotations

import itertools
import json
import shlex

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor_cases import CUBES, SECTIONS, finding, tissue, write
from floodem.cli.main import main
from floodem.errors import OptionError, UsageError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.project.doctor import Finding, Level, examination, examine
from floodem.project.doctor.centres import useful_thresholds
from floodem.project.doctor.commands import option_text
from floodem.project.doctor.proposals import partitioning, propose_network
from floodem.project.doctor.sampling import DECODED_BYTES, SAMPLED_BYTES, choose_sampling
from floodem.project.doctor.survey import survey
from floodem.volumes.source import VolumeSource


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments])
    return ended.value.code


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    image, labels = tissue(40, 144)
    return write(folder / "em.h5", image), write(folder / "labels.h5", labels)


@given(
    shape=st.tuples(*[st.integers(1, 10**6)] * 3),
    chunks=st.tuples(*[st.sampled_from([1, 16, 64, 512, 10**6])] * 3),
    itemsize=st.sampled_from([1, 2, 4]),
    offset=st.integers(-5, 5),
)
def test_of_volumes_of_any_size_little_is_read_and_all_of_it_lies_inside(
    shape, chunks, itemsize, offset
):
    box = Box.from_shape(shape, start=(offset, 0, offset))
    chunks = tuple(map(min, chunks, shape))
    sampling = choose_sampling(box, chunks=chunks, itemsize=itemsize)
    pieces = list(sampling.pieces())
    assert all(box.contains(piece) and piece.size for piece in pieces)
    assert sampling.voxels * itemsize <= 2 * SAMPLED_BYTES
    assert sum(piece.size for piece in pieces) * itemsize <= 4 * SAMPLED_BYTES
    assert sampling.is_all == (sampling.voxels == box.size)
    if box.size * itemsize <= SAMPLED_BYTES:
        assert sampling.is_all
    assert sampling.says()


def test_large_chunks_are_decoded_seldom():
    box = Box.from_shape((5000, 20_000, 20_000))
    sampling = choose_sampling(box, chunks=(1, 20_000, 20_000), itemsize=1)
    sections = sum(stop - start for start, stop in sampling.runs)
    assert sections * 20_000**2 <= 4 * DECODED_BYTES
    assert sections >= 4


@pytest.mark.parametrize("thorough", [False, True])
def test_pieces_tell_the_same_as_the_whole(thorough):
    image = np.concatenate([tissue(seed=seed)[0] for seed in range(4)])
    box = Box.from_shape(image.shape)
    sampling = choose_sampling(
        box, chunks=(8, 64, 64), itemsize=1, thorough=thorough, most=image.size // 2
    )
    assert sampling.is_all == thorough
    found = survey(lambda piece: image[piece.slices()], sampling)
    assert sum(one.moments.count for one in found.sections.values()) == sampling.voxels
    pairs = [z for start, stop in sampling.runs for z in range(start, stop - 1)]
    assert sorted(found.pairs) == pairs
    if thorough:
        assert found.whole().mean == pytest.approx(image.mean(), rel=1e-12)
        assert found.whole().stddev == pytest.approx(image.std(), rel=1e-9)
        assert found.values.size == image.size


def test_of_sections_taken_in_runs_no_pair_is_told_across_a_gap():
    sampling = choose_sampling(Box.from_shape((9000, 400, 400)), chunks=(8, 64, 64), itemsize=2)
    assert len(sampling.runs) > 1
    assert not sampling.has_all_sections
    for piece in sampling.pieces():
        assert any(a <= piece.start[0] < piece.stop[0] <= b for a, b in sampling.runs)


def test_thorough_looks_at_all_and_finds_the_same(pair):
    few, all_ = (examine(pair[0], machine=False, thorough=thorough) for thorough in (False, True))
    few_says, all_says = (
        [one.says for one in found.findings if one.what != "memory"] for found in (few, all_)
    )
    assert few_says == all_says
    assert few.sampled == "all 829,440 voxels"


@pytest.mark.parametrize(
    ("size", "looks_flat", "fov", "deltas", "reach"),
    [
        (VoxelSize(30, 6, 6), False, (17, 33, 33), (4, 8, 8), (12, 24, 24)),
        (VoxelSize(10, 10, 10), True, (33, 33, 33), (8, 8, 8), (24, 24, 24)),
        (VoxelSize(20, 9, 9), False, (17, 33, 33), (4, 8, 8), (12, 24, 24)),
        (None, True, (17, 33, 33), (4, 8, 8), (12, 24, 24)),
        (None, False, (33, 33, 33), (8, 8, 8), (24, 24, 24)),
    ],
)
def test_a_network_is_proposed_as_published_ones_are(size, looks_flat, fov, deltas, reach):
    network = propose_network(size, looks_flat=looks_flat)
    assert (network.fov, network.deltas, network.reach) == (fov, deltas, reach)


def test_proposals_are_options_that_train_and_segment_take(pair):
    found = examine(pair[0], labels=pair[1], machine=False)
    values = {one.option: one.value for one in found.proposals}
    assert all(one.reason for one in found.proposals)
    assert values["segment.min_boundary_dist"] == [1, 2, 2]
    assert values["agglomerate.max_distance"] == 60
    image = tissue(40, 144)[0]
    assert values["train.volume.image_mean"] == pytest.approx(image.mean(), abs=0.06)
    from floodem.training.configuration.options import SamplingOptions

    SamplingOptions(
        lom_radius=tuple(values["train.sampling.lom_radius"]),
        thresholds=tuple(values["train.sampling.thresholds"]),
        min_size=values["train.sampling.min_size"],
        margin=tuple(values["train.sampling.margin"]),
    )
    train = next(line for line in found.commands if line.startswith("floodem train"))
    assert "--network.fov 17,33,33" in train
    assert shlex.split(train)[2:6] == ["--image", pair[0], "--labels", pair[1]]


def test_cubes_get_cubes(tmp_path):
    image = tissue(48, 96, thick=1.0)[0]
    found = examine(write(tmp_path / "em.h5", image, voxel_size=CUBES), machine=False)
    values = {one.option: one.value for one in found.proposals}
    assert values["train.network.fov"] == [33, 33, 33]
    assert values["segment.min_boundary_dist"] == [2, 2, 2]
    assert values["agglomerate.radius"] == [50, 50, 50]


def test_drift_proposes_clahe_and_its_command(tmp_path):
    image = tissue()[0] + np.linspace(-40, 40, 32)[:, None, None]
    path = write(tmp_path / "em.h5", np.clip(image, 0, 255).astype(np.uint8))
    found = examine(path, machine=False)
    assert {one.option: one.value for one in found.proposals}["image.clahe"] is True
    assert any(line.startswith("floodem clahe") for line in found.commands)


def test_thresholds_leave_out_partitions_without_centres():
    by = partitioning(propose_network(SECTIONS, looks_flat=True), min_size=1)
    counts = dict.fromkeys(range(1, 14), 1000)
    assert useful_thresholds(counts, by=by) == by.thresholds
    kept = useful_thresholds({**counts, 1: 0, 12: 5, 13: 3}, by=by)
    assert kept == by.thresholds[1:-2]


@given(counts=st.lists(st.integers(0, 300), min_size=13, max_size=13))
def test_thresholds_that_are_kept_leave_no_partition_nearly_empty(counts):
    by = partitioning(propose_network(SECTIONS, looks_flat=True), min_size=1)
    kept = useful_thresholds(dict(enumerate(counts, start=1)), by=by)
    if kept == by.thresholds:
        return
    bounds = [-1, *(by.thresholds.index(one) for one in kept), 12]
    sums = [sum(counts[a + 1 : b + 1]) for a, b in itertools.pairwise(bounds)]
    assert min(sums) >= 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([17, 33, 33], "17,33,33"),
        ([0.025, 0.1], "0.025,0.1"),
        (True, "true"),
        (131.8, "131.8"),
        (60.0, "60"),
        ({"depth": 9, "features": 32}, "depth=9,features=32"),
    ],
)
def test_values_are_written_as_options_take_them(value, text):
    assert option_text(value) == text


def test_the_command_prints_problems_first_then_proposals_and_commands(capsys, pair):
    assert run("doctor", pair[0], "--labels", pair[1], "--axes", "xyz") == 0
    told = capsys.readouterr().out
    assert told.index("problem ") < told.index("ok  ")
    assert "looked at all 829,440 voxels" in told
    assert told.index("proposed, and why:") < told.index("commands to copy:")
    assert "1 problem" in told or "problems" in told


def test_strict_alone_changes_the_exit_code(capsys, pair):
    words = ("doctor", pair[0], "--axes", "xyz")
    assert run(*words) == 0
    assert run(*words, "--strict") == 3
    assert run("doctor", pair[0], "--strict") == 0


def test_json_has_a_version_and_everything(capsys, pair):
    assert run("doctor", pair[0], "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == 1
    assert told["image"] == pair[0]
    assert {one["part"] for one in told["findings"]} == {"machine", "image", "sections"}
    assert {"level", "part", "what", "says", "value", "reason", "advice"} == set(
        told["findings"][0]
    )
    assert {"option", "value", "reason"} == set(told["proposals"][0])


def test_without_an_image_the_machine_is_looked_at(capsys):
    assert run("doctor") == 0
    told = capsys.readouterr().out
    for word in ("Python", "torch", "CPU core", "bfloat16", "memory", "GB are free", "bytes"):
        assert word in told


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--labels", "l.h5"), 2, "give the image, too"),
        (("none.zarr",), 3, "none.zarr"),
        (("EM", "--model", "nobody"), 3, "no model file nobody"),
        (("EM", "--labels", "none.h5"), 3, "none.h5"),
        (("EM", "--level", "3"), 2, "has no level 3"),
        (("EM", "--shift-mask", "s.zarr", "--strict"), 2, "--shift-mask measures shifts alone"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    capsys, pair, tmp_path, monkeypatch, words, code, says
):
    monkeypatch.chdir(tmp_path)
    assert run("doctor", *(pair[0] if word == "EM" else word for word in words)) == code
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_library_raises_what_the_command_says(pair, tmp_path):
    with pytest.raises(UsageError, match="give the image"):
        examine(labels=pair[1], machine=False)
    with pytest.raises(VolumeNotFoundError):
        examine(tmp_path / "none.h5", machine=False)
    with pytest.raises(OptionError):
        examine(VolumeSource(uri=pair[0], level=2), machine=False)


def test_progress_ends_where_it_says(pair):
    told = []
    examine(pair[0], machine=False, progress=told.append)
    assert told[-1].stage in {"looking at sections", "comparing sections"}
    assert all(one.done <= one.total for one in told)


def test_the_worst_of_all_is_told():
    makes = [Finding(level=level, part="image", what="x", says="x") for level in Level]
    found = examination.Examination(
        image=None, labels=None, model=None, sampled="", findings=tuple(makes)
    )
    assert found.worst is Level.PROBLEM
    assert [str(one.level) for one in found.by_gravity()] == ["problem", "warning", "note", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "labels", "blames"),
    [
        ("snemi3d/images", "snemi3d/segment", {"voxel size", "brightness"}),
        ("snemi3d/images_for_inference", None, {"voxel size", "brightness", "unlike neighbours"}),
        ("fib25/grayscale_maps.h5@raw", "fib25/groundtruth.h5@bodies", {"voxel size"}),
    ],
)
def test_published_data_are_blamed_for_what_they_have_alone(shared_data, image, labels, blames):
    found = examine(
        str(shared_data / image),
        labels=None if labels is None else str(shared_data / labels),
        machine=False,
    )
    assert {one.what for one in found.findings if one.level.weight >= 2} == blames
    if image == "snemi3d/images":
        # Section 34 is section 33, imaged again.
        assert finding(found, "repeated sections").value == [33]
