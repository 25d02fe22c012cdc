"""What one validation found: a row of the curve by which checkpoints are chosen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationScore:
    """Scores of the held-out block at one step.

    Attributes
    ----------
    step, hours
        Step of the weights, and training time up to there.
    adapted_rand_error, rand_precision, rand_recall, voi_split_bits, voi_merge_bits
        Over all voxels that truth labels (floodem.evaluation).
    fill
        Share of the truth's voxels that the segmentation labels, 0 to 1.
    segments, network_calls
        Of the flood.
    seconds
        How long flooding and scoring took.
    """

    step: int
    hours: float
    adapted_rand_error: float
    rand_precision: float
    rand_recall: float
    voi_split_bits: float
    voi_merge_bits: float
    fill: float
    segments: int
    network_calls: int
    seconds: float

    @property
    def cost(self) -> float:
        """What is minimised when the best checkpoint is chosen: the adapted Rand error."""
        return self.adapted_rand_error

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return dataclasses.asdict(self)
