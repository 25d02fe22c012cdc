"""What a comparison of a segmentation with truth comes to: plain values, and JSON of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from floodem.evaluation.intervals import Interval
from floodem.evaluation.mistakes import Mistake
from floodem.evaluation.objects import ObjectCosts
from floodem.evaluation.scores import Scores
from floodem.evaluation.skeletons.scores import SkeletonScores
from floodem.geometry import Box, Zyx

FORMAT = "floodem evaluation"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a segmentation is worth against truth, and where it goes wrong.

    Attributes
    ----------
    segmentation, truth
        The names of the volumes.
    segmentation_box, truth_box
        What they hold, z, y, x.
    box
        The voxels compared: what both hold, less the border.
    border, ignore
        As given: voxels left out at each face (z, y, x) and truth ids left out.
    coverage
        Share of the truth's voxels that the segmentation labels, 0 to 1.
    all_truth
        Scores over all voxels that truth labels; unlabelled voxels of the
        segmentation count as one segment.
    where_both_label
        Scores over the voxels that both label; None where there are none.
    worst_splits, worst_mergers
        The costliest mistakes where both label, the worst first.
    cremi_border_nm
        As given: voxels so near to borders of the truth are left out; None: none are.
    object_costs
        What each object of the truth costs over all truth.
    skeletons
        Scores along skeletons; None where none were given.
    intervals, intervals_where_both
        Intervals of `all_truth` and of `where_both_label`, by the names in
        `floodem.evaluation.bootstrap.SCORES`; empty where none were asked for.
    draws, seed
        How often objects (and skeletons) were drawn for intervals, and with which seed.
    """

    segmentation: str
    truth: str
    segmentation_box: Box
    truth_box: Box
    box: Box
    border: Zyx
    ignore: tuple[int, ...]
    coverage: float
    all_truth: Scores
    where_both_label: Scores | None
    worst_splits: tuple[Mistake, ...]
    worst_mergers: tuple[Mistake, ...]
    cremi_border_nm: float | None = None
    object_costs: ObjectCosts | None = field(default=None, compare=False, repr=False)
    skeletons: SkeletonScores | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    intervals_where_both: Mapping[str, Interval] = field(default_factory=dict)
    draws: int = 0
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings and lists, with a format version."""
        both = self.where_both_label
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "segmentation": {"uri": self.segmentation, "box_zyx": str(self.segmentation_box)},
            "truth": {"uri": self.truth, "box_zyx": str(self.truth_box)},
            "box_zyx": str(self.box),
            "border_zyx": list(self.border),
            "cremi_border_nm": self.cremi_border_nm,
            "ignore": list(self.ignore),
            "coverage": self.coverage,
            "all_truth": self.all_truth.to_dict(),
            "where_both_label": None if both is None else both.to_dict(),
            "bootstrap": {"draws": self.draws, "seed": self.seed},
            "intervals": _interval_dicts(self.intervals),
            "intervals_where_both": _interval_dicts(self.intervals_where_both),
            "worst_splits": [_mistake_dict(split, part="segment") for split in self.worst_splits],
            "worst_mergers": [
                _mistake_dict(merger, part="object") for merger in self.worst_mergers
            ],
            "skeletons": None if self.skeletons is None else self.skeletons.to_dict(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def _interval_dicts(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in intervals.items()}


def _mistake_dict(mistake: Mistake, *, part: str) -> dict[str, Any]:
    whole = "object" if part == "segment" else "segment"
    return {
        whole: mistake.id,
        "voxels": mistake.voxels,
        f"{part}s": mistake.parts,
        f"effective_{part}s": mistake.effective_parts,
        "voi_bits": mistake.voi_bits,
        "largest": [
            {
                part: piece.id,
                "voxels": piece.voxels,
                "position_zyx": None if piece.position is None else list(piece.position),
            }
            for piece in mistake.largest
        ],
    }
