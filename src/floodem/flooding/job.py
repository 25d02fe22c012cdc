"""A request becomes a job: everything opened, read and checked, nothing written yet.

In: image, model and `SegmentRequest`. Out: arrays, device and the identity of
the run, by which a later call knows whether it may go on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, UInt32

import floodem
from floodem.errors import GeometryError, LabelError, VolumeFormatError
from floodem.files import require_free_disk
from floodem.flooding.masks import build_mask, check_masks
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds import SeedContext
from floodem.geometry import UNKNOWN_VOXEL_SIZE, Box, VoxelSize, Zyx
from floodem.memory import require_memory
from floodem.volumes import open_volume
from floodem.volumes.grey.intensity import normalise
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    import torch

    from floodem.network.model_file import Model, ModelDescription

MEMORY_BYTES_PER_VOXEL = 48
"""Peak while PolicyPeaks works, measured on 250^3 (see benchmarks/README.md)."""

DISK_BYTES_PER_VOXEL = 8 + 2 * (4 + 1 + 4)
"""Labels, and two checkpoints while one replaces the other."""

VOXEL_SIZE_TOLERANCE = 0.2
"""Networks are trained with some change of scale; beyond this share it is worth a notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One block ready to be flooded.

    Attributes
    ----------
    options
        With the model's pad value and move threshold filled in.
    box
        Where the block lies in the volume.
    image
        Normalised.
    restricted, seed_mask, barrier
        The masks as arrays, or None.
    initial
        Labels that are there already, or None.
    identity
        What decides the result: digests, options, device kind, number format.
    about
        What a reader of the record wants to know besides.
    notices
        Sentences that a user may want to read before hours of flooding.
    """

    options: FloodOptions
    model: Model
    box: Box
    voxel_size: VoxelSize
    image: Float32[np.ndarray, "z y x"]
    restricted: Bool[np.ndarray, "z y x"] | None
    seed_mask: Bool[np.ndarray, "z y x"] | None
    barrier: Bool[np.ndarray, "z y x"] | None
    initial: UInt32[np.ndarray, "z y x"] | None
    device: torch.device
    dtype: torch.dtype
    identity: dict[str, Any]
    about: dict[str, Any]
    notices: tuple[str, ...]

    def closed(self) -> Bool[np.ndarray, "z y x"] | None:
        """Return where no field of view may be centred, or None where it may anywhere."""
        masks = [mask for mask in (self.restricted, self.barrier) if mask is not None]
        return reduce(np.logical_or, masks) if masks else None

    def seed_context(self, segmentation: UInt32[np.ndarray, "z y x"]) -> SeedContext:
        """Return what seed policies may look at."""
        excluded = self.restricted
        if self.seed_mask is not None:
            excluded = self.seed_mask if excluded is None else excluded | self.seed_mask
        z, y, x = self.model.description.fov
        return SeedContext(
            image=self.image,
            segmentation=segmentation,
            excluded=excluded,
            margin=(z // 2, y // 2, x // 2),
            corner=self.box.start,
            seed_anisotropy=self.options.seed_anisotropy,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobInputs:
    """What a block is made from besides model and options, all of it in memory.

    Attributes
    ----------
    uri
        Of the image, for messages.
    raw
        The image as it is stored.
    """

    uri: str
    box: Box
    voxel_size: VoxelSize
    raw: Array
    restricted: Bool[np.ndarray, "z y x"] | None = None
    seed_mask: Bool[np.ndarray, "z y x"] | None = None
    barrier: Bool[np.ndarray, "z y x"] | None = None
    initial: UInt32[np.ndarray, "z y x"] | None = None


def prepare_job(
    image: Volume,
    model: Model,
    *,
    request: SegmentRequest,
    folder: Path | None,
) -> Job:
    """Check a request and read what it needs.

    Parameters
    ----------
    folder
        Where the result will go, for the check of free space; None: it stays in memory.

    Raises
    ------
    FloodemError
        When anything is missing, damaged, does not fit, or would not fit in
        memory or on disk.
    """
    from floodem.network.device import choose_device, choose_dtype

    description = model.description
    box = image.box if request.box is None else request.box
    require_box_holds_fov(request.box, image=image, fov=description.fov)
    _require_room(box, folder=folder)
    chosen = choose_device(request.device)
    dtype = choose_dtype(request.dtype, chosen.device)
    voxel_size = image.voxel_size or description.voxel_size
    rules = [*request.masks, *request.seed_masks, *request.barriers]
    check_masks(rules, box=box, voxel_size=voxel_size)
    raw = image.read(box)
    restricted, seed_mask, barrier = (
        build_mask(rules, box=box, image=raw, voxel_size=voxel_size)
        for rules in (request.masks, request.seed_masks, request.barriers)
    )
    inputs = JobInputs(
        uri=image.uri,
        box=box,
        voxel_size=voxel_size,
        raw=raw,
        restricted=restricted,
        seed_mask=seed_mask,
        barrier=barrier,
        initial=_read_initial(request.init_segmentation, box=box),
    )
    return make_job(
        inputs,
        model,
        options=request.options,
        device=chosen.device,
        dtype=dtype,
        about=_about(image, model, request=request, voxel_size=voxel_size),
        notices=tuple(
            notice
            for notice in (chosen.notice, voxel_size_notice(image, description))
            if notice is not None
        ),
    )


def make_job(
    inputs: JobInputs,
    model: Model,
    *,
    options: FloodOptions,
    device: torch.device,
    dtype: torch.dtype,
    about: dict[str, Any],
    notices: tuple[str, ...] = (),
) -> Job:
    """Make the job of a block whose image, masks and labels are read.

    Parameters
    ----------
    options
        As the user gave them.
    about, notices
        Of the job.

    Raises
    ------
    VolumeFormatError
        When the image holds voxels that are no finite numbers.
    """
    description = model.description
    options = options.completed(
        pad_value=description.pad_value, move_threshold=description.move_threshold
    )
    barrier = inputs.barrier
    return Job(
        options=options,
        model=model,
        box=inputs.box,
        voxel_size=inputs.voxel_size,
        image=normalised_image(inputs.raw, description, uri=inputs.uri, corner=inputs.box.start),
        restricted=inputs.restricted,
        seed_mask=inputs.seed_mask,
        barrier=barrier,
        initial=inputs.initial,
        device=device,
        dtype=dtype,
        identity={
            "image": {"box": str(inputs.box), "sha256": _digest(inputs.raw)},
            "model": model.digest(),
            "options": options.to_json(),
            "mask": _digest(inputs.restricted),
            "seed_mask": _digest(inputs.seed_mask),
            "init_segmentation": _digest(inputs.initial),
            "device": device.type,
            "dtype": str(dtype).removeprefix("torch."),
            **({} if barrier is None else {"barrier": _digest(barrier)}),
        },
        about=about,
        notices=notices,
    )


def require_block_memory(box: Box, *, remedy: str) -> None:
    """Refuse a block that would not fit in memory.

    Raises
    ------
    ResourceError
        Saying what is needed, what is there and the remedy.
    """
    require_memory(
        needed_bytes=box.size * MEMORY_BYTES_PER_VOXEL,
        purpose=f"segmenting box {box}",
        remedy=remedy,
    )


def _require_room(box: Box, *, folder: Path | None) -> None:
    require_block_memory(box, remedy="segment a smaller --box")
    if folder is not None:
        require_free_disk(
            folder, needed_bytes=box.size * DISK_BYTES_PER_VOXEL, purpose=f"the result of box {box}"
        )


def voxel_size_notice(image: Volume, description: ModelDescription) -> str | None:
    """Say what a user should know when image and network do not share a voxel size."""
    if image.voxel_size is None:
        return (
            f"{image.uri} does not say its voxel size: the labels carry the model's, "
            f"{description.voxel_size} nm (z,y,x)"
        )
    return voxel_size_mismatch(image.voxel_size, description, uri=image.uri)


def voxel_size_mismatch(edges: VoxelSize, description: ModelDescription, *, uri: str) -> str | None:
    """Return a sentence where an image's voxels are not those that a network knows, or None.

    Parameters
    ----------
    edges
        Of the image.
    uri
        The image's address, for the sentence.
    """
    if description.voxel_size == UNKNOWN_VOXEL_SIZE:
        return None
    pairs = zip(edges.zyx_nm, description.voxel_size.zyx_nm, strict=True)
    if all(abs(ours / theirs - 1) <= VOXEL_SIZE_TOLERANCE for ours, theirs in pairs):
        return None
    return (
        f"{uri} has voxels of {edges} nm (z,y,x), and the network was trained on "
        f"{description.voxel_size} nm: expect poor segments, or bring the image to that size"
    )


def require_box_holds_fov(box: Box | None, *, image: Volume, fov: Zyx) -> None:
    """Refuse a box outside of an image, or one in which a field of view has no room.

    Parameters
    ----------
    box
        Part of the image, or None for all of it.

    Raises
    ------
    GeometryError
        Saying which.
    """
    if box is not None and not image.box.contains(box):
        raise GeometryError(
            f"box {box} is not inside {image.uri}, which holds {image.box} (z,y,x): give a part "
            "of that"
        )
    what = f"all of {image.uri}" if box is None else f"box {box}"
    shape = (box or image.box).shape
    if any(size < needed for size, needed in zip(shape, fov, strict=True)):
        raise GeometryError(
            f"{what}, {shape} voxels (z,y,x), is smaller than the network's field of view {fov}: "
            f"give a larger {'image' if box is None else 'box'}"
        )


def normalised_image(
    raw: Array, description: ModelDescription, *, uri: str, corner: Zyx
) -> Float32[np.ndarray, "z y x"]:
    """Return what the network sees, which must be numbers all over the block.

    Parameters
    ----------
    raw
        The image as it is stored.
    uri, corner
        Its address and its first voxel in the volume, for messages.

    Raises
    ------
    VolumeFormatError
        When the image holds voxels that are no finite numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        image = normalise(raw, mean=description.image_mean, stddev=description.image_stddev)
    if raw.dtype.kind != "f":
        return image
    unusable = ~np.isfinite(image)
    count = int(np.count_nonzero(unusable))
    if count:
        first = np.unravel_index(int(unusable.argmax()), unusable.shape)
        place = ",".join(str(int(a) + b) for a, b in zip(first, corner, strict=True))
        raise VolumeFormatError(
            f"{uri} holds {raw[first]} at {place} (z,y,x), the first of {count} such voxels: a "
            "network can only see finite grey levels, so replace them or give a --box without them"
        )
    return image


def _read_initial(address: str | Path | None, *, box: Box) -> UInt32[np.ndarray, "z y x"] | None:
    if address is None:
        return None
    with open_volume(address) as volume:
        if volume.dtype.kind not in "ui":
            raise LabelError(
                f"{volume.uri} holds {volume.dtype}, not labels: give an integer segmentation"
            )
        labels = volume.read(box)
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise LabelError(
            f"{address} holds ids from {low} to {high}; an initial segmentation needs ids from 0 "
            "to 4294967295: renumber it first"
        )
    return labels.astype(np.uint32)


def _digest(array: Array | None) -> str | None:
    if array is None:
        return None
    total = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _about(
    image: Volume, model: Model, *, request: SegmentRequest, voxel_size: VoxelSize
) -> dict[str, Any]:
    import torch

    return {
        "floodem": floodem.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "image": image.uri,
        "model": model.description.to_json(),
        "voxel_size_nm_zyx": list(voxel_size.zyx_nm),
        "masks": [rule.to_json() for rule in request.masks],
        "seed_masks": [rule.to_json() for rule in request.seed_masks],
        "barriers": [rule.to_json() for rule in request.barriers],
    }
