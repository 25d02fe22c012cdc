"""How a volume is cut: a box in, overlapping blocks out, each with a number and a name.

A block answers for its core, looks at its halo around that, and is compared with
its neighbours where two halos overlap. Blocks are numbered in C order.

::

    |<------------------- box ------------------->|
    |  core 0   |  core 1   |       core 2        |   a rest below `least` joins the last
    |  halo 0       |
            |      halo 1       |
                        |         halo 2          |
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
    least
        What would be left at a far face and is thinner than this (z, y, x) belongs to the
        core before it; a network needs its field of view.

    Raises
    ------
    GeometryError
        When an edge is not positive, a margin is negative, or longer than the core, so
        that blocks would overlap that are no neighbours.
    """

    box: Box
    core: Zyx
    margin: Zyx
    least: Zyx = (1, 1, 1)

    def __post_init__(self) -> None:
        if not self.box.size:
            raise GeometryError(f"box {self.box} (z,y,x) is empty: there is nothing to cut")
        if min(self.core) < 1 or min(self.least) < 1:
            raise GeometryError(
                f"block {self.core} (z,y,x) is not positive on every axis: for example 256,256,256"
            )
        for count, margin, core in zip(self.grid, self.margin, self.core, strict=True):
            if margin < 0 or (count > 1 and margin > core // 2):
                raise GeometryError(
                    f"halo {self.margin} (z,y,x) is negative or more than half the block "
                    f"{self.core}: give blocks of twice the halo or more, or a smaller halo"
                )

    @property
    def grid(self) -> Zyx:
        """How many blocks there are along z, y, x."""
        return _grid(self.box.shape, self.core, self.least)

    @property
    def largest_halo(self) -> Zyx:
        """The longest edges, z, y, x, that halos of this plan have."""
        nz, ny, nx = ({0, min(1, n - 1), n - 1} for n in self.grid)
        shapes = [self.at(place).halo.shape for place in itertools.product(nz, ny, nx)]
        z, y, x = (max(edges) for edges in zip(*shapes, strict=True))
        return (z, y, x)

    def halo_edges(self) -> list[list[int]]:
        """Return the edges of halos along z, y and x; those along one do not depend on others."""
        edges = []
        for axis, count in enumerate(self.grid):
            places = ([n if a == axis else 0 for a in range(3)] for n in range(count))
            edges.append([self.at((z, y, x)).halo.shape[axis] for z, y, x in places])
        return edges

    @property
    def voxels_with_halos(self) -> int:
        """How many voxels all halos hold together."""
        return math.prod(sum(edges) for edges in self.halo_edges())

    def __len__(self) -> int:
        return math.prod(self.grid)

    def __iter__(self) -> Iterator[Block]:
        return (self.block(index) for index in range(len(self)))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "box": str(self.box),
            "core": list(self.core),
            "margin": list(self.margin),
            "least": list(self.least),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BlockPlan:
        """Return the plan that `to_json` told of.

        Raises
        ------
        GeometryError
            When the values are no plan.
        """
        try:
            core, margin, least = (_zyx(values[name]) for name in ("core", "margin", "least"))
            return cls(box=Box.parse(values["box"]), core=core, margin=margin, least=least)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GeometryError(
                f"{values!r:.200} is no plan of blocks ({error}): begin again with --overwrite"
            ) from error

    def block(self, index: int) -> Block:
        """Return a block by its number."""
        _, rows, columns = self.grid
        return self.at((index // (rows * columns), index // columns % rows, index % columns))

    def at(self, place: Zyx) -> Block:
        """Return a block by its place on the grid."""
        _, rows, columns = self.grid
        axes = zip(self.box.start, self.box.stop, place, self.core, self.grid, strict=True)
        starts, stops = [], []
        for first, end, at, edge, count in axes:
            starts.append(first + at * edge)
            stops.append(end if at == count - 1 else first + (at + 1) * edge)
        core = Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))
        halo = core.grow(self.margin).intersection(self.box)
        assert halo is not None
        z, y, x = place
        return Block(index=(z * rows + y) * columns + x, place=place, core=core, halo=halo)

    def neighbours(self, block: Block) -> Iterator[Block]:
        """Yield those of a block's neighbours, diagonal ones included, with higher numbers."""
        for step in FORWARD:
            z, y, x = (a + b for a, b in zip(block.place, step, strict=True))
            if all(0 <= at < count for at, count in zip((z, y, x), self.grid, strict=True)):
                yield self.at((z, y, x))


def _zyx(values: Any) -> Zyx:
    z, y, x = (int(value) for value in values)
    return (z, y, x)


@functools.lru_cache(maxsize=64)
def _grid(shape: Zyx, core: Zyx, least: Zyx) -> Zyx:
    """Count blocks; asked for every block of a plan, which may have a million."""
    z, y, x = (
        max(1, size // edge + (size % edge >= low and size % edge > 0))
        for size, edge, low in zip(shape, core, least, strict=True)
    )
    return (z, y, x)
