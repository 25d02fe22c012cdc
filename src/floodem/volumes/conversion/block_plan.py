"""Into which blocks a volume is cut, and how many of them are worked on at once.

Chunks of the source and of the copy come in, a block's shape goes out: whole
chunks of the copy, so that each is written once, and so large that a chunk of
the source (a whole section, say) is decoded once or few times.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from floodem.geometry import Zyx
from floodem.memory import available_memory, require_memory

BLOCK_BYTES = 8 * 2**20
"""Blocks are grown to about this size: large enough to cost little each, small enough that
what is copied between reading and writing stays near the processor."""

MEMORY_BYTES = 2 * 2**30
"""What all blocks that are worked on at once take together, unless one chunk takes more."""

_SHARE_OF_FREE_MEMORY = 0.5


def voxel_bytes(source: np.dtype[Any], copy: np.dtype[Any]) -> int:
    """Return what one voxel takes while its block is worked on, in all its copies.

    It is there as it was read, as it is written, and once more while it is encoded.
    """
    return source.itemsize + copy.itemsize + (0 if source == copy else copy.itemsize)


def coarse_voxel_bytes(dtype: np.dtype[Any], factors: Zyx) -> int:
    """Return what one voxel of a coarser level takes, with the finer ones it is made of."""
    return dtype.itemsize * (2 + math.prod(factors))


def allowed_bytes() -> int:
    """Return `MEMORY_BYTES`, or half of what is free where that is less."""
    available = available_memory()
    if available is None:
        return MEMORY_BYTES
    return min(MEMORY_BYTES, int(available * _SHARE_OF_FREE_MEMORY))


def block_shape(shape: Zyx, *, chunks: Zyx, itemsize: int, source_chunks: Zyx = (1, 1, 1)) -> Zyx:
    """Choose blocks of whole chunks.

    Parameters
    ----------
    shape
        Of the volume that is cut.
    chunks
        What may be written alone.
    itemsize
        Bytes that one voxel takes while its block is worked on (`voxel_bytes`).
    source_chunks
        What is decoded as one where the blocks are read. Blocks reach across it where
        `allowed_bytes` permits; otherwise they are halved on the axis that has most chunks.
    """
    block = [min(c, s) for c, s in zip(chunks, shape, strict=True)]
    wide = [
        min(max(b, -(-length // b) * b), s)
        for b, length, s in zip(block, source_chunks, shape, strict=True)
    ]
    allowed = allowed_bytes()
    while wide != block and math.prod(wide) * itemsize > allowed:
        times = [-(-w // b) for w, b in zip(wide, block, strict=True)]
        axis = times.index(max(times))
        wide[axis] = -(-times[axis] // 2) * block[axis]
    for axis in (2, 1, 0):
        more = max(1, BLOCK_BYTES // (math.prod(wide) * itemsize))
        wide[axis] = min(wide[axis] * more, shape[axis])
    return (wide[0], wide[1], wide[2])


def blocks_at_once(block: Zyx, *, itemsize: int, threads: int, uri: str) -> int:
    """Choose how many blocks are worked on at once, so that memory stays bounded.

    Raises
    ------
    ResourceError
        When not even one block fits in memory.
    """
    one = math.prod(block) * itemsize
    at_once = min(threads, max(1, allowed_bytes() // one))
    require_memory(
        needed_bytes=at_once * one,
        purpose=f"a block of {block} voxels (z,y,x) of {uri}",
        remedy="choose smaller chunks or shards",
    )
    return at_once
