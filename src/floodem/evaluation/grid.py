"""A box cut along a volume's chunks: what is compared comes in, blocks by number go out.

Blocks end where chunks end, so that hardly a chunk is read twice; they are made when they
are asked for, because a large volume has millions of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from floodem.geometry import Box, Zyx, block_edges


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """Blocks that partition a box, numbered from 0 in C order.

    Attributes
    ----------
    box
        What they cover.
    origin
        Where the first block would begin if the box did not cut it, z, y, x.
    edge
        Edges of an uncut block, z, y, x.
    """

    box: Box
    origin: Zyx
    edge: Zyx

    @property
    def counts(self) -> Zyx:
        """How many blocks there are along z, y, x."""
        z, y, x = (
            -(-(stop - first) // edge)
            for stop, first, edge in zip(self.box.stop, self.origin, self.edge, strict=True)
        )
        return (z, y, x)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __iter__(self) -> Iterator[Box]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Box:
        if not 0 <= number < len(self):
            raise IndexError(number)
        _, rows, columns = self.counts
        place = (number // (rows * columns), number // columns % rows, number % columns)
        z, y, x = (
            first + at * edge for first, at, edge in zip(self.origin, place, self.edge, strict=True)
        )
        block = Box.from_shape(self.edge, start=(z, y, x)).intersection(self.box)
        assert block is not None
        return block


def chunk_grid(box: Box, *, chunks: Zyx, first: Zyx, limit: int) -> BlockGrid:
    """Cut a box into blocks of whole chunks, as cubic as they can be.

    Parameters
    ----------
    box
        What the blocks cover.
    chunks
        Edges of a chunk, z, y, x. One that is larger than `limit` is halved until it is not.
    first
        Where a chunk begins, z, y, x.
    limit
        About how many voxels a block may have.
    """
    origins = [
        low - (low - begin) % chunk
        for low, chunk, begin in zip(box.start, chunks, first, strict=True)
    ]
    z, y, x = (high - origin for high, origin in zip(box.stop, origins, strict=True))
    edges = block_edges(chunks, reach=(z, y, x), voxels=limit)
    # A chunk that was halved may begin before the box by more than a block.
    z, y, x = (
        origin + (low - origin) // edge * edge
        for low, origin, edge in zip(box.start, origins, edges, strict=True)
    )
    return BlockGrid(box=box, origin=(z, y, x), edge=edges)
