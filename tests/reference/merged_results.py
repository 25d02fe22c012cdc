"""Labels of a volume that is put together of subvolumes, looked up one voxel at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from floodem.geometry import Zyx


def merged(subvolumes: Mapping[Zyx, np.ndarray]) -> tuple[np.ndarray, Zyx]:
    """Return the labels (uint64) and where the first voxel lies."""
    corners = sorted(subvolumes)
    before, total = {}, 0
    for corner in corners:
        before[corner] = total
        total += int(subvolumes[corner].max())
    low = tuple(min(corner[axis] for corner in corners) for axis in range(3))
    high = [
        max(corner[axis] + subvolumes[corner].shape[axis] for corner in corners)
        for axis in range(3)
    ]
    labels = np.zeros([b - a for a, b in zip(low, high, strict=True)], np.uint64)
    for index in np.ndindex(*labels.shape):
        place = [a + b for a, b in zip(index, low, strict=True)]
        best = None
        for corner in corners:
            shape = subvolumes[corner].shape
            inside = [a - b for a, b in zip(place, corner, strict=True)]
            if not all(0 <= a < size for a, size in zip(inside, shape, strict=True)):
                continue
            distance = sum((a - (n - 1) / 2) ** 2 for a, n in zip(inside, shape, strict=True))
            if best is None or distance < best:
                best = distance
                label = int(subvolumes[corner][tuple(inside)])
                labels[index] = label + before[corner] if label else 0
    return labels, (low[0], low[1], low[2])
