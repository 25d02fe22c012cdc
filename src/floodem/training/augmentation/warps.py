"""Where the voxels of an example come from: in, strengths; out, positions in the source.

Rotation, scale and shear in the plane, smooth bending and shifts of sections are
added up into one map, so that the image is interpolated once
(floodem.training.augmentation.resampling). The map of voxel p, counted from the
centre, is ``A p + bending(p) + shift(z)``; all three are 0 at the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64

from floodem.geometry import Zyx
from floodem.training.augmentation.draws import symmetric

Matrix = tuple[tuple[float, float], tuple[float, float]]
Shift = tuple[int, int]

IDENTITY: Matrix = ((1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bending:
    """A smooth displacement.

    Attributes
    ----------
    control
        Displacements along z, y and x at the control points; only their proportions
        matter.
    spacing
        Voxels between control points.
    largest
        Displacement of the voxel that moves most, along z, y and x, in voxels.
    """

    control: Float64[np.ndarray, "3 kz ky kx"]
    spacing: Zyx
    largest: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """One map from the voxels of an example to positions in its source.

    Attributes
    ----------
    shape
        Of the example.
    matrix
        Rotation, scale and shear; rows and columns y, x.
    bending
        Smooth displacement, or None.
    shifts
        Shift of each section along y and x, in voxels; none: no section moves.
    """

    shape: Zyx
    matrix: Matrix = IDENTITY
    bending: Bending | None = None
    shifts: tuple[Shift, ...] = field(default=())

    def source_shape(self) -> Zyx:
        """Return odd edges of a source around the same centre that the map stays in."""
        largest = (0.0, 0.0, 0.0) if self.bending is None else self.bending.largest
        shift_y = max((abs(y) for y, _ in self.shifts), default=0)
        shift_x = max((abs(x) for _, x in self.shifts), default=0)
        half_z, half_y, half_x = (edge // 2 for edge in self.shape)
        (yy, yx), (xy, xx) = self.matrix
        return odd_edges(
            half_z + largest[0],
            abs(yy) * half_y + abs(yx) * half_x + largest[1] + shift_y,
            abs(xy) * half_y + abs(xx) * half_x + largest[2] + shift_x,
        )


def odd_edges(*halves: float) -> Zyx:
    """Return edges that reach at least this far from the centre, z, y, x, in voxels."""
    rounding = 1e-6  # in the sums above; resampling forgives a thousand times more
    z, y, x = (2 * math.ceil(half - rounding) + 1 for half in halves)
    return (z, y, x)


def affine_matrix(*, rotation_degrees: float, scale: float, shear: float) -> Matrix:
    """Return the map of positions y, x that shears, rotates, then scales.

    `scale` above 1 takes the example from a larger region: objects look smaller.
    """
    angle = math.radians(rotation_degrees)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    return ((cosine, shear * cosine - sine), (sine, shear * sine + cosine))


def draw_matrix(
    generator: np.random.Generator, *, rotation_degrees: float, scale: float, shear: float
) -> Matrix:
    """Draw a rotation, a scale (growing as often as shrinking) and a shear."""
    return affine_matrix(
        rotation_degrees=symmetric(generator, largest=rotation_degrees),
        scale=math.exp(symmetric(generator, largest=math.log1p(scale))),
        shear=symmetric(generator, largest=shear),
    )


def largest_halves(
    half_y: int, half_x: int, *, rotation_degrees: float, scale: float, shear: float
) -> tuple[float, float]:
    """Return how far, along y and x, any matrix within these strengths reaches."""

    def reach(a: float, b: float) -> float:
        """Return the largest a cos t + b sin t for t from 0 to the rotation."""
        angle = min(math.atan2(b, a), math.radians(rotation_degrees))
        return (1 + scale) * (a * math.cos(angle) + b * math.sin(angle))

    return (
        reach(half_y + shear * half_x, half_x),
        reach(half_x, half_y + shear * half_x),
    )


def draw_bending(
    generator: np.random.Generator, *, shape: Zyx, spacing: Zyx, largest: float, largest_z: float
) -> Bending:
    """Draw a bending of up to `largest` voxels along y and x, and `largest_z` along z."""
    strength = float(generator.random())
    size = tuple(_control_points(edge, step) for edge, step in zip(shape, spacing, strict=True))
    return Bending(
        control=generator.standard_normal((3, *size)),
        spacing=spacing,
        largest=(strength * largest_z, strength * largest, strength * largest),
    )


def bending_field(
    bending: Bending, *, shape: Zyx, like: torch.Tensor
) -> Float[torch.Tensor, "3 z y x"]:
    """Return the displacement of every voxel along z, y and x; 0 at the centre.

    Cubic B-splines through the control points, on the device and in the dtype of
    `like`, moved so that the centre rests and scaled to the largest displacement.
    """
    displaced = torch.from_numpy(bending.control).to(device=like.device, dtype=like.dtype)
    for edge, step in zip(shape, bending.spacing, strict=True):
        basis = torch.from_numpy(_cubic_basis(edge, step=step)).to(displaced)
        # The axis in front is replaced and becomes the last: after three, all are in order.
        displaced = torch.tensordot(displaced, basis, dims=([1], [1]))
    centre_z, centre_y, centre_x = (edge // 2 for edge in shape)
    displaced = displaced - displaced[:, centre_z, centre_y, centre_x, None, None, None]
    farthest = displaced.abs().amax(dim=(1, 2, 3)).clamp_min(torch.finfo(like.dtype).tiny)
    largest = torch.tensor(bending.largest, dtype=like.dtype).to(like.device)
    return displaced * (largest / farthest)[:, None, None, None]


def _control_points(edge: int, step: int) -> int:
    """Return how many control points an axis needs: three beyond the cells that it covers."""
    return math.ceil((edge - 1) / step) + 3


def _cubic_basis(edge: int, *, step: int) -> Float64[np.ndarray, "edge k"]:
    """Return the weights of the control points for each voxel of an axis."""
    distance = np.abs(
        np.arange(edge)[:, None] / step - (np.arange(_control_points(edge, step)) - 1)
    )
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far)


def slip(depth: int, *, section: int, by: Shift) -> tuple[Shift, ...]:
    """Return the shifts of all sections when one section slips.

    References
    ----------
    Lee et al. 2017, arXiv:1706.00120: misalignment of the slip type.
    """
    return tuple(by if z == section else (0, 0) for z in range(depth))


def translation(depth: int, *, section: int, by: Shift) -> tuple[Shift, ...]:
    """Return the shifts when all sections from one on, away from the centre, are displaced.

    References
    ----------
    Lee et al. 2017, arXiv:1706.00120: misalignment of the translation type.
    """
    side = 1 if section > depth // 2 else -1
    return tuple(by if side * (z - section) >= 0 else (0, 0) for z in range(depth))


def draw_shift(
    generator: np.random.Generator, *, depth: int, largest: int
) -> tuple[int, Shift] | None:
    """Draw a section other than the centre and a shift of whole voxels along y and x.

    Whole, because a misaligned section is not blurred. None where the centre is the
    only section.
    """
    others = [z for z in range(depth) if z != depth // 2]
    if not others:
        return None
    section = int(generator.choice(others))
    y, x = generator.integers(-largest, largest, size=2, endpoint=True)
    return section, (int(y), int(x))


def add_shifts(one: tuple[Shift, ...], other: tuple[Shift, ...]) -> tuple[Shift, ...]:
    """Return both shifts of each section together; either may be empty."""
    if not (one and other):
        return one or other
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(one, other, strict=True))
