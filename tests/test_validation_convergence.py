"""What is said about made-up curves of validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.training.validation.choice import best_score
from floodem.training.validation.convergence import MIN_SCORES, Trend, estimate_noise, judge
from validation_cases import curve, noisy, score

SEEDS = range(8)


def flat(hours):
    return 0 * hours + 0.15


def falling(hours):
    return 0.1 + 0.8 * np.exp(-hours / 6)


def slowly_falling(hours):
    return 0.6 - 0.15 * np.log(hours + 0.3)


def settled(hours):
    return 0.1 + 0.8 * np.exp(-hours)


def diverging(hours):
    return settled(hours) + 0.05 * np.maximum(hours - 3, 0)


def late(hours):
    return np.where(hours < 4, 0.85, 0.2 + 0.65 * np.exp(4 - hours))


def losses(start, end, count=60):
    return [(hour, start + (end - start) * hour / 10) for hour in np.linspace(0.1, 10, count)]


def test_nothing_is_said_without_scores():
    found = judge([])
    assert found.trend is Trend.UNKNOWN
    assert "nothing to judge by" in found.sentence


@pytest.mark.parametrize("count", range(1, MIN_SCORES))
def test_too_few_scores_cannot_tell(count):
    found = judge(curve(noisy(falling, count, noise=0.0)))
    assert found.trend is Trend.UNKNOWN
    assert not found.should_stop
    assert found.sentence.startswith(f"Cannot tell yet whether it has converged: {count} valid")
    assert f"{MIN_SCORES} are needed" in found.sentence


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [falling, slowly_falling])
def test_a_falling_curve_is_still_improving(shape, seed):
    costs = noisy(shape, 16, noise=0.003, seed=seed)
    found = judge(curve(costs))
    assert found.trend is Trend.IMPROVING
    assert not found.should_stop
    assert "Still improving" in found.sentence
    assert found.forecast.low < found.forecast.cost < found.forecast.high < min(costs) + 0.02


def test_what_it_expects_is_what_mostly_comes():
    truth = float(falling(np.array(15.0)))
    forecasts = [
        judge(curve(noisy(falling, 20, noise=0.01, seed=seed))).forecast for seed in range(20)
    ]
    assert {forecast.hours for forecast in forecasts} == {5.0}
    assert sum(forecast.low < truth < forecast.high for forecast in forecasts) >= 12
    assert max(abs(forecast.cost - truth) for forecast in forecasts) < 0.06
    assert max(forecast.high - forecast.low for forecast in forecasts) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [flat, settled])
def test_a_settled_curve_is_flat(shape, seed):
    found = judge(curve(noisy(shape, 30, noise=0.003, seed=seed)))
    assert found.trend is Trend.FLAT
    assert found.should_stop
    assert "No longer improving" in found.sentence


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_noise_alone_is_no_improvement(seed, noise):
    found = judge(curve(noisy(flat, 40, noise=noise, seed=seed)))
    assert found.trend in {Trend.FLAT, Trend.UNKNOWN}


def test_a_flat_beginning_does_not_stop_a_run():
    found = judge(curve([0.85, 0.852, 0.849, 0.851, 0.85, 0.85, 0.851, 0.849]))
    assert not found.should_stop
    assert "too few or too noisy" in found.sentence


def test_a_flat_score_does_not_stop_a_run_whose_loss_still_falls():
    scores = curve(noisy(flat, 20, noise=0.003))
    assert judge(scores, losses=losses(0.5, 0.49)).should_stop
    found = judge(scores, losses=[*losses(0.5, 0.2), (10.1, float("nan"))])
    assert not found.should_stop
    assert found.trend is Trend.FLAT
    assert "while the loss still falls" in found.sentence


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rising_curve_is_getting_worse(seed):
    found = judge(curve(noisy(diverging, 20, noise=0.01, seed=seed)))
    assert found.trend is Trend.WORSENING
    assert found.should_stop
    assert "Getting worse" in found.sentence
    assert "take the best model" in found.sentence


@pytest.mark.parametrize("seed", SEEDS)
def test_a_curve_that_falls_after_a_plateau_is_improving(seed):
    assert judge(curve(noisy(late, 10, noise=0.01, seed=seed))).trend is Trend.IMPROVING


def test_one_bad_merger_changes_nothing():
    costs = noisy(falling, 15, noise=0.005)
    worse = [*costs[:9], 0.9, *costs[10:]]
    assert judge(curve(worse)).trend is judge(curve(costs)).trend is Trend.IMPROVING
    assert judge(curve([*noisy(flat, 20, noise=0.003)[:-1], 0.9])).trend is Trend.FLAT


def test_noise_is_measured_around_a_slope():
    hours = np.arange(400.0)
    noise = np.random.default_rng(0).normal(0, 0.03, 400)
    assert estimate_noise(0.9 - 0.001 * hours + noise) == pytest.approx(0.03, rel=0.15)


def test_the_best_score_is_the_lowest_and_of_equal_ones_the_oldest():
    scores = [score(3, 0.2), score(1, 0.5), score(2, 0.2), score(4, 0.3)]
    assert best_score(scores).step == 2
    assert best_score([]) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=25), st.randoms())
def test_any_curve_gets_a_sentence_whatever_the_order(costs, random):
    scores = curve(costs)
    found = judge(scores)
    random.shuffle(scores)
    assert judge(scores) == found
    assert found.sentence.endswith(".")
    if found.forecast is not None:
        assert 0 <= found.forecast.low <= found.forecast.cost <= found.forecast.high
        assert f"{found.forecast.low:.3f} to" in found.sentence or found.trend is Trend.FLAT


def test_validations_at_one_moment_are_no_curve():
    found = judge([score(step, 0.2, hours=1.0) for step in range(8)])
    assert found.trend is Trend.UNKNOWN


@pytest.mark.parametrize("costs", [[0.41], [0.5] * 12, [0.4] * 12, noisy(falling, 8, noise=0.01)])
def test_a_network_no_better_than_one_segment_is_told_so(costs):
    best = min(costs)
    told = judge(curve(costs), one_segment_error=best).sentence
    assert f"No validation was better than one segment over everything ({best:.3f})" in told
    better = judge(curve(costs), one_segment_error=best + 1e-6)
    assert better == judge(curve(costs))
