"""Objects of a label volume, counted in boxes: labels in, sizes, pieces and thickness out.

Where a box cuts an object, two pieces in it may hang together outside. So only pieces
that touch no cut face count as apart; those that touch one count as one piece together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.labels.components import connected_pieces
from floodem.labels.runs import Labels, sizes
from floodem.progress import Progress, ProgressListener

BOX_VOXELS = 2**24
"""Voxels of a box: 256^3; labels, pieces and distances of it take some hundred megabytes."""

SAMPLED_BOXES = 2
"""Boxes that are looked at, unless everything is asked for or fits into as many."""

DISTANCE_VOXELS = 2**22
"""Voxels of a box in which distances are measured."""

MEASURED = 1000
"""Voxels of an object from which it has a thickness: what segment keeps by default."""

CYLINDER = 6.0
"""Thickness of a long cylinder over the mean distance of its voxels to its surface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Objects that do not hang together.

    Attributes
    ----------
    ids
        Of objects in two pieces or more, ascending.
    counts
        How many pieces each has, at least.
    seconds
        Voxels of the second largest piece of each.
    """

    ids: UInt64[np.ndarray, "n"]
    counts: Int64[np.ndarray, "n"]
    seconds: Int64[np.ndarray, "n"]


@dataclass(kw_only=True)
class ObjectSurvey:
    """What was counted.

    Attributes
    ----------
    boxes
        Where.
    is_all
        Whether that is the whole volume, in one box, so that nothing is cut.
    voxels
        How many, background among them.
    voxels_of
        Voxels of each object, by id.
    apart
        Pieces and voxels of the second one, by id, of objects that do not hang together.
    thickness_nm
        Of objects, in nanometres (voxels of 1 nm where their size is not known).
    extent_nm
        Diagonals of the boxes around objects, in the same unit.
    """

    boxes: tuple[Box, ...]
    is_all: bool
    voxels: int = 0
    voxels_of: dict[int, int] = field(default_factory=dict)
    apart: dict[int, tuple[int, int]] = field(default_factory=dict)
    thickness_nm: list[float] = field(default_factory=list)
    extent_nm: list[float] = field(default_factory=list)

    @property
    def labelled(self) -> int:
        """Voxels that belong to an object."""
        return sum(self.voxels_of.values())


def label_boxes(box: Box, *, chunks: Zyx, thorough: bool) -> tuple[Box, ...]:
    """Choose which boxes of a volume are looked at: all of it, or some spread evenly."""
    if box.size <= SAMPLED_BOXES * BOX_VOXELS:
        return (box,)
    edge = round(BOX_VOXELS ** (1 / 3))
    edges = [min(edge, length) for length in box.shape]
    # Flat volumes get wider boxes.
    free = [axis for axis in range(3) if edges[axis] == edge]
    if len(free) < 3 and free:
        rest = BOX_VOXELS // math.prod(edges[axis] for axis in range(3) if axis not in free)
        wide = round(rest ** (1 / len(free)))
        edges = [min(wide, box.shape[axis]) if axis in free else edges[axis] for axis in range(3)]
    core = (edges[0], edges[1], edges[2])
    if thorough:
        return tuple(tile.core for tile in tiles(box, core=core))
    chosen = []
    for number in range(SAMPLED_BOXES):
        start = []
        for low, length, size, chunk in zip(box.start, core, box.shape, chunks, strict=True):
            at = (size - length) * (2 * number + 1) // (2 * SAMPLED_BOXES)
            start.append(low + (at - at % chunk if chunk <= length else at))
        chosen.append(Box.from_shape(core, start=(start[0], start[1], start[2])))
    return tuple(chosen)


def survey_objects(
    read: Callable[[Box], Labels],
    boxes: Sequence[Box],
    *,
    whole: Box,
    voxel_size: VoxelSize | None,
    progress: ProgressListener | None = None,
) -> ObjectSurvey:
    """Count objects in boxes.

    Parameters
    ----------
    read
        Returns the labels of a box.
    boxes
        What to look at.
    whole
        The volume.
    """
    found = ObjectSurvey(boxes=tuple(boxes), is_all=tuple(boxes) == (whole,))
    size = VoxelSize(1, 1, 1) if voxel_size is None else voxel_size
    for number, box in enumerate(boxes):
        if progress is not None:
            progress(
                Progress(stage="looking at labels", done=number, total=len(boxes), unit="boxes")
            )
        labels = read(box)
        found.voxels += box.size
        for one, count in zip(*sizes(labels), strict=True):
            if one:
                found.voxels_of[int(one)] = found.voxels_of.get(int(one), 0) + int(count)
        apart = pieces_apart(labels, cut=_cut_faces(box, whole))
        for one, count, second in zip(apart.ids, apart.counts, apart.seconds, strict=True):
            before = found.apart.get(int(one), (1, 0))
            found.apart[int(one)] = (
                max(before[0], int(count)),
                max(before[1], int(second)),
            )
        if number == 0:
            found.extent_nm = list(_extents(labels, size))
            found.thickness_nm = list(_thickness(labels, size))
    return found


def _cut_faces(box: Box, whole: Box) -> tuple[tuple[bool, bool], ...]:
    """Return for each axis whether the volume goes on before and behind a box."""
    ends = zip(box.start, box.stop, whole.start, whole.stop, strict=True)
    return tuple((start > first, stop < last) for start, stop, first, last in ends)


def pieces_apart(labels: Labels, *, cut: tuple[tuple[bool, bool], ...]) -> Pieces:
    """Find the objects that surely do not hang together (by faces, edges or corners).

    Parameters
    ----------
    labels
        A box, z, y, x; 0 is background.
    cut
        For each axis whether the volume goes on before and behind the box.
    """
    pieces = connected_pieces(labels, connectivity=26)
    flat = pieces.reshape(-1)
    numbers, firsts, inverse = np.unique(flat, return_index=True, return_inverse=True)
    voxels = np.bincount(inverse, minlength=len(numbers)).astype(np.int64)
    owners = labels.reshape(-1)[firsts].astype(np.uint64)
    is_open = np.zeros(len(numbers), bool)
    at = inverse.reshape(labels.shape)
    for axis, (before, behind) in enumerate(cut):
        for is_cut, plane in ((before, 0), (behind, -1)):
            if is_cut:
                is_open[np.unique(np.take(at, plane, axis=axis))] = True
    keep = owners != 0
    owners, voxels, is_open = owners[keep], voxels[keep], is_open[keep]
    # All open pieces of an object stand for one.
    group = np.where(is_open, -1, np.arange(len(owners)))
    order = np.lexsort((group, owners))
    owners, voxels, group = owners[order], voxels[order], group[order]
    is_first = np.ones(len(owners), bool)
    is_first[1:] = (owners[1:] != owners[:-1]) | (group[1:] != group[:-1])
    starts = np.flatnonzero(is_first)
    summed = np.add.reduceat(voxels, starts) if len(starts) else voxels
    return _several(owners[starts], summed)


def _several(owners: UInt64[np.ndarray, "n"], voxels: Int64[np.ndarray, "n"]) -> Pieces:
    """Return the objects that occur several times, with their second largest number."""
    order = np.lexsort((-voxels, owners))
    owners, voxels = owners[order], voxels[order]
    ids, firsts, counts = np.unique(owners, return_index=True, return_counts=True)
    several = counts > 1
    return Pieces(
        ids=ids[several],
        counts=counts[several].astype(np.int64),
        seconds=voxels[firsts[several] + 1],
    )


def _extents(labels: Labels, size: VoxelSize) -> Iterator[float]:
    """Yield the diagonals of the boxes around objects with some voxels."""
    from scipy import ndimage

    numbers = _numbered(labels)
    counts = np.bincount(numbers.reshape(-1))
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        if place is not None and counts[number] >= MEASURED:
            edges = [
                (along.stop - along.start) * edge
                for along, edge in zip(place, size.zyx_nm, strict=True)
            ]
            yield math.hypot(*edges)


def _numbered(labels: Labels) -> Int64[np.ndarray, "z y x"]:
    """Return the labels counted from 1, 0 kept."""
    ids, inverse = np.unique(labels, return_inverse=True)
    first = 0 if ids.size and ids[0] == 0 else 1
    numbers: Int64[np.ndarray, "z y x"] = (inverse.reshape(labels.shape) + first).astype(np.int64)
    return numbers


def _thickness(labels: Labels, size: VoxelSize) -> Iterator[float]:
    """Yield the thickness of objects as if they were cylinders, in the middle of a box."""
    part = _numbered(_middle(labels))
    distances = distances_nm(part, size)
    flat = part.reshape(-1)
    counts = np.bincount(flat)
    sums = np.bincount(flat, weights=distances.reshape(-1))
    for number in range(1, len(counts)):
        # What fills the box has no surface, and so no thickness.
        if counts[number] >= MEASURED and np.isfinite(sums[number]):
            # Distances are to the middle of the next voxel, half a voxel behind the surface.
            depth = float(sums[number]) / int(counts[number]) - min(size.zyx_nm) / 2
            yield CYLINDER * depth


def _middle(labels: Labels) -> Labels:
    edges = list(labels.shape)
    while math.prod(edges) > DISTANCE_VOXELS:
        longest = edges.index(max(edges))
        edges[longest] = -(-edges[longest] * 3 // 4)
    place = tuple(
        slice((length - edge) // 2, (length - edge) // 2 + edge)
        for length, edge in zip(labels.shape, edges, strict=True)
    )
    return labels[place]


def distances_nm(
    numbers: Int64[np.ndarray, "z y x"], size: VoxelSize
) -> Float64[np.ndarray, "z y x"]:
    """Return how far each voxel of an object lies from the next voxel that is not of it.

    Uses edt where it is installed; scipy's transform gives the same without objects that
    touch, between which a voxel of one is left out.
    """
    try:
        import edt
    except ImportError:
        from scipy import ndimage

        is_inner = numbers != 0
        for axis in range(3):
            front = tuple(slice(None, -1) if one == axis else slice(None) for one in range(3))
            back = tuple(slice(1, None) if one == axis else slice(None) for one in range(3))
            is_inner[back] &= numbers[back] == numbers[front]
        found: Float64[np.ndarray, "z y x"] = ndimage.distance_transform_edt(
            is_inner, sampling=size.zyx_nm
        )
        return found
    exact: Float64[np.ndarray, "z y x"] = edt.edt(
        np.ascontiguousarray(numbers, np.uint32),
        anisotropy=size.zyx_nm,
        black_border=False,
        parallel=1,
    ).astype(np.float64)
    return exact
