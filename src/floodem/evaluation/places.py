"""Where mistakes lie: pairs of parts in, one voxel of each part out.

A part is the voxels of one (segment, truth object) pair. For two parts of one
object this finds the places where they face each other: from the centroid of the
first, the nearest voxel of the second, and back from there the nearest voxel of
the first. That takes three passes over the blocks that hold the parts
(floodem.evaluation.passes); the answer depends on the voxels alone, not on the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels.runs import Labels, runs

PartKey = tuple[int, int]
"""(segment id, truth id) of a part."""

Point = tuple[float, float, float]

Finding = list[Any]
"""Of one part in one block, as JSON values: its number in the search; then the sums of z, y and
x and the count of its voxels, or the squared distance and z, y, x of the nearest one."""

_Coordinates = np.ndarray[Any, np.dtype[np.int64]]
_Ids = np.ndarray[Any, np.dtype[np.uint64]]


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
        search = Search(parts=tuple(which), points=tuple(points), scale=scale)
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


def search_block(
    segmentation: Labels, truth: Labels, *, block: Box, search: Search
) -> list[Finding]:
    """Return what a block holds of the parts that are looked for."""
    voxels = part_voxels(segmentation, truth, block=block, keys=set(search.parts))
    findings: list[Finding] = []
    for number, part in enumerate(search.parts):
        if part not in voxels:
            continue
        zyx = voxels[part]
        if search.points is None:
            findings.append([number, *zyx.sum(axis=0).tolist(), len(zyx)])
        else:
            offsets = (zyx - np.array(search.points[number])) * np.array(search.scale)
            distances = np.sum(offsets**2, axis=1)
            index = int(np.argmin(distances))
            findings.append([number, float(distances[index]), *zyx[index].tolist()])
    return findings


def part_voxels(
    segmentation: Labels, truth: Labels, *, block: Box, keys: set[PartKey]
) -> dict[PartKey, _Coordinates]:
    """Return the positions (n, 3), in C order, of each part that occurs in a block."""
    starts, lengths = runs(segmentation, truth)
    segments, objects = (labels.reshape(-1)[starts] for labels in (segmentation, truth))
    # Few runs are of any part: all parts are then sought in those alone.
    is_candidate = np.isin(objects, _ids((truth_id for _, truth_id in keys), objects))
    starts, lengths = starts[is_candidate], lengths[is_candidate]
    segments = segments[is_candidate].astype(np.uint64)
    objects = objects[is_candidate].astype(np.uint64)
    found: dict[PartKey, _Coordinates] = {}
    for segment, object_ in keys:
        rows = np.flatnonzero((segments == np.uint64(segment)) & (objects == np.uint64(object_)))
        if len(rows):
            ends = np.cumsum(lengths[rows])
            steps = np.arange(ends[-1]) + np.repeat(
                starts[rows] - ends + lengths[rows], lengths[rows]
            )
            zyx = np.stack(np.unravel_index(steps, block.shape), axis=1)
            found[segment, object_] = zyx + np.array(block.start)
    return found


def _ids(numbers: Iterable[int], labels: Labels) -> Labels:
    """Return ids in the type of the labels, those left out that it cannot hold."""
    most = np.iinfo(labels.dtype).max
    return np.array(sorted({one for one in numbers if one <= most}), labels.dtype)
