"""Changes of grey levels: in, a normalised image; out, another of the same shape.

Each function is pure and changes only what it says. Levels are in standard
deviations of the volume, 0 its mean; tensors are z, y, x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from floodem.training.augmentation.draws import normal_field, symmetric

TRUNCATION = 4.0
"""Standard deviations after which a Gaussian ends, as in scipy.ndimage.gaussian_filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """A curve of grey levels.

    Attributes
    ----------
    factor
        Of the contrast; 1 leaves it.
    offset
        Added to every level, in standard deviations.
    exponent
        Of the levels between the darkest and the brightest; 1 leaves them.
    """

    factor: float = 1.0
    offset: float = 0.0
    exponent: float = 1.0


def draw_levels(
    generator: np.random.Generator, *, contrast: float, brightness: float, gamma: float
) -> Levels:
    """Draw a curve within these strengths."""
    return Levels(
        factor=1 + symmetric(generator, largest=contrast),
        offset=symmetric(generator, largest=brightness),
        exponent=2 ** symmetric(generator, largest=gamma),
    )


def adjust_levels(
    image: Float[torch.Tensor, "z y x"], *, levels: Sequence[Levels]
) -> Float[torch.Tensor, "z y x"]:
    """Return the image with other contrast, brightness and gamma.

    Parameters
    ----------
    levels
        One curve for all sections, or one for each.

    Notes
    -----
    Gamma bends the levels between the image's own darkest and brightest, which stay;
    contrast then multiplies around 0, the volume's mean; brightness adds.

    References
    ----------
    Lee et al. 2017, arXiv:1706.00120, and google/ffn: contrast, brightness and gamma,
    of the whole patch or section by section.
    """
    curves = torch.tensor(
        [(curve.factor, curve.offset, curve.exponent) for curve in levels], dtype=image.dtype
    ).to(image.device)
    factor, offset, exponent = curves.T[..., None, None]
    darkest, brightest = torch.aminmax(image)
    # An even image has no range; any positive number keeps it as it is.
    span = (brightest - darkest).clamp_min(torch.finfo(image.dtype).tiny)
    bent = darkest + span * torch.pow((image - darkest) / span, exponent)
    changed: torch.Tensor = bent * factor + offset
    return changed


def add_noise(
    image: Float[torch.Tensor, "z y x"], *, stddev: float, seed: int
) -> Float[torch.Tensor, "z y x"]:
    """Return the image with normal noise added, independent in every voxel."""
    return image + stddev * normal_field(tuple(image.shape), seed=seed, like=image)


def blur(image: Float[torch.Tensor, "z y x"], *, stddev: float) -> Float[torch.Tensor, "z y x"]:
    """Return the image smoothed by a Gaussian in the plane; sections stay apart.

    At the faces the Gaussian is cut and its rest counts for more, so that an even
    image stays even.
    """
    if stddev == 0:
        return image
    _, height, width = image.shape
    smoothed = image
    for size in (height, width):
        # The axis in front is replaced and becomes the last: after both, they are in order.
        matrix = _smoothing(size, stddev=stddev, like=image)
        smoothed = torch.tensordot(smoothed, matrix, dims=([1], [1]))
    return smoothed


def _smoothing(size: int, *, stddev: float, like: torch.Tensor) -> Float[torch.Tensor, "size size"]:
    """Return the matrix that smooths an axis; a patch is small enough for a full one."""
    positions = torch.arange(size, dtype=like.dtype, device=like.device)
    distances = (positions[:, None] - positions) / stddev
    weights = torch.exp(-0.5 * distances**2) * (distances.abs() <= TRUNCATION)
    return weights / weights.sum(dim=1, keepdim=True)
