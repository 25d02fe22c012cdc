"""What the microscope does to one example, drawn: grey levels and defects of sections.

In: options, or a patch. Out: an `Imaging`, or the patch with another image; labels
and weights stay.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.geometry import Zyx
from floodem.training.augmentation.draws import chosen_draws
from floodem.training.augmentation.grey import (
    Levels,
    add_noise,
    adjust_levels,
    blur,
    draw_levels,
)
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.augmentation.sections import (
    Region,
    defocus_sections,
    draw_regions,
    lose_sections,
)
from floodem.training.patch import Patch

LEAST_DEFOCUS = 0.5
"""Share of the largest blur from which a section counts as out of focus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imaging:
    """Changes of an image, in the order in which they happen.

    Attributes
    ----------
    blur
        Standard deviation in voxels of the plane; 0: none.
    defocus, defocused
        Standard deviation in voxels, and where.
    levels, section_levels
        Grey levels of all sections, and of each; empty: as they are.
    noise, noise_seed
        Standard deviation, and what the noise is made from; 0: none.
    fill, missing
        Grey level of what is missing, and where.
    """

    blur: float = 0.0
    defocus: float = 0.0
    defocused: tuple[Region, ...] = ()
    levels: tuple[Levels, ...] = ()
    section_levels: tuple[Levels, ...] = ()
    noise: float = 0.0
    noise_seed: int = 0
    fill: float = 0.0
    missing: tuple[Region, ...] = ()


def draw_imaging(options: AugmentationOptions, *, shape: Zyx, seed: int, number: int) -> Imaging:
    """Draw the changes of an example of this shape.

    The centre section is never missing: a flood starts in it.
    """
    changes: dict[str, Any] = {}
    if generator := chosen_draws(options, "blur", seed=seed, number=number):
        changes["blur"] = float(generator.uniform(0, options.blur))
    if generator := chosen_draws(options, "out_of_focus", seed=seed, number=number):
        changes["defocus"] = options.out_of_focus * float(generator.uniform(LEAST_DEFOCUS, 1))
        changes["defocused"] = draw_regions(
            generator,
            shape=shape,
            most=options.out_of_focus_sections,
            partial=options.partial,
        )
    if generator := chosen_draws(options, "grey", seed=seed, number=number):
        changes["levels"] = _draw_curves(options, generator=generator, count=1)
    if generator := chosen_draws(options, "section_grey", seed=seed, number=number):
        changes["section_levels"] = _draw_curves(options, generator=generator, count=shape[0])
    if generator := chosen_draws(options, "noise", seed=seed, number=number):
        changes["noise"] = float(generator.uniform(0, options.noise))
        changes["noise_seed"] = int(generator.integers(2**63))
    if generator := chosen_draws(options, "missing", seed=seed, number=number):
        changes["fill"] = options.missing_fill
        changes["missing"] = draw_regions(
            generator,
            shape=shape,
            most=options.missing_sections,
            partial=options.partial,
            whole=shape[0] // 2,
        )
    return Imaging(**changes)


def image_again(patch: Patch, *, by: Imaging) -> Patch:
    """Return the patch with its image changed; labels and weights are the same."""
    image = patch.image
    if by.blur:
        image = blur(image, stddev=by.blur)
    if by.defocused:
        image = defocus_sections(image, regions=by.defocused, stddev=by.defocus)
    if by.levels:
        image = adjust_levels(image, levels=by.levels)
    if by.section_levels:
        image = adjust_levels(image, levels=by.section_levels)
    if by.noise:
        image = add_noise(image, stddev=by.noise, seed=by.noise_seed)
    if by.missing:
        image = lose_sections(image, regions=by.missing, fill=by.fill)
    return dataclasses.replace(patch, image=image)


def _draw_curves(
    options: AugmentationOptions, *, generator: np.random.Generator, count: int
) -> tuple[Levels, ...]:
    return tuple(
        draw_levels(
            generator,
            contrast=options.contrast,
            brightness=options.brightness,
            gamma=options.gamma,
        )
        for _ in range(count)
    )
