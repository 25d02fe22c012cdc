"""Floods from one side of a decision point, on a canvas around it.

In: image and segmentation of a box around the point, a network, options. Out: what one flood
has filled in the analysis box, from how many seeds, and what its steps deleted.

::

    |<---------------- image and segmentation ------------------|
          |<-------- canvas: point +- radius, cut ------------->|
          | margin |<-------- seeds, moves -------->|  margin   |
                |<------ analysis box, cut ------>|

Nothing outlives a canvas: what a point gives does not depend on those before it.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from floodem.assembly.agglomeration.resegmentation.options import ResegmentationOptions
from floodem.errors import StoppedError
from floodem.flooding.canvas import UNDECIDED_LOGIT, Canvas
from floodem.flooding.flood import Flood
from floodem.flooding.options import FloodOptions, to_logit
from floodem.flooding.predictor import Predictor
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Array

SURE_PROBABILITY = 0.8
"""A voxel that falls from here to below 0.5 counts as deleted."""

_OTHER = 1
"""What the canvas holds in segments that stay: floods only ask whether there is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SideFlood:
    """The last flood of one side.

    Attributes
    ----------
    filled
        True in the voxels of the analysis box with a probability of 0.5 or more.
    accepted
        True in those that reach the segment threshold.
    seeds
        Where floods were tried, in order, z, y, x in the volume; `filled` is that of the last.
    is_recovered
        Whether it covers enough of its own segment.
    deleted
        Voxels that its steps, centred in the analysis box, deleted.
    calls
        Network calls of all tries.
    """

    filled: Bool[np.ndarray, "z y x"]
    accepted: Bool[np.ndarray, "z y x"]
    seeds: tuple[Zyx, ...] = ()
    is_recovered: bool = False
    deleted: int = 0
    calls: int = 0

    @classmethod
    def untried(cls, shape: tuple[int, ...]) -> SideFlood:
        """Return that of a side without a flood, in an analysis box of this shape."""
        return cls(filled=np.zeros(shape, np.bool_), accepted=np.zeros(shape, np.bool_))


class PointCanvas:
    """The surroundings of one decision point.

    Parameters
    ----------
    image
        Normalised, of all voxels of `box`.
    labels
        The segmentation there.
    box
        Where they lie in the volume: the point's surroundings, cut at the volume's border.
    position
        The point, z, y, x in the volume.
    predictor
        The network.
    deltas
        Step of its field of view.
    flood
        With pad value and move threshold filled in.
    """

    def __init__(
        self,
        image: Float32[np.ndarray, "z y x"],
        labels: Array,
        *,
        box: Box,
        position: Zyx,
        predictor: Predictor,
        deltas: Zyx,
        flood: FloodOptions,
        options: ResegmentationOptions,
        voxel_size: VoxelSize,
    ) -> None:
        self.labels = labels
        self.box = box
        self.options = options
        self.voxel_size = voxel_size
        around = Box.from_shape((1, 1, 1), start=position)
        self._point = _within(box, around)
        analysis = around.grow(options.analysis_radius).intersection(box)
        assert analysis is not None
        self._analysis = _within(box, analysis)
        self._flood_options = flood
        self._canvas = Canvas(image, predictor, options=flood, deltas=deltas)

    def in_analysis(self, array: Array) -> Array:
        """Return the part of an array of the canvas that lies in the analysis box."""
        return array[self._analysis.slices()]

    def keep_as_context(self, others: Bool[np.ndarray, "z y x"]) -> None:
        """Say which voxels belong to segments that no flood of this point may enter."""
        self._canvas.segmentation[...] = np.where(others, np.uint32(_OTHER), np.uint32(0))

    def flood_from(
        self, segment: Bool[np.ndarray, "z y x"], *, should_stop: Callable[[], bool]
    ) -> SideFlood:
        """Flood from the middle of a segment, and from elsewhere until it is covered well.

        A segment without a voxel in the analysis box is not flooded: nothing of it could be
        covered. Nor is one that is nowhere half a field of view away from the canvas's faces.

        Parameters
        ----------
        segment
            Its voxels on the canvas.

        Raises
        ------
        StoppedError
            When told to stop.
        """
        inside = self.in_analysis(segment)
        side = SideFlood.untried(inside.shape)
        if not inside.any():
            return side
        seeds: list[Zyx] = []
        calls = 0
        for seed in self._seeds(segment):
            z, y, x = (a + b for a, b in zip(seed, self.box.start, strict=True))
            seeds.append((z, y, x))
            flood, deleted = self._flood(seed, should_stop=should_stop)
            calls += flood.calls
            logits = self.in_analysis(self._canvas.logits)
            accepted = logits >= self._canvas.segment_logit
            side = SideFlood(
                filled=logits >= UNDECIDED_LOGIT,
                accepted=accepted,
                seeds=tuple(seeds),
                is_recovered=covers(accepted, inside, fraction=self.options.recovery_fraction),
                deleted=deleted,
                calls=calls,
            )
            self._canvas.erase(flood.reach(self._canvas))
            if side.is_recovered:
                break
        return side

    def _seeds(self, segment: Bool[np.ndarray, "z y x"]) -> Iterator[Zyx]:
        """Yield the voxels farthest from the segment's surface, each far from those before."""
        canvas, options = self._canvas, self.options
        if any(size < edge for size, edge in zip(canvas.shape, canvas.fov, strict=True)):
            return
        (z, y, x), margin = canvas.shape, canvas.margin
        middle = Box(margin, (z - margin[0], y - margin[1], x - margin[2]))
        depths = depths_nm(segment, self.voxel_size)[middle.slices()]
        if options.init_exclusion_radius is not None:
            _clear(depths, self._point.grow(options.init_exclusion_radius), inside=middle)
        for _ in range(options.max_retries):
            z, y, x = (int(i) for i in np.unravel_index(depths.argmax(), depths.shape))
            if not depths[z, y, x]:
                return
            seed = Box.from_shape((1, 1, 1), start=(z, y, x)).translate(middle.start)
            yield seed.start
            _clear(depths, seed.grow(options.exclusion_radius), inside=middle)

    def _flood(self, seed: Zyx, *, should_stop: Callable[[], bool]) -> tuple[Flood, int]:
        """Flood from a seed; the logits stay on the canvas."""
        canvas = self._canvas
        deletions = _Deletions(self._analysis)
        if self._flood_options.disco_seed_threshold >= 0:
            canvas.on_answer = deletions
        flood = Flood.begin(canvas, seed)
        counters: Counter[str] = Counter()
        while flood.step(canvas, counters) is None:
            if flood.limit(canvas, self._flood_options) is not None:
                break
            if should_stop():
                raise StoppedError(
                    "stopped while a decision point was flooded again: run the same command again "
                    "to go on"
                )
        canvas.on_answer = None
        return flood, deletions.voxels


class _Deletions:
    """Counts, step by step, the voxels that the network once was sure of and gives up."""

    def __init__(self, inside: Box) -> None:
        self.inside = inside
        self.voxels = 0
        self._sure_logit = to_logit(SURE_PROBABILITY)

    def __call__(
        self,
        position: Zyx,
        before: Float32[np.ndarray, "z y x"],
        answered: Float32[np.ndarray, "z y x"],
    ) -> None:
        if self.inside.contains_point(position):
            given_up = (before >= self._sure_logit) & (answered < UNDECIDED_LOGIT)
            self.voxels += int(np.count_nonzero(given_up))


def covers(
    flood: Bool[np.ndarray, "z y x"], segment: Bool[np.ndarray, "z y x"], *, fraction: float
) -> bool:
    """Tell whether a flood has at least a fraction of a segment's voxels; never of none."""
    voxels = int(np.count_nonzero(segment))
    return voxels > 0 and int(np.count_nonzero(flood & segment)) / voxels >= fraction


def depths_nm(
    mask: Bool[np.ndarray, "z y x"], voxel_size: VoxelSize
) -> Float64[np.ndarray, "z y x"]:
    """Return the distance from each voxel of a mask to the nearest voxel outside, 0 outside.

    Distances are those of voxel centres, in nanometres. The faces of the array are no surface,
    as nobody knows what is behind them, unless the mask fills all of it.
    """
    from scipy.ndimage import distance_transform_edt

    found = np.zeros(mask.shape, np.float64)
    box = _bounds(mask)
    if box is None:
        return found
    # The nearest voxel outside is never farther than one voxel off the mask's bounding box.
    whole = Box.from_shape(found.shape)  # type: ignore[arg-type]
    near = box.grow((1, 1, 1)).intersection(whole)
    assert near is not None
    window = mask[near.slices()]
    if window.all():
        window = np.pad(window, 1)
    nearest = distance_transform_edt(
        window, sampling=voxel_size.zyx_nm, return_distances=False, return_indices=True
    )
    # Distances are worked out in the mask alone, often a tenth of the voxels around a point.
    squares = np.zeros(np.count_nonzero(window), np.float64)
    for places, others, edge in zip(np.nonzero(window), nearest, voxel_size.zyx_nm, strict=True):
        squares += ((others[window] - places) * edge) ** 2
    found[near.slices()][mask[near.slices()]] = np.sqrt(squares)
    return found


def _bounds(mask: Bool[np.ndarray, "z y x"]) -> Box | None:
    """Return the smallest box that holds a mask, or None where it is empty."""
    spans = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        there = np.flatnonzero(mask.any(axis=others))
        if not len(there):
            return None
        spans.append((int(there[0]), int(there[-1]) + 1))
    (z0, z1), (y0, y1), (x0, x1) = spans
    return Box((z0, y0, x0), (z1, y1, x1))


def _clear(depths: Float64[np.ndarray, "z y x"], box: Box, *, inside: Box) -> None:
    """Put 0 where a box of the canvas lies in an array that covers the box `inside`."""
    part = box.intersection(inside)
    if part is not None:
        depths[part.slices(origin=inside.start)] = 0


def _within(box: Box, part: Box) -> Box:
    """Return a part of a box, as it is counted from the box's first voxel."""
    return part.translate((-box.start[0], -box.start[1], -box.start[2]))
