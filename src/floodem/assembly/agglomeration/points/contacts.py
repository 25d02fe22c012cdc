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
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from floodem.assembly.agglomeration.points.growing import Grown
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.geometry import Box, Zyx
from floodem.labels.runs import runs

OFFSETS = tuple(
    (z, y, x) for z, y, x in itertools.product((0, 1), repeat=3) if (z, y, x) != (0, 0, 0)
)
"""From the lower of two touching voxels to the other."""

_SLAB_VOXELS = 2**20
"""Voxels whose neighbours are looked at at a time."""

_LARGEST_KEY = 2**62

Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contacts:
    """Ties of pairs, ordered by `ids_a`, `ids_b` and then place.

    Attributes
    ----------
    ids_a, ids_b
        The two segments, the smaller id first.
    distances_nm
        The pair's smallest distance, the same in all its rows.
    places
        Voxels, as numbers in the C order of the box that is searched; none occurs twice for
        a pair.
    """

    ids_a: UInt64[np.ndarray, " rows"]
    ids_b: UInt64[np.ndarray, " rows"]
    distances_nm: Float64[np.ndarray, " rows"]
    places: Int64[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.ids_a)

    def select(self, rows: Rows | Bool[np.ndarray, " rows"]) -> Contacts:
        """Return some rows, by their numbers or by True and False."""
        return Contacts(
            ids_a=self.ids_a[rows],
            ids_b=self.ids_b[rows],
            distances_nm=self.distances_nm[rows],
            places=self.places[rows],
        )

    def starts(self) -> Rows:
        """Return where the rows of each pair begin."""
        return runs(self.ids_a, self.ids_b)[0]

    def positions(self, shape: Zyx) -> Int64[np.ndarray, "rows 3"]:
        """Return the voxels z, y, x in a box of this shape."""
        return np.stack(np.unravel_index(self.places, shape), axis=1).astype(np.int64)


def nothing() -> Contacts:
    """Return contacts without a row."""
    ids, places = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return Contacts(ids_a=ids, ids_b=ids, distances_nm=np.zeros(0), places=places)


def merge_contacts(found: Sequence[Contacts]) -> Contacts:
    """Return what is nearest of several contacts together, in whatever order they come."""
    rows = Contacts(
        ids_a=np.concatenate([one.ids_a for one in found]),
        ids_b=np.concatenate([one.ids_b for one in found]),
        distances_nm=np.concatenate([one.distances_nm for one in found]),
        places=np.concatenate([one.places for one in found]),
    )
    if not len(rows):
        return rows
    # Neighbouring rows are mostly of one pair, so that runs of them are sorted, not rows.
    starts, lengths = runs(rows.ids_a, rows.ids_b)
    order = np.lexsort((rows.ids_b[starts], rows.ids_a[starts]))
    pairs, sizes = runs(rows.ids_a[starts][order], rows.ids_b[starts][order])
    nearest = np.minimum.reduceat(rows.distances_nm, starts)[order]
    least, numbers = np.empty(len(starts)), np.empty(len(starts), np.int64)
    least[order] = np.repeat(np.minimum.reduceat(nearest, pairs), sizes)
    numbers[order] = np.repeat(np.arange(len(pairs)), sizes)
    ties = np.flatnonzero(rows.distances_nm == np.repeat(least, lengths))
    ties = ties[_order(np.repeat(numbers, lengths)[ties], rows.places[ties])]
    rows = rows.select(ties)
    return rows.select(runs(rows.ids_a, rows.ids_b, rows.places)[0])


def _order(pairs: Rows, places: Rows) -> Rows:
    """Return the order of rows by the numbers of their pairs, then by place."""
    lowest = int(places.min())
    span = int(places.max()) - lowest + 1
    if (int(pairs.max()) + 1) * span > _LARGEST_KEY:
        return np.lexsort((places, pairs))
    # Single numbers are sorted several times faster.
    return np.argsort(pairs * span + (places - lowest))


def find_contacts(grown: Grown, *, core: Box, start: Zyx, shape: Zyx, lengths: Lengths) -> Contacts:
    """Find the nearest places of all pairs that touch with the lower voxel in a core.

    Parameters
    ----------
    grown
        Grown labels of the core and what is around it.
    core
        Where the lower voxels lie, z, y, x, counted from the start of the box that is searched.
    start
        Where the grown labels begin, counted in the same way.
    shape
        Of the box that is searched.
    """
    rows, columns = grown.bordered_labels.shape[1:]
    # With the border, voxel 0 of the core is voxel 1 of the array.
    z, y, x = start
    inner = core.translate((1 - z, 1 - y, 1 - x))
    step = max(1, _SLAB_VOXELS // (rows * columns))
    found = [nothing()]
    for first in range(inner.start[0], inner.stop[0], step):
        planes = slice(first, min(first + step, inner.stop[0]))
        ties = _within_planes(grown, planes=planes, inner=inner, lengths=lengths)
        at = ties.positions(grown.bordered_labels.shape) + np.array(start, np.int64) - 1
        places = np.ravel_multi_index(tuple(at.T), shape)
        found.append(replace(ties, places=places.astype(np.int64)))
    return merge_contacts(found)


def _within_planes(grown: Grown, *, planes: slice, inner: Box, lengths: Lengths) -> Contacts:
    """Return the ties of lower voxels in some planes; places are flat indices of the array."""
    _, rows, columns = grown.bordered_labels.shape
    labels, squared = grown.bordered_labels.reshape(-1), grown.bordered_squared.reshape(-1)
    _, in_y, in_x = inner.slices()
    is_core = np.zeros((planes.stop - planes.start, rows, columns), np.bool_)
    is_core[:, in_y, in_x] = True
    # Up to the last voxel of the core; the border lies beyond, and all steps from here end in
    # the array. The border is empty, so that no step leads from a row to the next one.
    first = planes.start * rows * columns
    last = ((planes.stop - 1) * rows + in_y.stop - 1) * columns + in_x.stop
    is_full = labels[first : last + (rows + 1) * columns + 1] != 0
    can_be_lower = is_full[: last - first] & is_core.reshape(-1)[: last - first]
    found = [nothing()]
    for dz, dy, dx in OFFSETS:
        step = (dz * rows + dy) * columns + dx
        is_touching = labels[first:last] != labels[first + step : last + step]
        is_touching &= can_be_lower
        is_touching &= is_full[step : last - first + step]
        lower = np.flatnonzero(is_touching) + first
        one, other = labels[lower].astype(np.uint64), labels[lower + step].astype(np.uint64)
        found.append(
            Contacts(
                ids_a=np.minimum(one, other),
                ids_b=np.maximum(one, other),
                distances_nm=lengths.mean_nm(squared[lower], squared[lower + step]),
                places=lower,
            )
        )
    return merge_contacts(found)
