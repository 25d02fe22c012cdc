"""Where mistakes lie: pairs of parts in, one voxel of each part out.

A part is the voxels of one (segment, truth object) pair. For two parts of one
object this finds the places where they face each other: from the centroid of the
first, the nearest voxel of the second, and back from there the nearest voxel of
the first. Reads the volumes block by block; the answer depends on the voxels
alone, not on the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from floodem.evaluation.alignment import Alignment
from floodem.geometry import Box, Zyx
from floodem.labels.runs import Labels, runs
from floodem.progress import Progress, ProgressListener

PartKey = tuple[int, int]
"""(segment id, truth id) of a part."""

_Coordinates = np.ndarray[Any, np.dtype[np.int64]]
_Point = tuple[float, float, float]

_PASSES = 3  # one for centroids, one for each part of a pair


def facing_voxels(
    alignment: Alignment,
    pairs: Sequence[tuple[PartKey, PartKey]],
    *,
    progress: ProgressListener | None = None,
) -> list[tuple[Zyx, Zyx]]:
    """Return for each two parts a voxel of the first and one of the second, near each other.

    Distances are in nanometres where the voxel size is known, else in voxels;
    ties go to the first voxel in C order.

    Parameters
    ----------
    alignment
        The volumes; every part has at least one voxel in its box.
    pairs
        The parts to look for, two and two.
    """
    searches = _Searches(alignment, progress)
    centroids = searches.centroids({first for first, _ in pairs})
    seconds = searches.nearest([(second, centroids[first]) for first, second in pairs])
    firsts = searches.nearest(
        [(first, point) for (first, _), point in zip(pairs, seconds, strict=True)]
    )
    return list(zip(firsts, seconds, strict=True))


class _Searches:
    """Passes over the blocks, each looking for some parts."""

    def __init__(self, alignment: Alignment, progress: ProgressListener | None) -> None:
        self._alignment = alignment
        self._progress = progress
        size = alignment.voxel_size
        self._blocks_done = 0
        self._scale = np.array(size.zyx_nm if size is not None else (1.0, 1.0, 1.0))

    def centroids(self, keys: set[PartKey]) -> dict[PartKey, _Point]:
        """Return the mean position of each part's voxels."""
        sums = dict.fromkeys(keys, (0, 0, 0, 0))
        for voxels in self._voxels_of(keys):
            for key, zyx in voxels.items():
                z, y, x, count = sums[key]
                dz, dy, dx = (int(total) for total in zyx.sum(axis=0))
                sums[key] = (z + dz, y + dy, x + dx, count + len(zyx))
        return {key: (z / n, y / n, x / n) for key, (z, y, x, n) in sums.items()}

    def nearest(self, targets: Sequence[tuple[PartKey, _Point]]) -> list[Zyx]:
        """Return for each (part, point) the voxel of the part that is nearest to the point."""
        best: list[tuple[float, Zyx] | None] = [None] * len(targets)
        for voxels in self._voxels_of({key for key, _ in targets}):
            for index, (key, point) in enumerate(targets):
                if key in voxels:
                    found = self._nearest_in(voxels[key], point)
                    known = best[index]
                    best[index] = found if known is None else min(known, found)
        assert all(entry is not None for entry in best)
        return [entry[1] for entry in best if entry is not None]

    def _nearest_in(self, zyx: _Coordinates, point: _Point) -> tuple[float, Zyx]:
        distances = np.sum(((zyx - np.array(point)) * self._scale) ** 2, axis=1)
        index = int(np.argmin(distances))
        z, y, x = (int(position) for position in zyx[index])
        return float(distances[index]), (z, y, x)

    def _voxels_of(self, keys: set[PartKey]) -> Iterator[Mapping[PartKey, _Coordinates]]:
        blocks = self._alignment.blocks
        for block in blocks:
            yield part_voxels(*self._alignment.read(block), block=block, keys=keys)
            self._blocks_done += 1
            if self._progress is not None:
                done, total = self._blocks_done, _PASSES * len(blocks)
                self._progress(Progress(stage="locate", done=done, total=total, unit="blocks"))


def part_voxels(
    segmentation: Labels, truth: Labels, *, block: Box, keys: set[PartKey]
) -> dict[PartKey, _Coordinates]:
    """Return the positions (n, 3), in C order, of each part that occurs in a block."""
    starts, lengths = runs(segmentation, truth)
    segments = segmentation.reshape(-1)[starts].astype(np.uint64)
    objects = truth.reshape(-1)[starts].astype(np.uint64)
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
