"""Which mistakes a report shows, and the voxels around them: evaluations in, small boxes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt64

from floodem.evaluation import Evaluation, Mistake
from floodem.geometry import UNKNOWN_VOXEL_SIZE, Box, VoxelSize, Zyx
from floodem.project.report.opened import BoxOf, Volumes
from floodem.volumes.volume import Volume

Kind = Literal["merger", "split"]

LEAST_BITS = 0.0005
"""What a mistake must cost to be shown: less is 0.000 among the scores."""

EDGE_VOXELS = 121
"""Edge of what is shown, in the shortest edges of a voxel."""

_NEAR_VOXELS = 8
"""What counts as near a place, in the same."""

Labels3d = UInt64[np.ndarray, "z y x"]
Mask3d = Bool[np.ndarray, "z y x"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One mistake to be shown.

    Attributes
    ----------
    kind
        Whether a segment joins objects, or an object is cut into segments.
    owner
        Number of the evaluation that it is from.
    mistake
        With positions of its two largest parts.
    scored
        The voxels that were compared; nothing else is shown.
    """

    kind: Kind
    owner: int
    mistake: Mistake
    scored: Box

    @property
    def segments(self) -> tuple[int, int]:
        """Segments of the two parts: of a merger the same one twice."""
        first, second = self.mistake.largest
        return (first.id, second.id) if self.kind == "split" else (self.mistake.id,) * 2

    @property
    def objects(self) -> tuple[int, int]:
        """Truth objects of the two parts: of a split the same one twice."""
        first, second = self.mistake.largest
        return (first.id, second.id) if self.kind == "merger" else (self.mistake.id,) * 2

    @property
    def middle(self) -> Zyx:
        """The voxel half way between the two parts, z, y, x."""
        first, second = (part.position for part in self.mistake.largest)
        assert first is not None
        assert second is not None
        z, y, x = ((a + b) // 2 for a, b in zip(first, second, strict=True))
        return (z, y, x)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CutOut:
    """The voxels around a place.

    Attributes
    ----------
    box
        Where they lie, in the frame of the volumes.
    truth, segmentations
        Labels, 0 where a volume has no voxel; one array for each evaluation.
    image
        Grey values, not a number where it has no voxel; None without an image.
    """

    box: Box
    truth: Labels3d
    segmentations: tuple[Labels3d, ...]
    image: Float32[np.ndarray, "z y x"] | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Highlight:
    """What of a cut-out is pointed at in one segmentation.

    Attributes
    ----------
    first, second
        The two parts.
    whole
        What they make together, by id: the truth object that is split, the segment or
        segments over what is merged; 0 elsewhere.
    segments
        Segment of each part here; 0 where there is none.
    """

    first: Mask3d
    second: Mask3d
    whole: Labels3d
    segments: tuple[int, int]


def choose_places(evaluations: Sequence[Evaluation], *, limit: int) -> list[Place]:
    """Return the costliest mistakes of all evaluations, mergers first, each kind by cost.

    Parameters
    ----------
    limit
        How many of each kind at most. A mistake that several segmentations make is shown
        once, where it costs most.
    """
    return [
        place for kind in ("merger", "split") for place in _chosen(evaluations, kind, limit=limit)
    ]


def _chosen(evaluations: Sequence[Evaluation], kind: Kind, *, limit: int) -> list[Place]:
    found = [
        Place(kind=kind, owner=owner, mistake=mistake, scored=evaluation.box)
        for owner, evaluation in enumerate(evaluations)
        for mistake in (evaluation.worst_mergers if kind == "merger" else evaluation.worst_splits)
        if mistake.voi_bits >= LEAST_BITS
        and all(part.position is not None for part in mistake.largest)
    ]
    chosen: dict[tuple[int, ...], Place] = {}
    for place in sorted(found, key=lambda place: -place.mistake.voi_bits):
        chosen.setdefault(tuple(sorted(place.objects)), place)
    return list(chosen.values())[:limit]


def cut_box(middle: Zyx, *, frame: Box, voxel_size: VoxelSize | None) -> Box:
    """Return the box around a place, moved into the frame where it would stick out.

    Parameters
    ----------
    frame
        What may be shown.
    voxel_size
        The box is as long along each axis, in nanometres; None: in voxels.
    """
    starts, stops = [], []
    for at, low, high, edge in zip(
        middle, frame.start, frame.stop, _edges(voxel_size), strict=True
    ):
        size = min(edge, high - low)
        start = min(max(at - size // 2, low), high - size)
        starts.append(start)
        stops.append(start + size)
    return Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))


def _edges(voxel_size: VoxelSize | None) -> Zyx:
    sizes = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size.zyx_nm
    z, y, x = (2 * math.ceil(EDGE_VOXELS / 2 * min(sizes) / size) + 1 for size in sizes)
    return (min(z, EDGE_VOXELS), min(y, EDGE_VOXELS), min(x, EDGE_VOXELS))


def read_cut_out(box: Box, volumes: Volumes) -> CutOut:
    """Read a box of all volumes; nothing else of them is read."""
    size = volumes.voxel_size or UNKNOWN_VOXEL_SIZE
    image = volumes.image

    def labels(volume: Volume) -> Labels3d:
        return BoxOf(volume, box=box, voxel_size=size, dtype=np.dtype(np.uint64)).read()

    return CutOut(
        box=box,
        truth=labels(volumes.truth),
        segmentations=tuple(map(labels, volumes.segmentations)),
        image=None
        if image is None
        else BoxOf(
            image, box=box, voxel_size=size, dtype=np.dtype(np.float32), fill=math.nan
        ).read(),
    )


def highlight(place: Place, cut: CutOut, *, number: int) -> Highlight:
    """Return the parts of a mistake as one segmentation has them.

    In the segmentation that makes the mistake they are its two largest parts. In another
    one each part is what has most of the same voxels: in a split of the object, in a
    merger of each of the two objects.

    Parameters
    ----------
    number
        Of the segmentation.
    """
    owner = cut.segmentations[place.owner]
    masks = [
        (owner == segment) & (cut.truth == one)
        for segment, one in zip(place.segments, place.objects, strict=True)
    ]
    labels = cut.segmentations[number]
    if number == place.owner:
        segments = place.segments
    else:
        segments = (_most(labels[masks[0]]), _most(labels[masks[1]]))
    first, second = (
        (labels == segment) & (cut.truth == one) & (segment != 0)
        for segment, one in zip(segments, place.objects, strict=True)
    )
    if place.kind == "split":
        second &= ~first
        whole = np.where(cut.truth == place.mistake.id, cut.truth, np.uint64(0))
    else:
        wanted = np.array([segment for segment in segments if segment], np.uint64)
        whole = np.where(np.isin(labels, wanted), labels, np.uint64(0))
    return Highlight(first=first, second=second, whole=whole, segments=segments)


def _most(labels: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
    ids, counts = np.unique(labels, return_counts=True)
    return int(ids[np.argmax(counts)]) if len(ids) else 0


def contact(shown: Highlight, *, voxel_size: VoxelSize | None) -> Zyx | None:
    """Return where most of both parts lies close together, in voxels of the cut-out (z, y, x).

    Crumbs along a boundary touch in many places; there a picture shows nothing. None where
    the parts come nowhere near each other.
    """
    from scipy.ndimage import uniform_filter

    edges = [2 * reach + 1 for reach in _reaches(voxel_size, voxels=_NEAR_VOXELS)]
    least: Float32[np.ndarray, "z y x"] = np.minimum(
        uniform_filter(shown.first.astype(np.float32), edges, mode="constant"),
        uniform_filter(shown.second.astype(np.float32), edges, mode="constant"),
    )
    if float(least.max()) * math.prod(edges) < 1:
        return None
    z, y, x = np.unravel_index(int(np.argmax(least)), least.shape)
    return (int(z), int(y), int(x))


def crossing(shown: Highlight, at: Zyx, *, voxel_size: VoxelSize | None) -> Zyx:
    """Return where the slices cross, in voxels of the cut-out (z, y, x).

    On each axis it is the slice near a place that shows most of the smaller part there; of
    equal ones the nearest.
    """
    near = _reaches(voxel_size, voxels=_NEAR_VOXELS)
    start = [max(0, middle - 2 * reach) for middle, reach in zip(at, near, strict=True)]
    around = tuple(
        slice(first, middle + 2 * reach + 1)
        for first, middle, reach in zip(start, at, near, strict=True)
    )
    first, second = shown.first[around], shown.second[around]
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        least: Int64[np.ndarray, "slices"] = np.minimum(
            first.sum(axis=others), second.sum(axis=others)
        )
        middle = at[axis] - start[axis]
        window = range(max(0, middle - near[axis]), min(len(least), middle + near[axis] + 1))
        index = max(window, key=lambda one: (int(least[one]), -abs(one - middle)))
        found.append(index + start[axis])
    return (found[0], found[1], found[2])


def _reaches(voxel_size: VoxelSize | None, *, voxels: int) -> Zyx:
    """Return how many voxels on each axis are as far as so many of the shortest edge."""
    sizes = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size.zyx_nm
    z, y, x = (round(voxels * min(sizes) / size) for size in sizes)
    return (z, y, x)
