"""What a run will take, before it begins: a plan and a network in, numbers out.

Network calls follow from where a field of view fits and from its steps; what a call
takes is timed on this device with the network itself.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from floodem.assembly.block_masks import masks_without_image
from floodem.assembly.blocks import BlockPlan
from floodem.flooding.job import MEMORY_BYTES_PER_VOXEL
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.pyramid_geometry import level_box

if TYPE_CHECKING:
    from floodem.network.model_file import Model

CALLS_PER_STEP = 1.27
"""Network calls for each step of the field of view that fits into a block.

Measured on the whole FIB-25 sample, 250^3 voxels, field of view 33^3, steps of 8: 25,799
calls over 218^3 / 8^3 steps, 89 % of the voxels filled. On its central 160^3 it is 1.20, on
the crops that the tests hold the reference to 1.36 (FIB-25, 80^3) and 0.95 (SNEMI3D,
40 x 112 x 112)."""

CALLS_BASIS = (
    "1.27 calls for each step (deltas) of the field of view that fits into a block, as on the "
    "FIB-25 sample (25,799 calls for 250^3 voxels); emptier tissue takes fewer"
)

LABEL_BYTES = 8
WORK_BYTES_PER_VOXEL = 4
"""Labels of blocks, before compression."""
CHECKPOINT_BYTES_PER_VOXEL = 9
"""Labels, probabilities, logits of the flood at hand: for blocks in flight only."""
COMPRESSED = 1 / 20
"""A safe side of what labels compress to: 160^3 of FIB-25 take a 44th with their zarr 3, and
tables and records beside them a 200th."""

FILES_PER_BLOCK = 12
"""Labels (2) and table, record (4), comparison, mapping, three receipts."""
FILES_PER_MASKED_BLOCK = 7
"""Table, log, comparison, mapping, three receipts."""

_SAMPLED_BLOCKS, _LEAST_SAMPLED, _SAMPLED_VOXELS = 64, 8, 2**30
"""So many blocks, spread evenly, tell how much is masked; fewer where they are large."""
_WARM_UP_CALLS = 2
_MOST_CALLS = 200
_SECONDS = 10.0


def expected_calls(shape: Zyx, *, fov: Zyx, deltas: Zyx) -> int:
    """Return how many network calls a block of this shape may take, dense tissue assumed."""
    inner = [max(size - edge + 1, 0) for size, edge in zip(shape, fov, strict=True)]
    return round(CALLS_PER_STEP * math.prod(inner) / math.prod(deltas))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTime:
    """What one network call takes.

    Attributes
    ----------
    seconds
        Median of the calls that were timed.
    device
        ``cpu``, or the card's name.
    dtype
        Number format.
    """

    seconds: float
    device: str
    dtype: str


def time_calls(
    model: Model, *, device: str = "auto", dtype: str = "auto", seconds: float = _SECONDS
) -> CallTime:
    """Time a few network calls on a device of this machine.

    Parameters
    ----------
    device, dtype
        Names, see `floodem.network.device`.
    seconds
        About how long to try, after two calls that are not counted.

    Raises
    ------
    OptionError, DeviceError
        When there is no such device or format.
    """
    import numpy as np
    import torch

    from floodem.flooding.predictor import Predictor
    from floodem.network.device import choose_device, choose_dtype

    chosen = choose_device(device).device
    number_format = choose_dtype(dtype, chosen)
    predictor = Predictor(model, device=chosen, dtype=number_format)
    noise = np.random.default_rng(0)
    predictor.load_image(noise.standard_normal(predictor.fov, dtype=np.float32))
    seed = noise.standard_normal(predictor.fov, dtype=np.float32)
    taken: list[float] = []
    end = time.monotonic() + seconds
    while len(taken) < _WARM_UP_CALLS + 1 or (time.monotonic() < end and len(taken) < _MOST_CALLS):
        began = time.monotonic()
        predictor.predict((0, 0, 0), seed)
        taken.append(time.monotonic() - began)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
    return CallTime(
        seconds=float(np.median(taken[_WARM_UP_CALLS:])),
        device=name,
        dtype=str(number_format).removeprefix("torch."),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    blocks, masked_blocks
        All, and about how many of them are wholly masked and not opened.
    block, halo
        Edges of cores, and by how much halos are larger on each side, z, y, x.
    voxels, voxels_with_halos
        Of the box, and of all halos together.
    network_calls, basis
        Of all blocks, and what that number rests on.
    calls_factor
        How many times more that are than without cutting.
    seconds_per_call, device, dtype
        As timed; None where nothing was timed.
    device_hours
        Flooding on one such device; None where nothing was timed.
    is_card
        Whether these are GPU-hours.
    label_bytes, work_bytes, files
        Labels before compression at the destination, about what the run's folder takes on
        disk, and about how many files or objects are in both.
    bytes_read
        Of the image, as numbers in memory.
    memory_bytes
        Of a worker with so many slots, at the largest block.
    """

    blocks: int
    masked_blocks: int
    block: Zyx
    halo: Zyx
    voxels: int
    voxels_with_halos: int
    network_calls: int
    calls_factor: float
    basis: str
    seconds_per_call: float | None
    device: str | None
    dtype: str | None
    device_hours: float | None
    is_card: bool
    bytes_read: int
    label_bytes: int
    work_bytes: int
    files: int
    memory_bytes: int

    @property
    def halo_factor(self) -> float:
        """In how many halos a voxel lies on average."""
        return self.voxels_with_halos / self.voxels

    @property
    def hours_in_words(self) -> str | None:
        """``12.3 GPU-hours on NVIDIA H100``, or ``12.3 hours on cpu``; None: not timed."""
        if self.device_hours is None:
            return None
        unit = "GPU-hours" if self.is_card else "hours"
        return f"{self.device_hours:.3g} {unit} on {self.device}, {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = dataclasses.asdict(self)
        values["block"], values["halo"] = list(self.block), list(self.halo)
        return {**values, "halo_factor": self.halo_factor}


def estimate(
    plan: BlockPlan,
    *,
    fov: Zyx,
    deltas: Zyx,
    image_bytes: int,
    chunks: Zyx,
    request: SegmentRequest | None = None,
    voxel_size: VoxelSize | None = None,
    timed: CallTime | None = None,
    slots: int = 1,
    level_factors: tuple[Zyx, ...] = (),
) -> Estimate:
    """Estimate what the blocks of a plan take.

    Parameters
    ----------
    image_bytes
        Of one voxel of the image.
    chunks
        Of the destination, z, y, x: files are counted by them.
    request, voxel_size
        Masks of the run and the image's voxel size; up to 64 blocks are looked at.
    timed
        What a call takes.
    slots
        Blocks that a worker holds at once.
    level_factors
        Of the coarser levels to be written.

    Raises
    ------
    FloodemError
        When a mask cannot be read.
    """
    halos = plan.voxels_with_halos
    masked, open_share = _masked(plan, request, fov=fov, voxel_size=voxel_size)
    steps = _steps(plan, fov=fov, deltas=deltas)
    uncut = _steps(dataclasses.replace(plan, core=plan.box.shape), fov=fov, deltas=deltas)
    calls = round(open_share * CALLS_PER_STEP * steps)
    boxes = [plan.box, *(level_box(plan.box, factors) for factors in level_factors)]
    flooded = round(halos * (1 - masked / len(plan)))
    return Estimate(
        blocks=len(plan),
        masked_blocks=masked,
        block=plan.core,
        halo=plan.margin,
        voxels=plan.box.size,
        voxels_with_halos=halos,
        network_calls=calls,
        calls_factor=steps / uncut if uncut else 1.0,
        basis=CALLS_BASIS,
        seconds_per_call=None if timed is None else timed.seconds,
        device=None if timed is None else timed.device,
        dtype=None if timed is None else timed.dtype,
        device_hours=None if timed is None else calls * timed.seconds / 3600,
        is_card=timed is not None and timed.device != "cpu",
        bytes_read=flooded * image_bytes,
        label_bytes=LABEL_BYTES * sum(box.size for box in boxes),
        work_bytes=round(flooded * WORK_BYTES_PER_VOXEL * COMPRESSED)
        + slots * CHECKPOINT_BYTES_PER_VOXEL * math.prod(plan.largest_halo),
        files=sum(_count(box.shape, chunks) for box in boxes)
        + FILES_PER_BLOCK * (len(plan) - masked)
        + FILES_PER_MASKED_BLOCK * masked,
        memory_bytes=slots * MEMORY_BYTES_PER_VOXEL * math.prod(plan.largest_halo),
    )


def _steps(plan: BlockPlan, *, fov: Zyx, deltas: Zyx) -> float:
    along = zip(plan.halo_edges(), fov, deltas, strict=True)
    return math.prod(
        sum(max(edge - view + 1, 0) for edge in edges) / delta for edges, view, delta in along
    )


def _count(shape: Zyx, chunks: Zyx) -> int:
    return math.prod(-(-size // edge) for size, edge in zip(shape, chunks, strict=True))


def _masked(
    plan: BlockPlan, request: SegmentRequest | None, *, fov: Zyx, voxel_size: VoxelSize | None
) -> tuple[int, float]:
    """Return about how many blocks are wholly masked, and which share of places is open."""
    rules = [] if request is None else [*request.masks, *request.seed_masks, *request.barriers]
    if request is None or not rules:
        return 0, 1.0
    affordable = max(_LEAST_SAMPLED, _SAMPLED_VOXELS // math.prod(plan.largest_halo))
    looked_at = min(_SAMPLED_BLOCKS, affordable, len(plan))
    closed, open_share = 0, 0.0
    for number in range(looked_at):
        halo: Box = plan.block(number * len(plan) // looked_at).halo
        masks = masks_without_image(request, box=halo, voxel_size=voxel_size)
        if masks.leave_no_seed(fov):
            closed += 1
        else:
            open_share += masks.open_share()
    return round(closed * len(plan) / looked_at), open_share / looked_at
