"""One object from one seed, in memory: an image and a position in, a mask out.

For who wants to see a flood grow, or one object only: a notebook, a click in a viewer.
Nothing is written. The object is the one that `floodem.segment` finds from the same seed
where nothing was segmented before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from floodem.errors import GeometryError
from floodem.flooding.canvas import Canvas, quantise_probability
from floodem.flooding.flood import Flood, FloodEnd
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, Zyx
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.flooding.job import Job
    from floodem.network.model_file import Model

DEFAULT_REACH = 128
"""Voxels to every side of the seed that a flood may fill, where no box is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodStep:
    """How far a flood is, after one network call.

    Attributes
    ----------
    calls
        Network calls so far.
    voxels
        Voxels that are in the object so far.
    box
        Where the flood may go, in the volume.
    reach
        Where it has been, in the volume.
    """

    calls: int
    voxels: int
    box: Box
    reach: Box
    logits: Float32[np.ndarray, "z y x"]
    """Of the voxels of `box`, NaN where the flood has not been; it changes with the next step."""

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
        believe in an object here, and the mask is empty.
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
    seconds: float
    notices: tuple[str, ...]

    @property
    def voxels(self) -> int:
        """How many voxels are in the object."""
        return int(np.count_nonzero(self.mask))


def flood_at(
    image: str | Path | Volume,
    seed: Zyx,
    *,
    model: str | Path | Model,
    box: Box | None = None,
    request: SegmentRequest | None = None,
    on_step: Callable[[FloodStep], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FloodedObject:
    """Flood one object from one seed.

    Parameters
    ----------
    image
        Address or open volume, z, y, x.
    seed
        Voxel of the volume, z, y, x.
    model
        Model file, name, or loaded model.
    box
        Where the flood may go; by default the part of the image within 128 voxels of the seed.
    request
        Options, masks, initial segmentation, device and number format, as of
        `floodem.segment`; its seeds, `min_segment_size` and destinations have no meaning
        here, and its box counts where `box` is not given.
    on_step
        Called after each network call; between two calls the flood waits for it.
    should_stop
        Asked after each network call; when it answers True the flood ends with what it has.

    Raises
    ------
    GeometryError
        When the field of view does not fit around the seed.
    FloodemError
        When an input is refused.
    """
    from floodem.flooding.job import prepare_job
    from floodem.flooding.predictor import Predictor
    from floodem.network.model_file import Model, load_model

    request = SegmentRequest() if request is None else request
    model = model if isinstance(model, Model) else load_model(model)
    volume = image if isinstance(image, Volume) else open_volume(image)
    try:
        box = box or request.box or _around(seed, volume)
        job = prepare_job(volume, model, request=replace(request, box=box), folder=None)
    finally:
        if volume is not image:
            volume.close()
    canvas = Canvas(
        job.image,
        Predictor(job.model, device=job.device, dtype=job.dtype),
        options=job.options,
        deltas=model.description.deltas,
        restricted=job.restricted,
    )
    if job.initial is not None:
        canvas.segmentation[...] = job.initial
    start = _start(seed, job, canvas)
    return _flood(job, canvas, start, on_step=on_step, should_stop=should_stop)


def _around(seed: Zyx, volume: Volume) -> Box:
    """Return the part of the volume around a seed."""
    found = Box.from_shape((1, 1, 1), start=seed).grow((DEFAULT_REACH,) * 3)
    inside = found.intersection(volume.box)
    if inside is None or not volume.box.contains_point(seed):
        raise GeometryError(
            f"seed {seed} (z,y,x) is outside of {volume.uri}, which holds {volume.box}: give a "
            "voxel of it"
        )
    return inside


def _start(seed: Zyx, job: Job, canvas: Canvas) -> Zyx:
    """Return the seed in the block, where a flood can begin there."""
    z, y, x = (int(p) - a for p, a in zip(seed, job.box.start, strict=True))
    start = (z, y, x)
    inside = job.box.contains_point(seed)
    if inside and canvas.segmentation[start]:
        raise GeometryError(
            f"seed {seed} (z,y,x) lies in segment {canvas.segmentation[start]} of the initial "
            "segmentation: give a voxel that is free"
        )
    if not inside or not canvas.is_open(start):
        raise GeometryError(
            f"seed {seed} (z,y,x) lies nearer to the border of box {job.box} than half the field "
            f"of view, {canvas.margin} voxels: give a voxel further inside, or a larger box"
        )
    if canvas.is_restricted(start) or (job.seed_mask is not None and job.seed_mask[start]):
        raise GeometryError(f"seed {seed} (z,y,x) is masked: give a voxel that is not")
    return start


def _flood(
    job: Job,
    canvas: Canvas,
    start: Zyx,
    *,
    on_step: Callable[[FloodStep], None] | None,
    should_stop: Callable[[], bool],
) -> FloodedObject:
    began = time.monotonic()
    counters: Counter[str] = Counter()
    flood = Flood.begin(canvas, start)
    end: FloodEnd | None = None
    was_stopped = False
    while end is None and not was_stopped:
        calls = flood.calls
        end = flood.step(canvas, counters) or flood.limit(canvas, job.options)
        if flood.calls > calls:
            if on_step is not None:
                on_step(_step(flood, canvas, job.box))
            was_stopped = end is None and should_stop()
    mask = (canvas.logits >= canvas.segment_logit) & (canvas.segmentation == 0)
    if end is not None and canvas.logits[start] < canvas.move_logit:
        end = FloodEnd.WEAK_SEED
        mask[...] = False
    visited = ~np.isnan(canvas.logits)
    probability = np.zeros(canvas.shape, np.uint8)
    probability[visited] = quantise_probability(canvas.logits[visited])
    return FloodedObject(
        seed=Box.from_shape((1, 1, 1), start=start).translate(job.box.start).start,
        box=job.box,
        mask=mask,
        probability=probability,
        calls=flood.calls,
        end=end,
        seconds=time.monotonic() - began,
        notices=job.notices,
    )


def _step(flood: Flood, canvas: Canvas, box: Box) -> FloodStep:
    logits = canvas.logits.view()
    logits.flags.writeable = False
    return FloodStep(
        calls=flood.calls,
        voxels=canvas.filled,
        box=box,
        reach=flood.reach(canvas).translate(box.start),
        logits=logits,
    )
