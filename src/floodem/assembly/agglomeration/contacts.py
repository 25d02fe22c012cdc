"""Where grown segments touch: grown labels in, the nearest places of every pair out.

Two grown segments touch where they differ across one of the seven offsets (dz, dy, dx) in
{0, -1}^3 but 0. That makes a candidate at the voxel of the lower index, with the mean of both
voxels' distances. Of each pair those with the smallest distance are kept, its ties; the
decision point is the tie nearest, in nanometres, to the centroid of all its ties, and of
equally near ones the first in C order. A voxel counts once, however many offsets make it a
tie. Everything is decided by whole numbers, or floats of the same whole numbers.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from floodem.assembly.agglomeration.growing import Grown
from floodem.assembly.agglomeration.lengths import Lengths
from floodem.geometry import Box, Zyx
from floodem.labels.runs import runs

OFFSETS = tuple(
    (z, y, x) for z, y, x in itertools.product((0, 1), repeat=3) if (z, y, x) != (0, 0, 0)
)
"""From the lower of two touching voxels to the other."""

_SLAB_VOXELS = 2**20
"""Voxels whose neighbours are looked at at a time."""

Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contacts:
    """Ties of pairs, ordered by `ids_a`, `ids_b` and then position, in C order.

    Attributes
    ----------
    ids_a, ids_b
        The two segments, the smaller id first.
    distances_nm
        The pair's smallest distance, the same in all its rows.
    positions
        Voxels z, y, x; none occurs twice for a pair.
    """

    ids_a: UInt64[np.ndarray, " rows"]
    ids_b: UInt64[np.ndarray, " rows"]
    distances_nm: Float64[np.ndarray, " rows"]
    positions: Int64[np.ndarray, "rows 3"]

    def __len__(self) -> int:
        return len(self.ids_a)

    def select(self, rows: Rows | Bool[np.ndarray, " rows"]) -> Contacts:
        """Return some rows, by their numbers or by True and False."""
        return Contacts(
            ids_a=self.ids_a[rows],
            ids_b=self.ids_b[rows],
            distances_nm=self.distances_nm[rows],
            positions=self.positions[rows],
        )

    def starts(self) -> Rows:
        """Return where the rows of each pair begin."""
        return runs(self.ids_a, self.ids_b)[0]


def nothing() -> Contacts:
    """Return contacts without a row."""
    ids = np.zeros(0, np.uint64)
    return Contacts(
        ids_a=ids, ids_b=ids, distances_nm=np.zeros(0), positions=np.zeros((0, 3), np.int64)
    )


def find_contacts(grown: Grown, *, core: Box, start: Zyx, lengths: Lengths) -> Contacts:
    """Find the nearest places of all pairs that touch with the lower voxel in a core.

    Parameters
    ----------
    grown
        Grown labels of the core and what is around it.
    core
        Where the lower voxels lie, z, y, x.
    start
        Where the arrays begin, in the frame of the core.
    """
    _, rows, columns = grown.labels.shape
    found = [nothing()]
    step = max(1, _SLAB_VOXELS // max(1, rows * columns))
    for first in range(core.start[0], core.stop[0], step):
        slab = Box(
            (first, *core.start[1:]), (min(first + step, core.stop[0]), *core.stop[1:])
        ).translate((-start[0], -start[1], -start[2]))
        found += [_across(grown, slab=slab, offset=offset, lengths=lengths) for offset in OFFSETS]
    ties = merge_contacts(found)
    return Contacts(
        ids_a=ties.ids_a,
        ids_b=ties.ids_b,
        distances_nm=ties.distances_nm,
        positions=ties.positions + np.array(start, np.int64),
    )


def merge_contacts(found: Sequence[Contacts]) -> Contacts:
    """Return what is nearest of several contacts together, in whatever order they come."""
    rows = Contacts(
        ids_a=np.concatenate([one.ids_a for one in found]),
        ids_b=np.concatenate([one.ids_b for one in found]),
        distances_nm=np.concatenate([one.distances_nm for one in found]),
        positions=np.concatenate([one.positions for one in found]),
    )
    rows = rows.select(_is_nearest(rows.ids_a, rows.ids_b, rows.distances_nm))
    rows = rows.select(np.lexsort((*rows.positions.T[::-1], rows.ids_b, rows.ids_a)))
    return rows.select(runs(rows.ids_a, rows.ids_b, *rows.positions.T)[0])


def _across(grown: Grown, *, slab: Box, offset: Zyx, lengths: Lengths) -> Contacts:
    """Return the ties across one offset, lower voxels in a part of the arrays."""
    within = Box.from_shape(grown.labels.shape).translate((-offset[0], -offset[1], -offset[2]))
    lower_box = slab.intersection(within)
    if lower_box is None:
        return nothing()
    lower, upper = lower_box.slices(), lower_box.translate(offset).slices()
    one, other = grown.labels[lower], grown.labels[upper]
    touching = np.nonzero((one != other) & (one != 0) & (other != 0))
    a, b = one[touching].astype(np.uint64), other[touching].astype(np.uint64)
    ids_a, ids_b = np.minimum(a, b), np.maximum(a, b)
    distances = lengths.mean_nm(grown.squared[lower][touching], grown.squared[upper][touching])
    rows = _is_nearest(ids_a, ids_b, distances)
    positions = np.stack([axis[rows] for axis in touching], axis=1)
    return Contacts(
        ids_a=ids_a[rows],
        ids_b=ids_b[rows],
        distances_nm=distances[rows],
        positions=positions + np.array(lower_box.start, np.int64),
    )


def _is_nearest(
    ids_a: UInt64[np.ndarray, " rows"],
    ids_b: UInt64[np.ndarray, " rows"],
    distances: Float64[np.ndarray, " rows"],
) -> Bool[np.ndarray, " rows"]:
    """Tell which rows have the smallest distance of their pair.

    Neighbouring rows are mostly of one pair, so that runs of them are sorted, not rows.
    """
    starts, lengths = runs(ids_a, ids_b)
    if not len(starts):
        return np.zeros(0, np.bool_)
    nearest = np.minimum.reduceat(distances, starts)
    a, b = ids_a[starts], ids_b[starts]
    order = np.lexsort((b, a))
    pairs, sizes = runs(a[order], b[order])
    least = np.empty_like(nearest)
    least[order] = np.repeat(np.minimum.reduceat(nearest[order], pairs), sizes)
    return np.asarray(distances == np.repeat(least, lengths))
