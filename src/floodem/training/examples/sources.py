"""The volumes a run learns from: addresses in, patches out.

What fits lies on the device, in the type of its file; the rest is read patch by
patch. Everything is opened, compared and measured before the first step.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor

from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.labels import compact, require_labels
from floodem.memory import available_memory
from floodem.progress import Progress, ProgressListener
from floodem.training.configuration.options import TrainOptions, VolumeOptions, volume_called
from floodem.training.examples.greyness import require_no_image
from floodem.training.patch import Patch
from floodem.volumes import open_volume, statistics
from floodem.volumes.inspection.pairs import require_alike, require_matching
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Volume

RESIDENT_SHARE = 1 / 4
"""Of the free memory, what volumes may take before they are read patch by patch."""

_SIZE_TOLERANCE = 1e-3
"""Within which voxel sizes are the same: files hold rounded ones, in nm or in um."""

_LABEL_BYTES = 4
_DIGEST_BLOCK: Zyx = (64, 256, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resident:
    """A volume as tensors on the device; `labels` are compact."""

    image: Tensor
    labels: Int32[Tensor, "z y x"]
    mask: Tensor | None


class TrainingVolume:
    """One labelled volume.

    Attributes
    ----------
    name
        As coordinates call it.
    box
        What may be looked at, z, y, x in the volumes' frame.
    mean, stddev
        Grey levels are normalised as (v - mean) / stddev.
    voxel_size
        Of the image, or what the options say where no file does; None where nobody does.
    """

    def __init__(
        self,
        options: VolumeOptions,
        *,
        image: Volume,
        labels: Volume,
        mask: Volume | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name = options.name
        self.options = options
        self.image, self.labels, self.mask = image, labels, mask
        self.box = _usable_box(options, image)
        self.voxel_size = _voxel_size(options, image=image, labels=labels)
        self.mean, self.stddev = _grey_levels(options, image, box=self.box)
        self._device, self._dtype = device, dtype
        self._resident: _Resident | None = None

    @property
    def resident_bytes(self) -> int:
        """What `load` would take on the device."""
        image_bytes = _torch_dtype(self.image.dtype).itemsize
        per_voxel = image_bytes + _LABEL_BYTES + (self.mask is not None)
        return self.box.size * per_voxel

    @property
    def is_resident(self) -> bool:
        """Whether patches come from memory."""
        return self._resident is not None

    def load(self) -> None:
        """Take the volume to the device."""
        image = torch.from_numpy(_torch_type(self.image.read(self.box)))
        labels = torch.from_numpy(_compact(self.labels.read(self.box)))
        mask = None
        if self.mask is not None:
            mask = torch.from_numpy(self.mask.read(self.box) != 0).to(self._device)
        self._resident = _Resident(
            image=image.to(self._device), labels=labels.to(self._device), mask=mask
        )

    def cut(self, centre: Zyx, shape: Zyx) -> Patch:
        """Return the patch of odd edges around a centre, in the volume's frame.

        Voxels outside `box` have the mean grey level, no label and weight 0.
        """
        corner = tuple(at - size // 2 for at, size in zip(centre, shape, strict=True))
        wanted = Box.from_shape(shape, start=(corner[0], corner[1], corner[2]))
        inside = wanted.intersection(self.box)
        if inside is None:
            raise GeometryError(
                f"patch {wanted} (z,y,x) lies outside {self.box} of {volume_called(self.name)}: "
                "the coordinates belong to another volume"
            )
        image, labels, mask = self._read(inside)
        # A copy also where the type is right already: it may be a view of the volume.
        image = image.to(self._dtype, copy=True).sub_(self.mean).div_(self.stddev)
        weights = torch.ones_like(image)
        if mask is not None:
            weights *= mask
        if self.options.unlabelled == "unknown":
            weights *= labels != 0
        if inside != wanted:
            place = inside.slices(origin=wanted.start)
            image, labels, weights = (
                _placed(part, place, shape=shape) for part in (image, labels, weights)
            )
        return Patch(image=image, labels=labels, weights=weights)

    def _read(self, box: Box) -> tuple[Tensor, Tensor, Tensor | None]:
        if self._resident is not None:
            window = box.slices(origin=self.box.start)
            mask = self._resident.mask
            return (
                self._resident.image[window],
                self._resident.labels[window],
                None if mask is None else mask[window],
            )
        image = torch.from_numpy(_torch_type(self.image.read(box))).to(self._device)
        labels = torch.from_numpy(_compact(self.labels.read(box))).to(self._device)
        if self.mask is None:
            return image, labels, None
        return image, labels, torch.from_numpy(self.mask.read(box) != 0).to(self._device)

    def digest(self) -> str:
        """Return the SHA-256 of image, labels and mask in the box, normalisation included."""
        total = hashlib.sha256(
            f"{self.box} {self.mean!r} {self.stddev!r} {self.options.unlabelled}".encode()
        )
        for tile in tiles(self.box, core=_DIGEST_BLOCK):
            for volume in (self.image, self.labels, self.mask):
                if volume is not None:
                    total.update(volume.read(tile.core).tobytes())
        return total.hexdigest()


class TrainingData:
    """All volumes of a run, by name.

    Attributes
    ----------
    volumes
        In the order of the configuration.
    """

    def __init__(self, volumes: list[TrainingVolume], stack: ExitStack) -> None:
        self.volumes = {volume.name: volume for volume in volumes}
        self._stack = stack

    @property
    def first(self) -> TrainingVolume:
        """The volume whose normalisation a model file gets."""
        return next(iter(self.volumes.values()))

    @property
    def voxel_size(self) -> VoxelSize | None:
        """What a model file says: that of the first volume that has one."""
        sizes = (volume.voxel_size for volume in self.volumes.values())
        return next((size for size in sizes if size is not None), None)

    @property
    def mean_stddev(self) -> tuple[float, float]:
        """Mean and standard deviation of the first volume."""
        return (self.first.mean, self.first.stddev)

    @property
    def is_resident(self) -> bool:
        """Whether no patch is read from a file."""
        return all(volume.is_resident for volume in self.volumes.values())

    def digests(self, progress: ProgressListener | None = None) -> dict[str, str]:
        """Return the SHA-256 of what each volume shows, by name; reads all of it."""
        found = {}
        for number, (name, volume) in enumerate(self.volumes.items()):
            found[name] = volume.digest()
            if progress is not None:
                progress(
                    Progress(
                        stage="digest", done=number + 1, total=len(self.volumes), unit="volumes"
                    )
                )
        return found

    def close(self) -> None:
        """Let go of the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_training_data(
    options: TrainOptions,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    progress: ProgressListener | None = None,
) -> TrainingData:
    """Open, check and measure the volumes of a run, and load those that fit.

    Parameters
    ----------
    dtype
        Type of the patches' images and weights; float32, or float64 for exact comparisons.

    Raises
    ------
    OptionError
        When there is no volume, or one has no image or no labels, or one address for both.
    VolumeFormatError
        When an image and its labels or mask do not lie on each other.
    GeometryError
        When a box is not inside its volume.
    LabelError
        When labels are negative or not integers, or look like an image.
    """
    if not options.volumes:
        raise OptionError("there is nothing to learn from: name an image and its labels")
    with ExitStack() as stack:
        volumes: list[TrainingVolume] = []
        for number, wanted in enumerate(options.volumes):
            volumes.append(_open(wanted, stack, device=device, dtype=dtype))
            if progress is not None:
                total = len(options.volumes)
                progress(
                    Progress(stage="open volumes", done=number + 1, total=total, unit="volumes")
                )
        left = _free_memory(device) * RESIDENT_SHARE
        for volume in sorted(volumes, key=lambda one: one.resident_bytes):
            left -= volume.resident_bytes
            if left > 0:
                volume.load()
        return TrainingData(volumes, stack.pop_all())


def _open(
    options: VolumeOptions, stack: ExitStack, *, device: torch.device, dtype: torch.dtype
) -> TrainingVolume:
    for what, address in (("image", options.image), ("labels", options.labels)):
        if not address:
            raise OptionError(
                f"{volume_called(options.name)} has no {what}: give --{what} with an address, or "
                f"volume.{what} in the configuration"
            )
    if parse_location(options.image).is_same(parse_location(options.labels)):
        raise OptionError(
            f"{options.labels} is given as image and as labels: give the address of the labels of "
            "its objects"
        )
    image = stack.enter_context(open_volume(options.image))
    labels = stack.enter_context(open_volume(options.labels))
    require_matching(image, labels)
    require_labels(np.zeros(0, labels.dtype), what=labels.uri)
    mask = None
    if options.loss_mask is not None:
        mask = stack.enter_context(open_volume(options.loss_mask))
        require_alike(image, mask)
    require_no_image(labels, image=image, box=_usable_box(options, image))
    return TrainingVolume(
        options, image=image, labels=labels, mask=mask, device=device, dtype=dtype
    )


def _usable_box(options: VolumeOptions, image: Volume) -> Box:
    if options.box is None:
        return image.box
    if not image.box.contains(options.box) or options.box.size == 0:
        raise GeometryError(
            f"box {options.box} (z,y,x) of {volume_called(options.name)} is empty or not inside "
            f"{image.uri}, which holds {image.box}"
        )
    return options.box


def _voxel_size(options: VolumeOptions, *, image: Volume, labels: Volume) -> VoxelSize | None:
    said = image.voxel_size or labels.voxel_size
    wanted = options.voxel_size
    if (
        said is not None
        and wanted is not None
        and not np.allclose(said.zyx_nm, wanted.zyx_nm, rtol=_SIZE_TOLERANCE, atol=0)
    ):
        raise OptionError(
            f"{volume_called(options.name)} has voxel_size {wanted} nm, but {image.uri} or "
            f"{labels.uri} says {said} nm (z,y,x): leave voxel_size out"
        )
    return said or wanted


def _grey_levels(options: VolumeOptions, image: Volume, *, box: Box) -> tuple[float, float]:
    if options.image_mean is not None and options.image_stddev is not None:
        mean, stddev = options.image_mean, options.image_stddev
    elif options.image_mean is not None or options.image_stddev is not None:
        raise OptionError(
            f"{volume_called(options.name)} has image_mean {options.image_mean} and image_stddev "
            f"{options.image_stddev}: give both, or neither to have them measured"
        )
    else:
        suggested = statistics(image, box=box).suggested
        if suggested is None:
            raise OptionError(
                f"{volume_called(options.name)}: every section of {image.uri} in {box} (z,y,x) has "
                "one grey value only: choose another image or box"
            )
        mean, stddev = suggested.image_mean, suggested.image_stddev
    if not (np.isfinite(mean) and np.isfinite(stddev) and stddev > 0):
        raise OptionError(
            f"{volume_called(options.name)}: mean {mean} and standard deviation {stddev} cannot "
            "normalise an image: the standard deviation must be positive"
        )
    return float(mean), float(stddev)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return available_memory() or 0


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which an image lies on the device: its own, or float32."""
    keeps = dtype in (np.uint8, np.int16, np.float32, np.float64)
    return dtype if keeps else np.dtype(np.float32)


def _torch_type(image: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    return image.astype(_torch_dtype(image.dtype), copy=False)


def _compact(labels: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return compact(labels)[0].astype(np.int32)


def _placed(part: Tensor, place: tuple[slice, slice, slice], *, shape: Zyx) -> Tensor:
    whole = torch.zeros(shape, dtype=part.dtype, device=part.device)
    whole[place] = part
    return whole
