"""Draw the pictures of docs/augmentation.md: python docs/make_augmentation_pictures.py.

Every picture is a synthetic example before (left) and after (right) one augmentation:
a section, and below it a cut along z, whose sections are twice as thick as its
pixels are wide. Outlines are the labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from floodem.geometry import Box, VoxelSize, Zyx
from floodem.training.augmentation.draws import Stream, draws
from floodem.training.augmentation.geometric import Turn, turn
from floodem.training.augmentation.grey import (
    Levels,
    add_noise,
    adjust_levels,
    blur,
    draw_levels,
)
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.augmentation.plan import plan_augmentation
from floodem.training.augmentation.resampling import warp
from floodem.training.augmentation.sections import Region, defocus_sections, lose_sections
from floodem.training.augmentation.warps import (
    Warp,
    affine_matrix,
    draw_bending,
    slip,
    translation,
)
from floodem.training.patch import Patch
from floodem.volumes.synthetic import SectionOptions, SyntheticOptions, synthesize

FOLDER = Path(__file__).parent / "pictures"
SHAPE: Zyx = (41, 97, 97)
CENTRE: Zyx = (32, 110, 118)
GREY_STDDEV = 40.0
"""Grey levels of a standard deviation in the pictures, around 128."""

SCALE, STRETCH, GAP = 2, 2, 6
GREYS = 32
"""Levels that are kept, so that a picture stays small."""

COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)]
)
"""Of Okabe and Ito, which colour-blind readers tell apart."""


@dataclass(frozen=True)
class Pair:
    """An example before and after, and the section that shows the difference best."""

    before: Patch
    after: Patch
    z: int


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, pair in pairs(tissue()).items():
        panels = [panel(pair.before, z=pair.z), panel(pair.after, z=pair.z)]
        between = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
        picture = Image.fromarray(np.concatenate([panels[0], between, panels[1]], axis=1))
        picture.quantize(64).save(FOLDER / f"augmentation-{name}.png", optimize=True)


def tissue() -> Patch:
    """Make synthetic serial sections without defects, larger than an example."""
    options = SyntheticOptions.preset(
        "atum", voxel_size=VoxelSize(12, 6, 6), spacing_nm=120.0, sections=SectionOptions(), seed=4
    )
    made = synthesize(options, options.box)
    image = torch.from_numpy(made.image.astype(np.float32))
    labels = torch.from_numpy(made.labels.astype(np.int32))
    return Patch(
        image=(image - image.mean()) / image.std(), labels=labels, weights=torch.ones_like(image)
    )


def cut(patch: Patch, *, shape: Zyx) -> Patch:
    """Cut an example around the centre."""
    start = tuple(at - edge // 2 for at, edge in zip(CENTRE, shape, strict=True))
    slices = Box.from_shape(shape, start=start).slices()
    return Patch(
        image=patch.image[slices], labels=patch.labels[slices], weights=patch.weights[slices]
    )


def pairs(source: Patch) -> Mapping[str, Pair]:
    """Return what is pictured, each by itself and with a strength that can be seen."""
    example, middle = cut(source, shape=SHAPE), SHAPE[0] // 2

    def warped(by: Warp, *, z: int = middle) -> Pair:
        return Pair(example, warp(cut(source, shape=by.source_shape()), by=by), z)

    def imaged(image: torch.Tensor, *, z: int = middle) -> Pair:
        return Pair(example, replace(example, image=image), z)

    random = draws(1, 5, stream=Stream.ELASTIC)
    bending = draw_bending(random, shape=SHAPE, spacing=(16, 16, 16), largest=4, largest_z=0)
    curves = [
        draw_levels(random, contrast=0.25, brightness=0.5, gamma=0.5) for _ in range(SHAPE[0])
    ]
    part = Region(z=middle + 8, edge=(50.0, 40.0, math.radians(60)))
    full = plan_augmentation(
        AugmentationOptions(preset="full"), patch_shape=SHAPE, seed=3, number=14
    )
    return {
        "turn": Pair(example, turn(example, by=Turn(permutation=(0, 2, 1), flipped=(2,))), middle),
        "affine": warped(
            Warp(shape=SHAPE, matrix=affine_matrix(rotation_degrees=25, scale=0.95, shear=0.1))
        ),
        "elastic": warped(Warp(shape=SHAPE, bending=replace(bending, largest=(0, 4, 4)))),
        "slip": warped(
            Warp(shape=SHAPE, shifts=slip(SHAPE[0], section=middle + 8, by=(6, 8))), z=middle + 8
        ),
        "translation": warped(
            Warp(shape=SHAPE, shifts=translation(SHAPE[0], section=middle + 8, by=(6, 8))),
            z=middle + 8,
        ),
        "blur": imaged(blur(example.image, stddev=1.0)),
        "out-of-focus": imaged(
            defocus_sections(
                example.image, regions=[part, replace(part, z=9, edge=None)], stddev=3.0
            ),
            z=part.z,
        ),
        "grey": imaged(
            adjust_levels(example.image, levels=[Levels(factor=0.8, offset=0.4, exponent=1.4)])
        ),
        "section-grey": imaged(adjust_levels(example.image, levels=curves)),
        "noise": imaged(add_noise(example.image, stddev=0.3, seed=1)),
        "missing": imaged(
            lose_sections(example.image, regions=[part, replace(part, z=9, edge=None)], fill=0.0),
            z=part.z,
        ),
        "full": Pair(example, full.apply(cut(source, shape=full.source_shape)), middle),
    }


def panel(patch: Patch, *, z: int) -> np.ndarray:
    """Draw a section over a cut along z through the centre."""
    y = SHAPE[1] // 2
    section = painted(patch.image[z], patch.labels[z])
    along = painted(patch.image[:, y], patch.labels[:, y], stretch=STRETCH)
    between = np.full((GAP, section.shape[1], 3), 255, np.uint8)
    return np.concatenate([section, between, along])


def painted(image: torch.Tensor, labels: torch.Tensor, *, stretch: int = 1) -> np.ndarray:
    """Return a plane as RGB, its labels outlined."""
    grey = np.clip(128 + GREY_STDDEV * image.numpy(), 0, 255)
    grey = (grey // (256 // GREYS) * (256 // GREYS)).astype(np.uint8)
    grey, ids = (
        plane.repeat(stretch * SCALE, axis=0).repeat(SCALE, axis=1)
        for plane in (grey, labels.numpy())
    )
    picture = np.stack([grey] * 3, axis=-1)
    for axis in (0, 1):
        before = np.roll(ids, 1, axis=axis)
        outline = ids != before
        np.moveaxis(outline, axis, 0)[0] = False
        owners = np.maximum(ids, before)[outline]
        # Neighbours often have neighbouring numbers: a stride apart they differ in colour.
        picture[outline] = COLOURS[owners * 5 // 4 % len(COLOURS)]
    return picture


if __name__ == "__main__":
    main()
