"""How much of a voxel's surroundings is its own object: label blocks in, small numbers out.

The fraction of the box of (2 r + 1) voxels around a voxel that carries the same label
is cut at thresholds into partitions 1..K+1; training draws from all of them alike, so
that thin processes are seen as often as thick ones.

Each object is looked at in its own bounding box: counts over z by adding and
subtracting planes, over y rows, over x by a running sum, in the narrowest type that
holds them. The time does not depend on the radius.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Training".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from scipy import ndimage

from floodem.errors import OptionError
from floodem.geometry import Box, Zyx
from floodem.labels.runs import Ids, Labels, require_labels

EXCLUDED = 255
"""What voxels get that are no centre of an example: too near a face, masked, excluded."""

_MOST_THRESHOLDS = EXCLUDED - 2
_MOST_SURROUNDINGS = 2**26
"""Voxels in the box around a voxel; a table holds one byte for each count up to here."""

_SLAB_VOXELS = 2**20
"""Voxels of an object's bounding box that are worked on at once; about 9 MB with all sums."""

Array = np.ndarray[Any, np.dtype[Any]]


def partition_table(thresholds: Sequence[float], *, radius: Zyx) -> UInt8[np.ndarray, "counts"]:
    """Return the partition of a voxel for each number of like voxels in its surroundings.

    Entry n is one more than the number of thresholds that n / (voxels of the box)
    reaches, compared in float64.

    Parameters
    ----------
    thresholds
        Fractions, ascending.
    radius
        Half of the box, z, y, x: it has 2 r + 1 voxels on an edge.

    Raises
    ------
    OptionError
        When thresholds are none, too many, not ascending or not within 0 and 1, or
        the radius is negative or too large.
    """
    if not 0 < len(thresholds) <= _MOST_THRESHOLDS:
        raise OptionError(f"{len(thresholds)} thresholds are not 1 to {_MOST_THRESHOLDS}")
    if not all(0 < one <= 1 for one in thresholds):
        raise OptionError(f"thresholds {list(thresholds)} are not fractions above 0, up to 1")
    if any(a >= b for a, b in itertools.pairwise(thresholds)):
        raise OptionError(f"thresholds {list(thresholds)} do not ascend: sort them")
    if min(radius) < 0:
        raise OptionError(f"radius {radius} (z,y,x) is negative: give 0 or more on every axis")
    surroundings = math.prod(2 * r + 1 for r in radius)
    if surroundings > _MOST_SURROUNDINGS:
        raise OptionError(
            f"radius {radius} (z,y,x) makes a box of {surroundings:,} voxels, more than "
            f"{_MOST_SURROUNDINGS:,}: give a smaller one"
        )
    fractions = np.arange(surroundings + 1) / surroundings
    return (np.searchsorted(thresholds, fractions, side="right") + 1).astype(np.uint8)


def partition_block(
    labels: Labels,
    *,
    core: Box,
    objects: Ids,
    radius: Zyx,
    table: UInt8[np.ndarray, "counts"],
    threads: int = 1,
) -> UInt8[np.ndarray, "z y x"]:
    """Return the partitions of the voxels in the core of a block.

    Parameters
    ----------
    labels
        The block: the core and everything within `radius` of it, z, y, x.
    core
        Where the core lies in the array.
    objects
        Ids to sort into partitions, ascending, without 0. All others stay 0.
    radius, table
        See `partition_table`.
    threads
        How many objects are worked on at once.

    Returns
    -------
    array
        Of the shape of the core.

    Raises
    ------
    LabelError
        When a value is negative or not an integer.
    """
    assert Box.from_shape(_shape(labels)).contains(core.grow(radius))
    require_labels(labels, what="the block")
    numbers, runs = _numbered(labels, objects)
    partitions = np.zeros(core.shape, np.uint8)
    boxes = [_as_box(slices) for slices in ndimage.find_objects(numbers)]
    work = _Block(numbers=numbers, core=core, radius=radius, table=table, partitions=partitions)
    # The largest first, so that threads end together.
    order = sorted(range(len(boxes)), key=lambda number: -boxes[number].size)

    def sort_object(number: int) -> None:
        _sort_object(work, number + 1, box=boxes[number], runs=runs.of_object(number + 1))

    if threads == 1:
        for number in order:
            sort_object(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(sort_object, order):
                pass
    return partitions


def near_masked(
    mask: Bool[np.ndarray, "z y x"], *, core: Box, radius: Zyx
) -> Bool[np.ndarray, "a b c"]:
    """Return where a masked voxel lies within the box of 2 r + 1 voxels around a core's voxel.

    `mask` covers the core and everything within `radius` of it.
    """
    found = mask
    for axis, r in enumerate(radius):
        sums = np.cumsum(found, axis=axis, dtype=np.int32)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        first, count = core.start[axis] - r, core.shape[axis]
        lower = np.take(sums, range(first, first + count), axis)
        upper = np.take(sums, range(first + 2 * r + 1, first + 2 * r + 1 + count), axis)
        found = upper != lower
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Runs of equal voxels along x, by object: where they begin and how long they are."""

    z: Int64[np.ndarray, "runs"]
    y: Int64[np.ndarray, "runs"]
    x: Int64[np.ndarray, "runs"]
    lengths: Int64[np.ndarray, "runs"]

    def within(self, box: Box) -> _Runs:
        """Return the parts that lie in a box."""
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        first = np.maximum(self.x, x0)
        lengths = np.minimum(self.x + self.lengths, x1) - first
        is_in = (self.z >= z0) & (self.z < z1) & (self.y >= y0) & (self.y < y1) & (lengths > 0)
        return _Runs(z=self.z[is_in], y=self.y[is_in], x=first[is_in], lengths=lengths[is_in])

    def sections(self, first: int, stop: int) -> _Runs:
        """Return those with ``first <= z < stop``."""
        low, high = np.searchsorted(self.z, (first, stop))
        part = slice(int(low), int(high))
        return _Runs(z=self.z[part], y=self.y[part], x=self.x[part], lengths=self.lengths[part])

    def voxels(self, *, start: Zyx, rows: int, width: int) -> Int64[np.ndarray, "voxels"]:
        """Return the C-order index of every voxel in an array of (any, rows, width) at `start`."""
        first = ((self.z - start[0]) * rows + self.y - start[1]) * width + self.x - start[2]
        ends = np.cumsum(self.lengths)
        indices = np.repeat(first - (ends - self.lengths), self.lengths)
        indices += np.arange(len(indices))
        return indices


class _RunsByObject:
    """The runs of a whole block."""

    def __init__(self, starts: Array, lengths: Array, numbers: Array, *, shape: Zyx) -> None:
        order = np.argsort(numbers, kind="stable")
        self._starts, self._lengths = starts[order], lengths[order]
        self._ends = np.cumsum(np.bincount(numbers))
        self._shape = shape

    def of_object(self, number: int) -> _Runs:
        """Return the runs of one object, in C order."""
        part = slice(int(self._ends[number - 1]), int(self._ends[number]))
        z, y, x = np.unravel_index(self._starts[part], self._shape)
        return _Runs(z=z, y=y, x=x, lengths=self._lengths[part])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What all objects of a block share."""

    numbers: Array
    core: Box
    radius: Zyx
    table: UInt8[np.ndarray, "counts"]
    partitions: UInt8[np.ndarray, "z y x"]


def _numbered(labels: Labels, objects: Ids) -> tuple[Array, _RunsByObject]:
    """Give the objects that occur the numbers 1..n, and everything else 0."""
    shape = _shape(labels)
    flat = labels.reshape(-1)
    is_start = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=is_start[1:])
    is_start[:: shape[2]] = True
    starts = np.flatnonzero(is_start)
    del is_start
    lengths = np.diff(starts, append=flat.size)
    values = flat[starts].astype(np.uint64)
    known = np.concatenate([np.zeros(1, np.uint64), objects])
    rows = np.searchsorted(known, values)
    rows = np.where(known[np.minimum(rows, len(objects))] == values, rows, 0)
    occurring, inverse = np.unique(np.append(rows, 0), return_inverse=True)
    numbers: Array = inverse[:-1].astype(np.min_scalar_type(len(occurring)))
    return np.repeat(numbers, lengths).reshape(shape), _RunsByObject(
        starts, lengths, numbers, shape=shape
    )


def _sort_object(work: _Block, number: int, *, box: Box, runs: _Runs) -> None:
    """Write the partitions of one object; `box` is where it lies in the block."""
    seen = box.intersection(work.core)
    if seen is None:
        return
    runs = runs.within(seen)
    _, rows, width = work.core.shape
    flat = work.partitions.reshape(-1)
    reach = 2 * work.radius[2] + 1
    for first, sums in _running_sums(work, number, box=box, seen=seen):
        part = runs.sections(first, first + len(sums))
        at = part.voxels(
            start=(first, seen.start[1], box.start[2]), rows=sums.shape[1], width=sums.shape[2]
        )
        counts = sums.reshape(-1).take(at + reach)
        counts -= sums.reshape(-1).take(at)
        flat[part.voxels(start=work.core.start, rows=rows, width=width)] = work.table.take(counts)


def _running_sums(work: _Block, number: int, *, box: Box, seen: Box) -> Iterator[tuple[int, Array]]:
    """Yield, slab by slab, running sums along x of an object's voxels within reach in z and y.

    A slab begins at the section that comes with it. Its rows are those of `seen`, and
    its columns those of `box`, such that column x + 2 r + 1 less column x is the
    number of the object's voxels in the surroundings of column x.
    """
    rz, ry, rx = work.radius
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    rows, width = y1 - y0, x1 - x0
    over_z = np.min_scalar_type(2 * rz + 1)
    over_zy = np.min_scalar_type((2 * rz + 1) * (2 * ry + 1))

    def section(z: int) -> Array:
        return np.asarray(work.numbers[z, y0:y1, x0:x1] == number).view(np.uint8)

    # Types may overflow on the way: sums wrap around, and their differences are right again.
    current = np.zeros((rows, width), over_z)
    for z in range(max(z0, seen.start[0] - rz), min(z1, seen.start[0] + rz)):
        current += section(z)
    depth = max(1, _SLAB_VOXELS // (rows * width))
    for first in range(seen.start[0], seen.stop[0], depth):
        stop = min(first + depth, seen.stop[0])
        slab = np.empty((stop - first, rows, width), over_zy)
        for z in range(first, stop):
            if z + rz < z1:
                current += section(z + rz)
            if z - rz - 1 >= z0:
                current -= section(z - rz - 1)
            slab[z - first] = current
        windows = _sums_over_rows(slab, ry, rows=range(seen.start[1] - y0, seen.stop[1] - y0))
        sums = np.zeros((*windows.shape[:2], width + 2 * rx + 1), np.uint32)
        np.cumsum(windows, axis=2, dtype=np.uint32, out=sums[:, :, rx + 1 : rx + 1 + width])
        sums[:, :, rx + 1 + width :] = sums[:, :, rx + width, None]
        yield first, sums


def _sums_over_rows(slab: Array, radius: int, *, rows: range) -> Array:
    """Return, for each of `rows`, the sum of the rows within `radius` of it."""
    sums = np.empty((len(slab), len(rows), slab.shape[2]), slab.dtype)
    first = rows[0]
    near = slab[:, max(first - radius, 0) : first + radius + 1]
    near.sum(axis=1, dtype=slab.dtype, out=sums[:, 0])
    for at, row in enumerate(rows[1:], start=1):
        if row + radius < slab.shape[1]:
            np.add(sums[:, at - 1], slab[:, row + radius], out=sums[:, at])
        else:
            sums[:, at] = sums[:, at - 1]
        if row - radius > 0:
            sums[:, at] -= slab[:, row - radius - 1]
    return sums


def _shape(array: Array) -> Zyx:
    z, y, x = array.shape
    return (z, y, x)


def _as_box(slices: tuple[slice, slice, slice]) -> Box:
    z, y, x = slices
    return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
