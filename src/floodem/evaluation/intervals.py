"""How sure a score is: the range in which it lies when the objects are drawn again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A bootstrap interval of a score.

    Attributes
    ----------
    low, high
        Its ends, in the score's unit.
    level
        Share of the drawings between them, such as 0.95.
    """

    low: float
    high: float
    level: float
