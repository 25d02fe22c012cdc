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
from typing import Any

import numpy as np
from jaxtyping import Float64

from floodem.errors import OptionError
from floodem.evaluation.intervals import Interval
from floodem.evaluation.scores import conditional_entropy_bits, group_sizes
from floodem.labels import OverlapTable

LEVEL = 0.95
"""Share of the drawings within an interval, as is usual."""

Sums = Float64[np.ndarray, "draws columns"]


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


def score_intervals(table: OverlapTable, *, draws: int, seed: int) -> Mapping[str, Interval]:
    """Return intervals of the scores of a table, under the names of the fields of `Scores`.

    Parameters
    ----------
    table
        As for `floodem.evaluation.scores.scores`; objects of the truth (`ids_b`) are drawn.

    Raises
    ------
    OptionError
        When the table is empty, or `draws` is not positive.
    """
    sums = drawn_sums(_columns(table), draws=draws, seed=seed)
    voxels, pairs, in_segments, in_objects, split_bits, merge_bits = sums.T
    precision, recall = pairs / in_segments, pairs / in_objects
    drawn: dict[str, Any] = {
        "adapted_rand_error": 1 - 2 * precision * recall / (precision + recall),
        "rand_precision": precision,
        "rand_recall": recall,
        "voi_split_bits": split_bits / voxels,
        "voi_merge_bits": merge_bits / voxels,
    }
    return {name: interval(values) for name, values in drawn.items()}


def _columns(table: OverlapTable) -> Any:
    """Return what each object adds to the sums that scores are ratios of.

    With n voxels of a pair, s of its segment and t of its object: n, n^2, n s, n t,
    n log2(t / n), n log2(s / n), summed over the object's pairs.
    """
    counts = table.counts.astype(np.float64)
    segment_sizes, _, segments = group_sizes(table.ids_a, table.counts)
    object_sizes, _, objects = group_sizes(table.ids_b, table.counts)
    in_segment, in_object = segment_sizes[segments], object_sizes[objects]
    terms = (
        counts,
        counts**2,
        counts * in_segment,
        counts * in_object,
        counts.sum() * conditional_entropy_bits(counts, in_object),
        counts.sum() * conditional_entropy_bits(counts, in_segment),
    )
    return np.column_stack([np.bincount(objects, weights=term) for term in terms])


def erl_interval(
    squared_runs: Float64[np.ndarray, "skeletons"],
    lengths_nm: Float64[np.ndarray, "skeletons"],
    *,
    draws: int,
    seed: int,
) -> Interval:
    """Return an interval of the expected run length; skeletons are drawn.

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
    return interval(sums[:, 0] / sums[:, 1])
