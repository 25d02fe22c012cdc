"""A network that is ready, and an image: one seed after another in, one object after another out.

What a click in a viewer needs: the network is prepared once, each flood reads only
what is near its seed, tells after every network call how far it is, goes around what is
there already, and can go on from what an earlier flood has filled. Nothing is written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt32

from floodem.errors import GeometryError
from floodem.flooding.canvas import Canvas, quantise_probability
from floodem.flooding.flood import Flood, FloodEnd
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, Zyx
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    from floodem.flooding.job import Job
    from floodem.network.model_file import Model

DEFAULT_REACH = 128
"""Voxels to every side of the seed that a flood may fill, where no box is given."""

_SOMEONE = 1
"""What the canvas holds where an obstacle is: floods only ask whether there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodStep:
    """How far a flood is, after one network call.

    Attributes
    ----------
    calls
        Network calls so far.
    voxels
        Voxels that are in the object so far; those that it takes from an obstacle count.
    box
        Where the flood may go, in the volume.
    reach
        Where it has been, in the volume.
    segment_logit
        From which logit on a voxel is in the object.
    """

    calls: int
    voxels: int
    box: Box
    reach: Box
    segment_logit: np.float32
    logits: Float32[np.ndarray, "z y x"]
    """Of the voxels of `box`, NaN where the flood has not been; it changes with the next step."""
    taken: UInt32[np.ndarray, "z y x"]
    """Of the voxels of `box`: not 0 in what was there before."""

    def probability(self, z: int) -> Float32[np.ndarray, "y x"]:
        """Return a new array: the probability in one section of the volume, NaN if not visited.

        Raises
        ------
        GeometryError
            When the section is outside of `box`.
        """
        first, last = self.box.start[0], self.box.stop[0] - 1
        if not first <= z <= last:
            raise GeometryError(f"section {z} is outside of box {self.box}: give {first} to {last}")
        logits: Float32[np.ndarray, "y x"] = self.logits[z - first]
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)

    def mask(self) -> Bool[np.ndarray, "z y x"]:
        """Return a new array: the object so far, in the voxels of `reach`."""
        window = self.reach.slices(origin=self.box.start)
        mask: Bool[np.ndarray, "z y x"] = self.logits[window] >= self.segment_logit
        mask &= self.taken[window] == 0
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodedObject:
    """What one flood has filled.

    Attributes
    ----------
    seed
        Where it began, in the volume.
    box
        Where `mask` and `probability` lie in the volume.
    mask
        True in the object.
    probability
        Quantised: 0 not visited, q stands for about (q - 0.5) / 255.
    calls
        Network calls.
    end
        Why it ended; None where it was told to stop. "weak seed": the network does not
        believe in an object here, and the mask has nothing new.
    is_cut
        Whether what is new comes as near to the border of the box as one step of the network,
        where the image goes on: from a larger box, or a seed out there, it may grow further.
    seconds
        Wall time of the flood.
    notices
        Sentences a user may want to read.
    """

    seed: Zyx
    box: Box
    mask: Bool[np.ndarray, "z y x"]
    probability: UInt8[np.ndarray, "z y x"]
    calls: int
    end: FloodEnd | None
    is_cut: bool
    seconds: float
    notices: tuple[str, ...]

    @property
    def voxels(self) -> int:
        """How many voxels are in the object."""
        return int(np.count_nonzero(self.mask))


class Flooder:
    """Floods objects of one image with one network.

    The network is on its device from the beginning, in the layout it computes in. Not to be
    used by two threads at once.

    Parameters
    ----------
    image
        Open, z, y, x; it stays open as long as there are floods.
    model
        The network.
    request
        Options, masks, initial segmentation, device and number format, as of
        `floodem.segment`; its seeds, `min_segment_size` and destinations have no meaning
        here, and its box counts where a flood is given none.
    reach
        Voxels to every side of a seed that a flood may fill, where no box is given; at least
        half the field of view.

    Raises
    ------
    OptionError, DeviceError
        When there is no such device or number format.
    """

    def __init__(
        self,
        image: Volume,
        *,
        model: Model,
        request: SegmentRequest | None = None,
        reach: int = DEFAULT_REACH,
    ) -> None:
        from floodem.flooding.predictor import Predictor
        from floodem.network.device import choose_device, choose_dtype

        self.image = image
        self.model = model
        self.request = SegmentRequest() if request is None else request
        self.reach = reach
        device = choose_device(self.request.device).device
        dtype = choose_dtype(self.request.dtype, device)
        self._predictor = Predictor(model, device=device, dtype=dtype)

    @property
    def device_type(self) -> str:
        """What the network computes on: ``cpu`` or ``cuda``."""
        return str(self._predictor.device.type)

    @property
    def half_fov(self) -> Zyx:
        """How far from the border of the image seeds must be: half the field of view."""
        z, y, x = (edge // 2 for edge in self._predictor.fov)
        return (z, y, x)

    def is_near_border(self, seed: Zyx) -> bool:
        """Tell whether floods cannot begin here, but further inside of the image they can."""
        image = self.image.box
        seen = Box.from_shape((1, 1, 1), start=seed).grow(self.half_fov)
        fits_somewhere = all(a >= b for a, b in zip(image.shape, seen.shape, strict=True))
        return fits_somewhere and not image.contains(seen)

    def warm_up(self) -> None:
        """Ask the network once about nothing: the first answer takes longer than all others."""
        nothing = np.zeros(self._predictor.fov, np.float32)
        self._predictor.load_image(nothing)
        self._predictor.predict((0, 0, 0), nothing)

    def box_around(self, seed: Zyx) -> Box:
        """Return where a flood from this seed may go, when nothing else is said.

        Raises
        ------
        GeometryError
            When the seed is outside of the image.
        """
        if self.request.box is not None:
            return self.request.box
        volume = self.image
        z, y, x = (max(self.reach, half) for half in self.half_fov)
        found = Box.from_shape((1, 1, 1), start=seed).grow((z, y, x))
        inside = found.intersection(volume.box)
        if inside is None or not volume.box.contains_point(seed):
            raise GeometryError(
                f"seed {seed} (z,y,x) is outside of {volume.uri}, which holds {volume.box}: give a "
                "voxel of it"
            )
        return inside

    def flood(
        self,
        seed: Zyx,
        *,
        box: Box | None = None,
        obstacles: Sequence[Volume | Array] = (),
        continue_from: Bool[np.ndarray, "z y x"] | None = None,
        on_step: Callable[[FloodStep], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> FloodedObject:
        """Flood one object from one seed.

        Parameters
        ----------
        seed
            Voxel of the image, z, y, x.
        box
            Where the flood may go; by default `box_around`.
        obstacles
            What is there already: voxels that are not 0 are not entered, as those of an initial
            segmentation. Volumes count where they overlap the box; arrays have its shape.
        continue_from
            True in the voxels of `box` that the object has already. The network is shown
            them with the probability of a seed (`FloodOptions.init_activation`), which it
            knows from the training: that is what a seed is, and near what it has answered
            within an object. They stay in the object whatever it answers.
        on_step
            Called after each network call; between two calls the flood waits for it.
        should_stop
            Asked after each network call; when it answers True the flood ends with what it
            has.

        Raises
        ------
        GeometryError
            When the field of view does not fit around the seed, or the seed lies in an
            obstacle or mask.
        FloodemError
            When an input is refused.
        """
        from floodem.flooding.job import prepare_job

        box = box or self.box_around(seed)
        request = replace(self.request, box=box)
        job = prepare_job(self.image, self.model, request=request, folder=None)
        canvas = Canvas(
            job.image,
            self._predictor,
            options=job.options,
            deltas=self.model.description.deltas,
            restricted=job.restricted,
        )
        if job.initial is not None:
            canvas.segmentation[...] = job.initial
        for obstacle in obstacles:
            canvas.segmentation[_taken(obstacle, box)] = _SOMEONE
        if continue_from is not None:
            _require_shape(continue_from, box)
            canvas.segmentation[continue_from] = 0
        start = _start(seed, job, canvas)
        flooding = _Flooding(job, canvas, start, own=continue_from, image_box=self.image.box)
        return flooding.run(on_step=on_step, should_stop=should_stop)


class _Flooding:
    """One flood on its canvas."""

    def __init__(
        self,
        job: Job,
        canvas: Canvas,
        start: Zyx,
        *,
        own: Bool[np.ndarray, "z y x"] | None,
        image_box: Box,
    ) -> None:
        self.job, self.canvas, self.start, self.own = job, canvas, start, own
        self.image_box = image_box
        self.flood = Flood.begin(canvas, start)
        if own is not None:
            canvas.preset(own)

    def run(
        self, *, on_step: Callable[[FloodStep], None] | None, should_stop: Callable[[], bool]
    ) -> FloodedObject:
        began = time.monotonic()
        counters: Counter[str] = Counter()
        flood, canvas = self.flood, self.canvas
        end: FloodEnd | None = None
        was_stopped = False
        while end is None and not was_stopped:
            calls = flood.calls
            end = flood.step(canvas, counters) or flood.limit(canvas, self.job.options)
            if flood.calls > calls:
                if on_step is not None:
                    on_step(self._step())
                was_stopped = end is None and should_stop()
        return self._result(end, seconds=time.monotonic() - began)

    def _step(self) -> FloodStep:
        logits, taken = self.canvas.logits.view(), self.canvas.segmentation.view()
        logits.flags.writeable = taken.flags.writeable = False
        return FloodStep(
            calls=self.flood.calls,
            voxels=self.canvas.filled,
            box=self.job.box,
            reach=self.flood.reach(self.canvas).translate(self.job.box.start),
            segment_logit=self.canvas.segment_logit,
            logits=logits,
            taken=taken,
        )

    def _result(self, end: FloodEnd | None, *, seconds: float) -> FloodedObject:
        canvas, job = self.canvas, self.job
        mask = (canvas.logits >= canvas.segment_logit) & (canvas.segmentation == 0)
        if end is not None and canvas.logits[self.start] < canvas.move_logit:
            end = FloodEnd.WEAK_SEED
            mask[...] = False
        new = mask if self.own is None else mask & ~self.own
        is_cut = _is_cut(new, job.box, inside=self.image_box, step=canvas.deltas)
        if self.own is not None:
            mask |= self.own
        visited = ~np.isnan(canvas.logits)
        probability = np.zeros(canvas.shape, np.uint8)
        probability[visited] = quantise_probability(canvas.logits[visited])
        return FloodedObject(
            seed=Box.from_shape((1, 1, 1), start=self.start).translate(job.box.start).start,
            box=job.box,
            mask=mask,
            probability=probability,
            calls=self.flood.calls,
            end=end,
            is_cut=is_cut,
            seconds=seconds,
            notices=job.notices,
        )


def _is_cut(mask: Bool[np.ndarray, "z y x"], box: Box, *, inside: Box, step: Zyx) -> bool:
    """Tell whether voxels lie within a step of a face of the box that is no face of `inside`."""
    for axis in range(3):
        along = np.moveaxis(mask, axis, 0)
        depth = max(step[axis], 1)
        if box.start[axis] > inside.start[axis] and along[:depth].any():
            return True
        if box.stop[axis] < inside.stop[axis] and along[-depth:].any():
            return True
    return False


def _require_shape(array: Array, box: Box) -> None:
    if array.shape != box.shape:
        raise GeometryError(
            f"an array of {array.shape} voxels (z,y,x) says what is there in box {box}, which has "
            f"{box.shape}: give one of that shape"
        )


def _taken(obstacle: Volume | Array, box: Box) -> Bool[np.ndarray, "z y x"]:
    """Return where in a box an obstacle is."""
    if not isinstance(obstacle, Volume):
        _require_shape(obstacle, box)
        return np.asarray(obstacle != 0)
    taken = np.zeros(box.shape, bool)
    part = box.intersection(obstacle.box)
    if part is not None:
        taken[part.slices(origin=box.start)] = obstacle.read(part) != 0
    return taken


def _start(seed: Zyx, job: Job, canvas: Canvas) -> Zyx:
    """Return the seed in the block, where a flood can begin there."""
    z, y, x = (int(p) - a for p, a in zip(seed, job.box.start, strict=True))
    start = (z, y, x)
    inside = job.box.contains_point(seed)
    if inside and canvas.segmentation[start]:
        segment = 0 if job.initial is None else job.initial[start]
        where = f"segment {segment} of the initial segmentation" if segment else "an obstacle"
        raise GeometryError(f"seed {seed} (z,y,x) lies in {where}: give a voxel that is free")
    if not inside or not canvas.is_open(start):
        raise GeometryError(
            f"seed {seed} (z,y,x) lies nearer to the border of box {job.box} than half the field "
            f"of view, {canvas.margin} voxels: give a voxel further inside, or a larger box"
        )
    if canvas.is_restricted(start) or (job.seed_mask is not None and job.seed_mask[start]):
        raise GeometryError(f"seed {seed} (z,y,x) is masked: give a voxel that is not")
    return start
