"""Scores by blocks: whoever counts them, in whatever order, they are those of the whole."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.cluster import Crew, Shard
from floodem.errors import (
    LabelError,
    OptionError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeFormatError,
)
from floodem.evaluation import alignment, blocks, comparison, evaluate, passes, places
from floodem.evaluation.grid import chunk_grid
from floodem.geometry import Box
from floodem.shapes.source import LabelSource, close_source, opened_source
from floodem.volumes import create_volume

SHAPE = (6, 7, 8)
FEW_IDS = st.integers(0, 4)
TRIPLES = st.tuples(*[st.integers(1, 9)] * 3)
LARGEST = 2**64 - 1


@st.composite
def two_labelings(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5))
    made = [draw(hnp.arrays(np.uint64, shape, elements=FEW_IDS)) for _ in range(2)]
    assume(np.any(made[1] != 0))
    return made


def stored(folder, labelings, *, chunks=None):
    """Write a segmentation and truth to files, and return their addresses."""
    uris = []
    for name, labels in zip(("seg", "truth"), labelings, strict=True):
        with h5py.File(Path(folder) / f"{name}.h5", "w") as file:
            file.create_dataset("labels", data=labels, chunks=chunks)
        uris.append(f"{folder}/{name}.h5@labels")
    return uris


def numbers(evaluation):
    """Return everything but what the volumes are called."""
    return dataclasses.replace(evaluation, segmentation="", truth="")


@pytest.fixture
def labelings():
    rng = np.random.default_rng(3)
    segmentation = np.repeat(rng.integers(0, 5, (6, 7, 4)), 2, axis=2).astype(np.uint64)
    truth = np.repeat(rng.integers(0, 4, (3, 7, 8)), 2, axis=0).astype(np.uint64)
    segmentation[segmentation == 4] = LARGEST
    return segmentation, truth


@pytest.fixture
def files(tmp_path, labelings):
    return stored(tmp_path, labelings)


@pytest.fixture
def processes_pay(monkeypatch):
    monkeypatch.setattr(comparison, "PAYS_VOXELS", 0)


@given(two_labelings(), st.integers(6, 60), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_tasks_that_are_stopped_and_go_on_give_the_scores_of_the_whole(
    labelings, block_voxels, patience
):
    with tempfile.TemporaryDirectory() as folder:
        uris = stored(folder, labelings)
        for _ in range(1000):
            asked = iter(range(1000))
            try:
                found = evaluate(
                    *uris,
                    block_voxels=block_voxels,
                    work=Path(folder) / "work",
                    should_stop=lambda asked=asked: next(asked) >= patience,
                )
                break
            except StoppedError:
                continue
        assert numbers(found) == numbers(evaluate(*labelings))


@given(two_labelings(), st.integers(6, 60), st.data())
@settings(max_examples=20, deadline=None)
def test_shards_in_any_order_give_the_scores_of_the_whole(labelings, block_voxels, data):
    count = data.draw(st.integers(1, 4))
    order = data.draw(st.permutations(range(1, count + 1)))
    with tempfile.TemporaryDirectory() as folder:
        uris = stored(folder, labelings)
        results = []
        for number in order:
            crew = Crew(shard=Shard(number=number, count=count))
            try:
                results.append(
                    evaluate(
                        *uris, block_voxels=block_voxels, crew=crew, work=Path(folder) / "work"
                    )
                )
            except ShardDoneError:
                continue
        assert numbers(results[-1]) == numbers(evaluate(*labelings))


def test_processes_give_the_scores_of_the_whole(files, labelings, tmp_path, processes_pay):
    told = []
    found = evaluate(*files, block_voxels=40, crew=Crew(workers=2), progress=told.append)
    assert numbers(found) == numbers(evaluate(*labelings))
    ends = {progress.stage: (progress.done, progress.total) for progress in told}
    assert ends["compare"] == (6 * 7 * 8, 6 * 7 * 8)
    assert ends["locate"][0] == ends["locate"][1] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"seg.h5", "truth.h5"}


@pytest.mark.slow
def test_a_local_cluster_gives_the_scores_of_the_whole(files, labelings, tmp_path):
    pytest.importorskip("distributed")
    crew = Crew(cluster="local:2")
    found = evaluate(*files, block_voxels=40, crew=crew, work=tmp_path / "work")
    assert numbers(found) == numbers(evaluate(*labelings))


def test_few_voxels_are_compared_in_this_process(files, monkeypatch):
    monkeypatch.setattr(passes, "run_tasks", None)
    assert evaluate(*files, block_voxels=40, crew=Crew(workers=2)).all_truth.voxels > 0


def test_other_scores_of_the_same_voxels_count_nothing_again(files, tmp_path, monkeypatch):
    work = tmp_path / "work"
    evaluate(*files, block_voxels=40, work=work, worst=0)
    wanted = numbers(evaluate(*files, ignore=(0, 1), worst=3))
    monkeypatch.setattr(blocks, "contingency", None)
    found = evaluate(*files, block_voxels=40, work=work, ignore=(0, 1), worst=3)
    assert numbers(found) == wanted


def test_work_of_other_voxels_is_refused(files, tmp_path):
    evaluate(*files, work=tmp_path / "work")
    with pytest.raises(RunConflictError, match="made from other data or with other options"):
        evaluate(*files, work=tmp_path / "work", border=(1, 1, 1))
    with h5py.File(tmp_path / "seg.h5", "r+") as file:
        file["labels"][0, 0, 0] = 9
        file["labels"].attrs["note"] = "x" * 1000
    with pytest.raises(RunConflictError, match="made from other data or with other options"):
        evaluate(*files, work=tmp_path / "work")


@pytest.mark.parametrize("damage", ["gone", "cut", "other version", "float", "compressed", "text"])
def test_a_damaged_table_is_named(files, tmp_path, damage):
    work = tmp_path / "work"
    evaluate(*files, work=work)
    table = work / "counts" / "000000.npz"
    columns = {"version": 1, "ids_a": np.uint64([1]), "ids_b": np.uint64([1]), "counts": [1]}
    if damage == "gone":
        table.unlink()
    elif damage == "cut":
        table.write_bytes(table.read_bytes()[:-200])
    elif damage == "other version":
        np.savez(table, **columns | {"version": 2})
    elif damage == "float":
        np.savez(table, **columns | {"counts": [1.0]})
    elif damage == "compressed":
        np.savez_compressed(table, **columns)
    else:
        table.write_text("no archive")
    with pytest.raises(
        VolumeFormatError, match=r"000000\.npz is no table .*: remove .*counts, and"
    ):
        evaluate(*files, work=work)


@given(st.binary(max_size=400))
def test_whatever_stands_in_a_table_is_read_or_refused(noise):
    assert blocks._unpacked(noise) is None
    assert blocks._unpacked(b"PK\x03\x04" + noise) is None


def test_volumes_and_work_may_be_on_a_server(no_servers, s3, labelings):
    uris = []
    for name, labels in zip(("seg", "truth"), labelings, strict=True):
        uris.append(f"zarr3://s3://bucket/{name}.zarr")
        with create_volume(
            uris[-1], shape=labels.shape, dtype=labels.dtype, chunks=(4, 4, 4)
        ) as volume:
            volume.write(volume.box, labels)
    work = "s3://bucket/work"
    for shard in ("2/2", "1/2"):
        crew = Crew(shard=Shard.parse(shard))
        try:
            found = evaluate(*uris, block_voxels=64, crew=crew, work=work)
        except ShardDoneError:
            assert shard == "2/2"
    assert numbers(found) == numbers(evaluate(*labelings))


@given(
    two_labelings(),
    st.tuples(*[st.floats(-3, 8)] * 3),
    st.sampled_from([(1.0, 1.0, 1.0), (30.0, 6.0, 6.5), (1e-9, 1e9, 1e-9)]),
    TRIPLES,
)
def test_places_in_a_block_are_those_of_its_voxels(labelings, point, scale, start):
    segmentation, truth = labelings
    parts = tuple((s, t) for s in range(5) for t in range(5))
    search = places.Search(parts=parts, points=None, scale=scale)
    box = Box.from_shape(truth.shape, start=start)
    sums = places.search_block(segmentation, truth, block=box, search=search)
    near = places.search_block(
        segmentation,
        truth,
        block=box,
        search=dataclasses.replace(search, points=(point,) * len(parts)),
    )
    wanted_sums, wanted_near = [], []
    for number, (s, t) in enumerate(parts):
        zyx = np.argwhere((segmentation == s) & (truth == t)) + start
        if len(zyx):
            squares = ((zyx - point) * np.array(scale)) ** 2
            distances = squares[:, 0] + squares[:, 1] + squares[:, 2]
            first = int(np.argmin(distances))
            wanted_sums.append([number, *zyx.sum(axis=0), len(zyx)])
            wanted_near.append([number, distances[first], *zyx[first]])
    assert sums == wanted_sums
    assert near == wanted_near


@given(TRIPLES, TRIPLES, TRIPLES, TRIPLES, st.integers(1, 300))
def test_blocks_partition_the_box_and_end_where_chunks_end(start, shape, chunks, first, limit):
    box = Box.from_shape(shape, start=start)
    grid = chunk_grid(box, chunks=chunks, first=first, limit=limit)
    covered = np.zeros(shape, int)
    for block in grid:
        assert block.size <= max(limit, 1)
        covered[block.slices(origin=start)] += 1
    assert (covered == 1).all()
    assert [grid[number] for number in range(len(grid))] == list(grid)
    with pytest.raises(IndexError):
        grid[len(grid)]
    for axis in range(3):
        if grid.edge[axis] % chunks[axis] == 0:
            for block in grid:
                begins = block.start[axis]
                assert begins == start[axis] or (begins - first[axis]) % chunks[axis] == 0


def test_blocks_follow_the_larger_chunks(tmp_path, labelings):
    rng = np.random.default_rng(0)
    large = [rng.integers(0, 5, (40, 40, 40)).astype(np.uint64) for _ in range(2)]
    seg = stored(tmp_path, large, chunks=(8, 8, 8))[0]
    (tmp_path / "coarse").mkdir()
    truth = stored(tmp_path / "coarse", large, chunks=(16, 16, 16))[1]
    boxes = []

    def note(*volumes, box, radius):
        boxes.append(box)
        return read_both(*volumes, box=box, radius=radius)

    read_both = alignment.read_both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "read_both", note)
        evaluate(seg, truth, border=(3, 3, 3), block_voxels=16**3, worst=0)
    assert len(boxes) == 27
    assert {edge for box in boxes for edge in box.start} == {3, 16, 32}


def test_blocks_without_a_part_are_not_read_again(tmp_path):
    truth = np.ones((1, 1, 64), np.uint64)
    segmentation = truth.copy()
    segmentation[..., 20:22] = 2
    truth[..., 40:] = 3
    segmentation[..., 40:] = 3
    uris = stored(tmp_path, (segmentation, truth))
    reads = []

    def read(self, number):
        reads.append(number)
        yield from original(self, number)

    original = blocks.Comparison.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks.Comparison, "read", read)
        found = evaluate(*uris, block_voxels=8, work=tmp_path / "work")
    # All are counted, and those that hold object 1 searched for its parts; the nearest voxel
    # of segment 2 can only be in block 2, and from there that of segment 1 in blocks 2 and 3.
    assert [reads.count(number) for number in range(8)] == [2, 2, 4, 3, 2, 1, 1, 1]
    assert found == dataclasses.replace(
        evaluate(*uris), segmentation=found.segmentation, truth=found.truth
    )


def test_a_task_counts_several_blocks_where_there_are_very_many(files, labelings, monkeypatch):
    monkeypatch.setattr(blocks, "MOST_TASKS", 5)
    with tempfile.TemporaryDirectory() as work:
        found = evaluate(*files, block_voxels=8, work=work)
        assert len(list(Path(work, "counts").glob("*.npz"))) == 5
    assert numbers(found) == numbers(evaluate(*labelings))


@pytest.mark.parametrize(
    "crew", [Crew(shard=Shard(number=1, count=2)), Crew(cluster="local:2")], ids=["shard", "dask"]
)
def test_shards_and_clusters_without_a_work_folder_are_refused(files, crew):
    with pytest.raises(OptionError, match=r"name it with --work \(work\)"):
        evaluate(*files, crew=crew)


@pytest.mark.parametrize("how", [{"crew": Crew(workers=2)}, {"work": "work"}])
def test_arrays_with_others_to_work_on_them_are_refused(files, labelings, how):
    with pytest.raises(OptionError, match="give addresses of both volumes"):
        evaluate(files[0], labelings[1], **how)


def test_a_mistake_in_a_volume_is_told_from_tasks_too(tmp_path, processes_pay):
    labels = np.ones((2, 2, 2), np.int8)
    uris = stored(tmp_path, (labels, -labels))
    with pytest.raises(LabelError, match="the truth .* negative label -1"):
        evaluate(*uris, block_voxels=2, crew=Crew(workers=2))


def test_a_process_that_compares_one_segmentation_with_several_truths_keeps_it_open(tmp_path):
    labels = np.ones((2, 2, 2), np.uint8)
    places = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        places += stored(tmp_path / str(number), (labels, labels))
    shared, *others = (LabelSource(uri=uri) for uri in places)
    try:
        for other in others:
            volumes = opened_source(shared), opened_source(other)
            assert all((volume.read() == 1).all() for volume in volumes)
    finally:
        close_source()
