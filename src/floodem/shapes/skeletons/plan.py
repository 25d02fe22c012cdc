"""Which objects are skeletonised together, and how finely: boxes and sizes in, groups out.

An object is read as the box around it. Small objects that lie near each other share
one reading; an object that would not fit in memory is read at a coarser level of
the pyramid or, where there is none that is coarse enough, from the coarsest level
with 2, 4 or 8 voxels along each axis taken together (a voxel is the object's where
any of them is, so that thin neurites stay whole). What does not fit even so is
refused. The plan follows from the volume and the options alone, not from the memory
that happens to be free, so that an interrupted run goes on with the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from floodem.geometry import Box, VoxelSize, Zyx
from floodem.shapes.measures.table import ObjectTable
from floodem.shapes.skeletons.voxel_graph import cell_shape
from floodem.volumes.volume import Volume

GROUP_VOXELS = 2**25
"""Boxes of the objects of a group have at most so many voxels together, as has their common box:
a quarter of a gigabyte of labels, and tasks of a few seconds."""

BYTES_PER_BOX_VOXEL = 8
"""Mask, the mask with its surroundings, distance, codes and numbers of cells."""

BYTES_PER_CELL = 1600
"""26 neighbours with lengths and costs, and the search among them; a cell that has eight voxels
takes 1150, and ragged objects have more cells than voxels for them."""

_DOUBLINGS = 3
_NEAR = 256
"""Objects are sorted by cubes of so many voxels before they are grouped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One way to read objects: from a level, some voxels together.

    Attributes
    ----------
    level
        Position in `Volume.levels`, as counted from the source's own.
    box
        Of that level, in its own frame.
    factors
        Voxels of the source in one voxel of the level (z, y, x).
    pool
        Voxels of the level that are taken together (z, y, x).
    voxel_size
        Of what comes out, in nanometres.
    """

    level: int
    box: Box
    factors: Zyx
    pool: Zyx
    voxel_size: VoxelSize

    @property
    def coarsening(self) -> int:
        """How many voxels of the source become one."""
        return math.prod(self.factors) * math.prod(self.pool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Objects that are read together.

    Attributes
    ----------
    key
        Its name among the groups.
    ids, starts, stops
        The objects and their boxes in the source's frame.
    """

    key: str
    reading: Reading
    ids: UInt64[np.ndarray, "objects"]
    starts: Int64[np.ndarray, "objects 3"]
    stops: Int64[np.ndarray, "objects 3"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Groups in the order in which they are worked on, and what does not fit in memory."""

    groups: Sequence[Group]
    refused: UInt64[np.ndarray, "objects"]


def readings(volume: Volume, *, voxel_size: VoxelSize, is_fixed: bool) -> list[Reading]:
    """Return the ways to read a volume's objects, finest first.

    Parameters
    ----------
    is_fixed
        Whether the user chose the level; then there is one way.
    """
    base = Reading(
        level=0, box=volume.box, factors=(1, 1, 1), pool=(1, 1, 1), voxel_size=voxel_size
    )
    found = [base]
    if is_fixed:
        return found
    levels = volume.levels
    finest = next(i for i, level in enumerate(levels) if level.shape == volume.shape)
    for number, level in enumerate(levels[finest + 1 :], start=1):
        factors = _factors(volume, level)
        size = _times(voxel_size, factors)
        found.append(
            Reading(level=number, box=level.box, factors=factors, pool=(1, 1, 1), voxel_size=size)
        )
    last, pool, size = found[-1], (1, 1, 1), found[-1].voxel_size
    for _ in range(_DOUBLINGS):
        doubled = cell_shape(size)
        pool = (pool[0] * doubled[0], pool[1] * doubled[1], pool[2] * doubled[2])
        size = _times(size, doubled)
        found.append(
            Reading(
                level=last.level, box=last.box, factors=last.factors, pool=pool, voxel_size=size
            )
        )
    return found


def plan(objects: ObjectTable, ways: Sequence[Reading], *, memory_bytes: int) -> Plan:
    """Choose for each object how it is read, and which objects are read together.

    Parameters
    ----------
    objects
        Of the source, its finest level.
    ways
        From `readings`.
    memory_bytes
        What one task may take.
    """
    voxels = objects.voxels.astype(np.float64)
    boxes = np.prod((objects.last - objects.first + 1).astype(np.float64), axis=1)
    way = np.full(len(objects), -1)
    for number in range(len(ways) - 1, -1, -1):
        way[_fits(voxels, boxes, ways[number], memory_bytes=memory_bytes)] = number
    is_small = (way == 0) & (boxes <= GROUP_VOXELS)
    groups = list(_together(objects, is_small, ways[0]))
    alone = np.flatnonzero((way >= 0) & ~is_small)
    groups += [_group(objects, np.array([row]), ways[way[row]]) for row in alone]
    groups.sort(key=lambda group: (-_work(group), int(group.ids[0])))
    return Plan(groups=groups, refused=objects.ids[way < 0])


def _fits(
    voxels: Float64[np.ndarray, "objects"],
    boxes: Float64[np.ndarray, "objects"],
    way: Reading,
    *,
    memory_bytes: int,
) -> Bool[np.ndarray, "objects"]:
    fewer = way.coarsening
    # What is pooled keeps every voxel that holds some of the object: thin ones shrink by less.
    pooled = math.prod(way.pool) ** (2 / 3) * math.prod(way.factors)
    cells = voxels / pooled / math.prod(cell_shape(way.voxel_size))
    needed = boxes / fewer * BYTES_PER_BOX_VOXEL + cells * BYTES_PER_CELL
    found: Bool[np.ndarray, "objects"] = needed <= memory_bytes
    return found


def _together(objects: ObjectTable, is_small: Any, way: Reading) -> Iterator[Group]:
    """Yield groups of small objects: neighbours, in the order of cubes of the volume."""
    rows = np.flatnonzero(is_small)
    middle = (objects.first[rows] + objects.last[rows]) // 2 // _NEAR
    sizes = np.prod(objects.last[rows] - objects.first[rows] + 1, axis=1)
    # Objects of about one size together: a large box among small ones would be read for all.
    classes = np.log2(sizes.astype(np.float64)).astype(np.int64) // 3
    order = np.lexsort((objects.ids[rows], middle[:, 2], middle[:, 1], middle[:, 0], -classes))
    chosen: list[int] = []
    first, last, total, previous = None, None, 0, -1
    for at in order.tolist():
        row = int(rows[at])
        low, high = objects.first[row], objects.last[row]
        wide_low = low if first is None else np.minimum(first, low)
        wide_high = high if last is None else np.maximum(last, high)
        span, size = math.prod((wide_high - wide_low + 1).tolist()), int(sizes[at])
        is_full = span > GROUP_VOXELS or total + size > GROUP_VOXELS
        if chosen and (is_full or classes[at] != previous):
            yield _group(objects, np.array(chosen), way)
            chosen, total, wide_low, wide_high = [], 0, low, high
        chosen.append(row)
        first, last, total, previous = wide_low, wide_high, total + size, int(classes[at])
    if chosen:
        yield _group(objects, np.array(chosen), way)


def _group(objects: ObjectTable, rows: Int64[np.ndarray, "rows"], way: Reading) -> Group:
    rows = np.sort(rows)
    return Group(
        key=str(int(objects.ids[rows[0]])),
        reading=way,
        ids=objects.ids[rows],
        starts=objects.first[rows],
        stops=objects.last[rows] + 1,
    )


def _work(group: Group) -> int:
    return int(np.prod(group.stops - group.starts, axis=1).sum()) // group.reading.coarsening


def _factors(volume: Volume, level: Volume) -> Zyx:
    """Return how many voxels of a volume lie along one voxel of a coarser level."""
    if volume.voxel_size is not None and level.voxel_size is not None:
        pairs = zip(level.voxel_size.zyx_nm, volume.voxel_size.zyx_nm, strict=True)
    else:
        pairs = zip(map(float, volume.shape), map(float, level.shape), strict=True)
    z, y, x = (max(1, round(coarse / fine)) for coarse, fine in pairs)
    return (z, y, x)


def _times(size: VoxelSize, factors: Zyx) -> VoxelSize:
    z, y, x = (edge * factor for edge, factor in zip(size.zyx_nm, factors, strict=True))
    return VoxelSize(z, y, x)
