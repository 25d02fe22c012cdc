"""Whether one segmentation is better than another: two evaluations in, differences out.

Both are drawn with the same objects of the truth (and the same skeletons) in every drawing, so
that what makes objects hard for both cancels out. Two intervals that overlap say nothing of
this; the interval of the difference does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from floodem.evaluation.bootstrap import (
    SCORES,
    drawn_run_lengths,
    drawn_scores,
    interval,
)
from floodem.evaluation.intervals import Interval
from floodem.evaluation.result import Evaluation
from floodem.evaluation.skeletons.scores import SkeletonScores

RUN_LENGTH = "erl_nm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A score of one segmentation less that of another.

    Attributes
    ----------
    value
        The difference, in the unit of the score.
    interval
        The same of drawn objects or skeletons.
    """

    value: float
    interval: Interval

    @property
    def is_clear(self) -> bool:
        """Whether all of the interval lies on one side of 0."""
        return self.interval.low > 0 or self.interval.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"value": self.value, **asdict(self.interval)}


def score_differences(first: Evaluation, other: Evaluation) -> Mapping[str, Difference]:
    """Return the scores of another segmentation less those of the first one.

    Drawings are as many as `first` had, with its seed.

    Returns
    -------
    Mapping[str, Difference]
        By `SCORES` and `RUN_LENGTH`. Scores that the two do not have of the same objects, with
        the same voxels, are left out, and so is the run length along other skeletons; all of
        them where nothing was drawn (`bootstrap`).
    """
    if not first.draws:
        return {}
    found: dict[str, Difference] = {}
    one, two = first.object_costs, other.object_costs
    if (
        one is not None
        and two is not None
        and np.array_equal(one.ids, two.ids)
        and np.array_equal(one.voxels, two.voxels)
    ):
        before = drawn_scores(one, draws=first.draws, seed=first.seed)
        after = drawn_scores(two, draws=first.draws, seed=first.seed)
        for name in SCORES:
            found[name] = Difference(
                value=getattr(other.all_truth, name) - getattr(first.all_truth, name),
                interval=interval(after[name] - before[name]),
            )
    if first.skeletons is not None and other.skeletons is not None:
        along = _along(first.skeletons, other.skeletons, draws=first.draws, seed=first.seed)
        if along is not None:
            found[RUN_LENGTH] = along
    return found


def _along(
    first: SkeletonScores, other: SkeletonScores, *, draws: int, seed: int
) -> Difference | None:
    """Return the difference of the run lengths; None where the skeletons are not the same."""
    one, two = first.runs, other.runs
    if one is None or two is None or one.ids != two.ids:
        return None
    if not np.array_equal(one.lengths_nm, two.lengths_nm):
        return None
    before, after = (
        drawn_run_lengths(runs.squared_runs, runs.lengths_nm, draws=draws, seed=seed)
        for runs in (one, two)
    )
    return Difference(value=other.erl_nm - first.erl_nm, interval=interval(after - before))
