"""How a volume is cut: a box in, overlapping blocks out, each with a number and a name.

A block answers for its core, looks at its halo around that, and is compared with
its neighbours where two halos overlap. Blocks are numbered in C order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from floodem.errors import GeometryError
from floodem.geometry import Box, Zyx

FORWARD = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0))
"""The 13 of a block's 26 neighbours that have higher numbers, as steps on the grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of a plan.

    Attributes
    ----------
    index
        Its number, from 0.
    place
        Its place on the grid of blocks, z, y, x.
    core
        The voxels it answers for; the cores of all blocks partition the box.
    halo
        The core and the voxels looked at around it, cut at the box.
    """

    index: int
    place: Zyx
    core: Box
    halo: Box

    @property
    def key(self) -> str:
        """Its name in folders and receipts."""
        z, y, x = self.place
        return f"{z:04}-{y:04}-{x:04}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """A box cut into blocks.

    Attributes
    ----------
    box
        What is cut.
    core
        Edges of a core, z, y, x; those at the far faces are cut at the box.
    margin
        By how many voxels (z, y, x) a halo is larger than the core on each side.

    Raises
    ------
    GeometryError
        When an edge is not positive, a margin is negative, or longer than the core, so
        that blocks would overlap that are no neighbours.
    """

    box: Box
    core: Zyx
    margin: Zyx

    def __post_init__(self) -> None:
        if min(self.core) < 1:
            raise GeometryError(
                f"block {self.core} (z,y,x) is not positive on every axis: for example 256,256,256"
            )
        for count, margin, core in zip(self.grid, self.margin, self.core, strict=True):
            if margin < 0 or (count > 1 and margin > core // 2):
                raise GeometryError(
                    f"halo {self.margin} (z,y,x) must lie between 0 and half the block "
                    f"{self.core}: give larger blocks or a smaller halo"
                )

    @property
    def grid(self) -> Zyx:
        """How many blocks there are along z, y, x."""
        z, y, x = (-(-size // edge) for size, edge in zip(self.box.shape, self.core, strict=True))
        return (z, y, x)

    def __len__(self) -> int:
        return math.prod(self.grid)

    def __iter__(self) -> Iterator[Block]:
        return (self.block(index) for index in range(len(self)))

    def block(self, index: int) -> Block:
        """Return a block by its number."""
        _, rows, columns = self.grid
        return self.at((index // (rows * columns), index // columns % rows, index % columns))

    def at(self, place: Zyx) -> Block:
        """Return a block by its place on the grid."""
        _, rows, columns = self.grid
        (z, y, x), (dz, dy, dx), (z0, y0, x0) = place, self.core, self.box.start
        whole = Box.from_shape(self.core, start=(z0 + z * dz, y0 + y * dy, x0 + x * dx))
        core = whole.intersection(self.box)
        assert core is not None
        halo = core.grow(self.margin).intersection(self.box)
        assert halo is not None
        return Block(index=(z * rows + y) * columns + x, place=place, core=core, halo=halo)

    def neighbours(self, block: Block) -> Iterator[Block]:
        """Yield those of a block's neighbours, diagonal ones included, with higher numbers."""
        for step in FORWARD:
            z, y, x = (a + b for a, b in zip(block.place, step, strict=True))
            if all(0 <= at < count for at, count in zip((z, y, x), self.grid, strict=True)):
                yield self.at((z, y, x))
