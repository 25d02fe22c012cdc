"""Segments grown into the empty space around them: labels in, grown labels and distances out.

The first step to decision points (contacts comes next). All segments grow by watershed on E,
the Euclidean distance of each empty voxel to the nearest segment voxel: voxels are flooded in
the order of E, equal ones in C order, and each takes the label of that of its six face
neighbours which was flooded first. Voxels with E above the largest distance stay empty. What
lies outside of the array is no segment.

Every empty voxel has a face neighbour with a smaller E: the next one on the way to its nearest
segment voxel. By the time that a voxel's turn comes, all neighbours before it in the order are
flooded, hence it takes the label of the neighbour with the smallest E, and of equal ones the
first in C order. This is a rule of the surroundings alone, so that blocks grow as the whole
volume does if they are cut with a margin (`Lengths.halo`).

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt

from floodem.assembly.agglomeration.points.lengths import Lengths

_PASS_BYTES = 2**18
"""Squares that a pass goes through at a time: they stay in a core's own cache."""

_LIST_VOXELS = 2**20
"""Empty voxels whose neighbours are compared at a time."""

_TYPES = (np.int16, np.int32, np.int64)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grown:
    """Segments that have grown, with a border of one far voxel at every face.

    Attributes
    ----------
    bordered_labels
        The segments with what they grew by; 0 where all segments are too far away.
    bordered_squared
        Square of the distance to the nearest segment voxel, in units squared of the lengths;
        ``limit + 1`` where it is above the limit.
    """

    bordered_labels: UInt[np.ndarray, "z y x"]
    bordered_squared: Integer[np.ndarray, "z y x"]

    @property
    def labels(self) -> UInt[np.ndarray, "z y x"]:
        """The labels without the border."""
        return self.bordered_labels[1:-1, 1:-1, 1:-1]

    @property
    def squared(self) -> Integer[np.ndarray, "z y x"]:
        """The squared distances without the border."""
        return self.bordered_squared[1:-1, 1:-1, 1:-1]


def grow(labels: UInt[np.ndarray, "z y x"], *, lengths: Lengths) -> Grown:
    """Grow all segments into the empty space around them.

    Takes about 30 bytes of memory for each empty voxel within the largest distance, and for
    each voxel the squares (2 bytes in the usual case) and the grown labels.

    Parameters
    ----------
    labels
        Segments; 0 is empty space.
    """
    # The border gives every voxel six neighbours.
    padded = np.pad(labels, 1)
    squared = np.full(padded.shape, lengths.limit + 1, dtype=_type_for(lengths))
    inner = squared[1:-1, 1:-1, 1:-1]
    inner[labels != 0] = 0
    _spread(inner, lengths)
    near = np.flatnonzero((squared > 0) & (squared <= lengths.limit))
    _pull_labels(padded.reshape(-1), near, _best_neighbours(squared, near))
    return Grown(bordered_labels=padded, bordered_squared=squared)


def _type_for(lengths: Lengths) -> type[np.signedinteger[Any]]:
    """Return the smallest type for what `_spread` adds up."""
    largest = 1 + 3 * lengths.limit
    return next(one for one in _TYPES if largest <= np.iinfo(one).max)


def _spread(squared: Integer[np.ndarray, "z y x"], lengths: Lengths) -> None:
    """Turn 0 at segments, and more than the limit elsewhere, into squared distances, in place.

    One axis after the other; on each, k voxels off costs (k e)^2, which is the sum of
    e^2 (2 j - 1) for j from 1 to k. So neighbours are compared once for each j, and what k
    of these comparisons carried furthest is the least sum: whole numbers throughout.
    """
    for axis in (2, 1, 0):
        reach = min(lengths.reach[axis], squared.shape[axis] - 1)
        costs = [lengths.edges[axis] ** 2 * (2 * j - 1) for j in range(1, reach + 1)]
        # Parts are cut across another axis than the one that is gone along.
        across = 1 if axis == 0 else 0
        row = squared.nbytes // max(1, squared.shape[across])
        step = max(1, _PASS_BYTES // max(1, row))
        for first in range(0, squared.shape[across], step):
            part = squared[:, first : first + step] if across else squared[first : first + step]
            along = np.moveaxis(part, axis, 0)
            for cost in costs:
                np.minimum(along[1:], along[:-1] + squared.dtype.type(cost), out=along[1:])
                np.minimum(along[:-1], along[1:] + squared.dtype.type(cost), out=along[:-1])


def _best_neighbours(
    squared: Integer[np.ndarray, "z y x"], near: Integer[np.ndarray, " near"]
) -> Integer[np.ndarray, " near"]:
    """Return for each voxel of a list its neighbour that is flooded first; all flat indices."""
    flat = squared.reshape(-1)
    _, rows, columns = squared.shape
    steps = (-rows * columns, -columns, -1, 1, columns, rows * columns)
    best = np.empty_like(near)
    for first in range(0, len(near), _LIST_VOXELS):
        some = near[first : first + _LIST_VOXELS]
        found, least = some + steps[0], flat[some + steps[0]]
        for step in steps[1:]:
            at = some + step
            there = flat[at]
            is_less = there < least  # of equal ones the earlier stays
            np.copyto(found, at, where=is_less)
            np.copyto(least, there, where=is_less)
        best[first : first + _LIST_VOXELS] = found
    return best


def _pull_labels(
    labels: UInt[np.ndarray, " voxels"],
    near: Integer[np.ndarray, " near"],
    best: Integer[np.ndarray, " near"],
) -> None:
    """Give each voxel of a list the label of its best neighbour, in place.

    Each round reaches the voxels one step further from the segments; the ways are so short
    that this is less work than halving them.
    """
    while len(near):
        found = labels[best]
        is_found = found != 0
        labels[near[is_found]] = found[is_found]
        near, best = near[~is_found], best[~is_found]
