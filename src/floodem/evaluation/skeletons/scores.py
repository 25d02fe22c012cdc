"""What a segmentation is worth along skeletons of the truth: plain numbers.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Skeleton metrics".
"""

from __future__ import annotations

from dataclasses import dataclass

from floodem.evaluation.intervals import Interval
from floodem.geometry import Zyx


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonMistake:
    """One place where a segmentation goes wrong along a skeleton, or joins several.

    Attributes
    ----------
    skeletons
        Ids of the skeletons: one for a split, all that are joined for a merger.
    segments
        Ids of the segments: the two of a split, the one of a merger.
    positions
        A voxel z, y, x for each skeleton of a merger, or each segment of a split.
    cost_nm
        By how much the expected run length would grow without it, in nanometres.
    """

    skeletons: tuple[int, ...]
    segments: tuple[int, ...]
    positions: tuple[Zyx, ...]
    cost_nm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonScores:
    """Scores over all skeletons.

    Attributes
    ----------
    skeletons
        How many there are, of `length_nm` in all, in nanometres.
    erl_nm
        Expected run length: how far from a random point of a skeleton one gets in both
        directions together without a mistake.
    possible_erl_nm
        The same of a perfect segmentation.
    correct, split, omitted, merged
        Fractions of the length, 1 together: edges in one segment; between two segments;
        with an end in no segment; in a segment that joins skeletons.
    splits
        Edges between two segments.
    mergers
        Segments that join skeletons.
    erl_interval
        Of `erl_nm`, or None where none was asked for.
    worst_splits, worst_mergers
        The costliest first.
    """

    skeletons: int
    length_nm: float
    erl_nm: float
    possible_erl_nm: float
    correct: float
    split: float
    omitted: float
    merged: float
    splits: int
    mergers: int
    erl_interval: Interval | None
    worst_splits: tuple[SkeletonMistake, ...]
    worst_mergers: tuple[SkeletonMistake, ...]
