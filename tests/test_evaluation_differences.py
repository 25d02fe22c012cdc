"""Whether one segmentation is better than another: differences of drawings of the same objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.evaluation import evaluate, score_differences
from floodem.evaluation.bootstrap import SCORES
from floodem.geometry import Box, VoxelSize
from reference.bootstrap import drawn_scores
from skeleton_cases import path

LABELS = hnp.arrays(np.uint64, (2, 4, 5), elements=st.integers(0, 5))
SIZE = VoxelSize(10, 10, 10)
DRAWS = 40


def drawn(labels, truth, **options):
    return evaluate(labels, truth, bootstrap=DRAWS, seed=3, **options)


@given(LABELS, LABELS, LABELS)
@settings(deadline=None, max_examples=30)
def test_differences_are_those_of_the_slow_twin_with_the_same_objects(one, other, truth):
    truth = truth + np.uint64(1)
    found = score_differences(drawn(one, truth), drawn(other, truth))
    count = len(np.unique(truth))
    random = np.random.default_rng(3)
    wanted = []
    for _ in range(DRAWS):
        objects = random.integers(0, count, count).tolist()
        before, after = (
            drawn_scores(labels.ravel().tolist(), truth.ravel().tolist(), objects)
            for labels in (one, other)
        )
        wanted.append({name: after[name] - before[name] for name in SCORES})
    for name in SCORES:
        low, high = np.quantile([each[name] for each in wanted], [0.025, 0.975])
        ends = found[name].interval
        assert (ends.low, ends.high) == pytest.approx((low, high), abs=1e-12)
        assert found[name].to_dict()["level"] == ends.level == 0.95


def many_objects():
    """Objects of very different worth: in each row one, cut after 0 to 9 of 20 voxels."""
    truth = np.repeat(np.arange(1, 61, dtype=np.uint64), 20).reshape(1, 60, 20)
    cuts = np.random.default_rng(1).integers(0, 10, 60)
    is_right = np.arange(20) >= cuts[:, None]
    return truth, np.where(is_right, truth + np.uint64(100), truth), cuts


def test_a_small_gain_in_every_object_is_clear_though_the_intervals_overlap():
    truth, before, cuts = many_objects()
    is_right = np.arange(20) >= np.maximum(cuts - 1, 0)[:, None]
    after = np.where(is_right, truth + np.uint64(100), truth)
    first, other = drawn(before, truth), drawn(after, truth)
    name = "voi_split_bits"
    assert other.intervals[name].high > first.intervals[name].low
    found = score_differences(first, other)[name]
    assert found.is_clear
    assert found.value == pytest.approx(
        other.all_truth.voi_split_bits - first.all_truth.voi_split_bits
    )
    assert found.interval.low < found.value < found.interval.high < 0
    back = score_differences(other, first)[name]
    assert back.is_clear
    assert back.interval.low == pytest.approx(-found.interval.high)


def test_gains_and_losses_of_equal_size_are_not_clear():
    truth, before, cuts = many_objects()
    shuffled = np.random.default_rng(2).permutation(cuts)
    after = np.where(np.arange(20) >= shuffled[:, None], truth + np.uint64(100), truth)
    found = score_differences(drawn(before, truth), drawn(after, truth))
    assert not any(found[name].is_clear for name in SCORES)


@given(LABELS, LABELS)
@settings(deadline=None, max_examples=20)
def test_a_segmentation_does_not_differ_from_itself_under_other_ids(labels, truth):
    truth = truth + np.uint64(1)
    renumbered = np.array([0, 2**64 - 1, 9, 300, 2, 77], np.uint64)[labels]
    for found in score_differences(drawn(labels, truth), drawn(renumbered, truth)).values():
        assert (found.value, found.interval.low, found.interval.high) == pytest.approx((0, 0, 0))


def rows(length, count):
    return {
        row + 1: path(*[(5, 10 * row + 5, 10 * x + 5) for x in range(length)])
        for row in range(count)
    }


def test_run_lengths_are_drawn_with_the_same_skeletons():
    truth, before, cuts = many_objects()
    skeletons = rows(20, 60)
    first = drawn(before, truth, skeletons=skeletons, voxel_size=SIZE)
    other = drawn(truth, truth, skeletons=skeletons, voxel_size=SIZE)
    found = score_differences(first, other)["erl_nm"]
    assert found.value == other.skeletons.erl_nm - first.skeletons.erl_nm
    # Whole runs are 190 nm; of a row cut after c voxels two are left, and an edge between.
    left, right = 10.0 * np.maximum(cuts - 1, 0), 10.0 * (19 - cuts)
    gains = 190**2 - left**2 - right**2
    gains[cuts == 0] = 0
    random = np.random.default_rng(3)
    wanted = [gains[random.integers(0, 60, 60)].sum() / (60 * 190) for _ in range(DRAWS)]
    low, high = np.quantile(wanted, [0.025, 0.975])
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


def test_other_objects_voxels_or_skeletons_are_not_compared():
    truth, before, _ = many_objects()
    first = drawn(before, truth, skeletons=rows(20, 60), voxel_size=SIZE)
    assert set(score_differences(first, first)) == {*SCORES, "erl_nm"}
    part = drawn(before, truth, box=Box((0, 0, 0), (1, 60, 19)))
    assert score_differences(first, part) == {}
    fewer = drawn(before, truth, skeletons=rows(20, 59), voxel_size=SIZE)
    assert set(score_differences(first, fewer)) == {*SCORES}
    shorter = drawn(before, truth, skeletons=rows(19, 60), voxel_size=SIZE)
    assert set(score_differences(first, shorter)) == {*SCORES}
    assert score_differences(replace(first, draws=0), first) == {}
