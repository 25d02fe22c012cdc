"""Which of several validations is the best one: rows of the curve in, one of them out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from floodem.training.validation.score import ValidationScore


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationFailure:
    """A validation without a score.

    Attributes
    ----------
    step, hours
        Step of the weights, and training time up to there.
    reason
        One sentence.
    seconds
        How long it took to fail.
    """

    step: int
    hours: float
    reason: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "step": self.step,
            "hours": self.hours,
            "failure": self.reason,
            "seconds": self.seconds,
        }


def best_score(scores: Iterable[ValidationScore]) -> ValidationScore | None:
    """Return the score of least cost, of equal ones the oldest; None where there is none."""
    return min(scores, key=lambda score: (score.cost, score.step), default=None)
