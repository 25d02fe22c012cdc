"""A slow, obvious twin of partitions: every voxel's surroundings are counted one by one."""

from __future__ import annotations

import itertools

import numpy as np


def partitions(
    labels, *, thresholds, radius, min_size, ids=None, mask=None, spheres=(), origin=(0, 0, 0)
):
    """Partitions of a whole array; `mask` is an array, spheres are (z, y, x, r) with `origin`."""
    found = np.full(labels.shape, 255, np.uint8)
    ranges = [range(r, size - r) for r, size in zip(radius, labels.shape, strict=True)]
    for voxel in itertools.product(*ranges):
        near = tuple(slice(at - r, at + r + 1) for at, r in zip(voxel, radius, strict=True))
        if mask is not None and mask[near].any():
            continue
        frame = [at + first for at, first in zip(voxel, origin, strict=True)]
        if any(
            sum((a - b) ** 2 for a, b in zip(frame, sphere[:3], strict=True)) <= sphere[3] ** 2
            for sphere in spheres
        ):
            continue
        label = labels[voxel]
        is_small = np.count_nonzero(labels == label) < min_size
        if label == 0 or is_small or (ids is not None and int(label) not in ids):
            found[voxel] = 0
            continue
        fraction = np.count_nonzero(labels[near] == label) / labels[near].size
        above = [n for n, threshold in enumerate(thresholds) if fraction < threshold]
        found[voxel] = above[0] + 1 if above else len(thresholds) + 1
    return found
