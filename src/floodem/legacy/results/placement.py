"""Which of several subvolumes a voxel comes from: boxes in, numbers of boxes out.

Subvolumes of one run overlap so that they can be joined. A voxel that lies in several
comes from the one whose centre is nearest, in voxels; on a tie from the first::

    |<--------- 0 --------->|
                    |<--------- 1 --------->|
    0000000000000000000011111111111111111111
                       ^ half-way between the centres
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from floodem.geometry import Box

NOWHERE = -1
_MOST_CELLS = 2**26
"""Of a grid through all faces: 400 planes on each axis."""


class Places:
    """Where subvolumes lie, by their numbers.

    Parameters
    ----------
    boxes
        In the order that decides between subvolumes whose centres are equally near.
    """

    def __init__(self, boxes: Sequence[Box]) -> None:
        self.boxes = tuple(boxes)
        self._starts = np.array([box.start for box in self.boxes], np.int64)
        self._stops = np.array([box.stop for box in self.boxes], np.int64)

    def near(self, box: Box) -> list[int]:
        """Return the numbers of those that share voxels with a box, in order."""
        meets = (self._starts < np.array(box.stop)) & (self._stops > np.array(box.start))
        return [int(number) for number in np.flatnonzero(meets.all(axis=1))]

    def owners(self, box: Box) -> Int32[np.ndarray, "z y x"]:
        """Return for each voxel of a box the number of the subvolume it comes from.

        Returns
        -------
        array of the box's shape
            `NOWHERE` where there is none.
        """
        owner: Int32[np.ndarray, "z y x"] = np.full(box.shape, NOWHERE, np.int32)
        near = self.near(box)
        nearest = None if len(near) < 2 else np.full(box.shape, np.iinfo(np.int64).max)
        for number in near:
            part = self.boxes[number].intersection(box)
            assert part is not None
            window = part.slices(origin=box.start)
            if nearest is None:
                owner[window] = number
                continue
            distance = _distances(part, self.boxes[number])
            is_nearer = distance < nearest[window]
            nearest[window] = np.where(is_nearer, distance, nearest[window])
            owner[window] = np.where(is_nearer, number, owner[window])
        return owner


def _distances(part: Box, place: Box) -> Int64[np.ndarray, "z y x"]:
    """Return four times the squared distance to the centre, which is whole."""
    axes = []
    for axis, (start, stop) in enumerate(zip(part.start, part.stop, strict=True)):
        twice = 2 * np.arange(start, stop, dtype=np.int64) + 1
        twice -= place.start[axis] + place.stop[axis]
        axes.append(twice**2)
    z, y, x = axes
    distances: Int64[np.ndarray, "z y x"] = z[:, None, None] + y[:, None] + x
    return distances


def uncovered(box: Box, places: Sequence[Box]) -> int | None:
    """Return how many voxels of a box lie in no subvolume; None where that takes too long."""
    parts = [part for place in places if (part := place.intersection(box)) is not None]
    cuts = [
        sorted(
            {
                box.start[axis],
                box.stop[axis],
                *itertools.chain.from_iterable((p.start[axis], p.stop[axis]) for p in parts),
            }
        )
        for axis in range(3)
    ]
    shape = [len(cut) - 1 for cut in cuts]
    if np.prod(shape, dtype=np.float64) > _MOST_CELLS:
        return None
    is_covered = np.zeros(shape, bool)
    for part in parts:
        is_covered[
            tuple(
                slice(cut.index(a), cut.index(b))
                for cut, a, b in zip(cuts, part.start, part.stop, strict=True)
            )
        ] = True
    z, y, x = (np.asarray(cut[1:]) - np.asarray(cut[:-1]) for cut in cuts)
    sizes = z[:, None, None] * y[:, None] * x
    return int(sizes[~is_covered].sum())
