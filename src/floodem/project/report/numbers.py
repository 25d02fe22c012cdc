"""What the numbers of an evaluation are: their names, meaning, direction, and changes.

One list serves the page and the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from floodem.evaluation import Difference, Evaluation, Interval, score_differences

Better = Literal["low", "high"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of an evaluation.

    Attributes
    ----------
    key
        As in the JSON of an evaluation.
    title, meaning
        For people; the meaning in a sentence or two.
    better
        Whether low or high values are good.
    form
        How it is written.
    value
        Takes it from an evaluation; None where it has none.
    interval
        The same of its interval.
    by
        What it is divided by to be written.
    """

    key: str
    title: str
    meaning: str
    better: Better
    form: str
    value: Callable[[Evaluation], float | None]
    interval: Callable[[Evaluation], Interval | None]
    by: float = 1.0

    def text(self, value: float | None) -> str:
        """Return a value as it is written; a dash for none."""
        return "-" if value is None else format(value / self.by, self.form)

    def interval_text(self, evaluation: Evaluation, *, between: str = " – ") -> str | None:
        """Return both ends of the interval, or None where there is none."""
        found = self.interval(evaluation)
        return None if found is None else self.range_text(found, between=between)

    def range_text(self, interval: Interval, *, between: str = " – ") -> str:
        """Return both ends of an interval."""
        return f"{self.text(interval.low)}{between}{self.text(interval.high)}"

    def change_text(self, difference: Difference, *, between: str = " to ") -> str:
        """Return a difference and both ends of its interval, with their signs."""
        found = difference.interval
        value, low, high = (
            format(number / self.by, f"+{self.form}")
            for number in (difference.value, found.low, found.high)
        )
        return f"{value} ({low}{between}{high})"

    def is_better(self, difference: Difference) -> bool:
        """Tell whether a change is for the better."""
        return (difference.value < 0) == (self.better == "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One number of several evaluations.

    Attributes
    ----------
    metric
        Which.
    best
        Numbers of the evaluations that have the best value; empty where all have the same.
    changes
        For each evaluation the difference from the first one; None for the first, and where
        none was drawn.
    """

    metric: Metric
    best: frozenset[int]
    changes: tuple[Difference | None, ...]


def metrics_of(evaluations: Sequence[Evaluation]) -> list[Metric]:
    """Return the numbers that at least one evaluation has, the most important ones first."""
    return [
        metric
        for metric in METRICS
        if any(metric.value(evaluation) is not None for evaluation in evaluations)
    ]


def side_by_side(evaluations: Sequence[Evaluation]) -> list[Compared]:
    """Return all numbers of several evaluations, and how the others differ from the first."""
    changes = [score_differences(evaluations[0], other) for other in evaluations[1:]]
    return [
        Compared(
            metric=metric,
            best=best_of(metric, evaluations),
            changes=(None, *(one.get(metric.key) for one in changes)),
        )
        for metric in metrics_of(evaluations)
    ]


def best_of(metric: Metric, evaluations: Sequence[Evaluation]) -> frozenset[int]:
    """Return which evaluations have the best value; none where all have the same.

    Equal is what is written alike: digits beyond say nothing.
    """
    form = _plain(metric.form)
    written = [
        None if (value := metric.value(one)) is None else float(format(value / metric.by, form))
        for one in evaluations
    ]
    known = [value for value in written if value is not None]
    top = None if not known else (min(known) if metric.better == "low" else max(known))
    best = frozenset(number for number, value in enumerate(written) if value == top)
    return frozenset() if top is None or len(best) == len(known) else best


def _plain(form: str) -> str:
    """Return a format whose text is a number again."""
    return f".{int(form[-2]) + 2}f" if form.endswith("%") else form.replace(",", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectChange:
    """What one object of the truth costs in two segmentations, in bits.

    Attributes
    ----------
    id, voxels
        Of the object.
    split, merge
        In the first and in the second one.
    """

    id: int
    voxels: int
    split: tuple[float, float]
    merge: tuple[float, float]

    @property
    def change(self) -> float:
        """What the second one costs more; negative where it is better."""
        return self.split[1] + self.merge[1] - self.split[0] - self.merge[0]


LEAST_CHANGE = 0.0005
"""In bits: less is 0.000 as it is written."""


def object_changes(
    first: Evaluation, second: Evaluation, *, limit: int
) -> tuple[list[ObjectChange], list[ObjectChange]]:
    """Return the objects that got better and those that got worse, the largest change first.

    Parameters
    ----------
    limit
        How many of each at most.
    """
    one, other = first.object_costs, second.object_costs
    if one is None or other is None:
        return [], []
    ids, at, there = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    change = (
        other.split_bits[there] + other.merge_bits[there] - one.split_bits[at] - one.merge_bits[at]
    )
    order = np.argsort(change, kind="stable")

    def made(which: np.ndarray[tuple[int], np.dtype[np.intp]]) -> list[ObjectChange]:
        return [
            ObjectChange(
                id=int(ids[index]),
                voxels=int(one.voxels[at[index]]),
                split=(float(one.split_bits[at[index]]), float(other.split_bits[there[index]])),
                merge=(float(one.merge_bits[at[index]]), float(other.merge_bits[there[index]])),
            )
            for index in which[:limit]
            if abs(change[index]) >= LEAST_CHANGE
        ]

    better = [found for found in made(order) if found.change < 0]
    worse = [found for found in made(order[::-1]) if found.change > 0]
    return better, worse


def _interval_of(key: str) -> Callable[[Evaluation], Interval | None]:
    return lambda evaluation: evaluation.intervals.get(key)


def _score(key: str) -> Callable[[Evaluation], float | None]:
    return lambda evaluation: float(getattr(evaluation.all_truth, key))


def _skeleton(key: str) -> Callable[[Evaluation], float | None]:
    def value(evaluation: Evaluation) -> float | None:
        found = evaluation.skeletons
        return None if found is None else float(getattr(found, key))

    return value


_NM_PER_MICROMETRE = 1000.0


def _erl_interval(evaluation: Evaluation) -> Interval | None:
    return None if evaluation.skeletons is None else evaluation.skeletons.erl_interval


def _none(evaluation: Evaluation) -> Interval | None:
    return None


def _of_truth(key: str, title: str, meaning: str, *, better: Better, form: str) -> Metric:
    return Metric(
        key=key,
        title=title,
        meaning=meaning,
        better=better,
        form=form,
        value=_score(key),
        interval=_interval_of(key),
    )


METRICS: tuple[Metric, ...] = (
    _of_truth(
        "adapted_rand_error",
        "adapted Rand error",
        "Of two voxels of one object or one segment, how often the other does not have them "
        "together: 0 is perfect, 1 the worst. Large objects count most.",
        better="low",
        form=".4f",
    ),
    _of_truth(
        "voi_split_bits",
        "VOI split (bits)",
        "How uncertain one is about the segment when the object is known: 0 is perfect, and cut "
        "objects raise it.",
        better="low",
        form=".3f",
    ),
    _of_truth(
        "voi_merge_bits",
        "VOI merge (bits)",
        "How uncertain one is about the object when the segment is known: 0 is perfect, and "
        "segments over several objects raise it.",
        better="low",
        form=".3f",
    ),
    _of_truth(
        "voi_sum_bits",
        "VOI sum (bits)",
        "Split and merge together: the variation of information.",
        better="low",
        form=".3f",
    ),
    Metric(
        key="erl_nm",
        title="expected run length (µm)",
        meaning="How far one gets along a neurite from a random place, in both directions "
        "together, before the segmentation is wrong.",
        better="high",
        form=".2f",
        value=_skeleton("erl_nm"),
        interval=_erl_interval,
        by=_NM_PER_MICROMETRE,
    ),
    _of_truth(
        "rand_precision",
        "precision",
        "Of two voxels in one segment, how often they are of one object: mergers lower it.",
        better="high",
        form=".3f",
    ),
    _of_truth(
        "rand_recall",
        "recall",
        "Of two voxels of one object, how often they are in one segment: splits lower it.",
        better="high",
        form=".3f",
    ),
    Metric(
        key="coverage",
        title="segmented",
        meaning="Share of the truth's voxels that are in any segment.",
        better="high",
        form=".1%",
        value=lambda one: one.coverage,
        interval=_none,
    ),
    Metric(
        key="skeleton_splits",
        title="skeleton splits",
        meaning="Steps along the midlines of neurites from one segment into another.",
        better="low",
        form=",.0f",
        value=_skeleton("splits"),
        interval=_none,
    ),
    Metric(
        key="skeleton_mergers",
        title="skeleton mergers",
        meaning="Segments that join the midlines of several neurites.",
        better="low",
        form=",.0f",
        value=_skeleton("mergers"),
        interval=_none,
    ),
)
