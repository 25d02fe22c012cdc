"""Two segmentations laid over each other: addresses in, labels of one box out.

Both lie in one frame, that of the finer voxels. On each axis the coarser one's voxel c,
r times as long, lies over the voxels from r * c to r * (c + 1) - 1, as in pyramids, and
is repeated there::

    A (fine)     | 4 | 5 | 6 | 7 | 8 | 9 |
    B, 2 as long |   2   |   3   |
    compared     | 4 | 5 | 6 | 7 | 8 | 9 |     B is 0 at 8 and 9
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import GeometryError
from floodem.flooding.masks.rules import RATIO_TOLERANCE, read_padded
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels import require_labels
from floodem.labels.runs import Labels
from floodem.shapes.source import LabelSource, opened_source
from floodem.volumes.pyramid_geometry import finest_box, level_box
from floodem.volumes.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidLabels:
    """One segmentation, on perhaps coarser voxels than those that are compared.

    Attributes
    ----------
    source
        Where it is.
    ratio
        Compared voxels along each edge of one of its own, z, y, x.
    """

    source: LabelSource
    ratio: Zyx

    def read(self, box: Box) -> Labels:
        """Return its labels in a box of compared voxels; 0 where it has none.

        Raises
        ------
        LabelError
            When it holds negative numbers or no integers.
        StorageError, VolumeFormatError
            When it cannot be read.
        """
        volume = opened_source(self.source)
        own = level_box(box, self.ratio)
        labels = read_padded(volume, own)
        require_labels(labels, what=volume.uri)
        if self.ratio == (1, 1, 1):
            return labels
        ends = zip(box.start, box.stop, self.ratio, own.start, strict=True)
        nearest = [np.arange(a, b) // edge - first for a, b, edge, first in ends]
        return labels[np.ix_(*nearest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Two segmentations over the box in which they are compared.

    Attributes
    ----------
    a, b
        The one that is split, and the one that splits it.
    box
        In compared voxels.
    voxel_size
        Of compared voxels; None where neither of the two states one.
    """

    a: LaidLabels
    b: LaidLabels
    box: Box
    voxel_size: VoxelSize | None

    def to_json(self) -> dict[str, Any]:
        """Return what decides how the two lie, as JSON values."""
        return {
            "compared": str(self.box),
            "ratio_a": list(self.a.ratio),
            "ratio_b": list(self.b.ratio),
        }


def lay_over(a: LabelSource, b: LabelSource, *, box: Box | None = None) -> tuple[Overlay, Any]:
    """Find out how two segmentations lie over each other; no voxel is read.

    The result holds the voxels of A. Where B has none, B counts as 0. A coarse voxel of
    A that B's end cuts in two is cut there as well, since it covers what no finer volume
    of the same tissue has.

    Parameters
    ----------
    box
        Part of A that is compared, in voxels of the finer one; None: all of it.

    Returns
    -------
    overlay
        Of both.
    identity
        What tells these inputs from others, as JSON values.

    Raises
    ------
    GeometryError
        When their voxels are no whole multiples of each other on every axis, they have no
        voxel in common, or `box` is not inside A.
    LabelError
        When one holds no integers.
    FloodemError
        When one cannot be opened.
    """
    with a.open() as first, b.open() as second:
        for volume in (first, second):
            require_labels(np.zeros(0, volume.dtype), what=volume.uri)
        ratio_a, ratio_b = _ratios(first, second)
        whole = _cut_at(finest_box(first.box, ratio_a), finest_box(second.box, ratio_b), ratio_a)
        if whole.intersection(finest_box(second.box, ratio_b)) is None:
            raise GeometryError(
                f"{first.uri} holds {first.box} and {second.uri} {second.box} (z,y,x): they share "
                "no voxel; correct the offset of one"
            )
        if box is not None and (box.size == 0 or not whole.contains(box)):
            raise GeometryError(
                f"box {box} is empty or not inside {whole}, where {first.uri} lies (z,y,x, in "
                "voxels of the finer segmentation): give a part of that"
            )
        size = first.voxel_size
        if size is not None:
            z, y, x = (edge / r for edge, r in zip(size.zyx_nm, ratio_a, strict=True))
            size = VoxelSize(z, y, x)
        found = Overlay(
            a=LaidLabels(source=a, ratio=ratio_a),
            b=LaidLabels(source=b, ratio=ratio_b),
            box=whole if box is None else box,
            voxel_size=size or second.voxel_size,
        )
        return found, {"a": a.identity(first), "b": b.identity(second), **found.to_json()}


def _ratios(a: Volume, b: Volume) -> tuple[Zyx, Zyx]:
    """Return how many compared voxels lie along each edge of A's voxels, and of B's."""
    if a.voxel_size is None or b.voxel_size is None:
        return (1, 1, 1), (1, 1, 1)
    of_a, of_b = [], []
    for edge_a, edge_b in zip(a.voxel_size.zyx_nm, b.voxel_size.zyx_nm, strict=True):
        exact = max(edge_a, edge_b) / min(edge_a, edge_b)
        if abs(exact / round(exact) - 1) > RATIO_TOLERANCE:
            raise GeometryError(
                f"{a.uri} has voxels of {a.voxel_size} nm and {b.uri} of {b.voxel_size} nm "
                "(z,y,x): one must be whole multiples of the other; bring both to one resolution"
            )
        of_a.append(round(exact) if edge_a > edge_b else 1)
        of_b.append(round(exact) if edge_b > edge_a else 1)
    return (of_a[0], of_a[1], of_a[2]), (of_b[0], of_b[1], of_b[2])


def _cut_at(box: Box, other: Box, ratio: Zyx) -> Box:
    """Cut a box where another one begins or ends inside its first or last coarse voxel."""
    start, stop = list(box.start), list(box.stop)
    for axis, edge in enumerate(ratio):
        if 0 < other.start[axis] - start[axis] < edge:
            start[axis] = other.start[axis]
        if 0 < stop[axis] - other.stop[axis] < edge:
            stop[axis] = other.stop[axis]
    if any(low > high for low, high in zip(start, stop, strict=True)):
        return box
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
