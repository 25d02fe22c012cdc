"""Where a field of view moves next.

In: the logits of one field of view, as written back. Out: positions to visit,
first in, first out. Everything is z, y, x.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Inference".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32

from floodem.geometry import Zyx


def face_peaks(
    logits: Float32[np.ndarray, "z y x"], *, deltas: Zyx, threshold_logit: float
) -> list[tuple[float, Zyx]]:
    """Return the strongest voxel of each face of the step cuboid, strongest first.

    The cuboid reaches `deltas` voxels to every side of the centre. A face whose
    maximum is below the threshold gives nothing; within a face, ties go to the
    first voxel in C order; among faces, to the larger offset. A voxel on two
    faces is given once. An axis whose delta is 0 has no faces.

    Returns
    -------
    list of (logit, offset)
        Offsets count voxels from the centre of the field of view.
    """
    center = [size // 2 for size in logits.shape]
    low = [c - d for c, d in zip(center, deltas, strict=True)]
    cuboid = logits[tuple(slice(a, c + d + 1) for a, c, d in zip(low, center, deltas, strict=True))]
    found: set[tuple[float, Zyx]] = set()
    for axis, delta in enumerate(deltas):
        if delta == 0:
            continue
        other = [i for i in range(3) if i != axis]
        for side in (0, 2 * delta):
            face = cuboid.take(side, axis=axis)
            row, column = divmod(int(face.argmax()), face.shape[1])
            peak = float(face[row, column])
            if peak < threshold_logit:
                continue
            offset = [0, 0, 0]
            offset[axis] = side - delta
            offset[other[0]] = row - deltas[other[0]]
            offset[other[1]] = column - deltas[other[1]]
            found.add((peak, (offset[0], offset[1], offset[2])))
    return sorted(found, reverse=True)


class MoveQueue:
    """Positions to visit in one flood, each cell of the step grid only once.

    Cells have the edge of one step; the seed lies in the middle of its cell, so
    that all directions are treated alike.
    """

    def __init__(self, seed: Zyx, *, deltas: Zyx) -> None:
        self.seed = seed
        self.deltas = deltas
        self.waiting: deque[Zyx] = deque([seed])
        self.visited: set[Zyx] = set()

    def cell(self, position: Zyx) -> Zyx:
        """Return the cell that holds a position."""
        z, y, x = (
            (p - s + d // 2) // max(d, 1)
            for p, s, d in zip(position, self.seed, self.deltas, strict=True)
        )
        return (z, y, x)

    def pop_unvisited(self) -> Zyx | None:
        """Return the next position whose cell was not visited yet, or None at the end."""
        while self.waiting:
            position = self.waiting.popleft()
            if self.cell(position) not in self.visited:
                return position
        return None

    def visit(self, position: Zyx, peaks: Iterable[tuple[float, Zyx]]) -> None:
        """Mark the cell of `position` as done and queue the peaks seen from it."""
        self.visited.add(self.cell(position))
        for _, (z, y, x) in peaks:
            self.waiting.append((position[0] + z, position[1] + y, position[2] + x))
