"""Defects of single sections: in, a normalised image; out, the image with defects.

Labels stay what they are, so that the network learns to go on through a defect.
Tensors are z, y, x; a section is one z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from floodem.geometry import Zyx
from floodem.training.augmentation.grey import blur


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A section, or the part of it on one side of a line.

    Attributes
    ----------
    z
        Which section.
    edge
        None for the whole section; else y and x of a point on the line, and the angle
        in radians, counted from x to y, of the direction in which the region lies.
    """

    z: int
    edge: tuple[float, float, float] | None = None


def draw_regions(
    generator: np.random.Generator,
    *,
    shape: Zyx,
    most: int,
    partial: float,
    whole: int | None = None,
) -> tuple[Region, ...]:
    """Draw 1 to `most` sections, each a part only with probability `partial`.

    Parameters
    ----------
    whole
        Section that stays free of defects, if any.

    Returns
    -------
    tuple of Region
        Different sections; none where there is none to choose from.
    """
    depth, height, width = shape
    candidates = [z for z in range(depth) if z != whole]
    if not candidates:
        return ()
    count = int(generator.integers(1, min(most, len(candidates)), endpoint=True))
    regions = []
    for z in generator.choice(candidates, size=count, replace=False):
        is_partial = generator.random() < partial
        line = (
            float(generator.uniform(0, height - 1)),
            float(generator.uniform(0, width - 1)),
            float(generator.uniform(0, 2 * math.pi)),
        )
        regions.append(Region(z=int(z), edge=line if is_partial else None))
    return tuple(regions)


def region_mask(region: Region, *, like: torch.Tensor) -> Bool[torch.Tensor, "y x"]:
    """Return where in its section a region lies, on the device of `like` (z, y, x)."""
    _, height, width = like.shape
    if region.edge is None:
        return torch.ones((height, width), dtype=torch.bool, device=like.device)
    y0, x0, angle = region.edge
    y = torch.arange(height, dtype=like.dtype, device=like.device)[:, None] - y0
    x = torch.arange(width, dtype=like.dtype, device=like.device) - x0
    return y * math.sin(angle) + x * math.cos(angle) >= 0


def lose_sections(
    image: Float[torch.Tensor, "z y x"], *, regions: Sequence[Region], fill: float
) -> Float[torch.Tensor, "z y x"]:
    """Return the image with these regions replaced by one grey level.

    References
    ----------
    Lee et al. 2017, arXiv:1706.00120: missing and partially missing sections.
    """
    result = image.clone()
    for region in regions:
        result[region.z].masked_fill_(region_mask(region, like=image), fill)
    return result


def defocus_sections(
    image: Float[torch.Tensor, "z y x"], *, regions: Sequence[Region], stddev: float
) -> Float[torch.Tensor, "z y x"]:
    """Return the image with these regions blurred, each within its own section.

    References
    ----------
    Lee et al. 2017, arXiv:1706.00120: out-of-focus sections.
    """
    result = image.clone()
    for region in regions:
        section = image[region.z : region.z + 1]
        blurred = blur(section, stddev=stddev)[0]
        result[region.z] = torch.where(region_mask(region, like=image), blurred, section[0])
    return result
