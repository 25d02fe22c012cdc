"""Intervals of scores: what is drawn, and how often the range holds the truth."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.errors import OptionError
from floodem.evaluation import evaluate, scores
from floodem.evaluation.bootstrap import (
    SCORES,
    drawn_run_lengths,
    drawn_sums,
    interval,
    score_intervals,
)
from floodem.evaluation.objects import object_costs
from floodem.labels import contingency
from reference.bootstrap import drawn_scores as slow_scores

LABELS = hnp.arrays(np.uint64, 40, elements=st.integers(0, 5))


@given(LABELS, LABELS, st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_every_drawing_is_that_of_the_slow_twin(segmentation, truth, seed):
    table = contingency(segmentation, truth)
    count = len(np.unique(truth))
    random = np.random.default_rng(seed)
    drawings = [random.integers(0, count, count).tolist() for _ in range(5)]
    wanted = [slow_scores(segmentation.tolist(), truth.tolist(), drawn) for drawn in drawings]
    found = score_intervals(object_costs(table), draws=5, seed=seed)
    assert tuple(found) == SCORES
    for name in SCORES:
        low, high = np.quantile([one[name] for one in wanted], [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-12)


def erl_interval(runs, lengths, *, draws, seed):
    return interval(drawn_run_lengths(runs, lengths, draws=draws, seed=seed))


def test_one_object_leaves_no_room():
    segmentation, truth = np.uint64([1, 1, 2, 0]), np.uint64([5, 5, 5, 5])
    found = score_intervals(object_costs(contingency(segmentation, truth)), draws=50, seed=1)
    whole = scores(contingency(segmentation, truth))
    for name in SCORES:
        assert found[name].low == found[name].high == pytest.approx(getattr(whole, name))
        assert found[name].level == 0.95


def test_equal_objects_leave_no_room():
    truth = np.repeat(np.arange(1, 9, dtype=np.uint64), 6)
    segmentation = truth * 2 + (np.arange(48) % 6 < 2)
    found = score_intervals(object_costs(contingency(segmentation, truth)), draws=50, seed=1)
    for ends in found.values():
        assert ends.low == pytest.approx(ends.high)


def test_one_seed_gives_one_interval():
    rng = np.random.default_rng(5)
    runs, lengths = rng.uniform(0, 100, 30), rng.uniform(1, 10, 30)
    first = erl_interval(runs, lengths, draws=100, seed=7)
    assert first == erl_interval(runs, lengths, draws=100, seed=7)
    assert first != erl_interval(runs, lengths, draws=100, seed=8)


def test_skeletons_without_length_are_not_drawn():
    found = erl_interval(np.array([50.0, 0, 0]), np.array([5.0, 0, 0]), draws=40, seed=0)
    assert (found.low, found.high) == (10, 10)


def test_nothing_to_draw_is_refused():
    with pytest.raises(OptionError, match="0 drawings"):
        drawn_sums(np.ones((3, 1)), draws=0, seed=0)
    with pytest.raises(OptionError, match="of 0 objects"):
        erl_interval(np.zeros(2), np.zeros(2), draws=10, seed=0)


def test_intervals_of_samples_hold_the_value_of_the_whole_about_as_often_as_they_say():
    rng = np.random.default_rng(11)
    lengths = rng.lognormal(3, 0.5, 20_000)
    runs = lengths**2 * rng.uniform(0, 1, 20_000)
    value = runs.sum() / lengths.sum()
    held = 0
    for trial in range(200):
        rows = rng.integers(0, len(lengths), 80)
        interval = erl_interval(runs[rows], lengths[rows], draws=200, seed=trial)
        held += interval.low <= value <= interval.high
    # Percentiles of 80 skewed objects hold it a little less often than 95 %.
    assert 0.85 <= held / 200 <= 0.99


@given(LABELS, LABELS)
@settings(deadline=None, max_examples=20)
def test_an_evaluation_has_intervals_of_both_rows_where_they_are_asked_for(segmentation, truth):
    assume((truth != 0).any())
    arrays = [labels.reshape(2, 4, 5) for labels in (segmentation, truth)]
    plain = evaluate(*arrays)
    assert not plain.intervals
    assert not plain.intervals_where_both
    found = evaluate(*arrays, bootstrap=9, seed=3)
    both = (truth != 0) & (segmentation != 0)
    assert found.intervals == score_intervals(
        object_costs(contingency(segmentation[truth != 0], truth[truth != 0])), draws=9, seed=3
    )
    assert bool(found.intervals_where_both) == bool(both.any())
    told = json.loads(found.to_json())
    assert told["bootstrap"] == {"draws": 9, "seed": 3}
    assert told["intervals"]["voi_sum_bits"] == dataclasses.asdict(found.intervals["voi_sum_bits"])
    whole = found.all_truth
    assert told["all_truth"]["voi_sum_bits"] == whole.voi_split_bits + whole.voi_merge_bits
    undrawn = {"intervals": {}, "intervals_where_both": {}, "draws": 0, "seed": 0}
    assert dataclasses.replace(found, **undrawn) == plain
