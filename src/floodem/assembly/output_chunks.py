"""How the segmentation is cut into chunks and shards: a plan of blocks in, edges out.

Every core is made of whole chunks (and shards), so that one task writes it and no two
tasks touch one file::

    cores   |        192        |        192        |  90  |
    chunks  |  64  |  64  |  64  |  64  |  64  |  64  |  64 |26|
"""

from __future__ import annotations

import math

from floodem.assembly.blocks import BlockPlan
from floodem.errors import GeometryError
from floodem.geometry import Zyx

USUAL_CHUNK = 64
"""Edge of a chunk where the cores allow it, as everywhere in floodem."""

SMALLEST_CHUNK, LARGEST_CHUNK = 16, 256
"""Shorter chunks are too many files, longer ones (128 MiB as a cube) too much to read at once.
Shards are no longer either, as each is written in one piece."""


def chunks_of(plan: BlockPlan) -> Zyx:
    """Return chunks of which every core is made whole, unless it is cut at the box.

    On each axis the longest divisor of the core up to 64 that is not too short; the core
    itself where it is short; the shortest longer divisor where there is no other.

    Raises
    ------
    GeometryError
        When a core has no such divisor.
    """
    z, y, x = (
        _chunk(core, count=count, length=length, plan=plan)
        for core, count, length in zip(plan.core, plan.grid, plan.box.shape, strict=True)
    )
    return (z, y, x)


def shards_of(plan: BlockPlan) -> Zyx:
    """Return shards of whole chunks, of which every core is made whole."""
    z, y, x = (
        chunk * _most_chunks(core // chunk, chunk=chunk, is_alone=count == 1)
        for core, chunk, count in zip(plan.core, chunks_of(plan), plan.grid, strict=True)
    )
    return (z, y, x)


def are_whole(chunks: Zyx, plan: BlockPlan) -> bool:
    """Tell whether every core is made of whole chunks like these."""
    return not any(
        core % chunk
        for core, chunk, count in zip(plan.core, chunks, plan.grid, strict=True)
        if count > 1
    )


def _chunk(core: int, *, count: int, length: int, plan: BlockPlan) -> int:
    """Return the edge of a chunk on one axis that has `count` cores and `length` voxels."""
    if count == 1:
        return min(USUAL_CHUNK, length)
    if core <= USUAL_CHUNK:
        return core
    divisors = [edge for edge in range(1, LARGEST_CHUNK + 1) if core % edge == 0]
    short = [edge for edge in divisors if SMALLEST_CHUNK <= edge <= USUAL_CHUNK]
    long = [edge for edge in divisors if edge > USUAL_CHUNK]
    if not short and not long:
        near = math.ceil(core / USUAL_CHUNK) * USUAL_CHUNK
        raise GeometryError(
            f"block {plan.core} (z,y,x) cannot be cut into whole chunks, because {core} has no "
            f"divisor from {SMALLEST_CHUNK} to {LARGEST_CHUNK}: give a multiple of "
            f"{USUAL_CHUNK}, for example {near}"
        )
    return max(short) if short else min(long)


def _most_chunks(chunks: int, *, chunk: int, is_alone: bool) -> int:
    """Return how many of a core's chunks on one axis make a shard of bounded length."""
    most = max(1, LARGEST_CHUNK // chunk)
    if is_alone:
        return max(1, min(most, chunks))
    return max(count for count in range(1, most + 1) if chunks % count == 0)
