"""Scores along skeletons: cases counted by hand, and any case against a slow twin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import GeometryError, LabelError, OptionError
from floodem.evaluation.skeletons import SkeletonOptions, score_skeletons
from floodem.geometry import Box, VoxelSize
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.volumes.in_memory import ArrayVolume
from reference.skeleton_scores import skeleton_scores
from skeleton_cases import path

SIZE = VoxelSize(10, 10, 10)
KINDS = ("correct", "split", "omitted", "merged")


def along_x(length, *, row=0, start=0):
    """A straight skeleton with a node in each voxel of a row."""
    return path(*[(5, 10 * row + 5, 10 * x + 5) for x in range(start, start + length)])


def scored(labels, skeletons, **options):
    labels = np.array(labels, np.uint64).reshape(1, -1, len(labels[0]))
    return score_skeletons(labels, skeletons, voxel_size=SIZE, options=SkeletonOptions(**options))


def kinds(scores):
    return [getattr(scores, kind) for kind in KINDS]


def test_a_perfect_segmentation_has_the_possible_run_length():
    found = scored([[7] * 11, [8] * 11], {1: along_x(11), 2: along_x(6, row=1)})
    # Runs of 100 and 50 nm: (100 * 100 + 50 * 50) / 150.
    assert found.erl_nm == found.possible_erl_nm == pytest.approx(12500 / 150)
    assert (found.skeletons, found.length_nm, found.nodes, found.outside) == (2, 150, 17, 0)
    assert (found.splits, found.gaps, found.mergers, found.coverage) == (0, 0, 0, 1)
    assert kinds(found) == [1, 0, 0, 0]
    assert found.worst_splits == found.worst_mergers == ()


def test_a_split_leaves_two_runs_and_the_edge_between():
    found = scored([[7] * 7 + [9] * 4], {1: along_x(11)})
    # 60 nm, an edge of 10 and 30 nm.
    assert found.erl_nm == pytest.approx((60**2 + 30**2) / 100)
    assert kinds(found) == pytest.approx([0.9, 0.1, 0, 0])
    assert (found.splits, found.gaps) == (1, 0)
    (split,) = found.worst_splits
    assert (split.skeletons, split.segments) == ((1,), (7, 9))
    assert split.positions == ((0, 0, 6), (0, 0, 7))
    assert split.cost_nm == pytest.approx(found.possible_erl_nm - found.erl_nm)


def test_a_merger_takes_the_runs_of_both():
    found = scored([[7] * 11, [7] * 11, [8] * 11], {k: along_x(11, row=k - 1) for k in (1, 2, 3)})
    assert found.erl_nm == pytest.approx(100**2 / 300)
    assert kinds(found) == pytest.approx([1 / 3, 0, 0, 2 / 3])
    assert (found.mergers, found.splits) == (1, 0)
    (merger,) = found.worst_mergers
    assert (merger.skeletons, merger.segments) == ((1, 2), (7,))
    assert merger.positions == ((0, 0, 0), (0, 1, 0))
    assert merger.cost_nm == pytest.approx(found.possible_erl_nm - found.erl_nm)


def test_a_split_and_a_merger_leave_what_neither_touches():
    # The first skeleton is cut at 7; its right half is merged with the second.
    found = scored([[7] * 7 + [8] * 4, [8] * 11], {1: along_x(11), 2: along_x(11, row=1)})
    assert found.erl_nm == pytest.approx(60**2 / 200)
    assert kinds(found) == pytest.approx([60 / 200, 10 / 200, 0, 130 / 200])
    assert (found.splits, found.mergers) == (1, 1)
    # To join the left half to the merger would help nobody.
    assert found.worst_splits == ()
    assert found.worst_mergers[0].cost_nm == pytest.approx((30**2 + 100**2) / 200)


def test_without_a_segment_there_is_no_run():
    found = scored([[0] * 11], {1: along_x(11)})
    assert (found.erl_nm, found.coverage, found.gaps) == (0, 0, 0)
    assert kinds(found) == [0, 0, 1, 0]
    assert found.possible_erl_nm == 100


def test_background_joins_nothing():
    found = scored([[0, 7, 7], [0, 8, 8]], {1: along_x(3), 2: along_x(3, row=1)})
    assert (found.mergers, found.erl_nm) == (0, pytest.approx(2 * 10**2 / 40))


def test_a_gap_between_two_segments_is_a_split_of_its_own():
    found = scored([[7] * 4 + [0] * 2 + [9] * 5], {1: along_x(11)})
    assert (found.splits, found.gaps) == (0, 1)
    (split,) = found.worst_splits
    assert split.segments == (7, 9)
    assert split.positions == ((0, 0, 3), (0, 0, 6))
    assert split.cost_nm == pytest.approx(found.possible_erl_nm - found.erl_nm)


def test_runs_of_one_segment_are_summed_also_where_they_do_not_hang_together():
    found = scored([[7] * 3 + [9] * 4 + [7] * 4], {1: along_x(11)})
    assert found.erl_nm == pytest.approx(((20 + 30) ** 2 + 30**2) / 100)
    assert (found.splits, found.gaps) == (2, 0)
    (split,) = found.worst_splits
    assert split.cost_nm == pytest.approx(found.possible_erl_nm - found.erl_nm)


def test_a_gap_within_one_segment_is_omitted_and_no_split():
    found = scored([[7] * 3 + [0] * 4 + [7] * 4], {1: along_x(11)})
    assert (found.splits, found.gaps, found.worst_splits) == (0, 0, ())
    assert found.erl_nm == pytest.approx((20 + 30) ** 2 / 100)


def test_a_branch_that_is_cut_off_costs_what_it_is_long():
    # A trunk of 100 nm along x with a branch of 30 nm along y from its middle.
    trunk, branch = along_x(11), [(5, 15, 55), (5, 25, 55), (5, 35, 55)]
    vertices = np.concatenate([trunk.vertices_zyx_nm, np.float32(branch)])
    edges = np.concatenate([trunk.edges, np.uint32([[11, 5], [12, 11], [13, 12]])])
    tree = Skeleton(vertices, edges, np.ones(14, np.float32))
    labels = np.full((1, 4, 11), 7, np.uint64)
    labels[0, 1:] = 8
    found = score_skeletons(labels, {1: tree}, voxel_size=SIZE)
    assert found.erl_nm == pytest.approx((100**2 + 20**2) / 130)
    assert found.possible_erl_nm == pytest.approx(130)
    assert found.worst_splits[0].positions == ((0, 0, 5), (0, 1, 5))


def test_a_skeleton_of_one_node_has_no_length_and_yet_joins():
    lone = along_x(1, row=1)
    found = scored([[7] * 11, [8] * 11], {1: along_x(11), 2: lone})
    assert (found.skeletons, found.erl_nm, found.mergers) == (2, 100, 0)
    found = scored([[7] * 11, [7] * 11], {1: along_x(11), 2: lone})
    assert (found.erl_nm, found.mergers) == (0, 1)


@pytest.mark.parametrize(("merge_nodes", "mergers"), [(1, 1), (2, 1), (3, 0)])
def test_few_nodes_of_a_second_skeleton_may_be_allowed(merge_nodes, mergers):
    found = scored(
        [[7] * 11, [7] * 2 + [8] * 9],
        {1: along_x(11), 2: along_x(11, row=1)},
        merge_nodes=merge_nodes,
    )
    assert (found.mergers, found.merge_nodes) == (mergers, merge_nodes)
    # Not merged, the first keeps its run, and the second its two.
    wanted = 80**2 if mergers else 100**2 + 80**2 + 10**2
    assert found.erl_nm == pytest.approx(wanted / 200)


def test_nodes_outside_the_box_are_left_out_and_counted():
    found = score_skeletons(
        np.full((1, 1, 11), 7, np.uint64),
        {1: along_x(21), 2: along_x(3, start=50)},
        voxel_size=SIZE,
        box=Box((0, 0, 2), (1, 1, 11)),
    )
    assert (found.skeletons, found.nodes, found.outside) == (1, 9, 12 + 3)
    assert found.erl_nm == found.possible_erl_nm == 80


def test_voxels_are_found_by_voxel_size_and_offset():
    labels = np.zeros((2, 2, 2), np.uint64)
    labels[1, 0, 1] = labels[1, 1, 1] = 5
    volume = ArrayVolume(labels, offset=(3, -4, 100), voxel_size=VoxelSize(30, 6, 4))
    inside = path((4 * 30, -4 * 6, 101 * 4), (5 * 30 - 1, -2 * 6 - 1, 102 * 4 - 1))
    assert score_skeletons(volume, {1: inside}).coverage == 1
    for moved in ((-1, 0, 0), (0, 0, -1)):
        assert score_skeletons(volume, {1: inside.moved(moved)}).coverage < 1


def test_skeletons_that_cannot_be_scored_are_refused():
    labels = np.ones((1, 1, 11), np.uint64)
    with pytest.raises(GeometryError, match=r"none of the skeletons' 3 nodes lies in .* unit"):
        score_skeletons(labels, {1: along_x(3, start=11)}, voxel_size=SIZE)
    with pytest.raises(LabelError, match="no edge of the skeletons"):
        score_skeletons(labels, {1: along_x(1)}, voxel_size=SIZE)
    with pytest.raises(LabelError, match="two skeletons have one id"):
        score_skeletons(labels, [(1, along_x(3)), (1, along_x(2))], voxel_size=SIZE)
    with pytest.raises(OptionError, match="does not state its voxel size"):
        score_skeletons(labels, {1: along_x(3)})
    with pytest.raises(GeometryError, match="is not inside"):
        score_skeletons(labels, {1: along_x(3)}, voxel_size=SIZE, box=Box((0, 0, 0), (1, 1, 12)))
    with pytest.raises(LabelError, match="holds float64 values"):
        score_skeletons(labels * 0.5, {1: along_x(3)}, voxel_size=SIZE)
    for wrong in ({"merge_nodes": 0}, {"bootstrap": -1}, {"worst": -1}, {"seed": -1}):
        with pytest.raises(OptionError, match=str(next(iter(wrong.values())))):
            SkeletonOptions(**wrong)


def test_a_set_without_nodes_is_told_from_one_that_lies_elsewhere():
    labels = np.ones((1, 1, 11), np.uint64)
    empty = Skeleton(np.zeros((0, 3), np.float32), np.zeros((0, 2), np.uint32), np.zeros(0))
    for skeletons in ({}, {1: empty}):
        with pytest.raises(LabelError, match="there is no skeleton with a node"):
            score_skeletons(labels, skeletons, voxel_size=SIZE)


@pytest.mark.parametrize("edge", [4.3, 8.05, 33.3, 0.1, 10.0])
def test_nodes_on_the_faces_of_voxels_lie_in_the_voxels_that_begin_there(edge):
    # Positions are kept in 32 bits, in which hardly a multiple of such an edge is itself.
    count = 300
    labels = np.arange(1, count + 1, dtype=np.uint64).reshape(1, 1, -1)
    on_faces = path(*[(0, 0, x * edge) for x in range(count)])
    found = score_skeletons(labels, {1: on_faces}, voxel_size=VoxelSize(edge, edge, edge))
    assert (found.splits, found.outside) == (count - 1, 0)
    moved = ArrayVolume(labels, offset=(0, 0, -count), voxel_size=VoxelSize(edge, edge, edge))
    below = path(*[(0, 0, -x * edge) for x in range(1, count + 1)])
    assert score_skeletons(moved, {1: below}).splits == count - 1


def test_an_edge_that_is_given_twice_counts_once():
    once = along_x(11)
    twice = Skeleton(
        once.vertices_zyx_nm, np.concatenate([once.edges, once.edges[:, ::-1]]), once.radii_nm
    )
    labels = [[7] * 7 + [9] * 4]
    assert scored(labels, {1: twice}) == scored(labels, {1: once})


@st.composite
def any_case(draw):
    """Labels of a few voxels, and some graphs with nodes in them."""
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3))
    labels = np.array(
        draw(st.lists(st.integers(0, 4), min_size=(n := int(np.prod(shape))), max_size=n)),
        np.uint64,
    ).reshape(shape)
    skeletons = {}
    for number in range(1, draw(st.integers(1, 4)) + 1):
        count = draw(st.integers(1, 7))
        voxels = [tuple(draw(st.integers(0, edge - 1)) for edge in shape) for _ in range(count)]
        pairs = st.tuples(*[st.integers(0, count - 1)] * 2).filter(lambda pair: pair[0] != pair[1])
        unique = st.lists(pairs, max_size=9, unique_by=frozenset)
        edges = draw(unique) if count > 1 else []
        skeletons[number] = (voxels, edges)
    return labels, skeletons


def as_skeletons(skeletons):
    return {
        number: Skeleton(
            (np.array(voxels, np.float32) + 0.5) * np.float32(SIZE.zyx_nm),
            np.array(edges, np.uint32).reshape(-1, 2),
            np.ones(len(voxels), np.float32),
        )
        for number, (voxels, edges) in skeletons.items()
    }


def twin_of(labels, skeletons, merge_nodes):
    graphs = {
        number: (
            {at: [10 * (i + 0.5) for i in voxel] for at, voxel in enumerate(voxels)},
            edges,
        )
        for number, (voxels, edges) in skeletons.items()
    }
    segment_at = {
        (number, at): int(labels[voxel])
        for number, (voxels, _) in skeletons.items()
        for at, voxel in enumerate(voxels)
    }
    return graphs, segment_at, skeleton_scores(graphs, segment_at, merge_nodes=merge_nodes)


def has_length(skeletons):
    return any(voxels[a] != voxels[b] for voxels, edges in skeletons.values() for a, b in edges)


@given(any_case(), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_any_case_equals_the_slow_twin(case, merge_nodes):
    labels, skeletons = case
    if not has_length(skeletons):
        return
    _, _, wanted = twin_of(labels, skeletons, merge_nodes)
    found = score_skeletons(
        labels,
        as_skeletons(skeletons),
        voxel_size=SIZE,
        options=SkeletonOptions(merge_nodes=merge_nodes),
    )
    assert {name: getattr(found, name) for name in wanted} == pytest.approx(wanted)
    assert sum(kinds(found)) == pytest.approx(1)


@given(any_case(), st.permutations([2**64 - 1, 9, 300, 2]))
@settings(max_examples=60, deadline=None)
def test_other_ids_of_segments_change_nothing(case, ids):
    labels, skeletons = case
    if not has_length(skeletons):
        return
    table = np.array([0, *ids], np.uint64)
    before = score_skeletons(labels, as_skeletons(skeletons), voxel_size=SIZE)
    after = score_skeletons(table[labels], as_skeletons(skeletons), voxel_size=SIZE)
    plain = before.to_dict()
    for mistake in (*plain["worst_splits"], *plain["worst_mergers"]):
        mistake["segments"] = [int(table[segment]) for segment in mistake["segments"]]
    assert after.to_dict() == plain


@given(any_case())
@settings(max_examples=60, deadline=None)
def test_a_merger_costs_what_its_segment_cut_between_skeletons_would_give(case):
    labels, skeletons = case
    if not has_length(skeletons):
        return
    graphs, segment_at, before = twin_of(labels, skeletons, 1)
    found = score_skeletons(labels, as_skeletons(skeletons), voxel_size=SIZE)
    for merger in found.worst_mergers:
        cut = {
            (number, at): (100 + number if segment == merger.segments[0] else segment)
            for (number, at), segment in segment_at.items()
        }
        after = skeleton_scores(graphs, cut)
        assert merger.cost_nm == pytest.approx(after["erl_nm"] - before["erl_nm"])
        assert len(merger.positions) == len(merger.skeletons)
        for number, position in zip(merger.skeletons, merger.positions, strict=True):
            assert position in skeletons[number][0]
            assert labels[position] == merger.segments[0]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=14))
@settings(max_examples=200, deadline=None)
def test_a_split_costs_what_both_segments_and_all_between_them_would_give_as_one(row):
    skeletons = {
        1: ([(0, 0, x) for x in range(len(row))], [(x, x - 1) for x in range(1, len(row))])
    }
    labels = np.array(row, np.uint64).reshape(1, 1, -1)
    graphs, _, before = twin_of(labels, skeletons, 1)
    found = score_skeletons(labels, as_skeletons(skeletons), voxel_size=SIZE)
    facing = set()
    for split in found.worst_splits:
        facing.add(frozenset(split.segments))
        mended = np.array(row)
        mended[np.isin(row, split.segments)] = 9
        # What lies between the two, on a row with nothing else in between.
        for start in range(len(row)):
            for stop in range(start + 2, len(row)):
                ends = {row[start], row[stop]}
                if ends == set(split.segments) and not any(row[start + 1 : stop]):
                    mended[start + 1 : stop] = 9
        after = {(1, x): int(segment) for x, segment in enumerate(mended)}
        wanted = skeleton_scores(graphs, after)["erl_nm"] - before["erl_nm"]
        assert split.cost_nm == pytest.approx(wanted)
    near = [segment for segment in row if segment]
    assert facing == {frozenset(two) for two in itertools.pairwise(near) if two[0] != two[1]}


def test_a_gap_between_three_segments_pairs_the_longest_with_the_others():
    # 40 nm, 20 nm and 10 nm meet in one node that lies in nothing.
    arms = [[(0, 0, x) for x in range(5)], [(0, 1, x) for x in range(3)], [(0, 2, 0), (0, 2, 1)]]
    voxels = [(0, 3, 0), *(voxel for arm in arms for voxel in arm)]
    starts = [1, 6, 9]
    edges = [(0, start) for start in starts]
    for start, arm in zip(starts, arms, strict=True):
        edges += [(start + at, start + at - 1) for at in range(1, len(arm))]
    labels = np.zeros((1, 4, 5), np.uint64)
    labels[0, :3] = np.uint64([[5], [6], [7]])
    found = score_skeletons(labels, as_skeletons({1: (voxels, edges)}), voxel_size=SIZE)
    assert (found.gaps, found.splits) == (1, 0)
    # From the node 30 nm lead to the first arm, 20 to the second, 10 to the third.
    whole = 40 + 20 + 10 + 30 + 20 + 10
    costs = {split.segments: split.cost_nm for split in found.worst_splits}
    assert costs == pytest.approx(
        {
            (5, 6): ((40 + 20 + 50) ** 2 - 40**2 - 20**2) / whole,
            (5, 7): ((40 + 10 + 40) ** 2 - 40**2 - 10**2) / whole,
        }
    )


def test_one_planted_merger_lowers_it_by_the_squares_of_the_runs_that_it_takes():
    rng = np.random.default_rng(8)
    lengths = rng.integers(2, 30, 40)
    labels = np.zeros((1, 40, 30), np.uint64)
    for row in range(40):
        labels[0, row] = row + 1
    skeletons = {row + 1: along_x(int(length), row=row) for row, length in enumerate(lengths)}
    before = score_skeletons(labels, skeletons, voxel_size=SIZE)
    labels[labels == 8] = 30
    after = score_skeletons(labels, skeletons, voxel_size=SIZE)
    runs = 10.0 * (lengths - 1)
    assert before.erl_nm - after.erl_nm == pytest.approx(
        (runs[7] ** 2 + runs[29] ** 2) / runs.sum()
    )
    assert after.worst_mergers[0].cost_nm == pytest.approx(before.erl_nm - after.erl_nm)
