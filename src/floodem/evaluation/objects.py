"""What each object of the truth costs: a table of label pairs in, sums by object out.

Two segmentations of the same truth are compared by it, object by object, and objects are drawn
from it for intervals (floodem.evaluation.bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.evaluation.scores import Floats, conditional_entropy_bits, group_sizes
from floodem.labels import OverlapTable


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ObjectCosts:
    """What every object of the truth adds to the sums that scores are ratios of.

    Attributes
    ----------
    ids
        Of the objects, ascending.
    voxels
        Voxels of each.
    split_bits, merge_bits
        What its cuts, and what it shares segments with, add: all objects together have the
        VOI split and the VOI merge of the same voxels.
    pairs, in_segments, in_objects
        Over its voxels, the sums of how many of them share the segment, of the segment's and
        of the object's voxels: the Rand scores are ratios of these.
    """

    ids: UInt64[np.ndarray, "objects"]
    voxels: Int64[np.ndarray, "objects"]
    split_bits: Float64[np.ndarray, "objects"]
    merge_bits: Float64[np.ndarray, "objects"]
    pairs: Float64[np.ndarray, "objects"]
    in_segments: Float64[np.ndarray, "objects"]
    in_objects: Float64[np.ndarray, "objects"]


def object_costs(table: OverlapTable) -> ObjectCosts:
    """Return what each truth object (`ids_b`) costs; every row of the table counts."""
    counts = table.counts.astype(np.float64)
    segment_sizes, _, segments = group_sizes(table.ids_a, table.counts)
    object_sizes, ids, objects = group_sizes(table.ids_b, table.counts)
    split = conditional_entropy_bits(counts, object_sizes[objects])
    merge = conditional_entropy_bits(counts, segment_sizes[segments])

    def by_object(values: Floats) -> Floats:
        return np.bincount(objects, weights=values).astype(np.float64)

    return ObjectCosts(
        ids=ids,
        voxels=object_sizes.astype(np.int64),
        split_bits=by_object(split),
        merge_bits=by_object(merge),
        pairs=by_object(counts**2),
        in_segments=by_object(counts * segment_sizes[segments]),
        in_objects=by_object(counts * object_sizes[objects]),
    )
