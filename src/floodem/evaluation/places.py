"""Where mistakes lie: pairs of parts in, one voxel of each part out.

A part is the voxels of one (segment, truth object) pair. For two parts of one
object this finds the places where they face each other: from the centroid of the
first, the nearest voxel of the second, and back from there the nearest voxel of
the first. That takes three passes over the blocks that hold the parts
(floodem.evaluation.passes); the answer depends on the voxels alone, not on the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels.runs import Labels, runs

PartKey = tuple[int, int]
"""(segment id, truth id) of a part."""

Point = tuple[float, float, float]

Finding = list[Any]
"""Of one part in one block, as JSON values: its number in the search; then the sums of z, y and
x and the count of its voxels, or the squared distance and z, y, x of the nearest one."""


_ROUNDING = 1 + 1e-9
"""A block as far away as another one's farthest corner is not left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to look for in each block.

    Attributes
    ----------
    parts
        The parts; one may come several times, with several points.
    points
        For each part the point, z, y, x, whose nearest voxel is sought; None: where the part's
        voxels are on average.
    scale
        What a step along z, y, x counts for in distances.
    """

    parts: tuple[PartKey, ...]
    points: tuple[Point, ...] | None
    scale: Point


Pass = Callable[[Search], Iterable[Finding]]
"""Looks through the blocks."""


def facing_voxels(
    look: Pass, pairs: Sequence[tuple[PartKey, PartKey]], *, voxel_size: VoxelSize | None
) -> list[tuple[Zyx, Zyx]]:
    """Return for each two parts a voxel of the first and one of the second, near each other.

    Distances are in nanometres where the voxel size is known, else in voxels;
    ties go to the first voxel in C order.

    Parameters
    ----------
    look
        Searches all blocks; every part has at least one voxel in them.
    pairs
        The parts to look for, two and two.
    """
    scale = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size.zyx_nm
    parts = tuple(dict.fromkeys(part for pair in pairs for part in pair))
    # The second parts as well, so that the passes after it know which blocks hold any.
    centroids = _centroids(look(Search(parts=parts, points=None, scale=scale)), parts)

    def nearest(which: Iterable[PartKey], points: Iterable[Point]) -> list[Zyx]:
        places = tuple((float(z), float(y), float(x)) for z, y, x in points)
        search = Search(parts=tuple(which), points=places, scale=scale)
        return _nearest(look(search), count=len(search.parts))

    seconds = nearest((second for _, second in pairs), (centroids[first] for first, _ in pairs))
    firsts = nearest((first for first, _ in pairs), seconds)
    return list(zip(firsts, seconds, strict=True))


def _centroids(findings: Iterable[Finding], parts: Sequence[PartKey]) -> Mapping[PartKey, Point]:
    sums = [(0, 0, 0, 0)] * len(parts)
    for number, *added in findings:
        z, y, x, count = (a + b for a, b in zip(sums[number], added, strict=True))
        sums[number] = (z, y, x, count)
    return {
        part: (z / count, y / count, x / count)
        for part, (z, y, x, count) in zip(parts, sums, strict=True)
    }


def _nearest(findings: Iterable[Finding], *, count: int) -> list[Zyx]:
    best: list[Finding | None] = [None] * count
    for number, *found in findings:
        known = best[number]
        best[number] = found if known is None else min(known, found)
    assert all(found is not None for found in best)
    return [(found[1], found[2], found[3]) for found in best if found is not None]


def worth_reading(
    search: Search,
    holders: Mapping[PartKey, Collection[int]],
    *,
    box_of: Callable[[int], Box],
) -> set[int]:
    """Return the numbers of the blocks that may hold what is looked for.

    Where a part's nearest voxel is sought, blocks are left out that are farther away than
    the farthest corner of another one that holds the part.

    Parameters
    ----------
    holders
        In which blocks each part is.
    box_of
        Gives a block by its number.
    """
    if search.points is None:
        return set().union(*(holders[part] for part in search.parts))
    wanted: set[int] = set()
    for part, point in zip(search.parts, search.points, strict=True):
        numbers = sorted(holders[part])
        boxes = [box_of(number) for number in numbers]
        starts = np.array([box.start for box in boxes])
        lasts = np.array([box.stop for box in boxes]) - 1
        scale = np.array(search.scale)
        nearest = np.clip(point, starts, lasts) - point
        farthest = np.maximum(np.abs(starts - point), np.abs(lasts - point))
        limit = ((farthest * scale) ** 2).sum(axis=1).min() * _ROUNDING
        is_near = ((nearest * scale) ** 2).sum(axis=1) <= limit
        wanted.update(number for number, near in zip(numbers, is_near, strict=True) if near)
    return wanted


def search_block(
    segmentation: Labels, truth: Labels, *, block: Box, search: Search
) -> list[Finding]:
    """Return what a block holds of the parts that are looked for."""
    rows = part_rows(segmentation, truth, block=block, parts=set(search.parts))
    findings: list[Finding] = []
    for number, part in enumerate(search.parts):
        if part in rows and search.points is None:
            findings.append([number, *rows[part].sums()])
        elif part in rows and search.points is not None:
            distance, zyx = rows[part].nearest(search.points[number], scale=search.scale)
            findings.append([number, distance, *zyx])
    return findings


@dataclass(frozen=True, slots=True)
class PartRows:
    """A part's voxels in a block: stretches along x, in C order.

    Attributes
    ----------
    first
        First voxel of each, z, y, x in the volume's frame.
    lengths
        How many voxels each has.
    """

    first: Int64[np.ndarray, "stretches 3"]
    lengths: Int64[np.ndarray, "stretches"]

    def sums(self) -> tuple[int, int, int, int]:
        """Return the sums of z, y and x over all voxels, and how many there are."""
        z, y = (self.first[:, :2] * self.lengths[:, None]).sum(axis=0).tolist()
        x = (self.lengths * (2 * self.first[:, 2] + self.lengths - 1) // 2).sum()
        return z, y, int(x), int(self.lengths.sum())

    def nearest(self, point: Point, *, scale: Point) -> tuple[float, Zyx]:
        """Return the squared distance of the voxel nearest to a point, and the voxel.

        Of several the first in C order, wherever stretches were cut: of one stretch none is
        nearer than one of the two voxels around the point, as rounding keeps the order; all
        voxels of those stretches that are nearest are then looked at.
        """
        last = self.first[:, 2] + self.lengths - 1
        around = (math.floor(point[2]), math.ceil(point[2]))
        least = np.minimum(
            *(
                _squared(self.first, np.clip(x, self.first[:, 2], last), (point, scale))
                for x in around
            )
        )
        chosen = np.flatnonzero(least == least.min())
        lengths = self.lengths[chosen]
        rows = np.repeat(self.first[chosen], lengths, axis=0)
        x = rows[:, 2] + np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        index = int(np.argmin(_squared(rows, x, (point, scale))))
        return float(least.min()), (int(rows[index, 0]), int(rows[index, 1]), int(x[index]))


def _squared(
    rows: Int64[np.ndarray, "voxels 3"],
    x: Int64[np.ndarray, "voxels"],
    seen: tuple[Point, Point],
) -> Float64[np.ndarray, "voxels"]:
    """Return squared distances of voxels, of which only the row counts in `rows`, to a point."""
    point, scale = seen
    z, y = (((rows[:, axis] - point[axis]) * scale[axis]) ** 2 for axis in (0, 1))
    squares: Float64[np.ndarray, "voxels"] = z + y + ((x - point[2]) * scale[2]) ** 2
    return squares


def part_rows(
    segmentation: Labels, truth: Labels, *, block: Box, parts: set[PartKey]
) -> dict[PartKey, PartRows]:
    """Return where each part that occurs in a block lies."""
    starts, lengths = runs(segmentation, truth)
    segments, objects = (labels.reshape(-1)[starts] for labels in (segmentation, truth))
    # Few runs are of any part: all parts are then sought in those alone.
    is_candidate = np.isin(objects, _ids((truth_id for _, truth_id in parts), objects))
    starts, lengths = starts[is_candidate], lengths[is_candidate]
    segments = segments[is_candidate].astype(np.uint64)
    objects = objects[is_candidate].astype(np.uint64)
    found: dict[PartKey, PartRows] = {}
    for segment, object_ in parts:
        rows = np.flatnonzero((segments == np.uint64(segment)) & (objects == np.uint64(object_)))
        if len(rows):
            found[segment, object_] = _by_rows(starts[rows], lengths[rows], block)
    return found


def _by_rows(
    starts: Int64[np.ndarray, "runs"], lengths: Int64[np.ndarray, "runs"], block: Box
) -> PartRows:
    """Cut runs of a block's voxels in C order where rows end."""
    row = block.shape[2]
    ends = starts + lengths
    pieces = (ends - 1) // row - starts // row + 1
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = (np.repeat(starts // row, pieces) + number) * row
    stops = np.minimum(begins + row, np.repeat(ends, pieces))
    begins = np.maximum(begins, np.repeat(starts, pieces))
    first = np.stack(np.unravel_index(begins, block.shape), axis=1) + np.array(block.start)
    return PartRows(first.astype(np.int64), stops - begins)


def _ids(numbers: Iterable[int], labels: Labels) -> Labels:
    """Return ids in the type of the labels, those left out that it cannot hold."""
    most = np.iinfo(labels.dtype).max
    return np.array(sorted({one for one in numbers if one <= most}), labels.dtype)
