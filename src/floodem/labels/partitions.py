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

from floodem.errors import OptionError
from floodem.geometry import Box, Zyx
from floodem.labels.runs import Counts, Ids, Labels, require_labels

EXCLUDED = 255
"""What voxels get that are no centre of an example: too near a face, masked, excluded."""

_MOST_THRESHOLDS = EXCLUDED - 2
_MOST_SURROUNDINGS = 2**26
"""Voxels in the box around a voxel; a table holds one byte for each count up to here."""

_SLAB_VOXELS = 2**20
"""Voxels of an object's bounding box that are worked on at once; about 10 MB with all sums."""

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


class BlockRuns:
    """A block of labels as runs of equal voxels along x, sorted by label.

    Everything that follows needs these alone, so that the labels may be let go.

    Parameters
    ----------
    labels
        z, y, x, of any integer type.

    Attributes
    ----------
    shape
        Of the block, z, y, x.
    ids
        The labels that occur, ascending, 0 among them.
    voxels
        How many voxels each of them has.

    Raises
    ------
    LabelError
        When a value is negative or not an integer.
    """

    def __init__(self, labels: Labels) -> None:
        require_labels(labels, what="the block")
        self.shape = _shape(labels)
        flat = labels.reshape(-1)
        is_start = np.empty(flat.size, np.bool_)
        np.not_equal(flat[1:], flat[:-1], out=is_start[1:])
        is_start[:: self.shape[2]] = True
        self._starts = np.flatnonzero(is_start)
        del is_start
        values = flat[self._starts]
        self._lengths = np.diff(self._starts, append=flat.size).astype(np.uint32)
        self._order = np.argsort(values, kind="stable").astype(np.uint32)
        values = values[self._order]
        firsts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        self._bounds = np.append(firsts, len(values))
        self.ids: Ids = values[firsts].astype(np.uint64)
        self.voxels: Counts = np.add.reduceat(self._lengths[self._order], firsts, dtype=np.int64)

    def numbered(self, groups: Int64[np.ndarray, "objects"]) -> Array:
        """Return the block with ``ids[groups[n]]`` as n + 1, and everything else as 0."""
        number_of_group = np.zeros(len(self.ids), np.min_scalar_type(len(groups)))
        number_of_group[groups] = np.arange(1, len(groups) + 1)
        numbers = np.empty(len(self._starts), number_of_group.dtype)
        numbers[self._order] = np.repeat(number_of_group, np.diff(self._bounds))
        return np.repeat(numbers, self._lengths).reshape(self.shape)

    def of_group(self, group: int) -> _Runs:
        """Return the runs of one label in C order."""
        rows = self._order[self._bounds[group] : self._bounds[group + 1]]
        z, y, x = np.unravel_index(self._starts[rows], self.shape)
        return _Runs(z=z, y=y, x=x, lengths=self._lengths[rows].astype(np.int64))


def partition_block(
    runs: BlockRuns,
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
    runs
        The block: the core and everything within `radius` of it.
    core
        Where the core lies in the block.
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
    """
    assert Box.from_shape(runs.shape).contains(core.grow(radius))
    groups = np.flatnonzero(np.isin(runs.ids, objects))
    partitions = np.zeros(core.shape, np.uint8)
    work = _Block(
        numbers=runs.numbered(groups),
        core=core,
        radius=radius,
        table=table,
        partitions=partitions,
    )

    def sort_object(at: int) -> None:
        _sort_object(work, at + 1, runs=runs.of_group(int(groups[at])))

    # The largest first, so that threads end together.
    order = np.argsort(-runs.voxels[groups], kind="stable").tolist()
    if threads == 1:
        for at in order:
            sort_object(at)
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

    @property
    def box(self) -> Box:
        """Where they lie."""
        z, y, x, stops = self.z, self.y, self.x, self.x + self.lengths
        return Box(
            (int(z[0]), int(y.min()), int(x.min())),
            (int(z[-1]) + 1, int(y.max()) + 1, int(stops.max())),
        )

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

    def voxels(self, firsts: Int64[np.ndarray, "runs"]) -> Int64[np.ndarray, "voxels"]:
        """Return an index for every voxel, counted up within each run from `firsts` on."""
        ends = np.cumsum(self.lengths)
        indices = np.repeat(firsts - (ends - self.lengths), self.lengths)
        indices += np.arange(len(indices))
        return indices


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What all objects of a block share."""

    numbers: Array
    core: Box
    radius: Zyx
    table: UInt8[np.ndarray, "counts"]
    partitions: UInt8[np.ndarray, "z y x"]


def _sort_object(work: _Block, number: int, *, runs: _Runs) -> None:
    """Write the partitions of one object."""
    box = runs.box
    seen = box.intersection(work.core)
    if seen is None:
        return
    runs = runs.within(seen)
    (z0, y0, x0), (_, rows, width) = work.core.start, work.core.shape
    flat = work.partitions.reshape(-1)
    for first, windows in _windows(work, number, box=box, seen=seen):
        part = runs.sections(first, first + len(windows))
        counts = _counts(part, windows, start=(first, seen.start[1], box.start[2]), work=work)
        at = part.voxels(((part.z - z0) * rows + part.y - y0) * width + part.x - x0)
        flat[at] = work.table.take(counts)


def _counts(part: _Runs, windows: Array, *, start: Zyx, work: _Block) -> Array:
    """Return, for every voxel of runs, the sum of the windows within reach along x.

    Only the rows in which there are runs are summed up.
    """
    _, rows, width = windows.shape
    row_of_run = (part.z - start[0]) * rows + part.y - start[1]
    is_new = np.append(True, row_of_run[1:] != row_of_run[:-1])[: len(row_of_run)]
    used = windows.reshape(-1, width)[row_of_run[is_new]]
    rx = work.radius[2]
    reach = 2 * rx + 1
    # Column x + reach less column x is the sum of what lies within rx of x.
    sums = np.empty((len(used), width + reach), np.uint32)
    sums[:, : rx + 1] = 0
    np.cumsum(used, axis=1, dtype=np.uint32, out=sums[:, rx + 1 : rx + 1 + width])
    sums[:, rx + 1 + width :] = sums[:, rx + width, None]
    at = part.voxels((np.cumsum(is_new) - 1) * (width + reach) + part.x - start[2])
    flat = sums.reshape(-1)
    lower = flat.take(at)
    at += reach
    return np.asarray(flat.take(at) - lower)


def _windows(work: _Block, number: int, *, box: Box, seen: Box) -> Iterator[tuple[int, Array]]:
    """Yield, slab by slab, how many of an object's voxels lie within reach in z and y.

    What is yielded is overwritten by the next slab.

    A slab begins at the section that comes with it. Its rows are those of `seen`, and
    its columns those of `box`, where the object lies in the block.
    """
    rz, ry, _ = work.radius
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
    depth = min(max(1, _SLAB_VOXELS // (rows * width)), seen.shape[0])
    wanted = range(seen.start[1] - y0, seen.stop[1] - y0)
    slabs = np.empty((depth, rows, width), over_zy)
    windows = np.empty((depth, len(wanted), width), over_zy)
    for first in range(seen.start[0], seen.stop[0], depth):
        stop = min(first + depth, seen.stop[0])
        slab = slabs[: stop - first]
        for z in range(first, stop):
            if z + rz < z1:
                current += section(z + rz)
            if z - rz - 1 >= z0:
                current -= section(z - rz - 1)
            slab[z - first] = current
        yield first, _sums_over_rows(slab, ry, rows=wanted, out=windows[: stop - first])


def _sums_over_rows(slab: Array, radius: int, *, rows: range, out: Array) -> Array:
    """Return, in `out`, the sum of the rows within `radius` of each of `rows`."""
    first = rows[0]
    near = slab[:, max(first - radius, 0) : first + radius + 1]
    near.sum(axis=1, dtype=slab.dtype, out=out[:, 0])
    for at, row in enumerate(rows[1:], start=1):
        if row + radius < slab.shape[1]:
            np.add(out[:, at - 1], slab[:, row + radius], out=out[:, at])
        else:
            out[:, at] = out[:, at - 1]
        if row - radius > 0:
            out[:, at] -= slab[:, row - radius - 1]
    return out


def _shape(array: Array) -> Zyx:
    z, y, x = array.shape
    return (z, y, x)
