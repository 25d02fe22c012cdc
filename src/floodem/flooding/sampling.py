"""Parts of masks and boxes: every n-th voxel, those in another box, those that hold anything."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from floodem.geometry import Box, Zyx

Slices = tuple[slice, slice, slice]


def sampled_shape(box: Box, step: Zyx) -> Zyx:
    """Return how many voxels are left of a box when every `step`-th is taken, from its first on."""
    z, y, x = (-(-edge // every) for edge, every in zip(box.shape, step, strict=True))
    return (z, y, x)


def sampled_parts(box: Box, other: Box, *, step: Zyx) -> tuple[Slices, Slices] | None:
    """Find the voxels that are left of a box in another one.

    Returns
    -------
    parts
        Where they are in what is left of `box`, and where in an array of all voxels of
        `other`; None when there are none.
    """
    there, here = [], []
    for axis, every in enumerate(step):
        start, begin, end = box.start[axis], other.start[axis], other.stop[axis]
        first = max(0, -(-(begin - start) // every))
        stop = min(-(-box.shape[axis] // every), -(-(end - start) // every))
        if first >= stop:
            return None
        there.append(slice(first, stop))
        at = start + first * every - begin
        here.append(slice(at, at + (stop - first - 1) * every + 1, every))
    return (there[0], there[1], there[2]), (here[0], here[1], here[2])


def within_its_box(
    mask: Bool[np.ndarray, "z y x"], box: Box
) -> tuple[Bool[np.ndarray, "z2 y2 x2"], Box | None]:
    """Cut a mask to the smallest box that holds it; None where it is empty."""
    start, stop = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        along = np.flatnonzero(mask.any(axis=others))
        if not along.size:
            return mask, None
        start.append(box.start[axis] + int(along[0]))
        stop.append(box.start[axis] + int(along[-1]) + 1)
    within = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return mask[within.slices(origin=box.start)].copy(), within
