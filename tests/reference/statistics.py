"""Mean, deviation and percentiles the slow and obvious way: one voxel after the other."""

from __future__ import annotations

import math
from fractions import Fraction


def mean_and_stddev(values):
    """Return both of whole numbers, rounded once at the end."""
    numbers = [int(value) for value in values.ravel()]
    mean = Fraction(sum(numbers), len(numbers))
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    return float(mean), math.sqrt(float(variance))


def percentile(values, percent):
    """Return the smallest value that at least so many percent of the values do not exceed."""
    ordered = sorted(values.ravel().tolist())
    for index, value in enumerate(ordered, start=1):
        if 100 * index >= percent * len(ordered):
            return value
    raise AssertionError


def modified_z_scores(values):
    """Iglewicz and Hoaglin 1993, equation of section 3.3."""

    def median(numbers):
        ordered = sorted(numbers)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    centre = median(values)
    spread = median([abs(value - centre) for value in values])
    return [0.6745 * (value - centre) / spread for value in values]
