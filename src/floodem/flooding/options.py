"""How a block is flooded: the numbers a user may choose, and their defaults.

Probabilities are what the user sees; the flood compares logits. `to_logit`
rounds to float32 on the way, as the reference does, so that results can be
equal to the last voxel.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from floodem.errors import OptionError
from floodem.flooding.seeds import SeedPolicySpec
from floodem.flooding.seeds.context import ISOTROPIC
from floodem.geometry import Zyx


def to_logit(probability: float) -> np.float32:
    """Return log(p / (1 - p)) in float32, of the probability rounded to float32."""
    rounded = float(np.float32(probability))
    return np.float32(math.log(rounded / (1 - rounded)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodOptions:
    """Options of one flood and of the loop over seeds.

    Attributes
    ----------
    init_activation
        Probability written at a seed.
    pad_value, move_threshold
        Probability of untouched voxels, and from which the field of view moves
        on; None takes the model's own, which is what it was trained with.
    segment_threshold
        Probability from which a voxel belongs to the segment.
    min_segment_size
        Voxels below which a segment is dropped.
    min_boundary_dist
        A seed is skipped when a segment lies within this many voxels (z, y, x).
    disco_seed_threshold
        Fraction of the field of view at or above the move threshold from which
        voxels once found outside may no longer come back (the rule against
        mergers); negative turns the rule off.
    max_calls, max_voxels
        A flood ends after this many network calls, or once this many voxels
        reach the segment threshold; what it has filled is kept and reported as
        ended early. None: no limit.
    seeds
        Where floods start.
    seed_anisotropy
        Relative voxel edges (z, y, x) for the distances of the seed policies.
    """

    init_activation: float = 0.95
    pad_value: float | None = None
    move_threshold: float | None = None
    segment_threshold: float = 0.6
    min_segment_size: int = 1000
    min_boundary_dist: Zyx = (1, 1, 1)
    disco_seed_threshold: float = 0.0
    max_calls: int | None = None
    max_voxels: int | None = None
    seeds: SeedPolicySpec = field(default_factory=SeedPolicySpec)
    seed_anisotropy: tuple[float, float, float] = ISOTROPIC

    def __post_init__(self) -> None:
        for name in ("init_activation", "pad_value", "move_threshold", "segment_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < np.float32(value) < 1:
                raise OptionError(
                    f"{name} {value} is not a probability: give a number between 0 and 1 that "
                    "float32 tells from both"
                )
        for name in ("min_segment_size", "max_calls", "max_voxels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} {value} is too small: give at least 1")
        if min(self.min_boundary_dist) < 0:
            raise OptionError(
                f"min_boundary_dist {self.min_boundary_dist} (z,y,x) is negative: give voxels from "
                "0 on"
            )
        if not all(math.isfinite(edge) and edge > 0 for edge in self.seed_anisotropy):
            raise OptionError(
                f"seed_anisotropy {self.seed_anisotropy} (z,y,x) is not positive on every axis: "
                "give relative voxel edges, for example 5,1,1"
            )
        if not self.disco_seed_threshold <= 1:
            raise OptionError(
                f"disco_seed_threshold {self.disco_seed_threshold} is not 1 or below: give a "
                "fraction of the field of view, or a negative number to turn the rule off"
            )

    def completed(self, *, pad_value: float, move_threshold: float) -> FloodOptions:
        """Return these options with the model's values where none were chosen."""
        return dataclasses.replace(
            self,
            pad_value=pad_value if self.pad_value is None else self.pad_value,
            move_threshold=move_threshold if self.move_threshold is None else self.move_threshold,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a run's record."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values["seeds"] = self.seeds.to_json()
        return values
