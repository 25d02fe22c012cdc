"""What cannot be validated on is refused before the first step of training.

In: the options of a run. Out: which voxels are held out, or one sentence. A score
on data that was trained on would look better than the network is, so that an
overlap is refused as well.
"""

from __future__ import annotations

import numpy as np

from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box, Zyx
from floodem.training.configuration.options import TrainOptions, ValidationOptions
from floodem.training.examples.greyness import require_no_image
from floodem.training.validation.held_out import HeldOut, measure
from floodem.volumes import open_volume
from floodem.volumes.inspection.pairs import require_matching
from floodem.volumes.kinds import middle
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Volume


def require_held_out(options: TrainOptions) -> HeldOut | None:
    """Check the held-out data of a run; None when it has none.

    Raises
    ------
    OptionError
        When an option is missing or impossible, or the box overlaps what is trained on.
    VolumeFormatError
        When image and labels do not lie on each other.
    GeometryError
        When the box is not inside them, or smaller than the field of view.
    LabelError
        When no voxel that would be scored has a label, or the labels look like an image.
    FloodemError
        Whatever opening the volumes refuses.
    """
    wanted = options.validation
    if wanted.image is None:
        _require_nothing_else(wanted)
        return None
    if wanted.labels is None:
        raise OptionError(
            f"validation.image {wanted.image} has no labels to score against: give "
            "validation.labels, or leave out validation.image"
        )
    _require_possible(wanted)
    with open_volume(wanted.image) as image, open_volume(wanted.labels) as labels:
        require_matching(image, labels)
        box, border = _box_and_border(wanted, image, fov=options.network.fov)
        if not wanted.allow_overlap:
            _require_unseen(options, box)
        require_no_image(labels, image=image, box=box)
        return measure(wanted.image, labels, address=wanted.labels, box=box, border=border)


def _require_nothing_else(wanted: ValidationOptions) -> None:
    if wanted.labels is not None:
        raise OptionError(
            f"validation.labels {wanted.labels} has no image to segment: give validation.image"
        )
    if wanted.stop_when_flat:
        raise OptionError(
            "validation.stop_when_flat needs scores: give validation.image and validation.labels"
        )


def _require_possible(wanted: ValidationOptions) -> None:
    if not wanted.every_minutes > 0:
        raise OptionError(
            f"validation.every_minutes {wanted.every_minutes} is not positive: give minutes"
        )
    for name in ("min_segment_size", "max_calls", "threads"):
        value = getattr(wanted, name)
        if value is not None and value < 1:
            raise OptionError(f"validation.{name} {value} is too small: give at least 1")
    if (wanted.image_mean is None) != (wanted.image_stddev is None):
        raise OptionError(
            f"validation.image_mean {wanted.image_mean} and image_stddev {wanted.image_stddev}: "
            "give both, or neither to take those of the training"
        )


def _box_and_border(wanted: ValidationOptions, image: Volume, *, fov: Zyx) -> tuple[Box, Zyx]:
    box = image.box if wanted.box is None else wanted.box
    if not image.box.contains(box) or box.size == 0:
        raise GeometryError(
            f"validation.box {box} (z,y,x) is empty or not inside {image.uri}, which holds "
            f"{image.box}: give a part of that"
        )
    if any(size < needed for size, needed in zip(box.shape, fov, strict=True)):
        raise GeometryError(
            f"validation.box {box}, {box.shape} voxels (z,y,x), is smaller than the field of view "
            f"{fov}: give a larger box"
        )
    border = wanted.border or (fov[0] // 2, fov[1] // 2, fov[2] // 2)
    if any(not 0 <= 2 * edge < size for edge, size in zip(border, box.shape, strict=True)):
        raise GeometryError(
            f"validation.border {border} (z,y,x) leaves nothing of {box} to score: give less"
        )
    return box, border


def _require_unseen(options: TrainOptions, box: Box) -> None:
    address = str(options.validation.image)
    held_out = parse_location(address)
    for volume in options.volumes:
        if not volume.image:
            continue
        trained_on = volume.box
        if trained_on is None:
            with open_volume(volume.image) as image:
                trained_on = image.box
        shared = box.intersection(trained_on)
        if shared is None:
            continue
        if parse_location(volume.image).is_same(held_out) or _is_copy(
            volume.image, address, shared=shared
        ):
            raise OptionError(
                f"validation.box {box} and volume {volume.name} {trained_on} (z,y,x) of "
                f"{volume.image} share {shared}: scores on what is trained on say little, so give "
                "one of them another box, or set validation.allow_overlap"
            )


def _is_copy(first: str, second: str, *, shared: Box) -> bool:
    """Tell whether two images have the same grey values in the middle of what they share."""
    with open_volume(first) as one, open_volume(second) as other:
        if not (one.box.contains(shared) and other.box.contains(shared)):
            return False
        ours, others = one.read(middle(shared)), other.read(middle(shared))
    return bool(np.array_equal(ours, others)) and ours.min() != ours.max()
