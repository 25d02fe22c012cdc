"""Seeds on a regular grid, whatever the image shows.

In: the shape of a block. Out: the nodes of a grid, then those of the same grid
shifted, and so on, so that early seeds lie far apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from floodem.flooding.seeds.arguments import whole_number, whole_numbers
from floodem.flooding.seeds.context import NO_SEEDS, SeedContext
from floodem.flooding.seeds.registry import seed_policy


@seed_policy("PolicyGrid3d")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGrid3d:
    """Nodes of a cubic grid, once for each offset.

    Parameters
    ----------
    step
        Between nodes, in voxels, on every axis.
    offsets
        Where the grid begins, the same on every axis, one pass after another.
    """

    step: int = 16
    offsets: tuple[int, ...] = (0, 8, 4, 12, 2, 10, 14)

    def __post_init__(self) -> None:
        whole_number(self.step, of="PolicyGrid3d step", at_least=1)
        whole_numbers(self.offsets, of="PolicyGrid3d offsets", at_least=0)

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the grids one after another, each in C order."""
        z, y, x = context.shape
        grids = [
            _nodes(*(range(offset, length, self.step) for length in (z, y, x)))
            for offset in self.offsets
        ]
        return np.concatenate([NO_SEEDS, *grids])


@seed_policy("PolicyGrid2d")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGrid2d:
    """Nodes of a square grid in every section, once for each offset.

    Parameters
    ----------
    step
        Between nodes, in voxels, on the y and x axes.
    offsets
        Where the grid begins on the y and x axes, one pass after another.
    """

    step: int = 16
    offsets: tuple[int, ...] = (0, 8, 4, 12, 2, 6, 10, 14)

    def __post_init__(self) -> None:
        whole_number(self.step, of="PolicyGrid2d step", at_least=1)
        whole_numbers(self.offsets, of="PolicyGrid2d offsets", at_least=0)

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the grids one after another, each in C order."""
        z, y, x = context.shape
        grids = [
            _nodes(range(z), range(offset, y, self.step), range(offset, x, self.step))
            for offset in self.offsets
        ]
        return np.concatenate([NO_SEEDS, *grids])


def _nodes(z: range, y: range, x: range) -> Int64[np.ndarray, "n 3"]:
    axes = [np.asarray(axis, dtype=np.int64) for axis in (z, y, x)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
