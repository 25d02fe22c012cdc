"""Whether a volume holds labels: an open volume in, a guess out.

What a file declares is believed. Where it says nothing, type and voxels tell.
"""

from __future__ import annotations

import math

import numpy as np

from floodem.geometry import Box
from floodem.volumes.volume import Kind, Volume

SMALL_BYTES = 2
"""Integers up to this size hold images as often as labels."""

_SAMPLE_EDGE = 64
_SAMPLE_BYTES = 64 * 2**20
"""What is decoded for a guess where one chunk does not take more by itself."""

_FLAT_SHARE = 0.5  # EM images reach 0.05, label volumes 0.96


def looks_like_labels(volume: Volume) -> bool:
    """Tell labels from an image by what the file declares, by type, and by a few voxels.

    32- and 64-bit integers are labels, floats are images. 8- and 16-bit integers
    may be both: labels are flat, so that most neighbours in the middle of the
    volume are equal, while the noise of an image makes them differ.

    Raises
    ------
    StorageError, VolumeFormatError
        When the voxels in the middle cannot be read.
    """
    if volume.dtype.kind not in "ui":
        return False
    if volume.kind is not None:
        return volume.kind is Kind.LABELS
    if volume.dtype.itemsize > SMALL_BYTES:
        return True
    sample = volume.read(_sample_box(volume))
    left, right = sample[..., :-1], sample[..., 1:]
    inside = (left != 0) & (right != 0)
    return bool(inside.any()) and float(np.mean((left == right)[inside])) > _FLAT_SHARE


def middle(box: Box) -> Box:
    """Return at most 64 voxels along each axis from the middle of a box."""
    return _middle(box, sections=_SAMPLE_EDGE)


def _sample_box(volume: Volume) -> Box:
    """Return the middle, in fewer sections where large chunks lie around it."""
    touched = math.prod(
        min(length, _SAMPLE_EDGE + 2 * edge)
        for edge, length in zip(volume.chunks[1:], volume.shape[1:], strict=True)
    )
    return _middle(
        volume.box,
        sections=max(1, min(_SAMPLE_EDGE, _SAMPLE_BYTES // (touched * volume.dtype.itemsize))),
    )


def _middle(box: Box, *, sections: int) -> Box:
    edges: list[tuple[int, int]] = []
    wanted = (sections, _SAMPLE_EDGE, _SAMPLE_EDGE)
    for start, stop, most in zip(box.start, box.stop, wanted, strict=True):
        edge = min(most, stop - start)
        first = start + (stop - start - edge) // 2
        edges.append((first, first + edge))
    (z0, z1), (y0, y1), (x0, x1) = edges
    return Box((z0, y0, x0), (z1, y1, x1))
