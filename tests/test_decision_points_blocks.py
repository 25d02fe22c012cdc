"""Decision points block by block: whoever finds them, in whatever cut, they are the whole's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.assembly.agglomeration.points.centroids import (
    PairCounter,
    Pairs,
    nearest_to_centroids,
)
from floodem.assembly.agglomeration.points.contacts import Contacts, merge_contacts
from floodem.assembly.agglomeration.points.growing import grow
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.assembly.agglomeration.points.points import PointOptions
from floodem.assembly.agglomeration.points.search import find_decision_points, find_points_of
from floodem.cluster import Crew, Shard
from floodem.errors import (
    GeometryError,
    LabelError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize
from floodem.shapes.source import LabelSource
from reference import decision_points as twin
from test_decision_points import SIZES, as_dict, labelings

SIZE = VoxelSize(30, 6, 6)
OPTIONS = PointOptions(max_distance_nm=40.0)


def stored(folder, labels, *, offset=(0, 0, 0)):
    """Write labels to a file and return their source."""
    with h5py.File(Path(folder) / "seg.h5", "w") as file:
        file.create_dataset("labels", data=labels)
        file["labels"].attrs["offset"] = offset
    return LabelSource(uri=f"{folder}/seg.h5@labels")


def search(source, work, **options):
    return find_decision_points(
        source, work=str(work), **{"voxel_size": SIZE, "options": OPTIONS, **options}
    )


@pytest.fixture
def labels():
    """Blobs of a dozen voxels with gaps, among them ties and small ones."""
    rng = np.random.default_rng(7)
    blobs = rng.integers(1, 30, (4, 5, 5)) * (rng.random((4, 5, 5)) < 0.5)
    return np.kron(blobs, np.ones((2, 3, 3), np.uint64)).astype(np.uint64)


@given(labelings(), SIZES, st.floats(0, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_within_the_halo_a_cut_changes_neither_labels_nor_distances(labels, size, voxels, data):
    lengths = Lengths.of(VoxelSize(*size), max_distance_nm=voxels * min(size))
    whole = grow(labels, lengths=lengths)
    box = Box.from_shape(labels.shape)
    start = [data.draw(st.integers(0, n - 1)) for n in labels.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, labels.shape, strict=True)]
    core = Box(tuple(start), tuple(stop))
    around = core.grow(lengths.halo()).intersection(box)
    cut = grow(labels[around.slices()], lengths=lengths)
    inner = core.slices(origin=around.start)
    np.testing.assert_array_equal(cut.labels[inner], whole.labels[core.slices()])
    np.testing.assert_array_equal(cut.squared[inner], whole.squared[core.slices()])


@given(st.integers(0, 2**32), st.sampled_from([(1.0, 1.0, 1.0), (30.0, 6.0, 6.0), (8.0, 5.0, 3.0)]))
@settings(max_examples=25, deadline=None)
def test_sparse_segments_far_away_do_not_reach_beyond_the_halo(seed, size):
    # Long ways: a few voxels in much empty space, of which one plane after another is cut off.
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((14, 40, 40)) < rng.choice([0.001, 0.004, 0.02]), 1, 0)
    labels = (labels * rng.permutation(np.arange(1, labels.size + 1)).reshape(labels.shape)).astype(
        np.uint64
    )
    lengths = Lengths.of(VoxelSize(*size), max_distance_nm=5 * min(size))
    whole = grow(labels, lengths=lengths)
    width = lengths.halo()[2]
    for at in range(0, 40, 7):
        low, high = max(0, at - width), min(40, at + 1 + width)
        cut = grow(labels[:, :, low:high], lengths=lengths)
        np.testing.assert_array_equal(cut.labels[:, :, at - low], whole.labels[:, :, at])
        np.testing.assert_array_equal(cut.squared[:, :, at - low], whole.squared[:, :, at])


@given(labelings(), SIZES)
@settings(max_examples=25, deadline=None)
def test_every_step_lessens_a_distance_by_what_the_halo_counts_on(labels, size):
    lengths = Lengths.of(VoxelSize(*size), max_distance_nm=6 * max(size))
    squared = grow(labels, lengths=lengths).squared.astype(np.int64)
    # What lies outside is no segment.
    padded = np.pad(squared, 1, constant_values=np.iinfo(np.int64).max)
    for voxel in np.argwhere((squared > 0) & (squared <= lengths.limit)):
        steps = [tuple(voxel + 1 + step) for step in np.array(twin.FACES)]
        here = int(squared[tuple(voxel)])
        assert min(padded[step] for step in steps) <= max(0, here - lengths._least_loss(here))


def test_less_is_lost_by_no_smaller_distance():
    # The halo follows the longest way by the largest distances that are possible on it.
    for edges in ((1, 1, 1), (5, 1, 1), (37, 9, 9), (11, 7, 5)):
        lengths = Lengths(edges=edges, unit_pm=1000, limit=3000)
        left = [squared - lengths._least_loss(squared) for squared in range(1, 3001)]
        assert left == sorted(left)


@given(labelings(), SIZES, st.floats(0, 4), st.integers(0, 4), st.data())
@settings(max_examples=25, deadline=None)
def test_any_cut_gives_the_twins_points_on_every_pair(labels, size, voxels, min_size, data):
    block = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    options = PointOptions(max_distance_nm=voxels * max(size), min_size=min_size)
    with tempfile.TemporaryDirectory() as folder:
        found = search(
            stored(folder, labels),
            f"{folder}/work",
            voxel_size=VoxelSize(*size),
            options=options,
            block=block,
        )
    assert as_dict(found) == twin.decision_points(
        labels,
        voxel_size_nm=size,
        max_distance_nm=options.max_distance_nm,
        min_size=min_size,
    )


@given(labelings(), st.integers(1, 9), st.data())
@settings(max_examples=10, deadline=None)
def test_a_search_that_is_stopped_and_goes_on_gives_the_points_of_the_whole(labels, patience, data):
    block = data.draw(st.tuples(*[st.integers(2, 7)] * 3))
    with tempfile.TemporaryDirectory() as folder:
        source = stored(folder, labels)
        for attempt in range(1000):
            # A little longer each time, as the last stage begins anew.
            asked = iter(range(patience + attempt))
            try:
                found = search(
                    source,
                    f"{folder}/work",
                    block=block,
                    options=PointOptions(max_distance_nm=40, min_size=2),
                    should_stop=lambda asked=asked: next(asked, None) is None,
                )
                break
            except StoppedError:
                assert attempt < 999
        whole = find_points_of(labels, voxel_size=SIZE, max_distance_nm=40, min_size=2)
        assert as_dict(found) == as_dict(whole)


@pytest.mark.parametrize("crew", [Crew(workers=2), Crew(slots=2)], ids=["processes", "slots"])
def test_any_crew_gives_the_points_of_the_whole(tmp_path, labels, crew):
    found = search(stored(tmp_path, labels), tmp_path / "work", block=(4, 6, 9), crew=crew)
    assert as_dict(found) == as_dict(find_points_of(labels, voxel_size=SIZE, max_distance_nm=40))
    assert len(found) > 20


@pytest.mark.parametrize("min_size", [0, 20])
def test_shards_in_any_order_give_the_points_of_the_whole(tmp_path, labels, min_size):
    source = stored(tmp_path, labels)
    options = PointOptions(max_distance_nm=40, min_size=min_size)
    found = []
    for number in (2, 3, 1, 3, 2, 1):  # a second time, where sizes are counted first
        crew = Crew(shard=Shard(number=number, count=3))
        try:
            found.append(
                search(source, tmp_path / "work", block=(4, 6, 9), crew=crew, options=options)
            )
        except ShardDoneError:
            continue
    whole = find_points_of(labels, voxel_size=SIZE, max_distance_nm=40, min_size=min_size)
    assert found
    assert all(as_dict(one) == as_dict(whole) for one in found)


def test_a_finished_search_reads_no_labels_again(tmp_path, labels, monkeypatch):
    source = stored(tmp_path, labels)
    told = []
    first = search(source, tmp_path / "work", block=(4, 6, 9), progress=told.append)
    assert {one.stage for one in told} == {"finding contacts", "gathering points"}
    assert all(one.done <= one.total for one in told)
    monkeypatch.setattr("floodem.assembly.agglomeration.points.blocks.grow", None)
    assert as_dict(search(source, tmp_path / "work", block=(4, 6, 9))) == as_dict(first)


def test_positions_are_in_the_frame_of_the_segmentation_also_of_a_box(tmp_path, labels):
    source = stored(tmp_path, labels, offset=(100, 2000, 30))
    with source.open() as volume:
        frame = volume.box
    box = Box((1, 2, 3), (7, 14, 15))
    offset = frame.start
    found = search(source, tmp_path / "work", box=box.translate(offset), block=(3, 5, 4))
    inside = as_dict(find_points_of(labels[box.slices()], voxel_size=SIZE, max_distance_nm=40))
    shift = np.add(box.start, offset)
    assert as_dict(found) == {
        pair: (tuple(np.add(position, shift).tolist()), distance)
        for pair, (position, distance) in inside.items()
    }


def test_what_cannot_be_searched_is_refused(tmp_path, labels):
    source = stored(tmp_path, labels)
    with pytest.raises(GeometryError, match="not inside"):
        search(source, tmp_path / "work", box=Box((0, 0, 0), (9, 9, 9)))
    with pytest.raises(GeometryError, match="not positive"):
        search(source, tmp_path / "work", block=(0, 4, 4))
    with pytest.raises(GeometryError, match="empty"):
        search(source, tmp_path / "work", box=Box((1, 1, 1), (1, 2, 2)))
    with pytest.raises(LabelError, match="float"):
        search(stored(tmp_path, labels.astype(np.float32)), tmp_path / "work")
    assert not list((tmp_path / "work").rglob("*.npz"))


def test_a_folder_of_another_search_is_refused(tmp_path, labels):
    source = stored(tmp_path, labels)
    search(source, tmp_path / "work")
    with pytest.raises(RunConflictError):
        search(source, tmp_path / "work", options=PointOptions(max_distance_nm=41.0))
    stored(tmp_path, labels[:, ::-1])
    with pytest.raises(RunConflictError):
        search(source, tmp_path / "work")


def test_a_damaged_table_is_refused(tmp_path, labels):
    source = stored(tmp_path, labels)
    search(source, tmp_path / "work", block=(4, 6, 9))
    (tmp_path / "work" / "points" / "points.npz").write_bytes(b"nothing")
    with pytest.raises(VolumeFormatError, match="points"):
        search(source, tmp_path / "work", block=(4, 6, 9))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_ties_of_blocks_in_any_order_give_the_twins_point(data):
    """Also far from the origin and with squares beyond 64 bits, where ties stay ties."""
    edges = data.draw(st.sampled_from([(1, 1, 1), (5, 1, 1), (29711, 4037, 4039)]))
    far = data.draw(st.sampled_from([0, 10**5, 10**6]))
    shape = (1_100_001,) * 3
    lengths = Lengths(edges=edges, unit_pm=1000, limit=100)
    spread = data.draw(st.sampled_from([3, 10**5]))
    voxel = st.tuples(*[st.integers(0, spread)] * 3)
    ties = data.draw(st.lists(voxel, min_size=1, max_size=12, unique=True))
    mirrored = {tuple(np.subtract(spread, tie).tolist()) for tie in ties} | set(ties)
    ties = sorted(tuple(far + at for at in tie) for tie in mirrored)
    order = data.draw(st.permutations(ties))
    cut = data.draw(st.integers(0, len(order)))
    blocks = [contacts_at(part, shape) for part in (order[:cut], order[cut:]) if part]
    blocks.append(contacts_at(order[:1], shape, distance=4.0))  # a nearer pair's farther candidate
    counter = PairCounter(shape)
    for block in blocks:
        counter.add(block)
    pairs = counter.pairs()
    each = [
        nearest_to_centroids([one], pairs=pairs, shape=shape, lengths=lengths) for one in blocks
    ]
    found = nearest_to_centroids(each, pairs=pairs, shape=shape, lengths=lengths)
    expected, _ = twin.best({(1.0, tie) for tie in ties}, [1000 * edge for edge in edges])
    assert found.positions(shape).tolist() == [list(expected)]


def contacts_at(positions, shape, *, distance=1.0):
    """Return contacts of one pair."""
    count = len(positions)
    return merge_contacts(
        [
            Contacts(
                ids_a=np.full(count, 3, np.uint64),
                ids_b=np.full(count, 2**64 - 1, np.uint64),
                distances_nm=np.full(count, distance),
                places=np.ravel_multi_index(tuple(np.array(positions).T), shape),
            )
        ]
    )


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=20), st.data())
@settings(max_examples=40, deadline=None)
def test_rows_of_pairs_are_found_by_both_ids(ids, data):
    known = data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), unique=True))
    known.sort()
    pairs = Pairs(
        ids_a=np.array([a for a, _ in known], np.uint64),
        ids_b=np.array([b for _, b in known], np.uint64),
        distances_nm=np.zeros(len(known)),
        counts=np.ones(len(known), np.int64),
        sums=np.zeros((len(known), 3), np.int64),
    )
    asked = Contacts(
        ids_a=np.array([a for a, _ in ids], np.uint64),
        ids_b=np.array([b for _, b in ids], np.uint64),
        distances_nm=np.zeros(len(ids)),
        places=np.zeros(len(ids), np.int64),
    )
    expected = [known.index(pair) if pair in known else -1 for pair in ids]
    assert pairs.rows_of(asked).tolist() == expected
