"""How sure scores are: what each object adds to them in, intervals out.

All scores are ratios of sums over the objects of the truth (or over skeletons). Objects are
drawn again with replacement, as many as there are, and the ratios computed of their sums. The
segments stay as they are: a drawn object adds what it adds in the whole, mergers with objects
that were not drawn included. See docs/scores.md for what such an interval says and what not.

References
----------
Efron 1979, Annals of Statistics 7:1 (the bootstrap; intervals are of percentiles).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from floodem.errors import OptionError
from floodem.evaluation.intervals import Interval
from floodem.evaluation.objects import ObjectCosts
from floodem.evaluation.scores import Floats

LEVEL = 0.95
"""Share of the drawings within an interval, as is usual."""

SCORES = (
    "adapted_rand_error",
    "rand_precision",
    "rand_recall",
    "voi_split_bits",
    "voi_merge_bits",
    "voi_sum_bits",
)
"""Names of `floodem.evaluation.scores.Scores` that have intervals."""


def drawn_sums(
    columns: Float64[np.ndarray, "objects columns"], *, draws: int, seed: int
) -> Float64[np.ndarray, "draws columns"]:
    """Return the column sums of objects drawn with replacement, as many as there are.

    Parameters
    ----------
    draws
        How often to draw.
    seed
        Of the random numbers: one seed, one result.

    Raises
    ------
    OptionError
        When there is nothing to draw from, or `draws` is not positive.
    """
    if draws < 1 or not len(columns):
        raise OptionError(f"{draws} drawings of {len(columns)} objects are none: give 1 or more")
    random = np.random.default_rng(seed)
    count = len(columns)
    sums = np.empty((draws, columns.shape[1]))
    for draw in range(draws):
        times = np.bincount(random.integers(0, count, count), minlength=count)
        # Not a matrix product: those of several threads may differ in the last digits.
        sums[draw] = np.einsum("o,oc->c", times, columns)
    return sums


def interval(values: Float64[np.ndarray, "draws"], *, level: float = LEVEL) -> Interval:
    """Return the range that holds the middle share of drawn values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level)


def drawn_scores(costs: ObjectCosts, *, draws: int, seed: int) -> Mapping[str, Floats]:
    """Return the scores of every drawing of objects, by `SCORES`.

    One seed draws the same objects from all tables that have the same number of them.

    Raises
    ------
    OptionError
        When there is no object, or `draws` is not positive.
    """
    whole = costs.voxels.sum()
    columns = np.column_stack(
        [
            costs.voxels,
            costs.pairs,
            costs.in_segments,
            costs.in_objects,
            costs.split_bits * whole,
            costs.merge_bits * whole,
        ]
    )
    sums = drawn_sums(columns, draws=draws, seed=seed)
    voxels, pairs, in_segments, in_objects, split_bits, merge_bits = sums.T
    precision, recall = pairs / in_segments, pairs / in_objects
    drawn = (
        1 - 2 * precision * recall / (precision + recall),
        precision,
        recall,
        split_bits / voxels,
        merge_bits / voxels,
        (split_bits + merge_bits) / voxels,
    )
    return dict(zip(SCORES, drawn, strict=True))


def score_intervals(costs: ObjectCosts, *, draws: int, seed: int) -> Mapping[str, Interval]:
    """Return intervals of the scores of what objects add, by `SCORES`.

    Raises
    ------
    OptionError
        When there is no object, or `draws` is not positive.
    """
    drawn = drawn_scores(costs, draws=draws, seed=seed)
    return {name: interval(values) for name, values in drawn.items()}


def drawn_run_lengths(
    squared_runs: Float64[np.ndarray, "skeletons"],
    lengths_nm: Float64[np.ndarray, "skeletons"],
    *,
    draws: int,
    seed: int,
) -> Floats:
    """Return the expected run length of every drawing of skeletons.

    Parameters
    ----------
    squared_runs
        Sum of each skeleton's squared runs.
    lengths_nm
        Length of each; those without any are not drawn.

    Raises
    ------
    OptionError
        When no skeleton has a length, or `draws` is not positive.
    """
    is_drawn = lengths_nm > 0
    columns = np.column_stack([squared_runs[is_drawn], lengths_nm[is_drawn]])
    sums = drawn_sums(columns, draws=draws, seed=seed)
    lengths: Floats = sums[:, 0] / sums[:, 1]
    return lengths
