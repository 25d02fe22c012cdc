"""Flips and exchanges of axes: exact, invertible, without interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from floodem.geometry import Zyx
from floodem.training.patch import Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A permutation of axes, then flips.

    Attributes
    ----------
    permutation
        Axis i of the result is axis ``permutation[i]`` of the source.
    flipped
        Axes of the result that run backwards.
    """

    permutation: Zyx = (0, 1, 2)
    flipped: tuple[int, ...] = ()

    def source_shape(self, shape: Zyx) -> Zyx:
        """Return the shape that has to be cut so that the result has this one."""
        edges = [0, 0, 0]
        for axis, source_axis in enumerate(self.permutation):
            edges[source_axis] = shape[axis]
        return (edges[0], edges[1], edges[2])


def draw_turn(
    generator: np.random.Generator,
    *,
    reflectable_axes: tuple[int, ...],
    permutable_axes: tuple[int, ...],
) -> Turn:
    """Choose each order of the permutable axes, and each set of flips, equally often."""
    permutation = [0, 1, 2]
    axes = sorted(permutable_axes)
    for axis, source_axis in zip(axes, generator.permutation(axes), strict=True):
        permutation[axis] = int(source_axis)
    flipped = tuple(axis for axis in sorted(reflectable_axes) if generator.random() < 0.5)
    return Turn(permutation=(permutation[0], permutation[1], permutation[2]), flipped=flipped)


def turn(patch: Patch, *, by: Turn) -> Patch:
    """Return the patch with its axes exchanged and flipped; the centre stays the centre."""

    def turned(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.permute(by.permutation).flip(by.flipped)

    return Patch(
        image=turned(patch.image), labels=turned(patch.labels), weights=turned(patch.weights)
    )
