"""Scores along skeletons by blocks and from files: whoever looks nodes up, they are the same."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.cluster import Crew, Shard
from floodem.errors import (
    LabelError,
    OptionError,
    ShardDoneError,
    StoppedError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.evaluation import evaluate, score_skeletons
from floodem.evaluation.skeletons import SkeletonOptions, labelling, scoring
from floodem.evaluation.skeletons.from_truth import FROM_TRUTH
from floodem.evaluation.skeletons.reading import read_skeletons
from floodem.geometry import Box, VoxelSize
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import SkeletonRequest
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.skeletons.swc import swc_text
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume, open_volume
from floodem.volumes.in_memory import ArrayVolume
from floodem.volumes.synthetic import SyntheticOptions, skeletons, synthesize, write_synthetic

SIZE = VoxelSize(30, 6, 6)
SHAPE = (9, 14, 15)
OPTIONS = SkeletonOptions(bootstrap=20, worst=50)


def random_case(seed, *, count=6, nodes=30):
    """Labels in lumps, some of them empty, and skeletons that walk through them."""
    rng = np.random.default_rng(seed)
    lumps = np.where(rng.random((3, 5, 5)) < 0.35, 0, rng.integers(1, 70, (3, 5, 5)))
    labels = np.kron(lumps, np.ones((3, 3, 3), np.int64))
    labels = np.ascontiguousarray(labels[tuple(map(slice, SHAPE))]).astype(np.uint64)
    labels[labels > 60] += np.uint64(2**63)
    found = {}
    for number in range(1, count + 1):
        steps = rng.normal(0, 0.4, (nodes, 3)).cumsum(axis=0) + rng.uniform(0, SHAPE)
        rows = np.arange(1, nodes)
        edges = np.stack([rows, np.maximum(rows - rng.integers(1, 3, nodes - 1), 0)], axis=1)
        found[number] = Skeleton(
            (steps * SIZE.zyx_nm).astype(np.float32),
            edges.astype(np.uint32),
            np.ones(nodes, np.float32),
        )
    return labels, found


def stored(folder, labels, *, chunks=(4, 5, 6), name="seg"):
    uri = f"zarr3://{folder}/{name}.zarr"
    with create_volume(
        uri, shape=labels.shape, dtype=labels.dtype, chunks=chunks, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, labels)
    return uri


@pytest.fixture
def case():
    return random_case(1)


@pytest.fixture
def wanted(case):
    labels, found = case
    return score_skeletons(labels, found, voxel_size=SIZE, options=OPTIONS)


def test_the_case_has_all_there_is(wanted):
    for name in ("correct", "split", "omitted", "merged", "splits", "gaps", "mergers", "outside"):
        assert getattr(wanted, name) > 0
    assert wanted.worst_splits
    assert wanted.erl_interval.low < wanted.erl_nm < wanted.erl_interval.high


@given(st.integers(0, 100), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_any_cut_gives_the_scores_of_the_whole(seed, chunks, block_voxels):
    labels, found = random_case(seed)
    volume = ArrayVolume(labels, offset=(1, -2, 3), voxel_size=SIZE, chunks=chunks)
    whole = ArrayVolume(labels, offset=(1, -2, 3), voxel_size=SIZE)
    cut = score_skeletons(volume, found, options=OPTIONS, block_voxels=block_voxels)
    assert cut == score_skeletons(whole, found, options=OPTIONS)


@given(st.integers(5, 60), st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_tasks_that_are_stopped_and_go_on_give_the_scores_of_the_whole(block_voxels, patience):
    labels, found = random_case(2)
    with tempfile.TemporaryDirectory() as folder:
        uri = stored(folder, labels)
        for _ in range(1000):
            asked = iter(range(1000))
            try:
                scores = score_skeletons(
                    uri,
                    found,
                    options=OPTIONS,
                    block_voxels=block_voxels,
                    work=Path(folder) / "work",
                    should_stop=lambda asked=asked: next(asked) >= patience,
                )
                break
            except StoppedError:
                continue
    assert scores == score_skeletons(labels, found, voxel_size=SIZE, options=OPTIONS)


def test_processes_give_the_scores_of_the_whole(case, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "PAYS_NODES", 0)
    told = []
    found = score_skeletons(
        stored(tmp_path, case[0]),
        case[1],
        options=OPTIONS,
        block_voxels=30,
        crew=Crew(workers=2),
        progress=told.append,
    )
    assert found == wanted
    assert told[-1].done == told[-1].total > 1
    assert {path.name for path in tmp_path.iterdir()} == {"seg.zarr"}


def test_shards_in_any_order_give_the_scores_of_the_whole(case, wanted, tmp_path):
    uri = stored(tmp_path, case[0])
    results = []
    for number in (3, 1, 2):
        crew = Crew(shard=Shard(number=number, count=3))
        try:
            results.append(
                score_skeletons(
                    uri,
                    case[1],
                    options=OPTIONS,
                    block_voxels=30,
                    crew=crew,
                    work=tmp_path / "work",
                )
            )
        except ShardDoneError:
            continue
    assert results == [wanted]


def test_few_nodes_are_looked_up_in_this_process(case, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "run_tasks", None)
    uri = stored(tmp_path, case[0])
    assert score_skeletons(uri, case[1], options=OPTIONS, crew=Crew(workers=2)) == wanted


def test_other_options_of_the_same_nodes_read_nothing_again(case, tmp_path, monkeypatch):
    uri, work = stored(tmp_path, case[0]), tmp_path / "work"
    score_skeletons(uri, case[1], work=work)
    monkeypatch.setattr(labelling, "segments_at", None)
    found = score_skeletons(uri, case[1], work=work, options=SkeletonOptions(merge_nodes=3))
    assert found.merge_nodes == 3


def test_changed_labels_and_other_skeletons_are_looked_up_again(case, tmp_path):
    labels, found = case
    uri, work = stored(tmp_path, labels), tmp_path / "work"
    before = score_skeletons(uri, found, work=work)
    fewer = {number: found[number] for number in (1, 2, 3)}
    assert score_skeletons(uri, fewer, work=work) == score_skeletons(labels, fewer, voxel_size=SIZE)
    with open_volume(uri, writable=True) as volume:
        volume.write(volume.box, np.zeros_like(labels))
    assert score_skeletons(uri, found, work=work).coverage == 0 < before.coverage


@pytest.mark.parametrize("damage", ["gone", "cut", "short", "float", "text"])
def test_a_damaged_part_is_named(case, tmp_path, damage):
    uri, work = stored(tmp_path, case[0]), tmp_path / "work"
    score_skeletons(uri, case[1], work=work)
    (part,) = work.glob("skeletons-*/000000.npy")
    found = np.load(part)
    if damage == "gone":
        part.unlink()
    elif damage == "cut":
        part.write_bytes(part.read_bytes()[:-9])
    elif damage == "short":
        np.save(part, found[1:])
    elif damage == "float":
        np.save(part, found.astype(float))
    else:
        part.write_text("no array")
    with pytest.raises(VolumeFormatError, match=r"000000\.npy does not hold .* remove"):
        score_skeletons(uri, case[1], work=work)


def test_arrays_are_scored_in_this_process_alone(case):
    for how in ({"crew": Crew(workers=2)}, {"work": "folder"}):
        with pytest.raises(OptionError, match="give the address of the segmentation"):
            score_skeletons(case[0], case[1], voxel_size=SIZE, **how)
    with pytest.raises(OptionError, match="--work"):
        score_skeletons("seg.h5", case[1], crew=Crew(shard=Shard(number=1, count=2)))


def test_folders_of_all_kinds_and_a_file_give_the_same(tmp_path):
    truth = np.zeros((8, 40, 60), np.uint32)
    for row, label in enumerate((3, 9, 20)):
        truth[2:6, 3 + 12 * row : 12 + 12 * row, 5:55] = label
    labels = truth.copy()
    labels[labels == 9] = 3
    labels[:, :, 30:][labels[:, :, 30:] == 20] = 21
    source = LabelSource(uri=stored(tmp_path, truth, name="truth"))
    formats = {"both": ("precomputed", "swc"), "shards": ("precomputed",), "swc": ("swc",)}
    for name, kinds in formats.items():
        request = SkeletonRequest(formats=kinds, is_sharded=name == "shards", min_voxels=10)
        skeletonize(source, tmp_path / name, request=request)
    volume = ArrayVolume(labels, voxel_size=SIZE)
    wanted = score_skeletons(volume, dict(read_skeletons(tmp_path / "both")))
    assert (wanted.skeletons, wanted.mergers, wanted.splits) == (3, 1, 1)
    for address in ("both", "both/swc", "shards", "swc"):
        assert score_skeletons(volume, tmp_path / address) == wanted
    assert score_skeletons(volume, f"precomputed://{tmp_path}/shards") == wanted
    one = score_skeletons(volume, tmp_path / "swc" / "20.swc")
    assert one.worst_splits == tuple(
        dataclasses.replace(split, cost_nm=one.worst_splits[0].cost_nm)
        for split in wanted.worst_splits
    )


def test_an_swc_file_is_one_skeleton_unless_it_says_labels(tmp_path, case):
    one, other = (case[1][number] for number in (1, 2))
    pieces = Skeleton(
        np.concatenate([one.vertices_zyx_nm, other.vertices_zyx_nm]),
        np.concatenate([one.edges, other.edges + np.uint32(len(one))]),
        np.concatenate([one.radii_nm, other.radii_nm]),
    )
    for name, number in (("neuron.swc", 1), ("17.swc", 17)):
        (tmp_path / name).write_text(swc_text(pieces))
        ((found, skeleton),) = read_skeletons(tmp_path / name)
        assert (found, len(skeleton)) == (number, 60)
    text = "\n".join(
        (
            *("# unit: nm", "# label 9", "1 0 1 2 3 1 -1", "2 0 2 2 3 1 1", "# label 4"),
            *("3 0 9 9 9 1 -1", "5 0 9 9 8 1 3", "# label 9", "4 0 3 2 3 1 2"),
        )
    )
    (tmp_path / "many.swc").write_text(text)
    found = dict(read_skeletons(tmp_path / "many.swc"))
    assert {number: len(skeleton) for number, skeleton in found.items()} == {4: 2, 9: 3}
    assert found[9].edges.tolist() == [[1, 0], [2, 1]]
    assert found[9].vertices_zyx_nm[:, 2].tolist() == [1, 2, 3]
    (tmp_path / "many.swc").write_text(text.replace("9 8 1 3", "9 8 1 2"))
    with pytest.raises(VolumeFormatError, match="a parent of another label"):
        list(read_skeletons(tmp_path / "many.swc"))
    (tmp_path / "many.swc").write_text(text.replace("# label 4", f"# label {2**64}"))
    with pytest.raises(VolumeFormatError, match=f"label {2**64}, .*more than 64 bits"):
        list(read_skeletons(tmp_path / "many.swc"))


def test_addresses_without_skeletons_are_refused(tmp_path, case):
    for address in ("nothing", "nothing.swc"):
        with pytest.raises(VolumeNotFoundError):
            list(read_skeletons(tmp_path / address))
    with pytest.raises(OptionError, match="read from a disk"):
        list(read_skeletons("s3://bucket/skeletons"))
    (tmp_path / "1.swc").write_text("1 0 1 2 3 1 -1\n2 0 1 2 9 1 1\n")
    with pytest.raises(OptionError, match="does not say its unit"):
        list(read_skeletons(tmp_path / "1.swc"))
    ((_, skeleton),) = read_skeletons(tmp_path / "1.swc", unit="um")
    assert skeleton.length_nm == 6000


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    options = SyntheticOptions.preset("fib", seed=4, shape=(40, 48, 44))
    write_synthetic(
        options,
        image=str(folder / "em.zarr"),
        labels=str(folder / "truth.zarr"),
        skeleton_file=folder / "neurites.swc",
    )
    return options, folder


def test_the_exact_skeletons_of_synthetic_tissue_lie_in_their_own_labels(synthetic):
    options, folder = synthetic
    found = score_skeletons(str(folder / "truth.zarr"), folder / "neurites.swc")
    assert (found.coverage, found.mergers, found.splits, found.outside) == (1, 0, 0, 0)
    assert found.erl_nm == found.possible_erl_nm > 0
    exact = {
        one.label: Skeleton(
            one.nodes_zyx_nm.astype(np.float32),
            one.edges.astype(np.uint32),
            one.radius_nm.astype(np.float32),
        )
        for one in skeletons(options)
    }
    labels = synthesize(options).labels
    same = score_skeletons(labels, exact, voxel_size=options.voxel_size)
    assert same.erl_nm == pytest.approx(found.erl_nm)
    # Two long neurites joined lose both their runs, as the definition says.
    longest = sorted(exact, key=lambda label: -exact[label].length_nm)[:2]
    labels[labels == longest[0]] = longest[1]
    joined = score_skeletons(labels, exact, voxel_size=options.voxel_size)
    lost = sum(exact[label].length_nm ** 2 for label in longest) / same.length_nm
    assert same.erl_nm - joined.erl_nm == pytest.approx(lost)
    assert joined.worst_mergers[0].cost_nm == pytest.approx(lost)


def test_skeletons_of_the_truth_are_made_once_and_kept(synthetic, tmp_path):
    _, folder = synthetic
    truth, work = str(folder / "truth.zarr"), tmp_path / "work"
    found = evaluate(truth, truth, skeletons=FROM_TRUTH, work=work)
    assert found.skeletons.erl_nm == found.skeletons.possible_erl_nm > 0
    assert found.skeletons.mergers == 0
    assert json.loads(found.to_json())["skeletons"] == found.skeletons.to_dict()
    again = evaluate(
        truth, truth, skeletons=work / "skeletons-of-truth", box=Box((0, 0, 0), (40, 48, 20))
    )
    assert 0 < again.skeletons.nodes < found.skeletons.nodes
    # Ids that do not count have no skeletons either.
    left_out = next(number for number, _ in read_skeletons(work / "skeletons-of-truth"))
    fewer = evaluate(truth, truth, skeletons=FROM_TRUTH, work=work, ignore=(0, left_out))
    assert fewer.skeletons.skeletons == found.skeletons.skeletons - 1
    with pytest.raises(OptionError, match="truth with an address"):
        evaluate(
            np.ones((2, 2, 2), int), np.ones((2, 2, 2), int), skeletons=FROM_TRUTH, voxel_size=SIZE
        )


def test_evaluations_of_arrays_take_skeletons_too(case, wanted):
    labels, found = case
    result = evaluate(
        labels, labels, skeletons=found, voxel_size=SIZE, bootstrap=20, worst=50, merge_nodes=1
    )
    assert result.skeletons == wanted
    assert result.all_truth.voi_split_bits == 0


def test_shards_of_an_evaluation_score_along_skeletons_as_well(case, wanted, tmp_path):
    labels, found = case
    uris = stored(tmp_path, labels), stored(tmp_path, labels, name="truth")
    how = {"skeletons": found, "bootstrap": 20, "worst": 50, "work": tmp_path / "work"}
    results = []
    for number in (2, 1):
        try:
            crew = Crew(shard=Shard(number=number, count=2))
            results.append(evaluate(*uris, **how, crew=crew, block_voxels=200))
        except ShardDoneError:
            continue
    assert [one.skeletons for one in results] == [wanted]


def test_real_segmentations_lose_run_length_and_truth_does_not(shared_data, tmp_path):
    edge = 100
    with np.load(shared_data / "fib25" / "sample-training2.npz", allow_pickle=False) as archive:
        made = archive["segmentation"][75 : 75 + edge, 75 : 75 + edge, 75 : 75 + edge]
    with h5py.File(shared_data / "fib25" / "groundtruth.h5") as file:
        truth = file["bodies"][75 : 75 + edge, 75 : 75 + edge, 75 : 75 + edge]
    uris = []
    for name, labels in (("made", made), ("truth", truth)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("labels", data=labels.astype(np.uint64))
        uris.append(f"{tmp_path}/{name}.h5@labels")
    how = {"skeletons": FROM_TRUTH, "voxel_size": VoxelSize(10, 10, 10), "worst": 3}
    found = evaluate(*uris, **how, bootstrap=100, work=tmp_path / "work").skeletons
    best = evaluate(uris[1], uris[1], **how).skeletons
    assert best.erl_nm == best.possible_erl_nm == found.possible_erl_nm
    assert 0 < found.erl_nm < best.erl_nm
    assert found.erl_interval.low <= found.erl_nm <= found.erl_interval.high
    assert 0.8 < found.coverage < 1
    assert found.mergers > 0 < found.splits
    assert sum((found.correct, found.split, found.omitted, found.merged)) == pytest.approx(1)


def test_what_is_no_segmentation_is_refused(tmp_path, case):
    uri = stored(tmp_path, np.zeros(SHAPE, np.float32))
    with pytest.raises(LabelError, match="holds float32 values"):
        score_skeletons(uri, case[1])


@pytest.mark.slow
def test_a_local_cluster_gives_the_scores_of_the_whole(case, wanted, tmp_path):
    pytest.importorskip("distributed")
    uri = stored(tmp_path, case[0])
    how = {"crew": Crew(cluster="local:2"), "work": tmp_path / "work", "block_voxels": 30}
    assert score_skeletons(uri, case[1], options=OPTIONS, **how) == wanted


@pytest.mark.slow
def test_the_published_segmentation_scores_as_written_down(shared_data, tmp_path):
    folder = shared_data / "fib25"
    for merge_nodes, erl_um, mergers in ((1, 0.713, 54), (20, 3.480, 2)):
        found = evaluate(
            str(folder / "sample-training2.npz"),
            str(folder / "groundtruth.h5"),
            border=(16, 16, 16),
            worst=0,
            skeletons=FROM_TRUTH,
            merge_nodes=merge_nodes,
            voxel_size=VoxelSize(10, 10, 10),
            work=tmp_path / "work",
        ).skeletons
        assert found.erl_nm == pytest.approx(1000 * erl_um, abs=1)
        assert (found.mergers, found.splits, found.gaps) == (mergers, 180, 52)
