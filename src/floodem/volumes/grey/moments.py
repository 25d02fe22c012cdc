"""Sums of grey values: an array in, counts and sums out that can be added without drift.

Whole numbers are summed exactly, as Python integers. Real numbers are summed
about their block's own mean, and blocks are joined by the formula of Chan,
Golub and LeVeque, so that a large mean costs no digits of the deviation.

References
----------
Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance",
The American Statistician 37:242-247.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

COUNTABLE_ITEMSIZE = 2
"""Integers up to this size are counted value by value; wider ones are summed."""

_LOW_32_BITS = np.uint64(2**32 - 1)
_32 = np.uint64(32)

_AT_ONCE = 2**20
"""Values summed in one go: halves of their 64-bit products add up to less than 2**53."""

Values = Shaped[np.ndarray, "..."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """How many numbers there are, and what their mean and deviation follow from.

    Attributes
    ----------
    count
        How many finite numbers.
    not_finite
        How many NaN and infinities, which nothing else takes part of.
    minimum, maximum
        Of the finite numbers; None where there are none.
    total, square_total
        Exact sums of whole numbers and of their squares; 0 for real ones.
    mean_, deviation
        Mean of real numbers and the sum of squared distances from it; 0 for whole ones.
    """

    count: int = 0
    not_finite: int = 0
    minimum: float | int | None = None
    maximum: float | int | None = None
    total: int = 0
    square_total: int = 0
    mean_: float = 0.0
    deviation: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        apart = other.mean_ - self.mean_
        share = other.count / count if count else 0.0
        lows = [m for m in (self.minimum, other.minimum) if m is not None]
        highs = [m for m in (self.maximum, other.maximum) if m is not None]
        return Moments(
            count=count,
            not_finite=self.not_finite + other.not_finite,
            minimum=min(lows, default=None),
            maximum=max(highs, default=None),
            total=self.total + other.total,
            square_total=self.square_total + other.square_total,
            mean_=self.mean_ + apart * share,
            deviation=self.deviation + other.deviation + apart * apart * share * self.count,
        )

    @property
    def mean(self) -> float:
        """Arithmetic mean; NaN of nothing."""
        if not self.count:
            return math.nan
        return float(Fraction(self.total, self.count)) + self.mean_

    @property
    def stddev(self) -> float:
        """Standard deviation of the whole population; NaN of nothing."""
        if not self.count:
            return math.nan
        exact = Fraction(self.square_total * self.count - self.total**2, self.count**2)
        return math.sqrt(float(exact) + self.deviation / self.count)


def counts_of(values: Values) -> Int64[np.ndarray, "v"]:
    """Return how often each value of an 8- or 16-bit integer type occurs, from the smallest on."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    size = int(np.iinfo(unsigned).max) + 1
    flat = values.reshape(-1).view(unsigned)
    counts = np.zeros(size, np.int64)
    for start in range(0, flat.size, _AT_ONCE):  # numpy makes 64 bits of each value
        counts += np.bincount(flat[start : start + _AT_ONCE], minlength=size)
    # Read as unsigned, negative values come behind the others.
    return np.roll(counts, size // 2) if values.dtype.kind == "i" else counts


def moments_of_counts(counts: Int64[np.ndarray, "v"], *, smallest: int) -> Moments:
    """Return the moments of values of which it is known how often each occurs.

    Parameters
    ----------
    counts
        Of the value `smallest` and those after it; at most 2**31 in all.
    """
    occurring = np.flatnonzero(counts)
    if not occurring.size:
        return Moments()
    # At most 2**31 values below 2**16: the sum of their squares is below 2**63.
    values = occurring + smallest
    times = counts[occurring]
    return Moments(
        count=int(times.sum()),
        minimum=int(values[0]),
        maximum=int(values[-1]),
        total=int(np.dot(values, times)),
        square_total=int(np.dot(values * values, times)),
    )


def moments_of(values: Values) -> Moments:
    """Return the moments of an array of whole or real numbers of any type."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= COUNTABLE_ITEMSIZE:
        return moments_of_counts(counts_of(values), smallest=int(np.iinfo(values.dtype).min))
    found = Moments()
    flat = values.reshape(-1)
    summed = _moments_of_reals if values.dtype.kind == "f" else _moments_of_integers
    for start in range(0, flat.size, _AT_ONCE):
        found += summed(flat[start : start + _AT_ONCE])
    return found


def _moments_of_reals(values: np.ndarray[Any, np.dtype[Any]]) -> Moments:
    is_finite = np.isfinite(values)
    finite = values[is_finite].astype(np.float64)
    skipped = values.size - finite.size
    if not finite.size:
        return Moments(not_finite=skipped)
    # About the middle of the range no sum overflows that the values themselves do not.
    low, high = float(finite.min()), float(finite.max())
    shift = low / 2 + high / 2
    finite -= shift
    centre = float(finite.mean())
    finite -= centre
    return Moments(
        count=finite.size,
        not_finite=skipped,
        minimum=low,
        maximum=high,
        mean_=shift + centre,
        deviation=float(np.dot(finite, finite)),
    )


def _moments_of_integers(values: np.ndarray[Any, np.dtype[Any]]) -> Moments:
    low, high = int(values.min()), int(values.max())
    unsigned = values.astype(f"{values.dtype.kind}8").view(np.uint64)
    is_negative = values < 0
    size = np.where(is_negative, ~unsigned + np.uint64(1), unsigned)
    upper, lower = size >> _32, size & _LOW_32_BITS
    total = _sum(size[~is_negative]) - _sum(size[is_negative])
    squares = (_sum(upper * upper) << 64) + (_sum(upper * lower) << 33) + _sum(lower * lower)
    return Moments(count=values.size, minimum=low, maximum=high, total=total, square_total=squares)


def _sum(values: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
    """Sum 64-bit numbers exactly, half by half."""
    return (int((values >> _32).sum()) << 32) + int((values & _LOW_32_BITS).sum())
