"""What each object of the truth costs: a table of label pairs in, bits by object out.

Two segmentations of the same truth are compared by it, object by object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.evaluation.scores import conditional_entropy_bits, group_sizes
from floodem.labels import OverlapTable


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ObjectCosts:
    """What every object of the truth adds to the variation of information.

    Attributes
    ----------
    ids
        Of the objects, ascending.
    voxels
        Voxels of each.
    split_bits, merge_bits
        What its cuts, and what it shares segments with, add: all objects together have the
        VOI split and the VOI merge of the same voxels.
    """

    ids: UInt64[np.ndarray, "objects"]
    voxels: Int64[np.ndarray, "objects"]
    split_bits: Float64[np.ndarray, "objects"]
    merge_bits: Float64[np.ndarray, "objects"]


def object_costs(table: OverlapTable) -> ObjectCosts:
    """Return what each truth object (`ids_b`) costs; every row of the table counts."""
    counts = table.counts.astype(np.float64)
    segment_sizes, _, segments = group_sizes(table.ids_a, table.counts)
    object_sizes, ids, objects = group_sizes(table.ids_b, table.counts)
    split = conditional_entropy_bits(counts, object_sizes[objects])
    merge = conditional_entropy_bits(counts, segment_sizes[segments])
    return ObjectCosts(
        ids=ids,
        voxels=object_sizes.astype(np.int64),
        split_bits=np.bincount(objects, weights=split),
        merge_bits=np.bincount(objects, weights=merge),
    )
