"""Whether a run is still improving, in words: the curves so far come in, a judgement goes out.

A flood's score is noisy: one merger more or less moves it. So the noise of single
validations is estimated first, and curves that fall towards a floor, quickly or
slowly, are weighed by how well they fit within that noise. What they say about
half as much time again, all together, is the forecast; its spread is theirs. Too
few validations, or too much noise, and the answer is that nobody can tell yet.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from floodem.counting import counted
from floodem.training.validation.choice import best_score
from floodem.training.validation.score import ValidationScore

MIN_SCORES = 5
"""Fewer validations say nothing about a curve with two bends."""

MIN_SCORES_FLAT = 10
"""Stopping takes more: the plateau before a network finds its way is flat too."""

HORIZON = 0.5
"""How far ahead the forecast looks, as a share of the time trained so far."""

CONFIDENCE = 0.8
"""Probability from which something is said without "perhaps"; also of the interval given."""

STOP_BELOW = 0.1
"""Probability of a worthwhile gain below which more time is not worth it."""

LATEST = 3
"""The newest validations whose median is the present score."""

SEEN = 0.75
"""Share of the validations, the newest, that the forecast is made from; the start says little."""

WORTHWHILE = 0.1
"""Share of the present error that more time must take away to be worth it."""

FALLING_LOSS = 0.05
"""A loss that fell by this share over the last third of the time says the network still learns."""

LEAST_NOISE = 0.002
"""Of an adapted Rand error; nobody needs it finer."""

_RATES, _RATE_SPAN = 24, 6.0
"""Curves tried, with rates from now / span (flat since long) to now * span (nearly straight)."""

_DROPS, _SHIFTS, _REACH = 25, 7, 3.0
"""Points that stand for the spread of drops and floors, up to so many standard deviations."""

_PARAMETERS = 3
_OUTLIER, _CLEARLY = 3.0, 6.0
"""In standard deviations."""

_MAD_TO_SIGMA = 1.4826
_SECOND_DIFFERENCE = math.sqrt(6.0)
"""Standard deviation of a[i-1] - 2 a[i] + a[i+1], of independent a with standard deviation 1."""


class Trend(enum.StrEnum):
    """What the validation curve does."""

    UNKNOWN = "unknown"
    IMPROVING = "improving"
    FLAT = "flat"
    WORSENING = "worsening"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What `hours` more would bring: the middle of all guesses, and where most of them lie."""

    hours: float
    cost: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """A judgement on a run.

    Attributes
    ----------
    trend
        In one word.
    sentence
        For people.
    should_stop
        Whether more time is not worth it.
    forecast
        None where there are too few validations, or the curve rises.
    """

    trend: Trend
    sentence: str
    should_stop: bool = False
    forecast: Forecast | None = None


def judge(
    scores: Sequence[ValidationScore],
    *,
    losses: Sequence[tuple[float, float]] = (),
    one_segment_error: float | None = None,
) -> Convergence:
    """Say whether training still improves the score, and what more time would bring.

    Parameters
    ----------
    scores
        All validations of the run, in any order.
    losses
        Pairs of hours and loss; a loss that still falls keeps a flat score from
        ending the run. What is not finite is left out.
    one_segment_error
        What one segment over everything would score, if known.
    """
    judged = _judge_curve(scores, losses=losses)
    best = best_score(scores)
    if best is None or one_segment_error is None or best.cost < one_segment_error:
        return judged
    sentence = (
        f"{judged.sentence} No validation was better than one segment over everything "
        f"({one_segment_error:.3f}): the network does not separate neurons yet."
    )
    return dataclasses.replace(judged, sentence=sentence)


def _judge_curve(
    scores: Sequence[ValidationScore], *, losses: Sequence[tuple[float, float]]
) -> Convergence:
    scores = sorted(scores, key=lambda score: (score.hours, score.step))
    best = best_score(scores)
    if best is None:
        return Convergence(
            trend=Trend.UNKNOWN, sentence="No validation has a score yet: nothing to judge by."
        )
    hours = np.array([score.hours for score in scores])
    costs = np.array([score.cost for score in scores])
    reached = f"best {best.cost:.3f} at step {best.step:,}, after {_hours(best.hours)}"
    so_far = f"adapted Rand error {float(np.median(costs[-LATEST:])):.3f} of late ({reached})"
    if len(scores) < MIN_SCORES or hours[-1] <= hours[0]:
        return Convergence(
            trend=Trend.UNKNOWN,
            sentence="Cannot tell yet whether it has converged: "
            f"{counted(len(scores), 'validation')}, {MIN_SCORES} are needed; adapted Rand error "
            f"{reached}.",
        )
    noise = estimate_noise(costs)
    if _is_worse(costs, noise=noise):
        return Convergence(
            trend=Trend.WORSENING,
            sentence=f"Getting worse: {so_far}. Stop and take the best model, or go on from it "
            "with a lower learning rate.",
            should_stop=True,
        )
    seen = max(MIN_SCORES, math.ceil(SEEN * len(scores)))
    calmed = _without_outliers(costs, noise=noise)
    forecast, gains, weights = _forecast(hours[-seen:], calmed[-seen:], noise=noise)
    worthwhile = max(WORTHWHILE * best.cost, noise / 2)
    chance = float(weights[gains > worthwhile].sum())
    return _in_words(
        chance,
        forecast,
        so_far=so_far,
        is_loss_falling=_is_falling(losses),
        enough=len(scores) >= MIN_SCORES_FLAT,
    )


def _in_words(
    chance: float, forecast: Forecast, *, so_far: str, is_loss_falling: bool, enough: bool
) -> Convergence:
    ahead = (
        f"another {_hours(forecast.hours)} would probably bring it to "
        f"{forecast.low:.3f} to {forecast.high:.3f}"
    )
    if chance >= CONFIDENCE:
        return Convergence(
            trend=Trend.IMPROVING,
            sentence=f"Still improving: {so_far}; {ahead}. Go on.",
            forecast=forecast,
        )
    if chance >= STOP_BELOW or not enough:
        return Convergence(
            trend=Trend.UNKNOWN,
            sentence=f"Perhaps still improving, the scores are too few or too noisy to tell: "
            f"{so_far}; {ahead}.",
            forecast=forecast,
        )
    if is_loss_falling:
        return Convergence(
            trend=Trend.FLAT,
            sentence=f"The score has stopped improving while the loss still falls: {so_far}. It "
            "may move again, or the network now learns its training data by heart.",
            forecast=forecast,
        )
    return Convergence(
        trend=Trend.FLAT,
        sentence=f"No longer improving: {so_far}. Another {_hours(forecast.hours)} is hardly worth "
        "it: more data, augmentation or another network may be.",
        should_stop=True,
        forecast=forecast,
    )


def estimate_noise(costs: Float64[np.ndarray, " n"]) -> float:
    """Return the standard deviation of one score around a smooth curve.

    From second differences, which a slope does not touch, and their median, which an
    outlier does not touch.
    """
    bends = np.abs(np.diff(costs, n=2))
    return max(LEAST_NOISE, float(np.median(bends)) * _MAD_TO_SIGMA / _SECOND_DIFFERENCE)


def _forecast(
    hours: Float64[np.ndarray, " n"], costs: Float64[np.ndarray, " n"], *, noise: float
) -> tuple[Forecast, Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Weigh all curves ``floor + drop * shape(t / rate)``; return what each gains, and weights.

    Shapes are exp(-u) and 1 / (1 + u). Beforehand the logarithms of rates are equally
    likely, and so are all drops from 0 within the time seen. Floors follow, with their spread.
    """
    now, later = float(hours[-1]), (1 + HORIZON) * float(hours[-1])
    curves = [
        _fall(shape, rate, hours=hours, later=later)
        for rate in np.geomspace(now / _RATE_SPAN, now * _RATE_SPAN, _RATES)
        for shape in (_exponential, _hyperbolic)
    ]
    centred = costs - costs.mean()
    slopes = [max(0.0, float(f @ centred) / float(f @ f)) for f, _ in curves]
    misfits = [
        float(np.sum((centred - drop * f) ** 2))
        for drop, (f, _) in zip(slopes, curves, strict=True)
    ]
    freedom = max(1, len(costs) - _PARAMETERS)
    # Where no curve fits within the noise, what is left over is noise as well.
    sigma = max(noise, math.sqrt(min(misfits) / freedom))
    gains, levels, chances = [], [], []
    for drop, (fall, ahead) in zip(slopes, curves, strict=True):
        width = sigma / math.sqrt(float(fall @ fall))
        drops = np.linspace(0.0, drop + _REACH * width, _DROPS)
        squared = np.sum((centred - drops[:, np.newaxis] * fall) ** 2, axis=1) / sigma**2
        gains.append(drops * (fall[-1] - ahead))
        levels.append(costs.mean() + drops * ahead)
        chances.append(np.log(drops[1] - drops[0]) - squared / 2)
    logs = np.concatenate(chances)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    shifts = np.linspace(-_REACH, _REACH, _SHIFTS)
    level = np.maximum(
        np.concatenate(levels)[:, np.newaxis] + shifts * (sigma / math.sqrt(len(costs))), 0.0
    )
    spread = weights[:, np.newaxis] * (np.exp(-(shifts**2) / 2) / np.exp(-(shifts**2) / 2).sum())
    outside = (1 - CONFIDENCE) / 2
    low, middle, high = _quantiles(level.ravel(), spread.ravel(), at=(outside, 0.5, 1 - outside))
    forecast = Forecast(hours=later - now, cost=middle, low=low, high=high)
    return forecast, np.concatenate(gains), weights


def _fall(
    shape: Callable[[Float64[np.ndarray, "..."]], Float64[np.ndarray, "..."]],
    rate: float,
    *,
    hours: Float64[np.ndarray, " n"],
    later: float,
) -> tuple[Float64[np.ndarray, " n"], float]:
    """Return a falling curve at `hours`, of mean 0, and its value `later`.

    Scaled so that it falls by 1 within `hours`, whatever its rate.
    """
    values = shape(np.append(hours, later) / rate)
    values = values / (values[0] - values[-2])
    values -= values[:-1].mean()
    return values[:-1], float(values[-1])


def _exponential(u: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    falling: Float64[np.ndarray, "..."] = np.exp(-u)
    return falling


def _hyperbolic(u: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return 1 / (1 + u)


def _quantiles(
    values: Float64[np.ndarray, " k"], weights: Float64[np.ndarray, " k"], *, at: Sequence[float]
) -> list[float]:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    last = len(values) - 1
    return [float(values[order[min(int(np.searchsorted(reached, q)), last)]]) for q in at]


def _without_outliers(
    costs: Float64[np.ndarray, " n"], *, noise: float
) -> Float64[np.ndarray, " n"]:
    """Bring scores far from their neighbours nearer: one bad merger is no trend."""
    middle = costs.copy()
    middle[1:-1] = np.median(np.stack([costs[:-2], costs[1:-1], costs[2:]]), axis=0)
    middle[-1] = np.median(costs[-LATEST:])
    calmed: Float64[np.ndarray, " n"] = np.clip(
        costs, middle - _OUTLIER * noise, middle + _OUTLIER * noise
    )
    return calmed


def _is_worse(costs: Float64[np.ndarray, " n"], *, noise: float) -> bool:
    """Tell whether the last third lies clearly above the best as many in a row before it."""
    third = max(LATEST, len(costs) // 3)
    if len(costs) < 2 * third:
        return False
    earlier, late = costs[:-third], costs[-third:]
    starts = range(len(earlier) - third + 1)
    level = min(float(np.median(earlier[start : start + third])) for start in starts)
    limit = max(_CLEARLY * noise / math.sqrt(third), WORTHWHILE * level)
    return float(np.median(late)) - level > limit and float(np.min(late)) > level


def _is_falling(losses: Sequence[tuple[float, float]]) -> bool:
    pairs = np.array([pair for pair in losses if all(map(math.isfinite, pair))])
    if len(pairs) < 2 * MIN_SCORES:
        return False
    hours, loss = pairs[:, 0], pairs[:, 1]
    end = float(hours.max())
    before = loss[(hours > end / 3) & (hours <= end * 2 / 3)]
    late = loss[hours > end * 2 / 3]
    if not (len(before) and len(late)):
        return False
    return float(late.mean()) < (1 - FALLING_LOSS) * float(before.mean())


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if 60 * hours >= 1 else f"{3600 * hours:.0f} s"
