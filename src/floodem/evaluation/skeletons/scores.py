"""What a segmentation is worth along skeletons of the truth: plain numbers.

Definitions are in docs/scores.md; `floodem.evaluation.skeletons.edges` computes the
numbers, `floodem.evaluation.skeletons.mistakes` finds the mistakes.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Skeleton metrics".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from floodem.evaluation.intervals import Interval
from floodem.geometry import Zyx


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonMistake:
    """One place where a segmentation goes wrong along a skeleton, or joins several.

    Attributes
    ----------
    skeletons
        Ids of the skeletons: one for a split, all that are joined for a merger, the one
        with most nodes in the segment first.
    segments
        Ids of the segments: the two of a split, the one of a merger.
    positions
        A voxel z, y, x for each skeleton of a merger, or each segment of a split. Those
        of a merger are nodes near the first skeleton.
    cost_nm
        By how much the expected run length would grow without it, in nanometres: were the
        two segments one along this skeleton, or the segment cut between its skeletons.
    """

    skeletons: tuple[int, ...]
    segments: tuple[int, ...]
    positions: tuple[Zyx, ...]
    cost_nm: float

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "skeletons": list(self.skeletons),
            "segments": list(self.segments),
            "positions_zyx": [list(position) for position in self.positions],
            "cost_nm": self.cost_nm,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SkeletonRuns:
    """What each skeleton adds to the expected run length.

    Attributes
    ----------
    ids
        Of the skeletons.
    squared_runs
        Sum of the squares of each one's runs, in nm^2.
    lengths_nm
        Length of each.
    """

    ids: tuple[int, ...]
    squared_runs: Float64[np.ndarray, "skeletons"]
    lengths_nm: Float64[np.ndarray, "skeletons"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonScores:
    """Scores over all skeletons.

    Attributes
    ----------
    skeletons
        How many have a node in the box, `length_nm` long in all, in nanometres.
    nodes
        How many nodes they have there.
    outside
        How many nodes lie outside the box and are left out, with their edges.
    coverage
        Share of the nodes that lie in a segment, 0 to 1.
    erl_nm
        Expected run length: how far from a random point of a skeleton one gets in both
        directions together without a mistake, in nanometres.
    possible_erl_nm
        The same of a perfect segmentation.
    correct, split, omitted, merged
        Fractions of the length, 1 together: edges in one segment; between two segments;
        with an end in no segment; in a segment that joins skeletons.
    splits
        Edges between two segments.
    gaps
        Stretches of nodes in no segment that lie between two or more segments.
    mergers
        Segments that join skeletons.
    merge_nodes
        How many nodes of a second skeleton make a segment join skeletons.
    erl_interval
        Of `erl_nm`, or None where none was asked for.
    worst_splits, worst_mergers
        The costliest first.
    runs
        What each skeleton adds to `erl_nm`.
    """

    skeletons: int
    length_nm: float
    nodes: int
    outside: int
    coverage: float
    erl_nm: float
    possible_erl_nm: float
    correct: float
    split: float
    omitted: float
    merged: float
    splits: int
    gaps: int
    mergers: int
    merge_nodes: int
    erl_interval: Interval | None
    worst_splits: tuple[SkeletonMistake, ...]
    worst_mergers: tuple[SkeletonMistake, ...]
    runs: SkeletonRuns | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        values = {name: getattr(self, name) for name in _PLAIN}
        interval = self.erl_interval
        return values | {
            "erl_interval": None if interval is None else asdict(interval),
            "worst_splits": [one.to_dict() for one in self.worst_splits],
            "worst_mergers": [one.to_dict() for one in self.worst_mergers],
        }


_PLAIN = (
    "skeletons",
    "length_nm",
    "nodes",
    "outside",
    "coverage",
    "erl_nm",
    "possible_erl_nm",
    "correct",
    "split",
    "omitted",
    "merged",
    "splits",
    "gaps",
    "mergers",
    "merge_nodes",
)
