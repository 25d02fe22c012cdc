"""Which edges are right: overlaps with truth in, an object for each segment, yes or no out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt64

from floodem.assembly.agglomeration.graph.records import EdgeTable
from floodem.evaluation.scores import group_sizes
from floodem.labels import OverlapTable

LEAST_LABELLED = 0.5
"""A segment of which truth labels less is mostly outside of what was labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The truth object of each base segment.

    Attributes
    ----------
    segments
        Ids of all segments where truth and segmentation were compared, ascending.
    objects
        The object of each; 0 where it is unclear.
    """

    segments: UInt64[np.ndarray, "segments"]
    objects: UInt64[np.ndarray, "segments"]

    @property
    def unclear(self) -> int:
        """How many segments belong to no object clearly."""
        return int(np.count_nonzero(self.objects == 0))

    def objects_of(self, ids: UInt64[np.ndarray, "ids"]) -> UInt64[np.ndarray, "ids"]:
        """Return the object of each segment, 0 where it is unclear or was not compared."""
        if not len(self.segments):
            return np.zeros(len(ids), np.uint64)
        rows = np.minimum(np.searchsorted(self.segments, ids), len(self.segments) - 1)
        return np.where(self.segments[rows] == ids, self.objects[rows], np.uint64(0))


def assign(table: OverlapTable, *, purity: float, ignore: tuple[int, ...] = (0,)) -> Assignment:
    """Give each segment the truth object that it overlaps most.

    Parameters
    ----------
    table
        Segments as `ids_a`, truth objects as `ids_b`.
    purity
        The object must have at least this share of the segment's voxels that truth labels,
        and truth must label half of the segment's voxels.
    ignore
        Truth ids that are no objects.
    """
    table = table.select(table.ids_a != 0)
    sizes, segments, group = group_sizes(table.ids_a, table.counts)
    counts = np.isin(table.ids_b, np.array(ignore, np.uint64), invert=True)
    counts &= table.ids_b != 0
    labelled = np.bincount(group[counts], table.counts[counts], minlength=len(segments))
    # The largest overlap of each segment comes first, of equal ones that with the smaller id.
    order = np.lexsort((table.ids_b, -np.where(counts, table.counts, 0), table.ids_a))
    firsts = np.searchsorted(table.ids_a[order], segments)
    best = order[firsts] if len(segments) else order
    is_clear = (
        counts[best]
        & (table.counts[best] >= purity * labelled)
        & (labelled >= LEAST_LABELLED * sizes)
    )
    return Assignment(
        segments=segments, objects=np.where(is_clear, table.ids_b[best], np.uint64(0))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTruth:
    """What truth says about each edge.

    Attributes
    ----------
    is_clear
        Whether both segments have a clear object.
    is_right
        Whether it is the same one.
    """

    is_clear: Bool[np.ndarray, "edges"]
    is_right: Bool[np.ndarray, "edges"]


def judge(edges: EdgeTable, assignment: Assignment) -> EdgeTruth:
    """Tell of each edge whether a merge would be right."""
    a, b = assignment.objects_of(edges.ids_a), assignment.objects_of(edges.ids_b)
    is_clear = (a != 0) & (b != 0)
    return EdgeTruth(is_clear=is_clear, is_right=is_clear & (a == b))
