"""Which levels of a volume are served, and in what chunks: an open volume in, `Level`s out.

The chunks that a page asks for have one shape for all of a level, about 64 voxels a side, so
that a slice reads little beside it. They lie on the grid of the stored chunks, none across the
border of two where that can be helped; thin stored chunks (a section of a stack) are gathered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from floodem.geometry import VoxelSize, Zyx
from floodem.viewer.serving.blocks import (
    BlockwiseVolume,
    Cache,
    CoarserVolume,
    bytes_of,
    share_lock,
)
from floodem.volumes.conversion.pyramid import level_factors
from floodem.volumes.volume import Kind, Volume

EDGE = 64
"""Voxels along a side of a served chunk: what the client asks for when it may choose."""

_LEAST, _MOST = 2, 3
"""Sides from 2/3 to 3/2 of what is wished for are taken where they divide what is stored."""

_SECTIONS, _WIDE_EDGE = EDGE // 4, EDGE * 2
"""Sides of a chunk of a stack: as many voxels, fewer sections to unpack for it."""

_WIDEST_EDGE = 1024
"""In y and x, where a chunk must be flat because a section is a quarter of the cache."""

MOST_COARSENING = 64
"""Stored voxels that one computed voxel may be made of (4 x 4 x 4): a chunk then reads 256
voxels a side. What is coarser would read so much for one chunk that a page waits for seconds."""

_UNKNOWN = VoxelSize(1, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level as it is served.

    Attributes
    ----------
    key
        Name of its folder.
    volume
        Reads from memory where it can; safe for threads.
    size
        Edge lengths of a voxel in nanometres.
    chunk
        Shape of a served chunk, z, y, x.
    """

    key: str
    volume: Volume
    size: VoxelSize
    chunk: Zyx


def make_levels(
    volume: Volume, *, kind: Kind, voxel_size: VoxelSize | None, cache: Cache, owner: str
) -> list[Level]:
    """Choose the levels to serve: the stored ones from `volume` on, and computed ones above.

    Parameters
    ----------
    kind
        How coarser voxels are computed.
    voxel_size
        Of `volume`, instead of what it states.
    owner
        First part of the keys in the cache.
    """
    stored = _from_here(volume)
    size = voxel_size or volume.voxel_size or _UNKNOWN
    levels: list[Level] = []
    for number, one in enumerate(stored):
        if one is not volume:
            share_lock(one, with_volume=volume)
        # A block is what is stored as one, or what is served where that is too large to keep.
        chunk = served_chunk(one, cache_bytes=cache.most_bytes)
        block = block_shape(one, chunk=chunk, cache_bytes=cache.most_bytes)
        kept = BlockwiseVolume(one, block=block, cache=cache, owner=owner, part=str(number))
        own = _size_of(one, finest=volume, size=size)
        levels.append(Level(key="", volume=kept, size=own, chunk=chunk))
    levels += _computed(levels[-1], kind=kind, cache=cache, owner=owner, count=len(levels))
    return _with_keys(levels)


def _from_here(volume: Volume) -> list[Volume]:
    levels = list(volume.levels)
    here = next((i for i, level in enumerate(levels) if level is volume), None)
    return [volume] if here is None else levels[here:]


def _size_of(level: Volume, *, finest: Volume, size: VoxelSize) -> VoxelSize:
    """Return a level's voxel size where the finest one's is `size`."""
    if level is finest:
        return size
    if level.voxel_size is not None and finest.voxel_size is not None:
        pairs = zip(level.voxel_size.zyx_nm, finest.voxel_size.zyx_nm, strict=True)
        factors = [own / first for own, first in pairs]
    else:
        pairs = zip(finest.shape, level.shape, strict=True)
        factors = [max(1.0, round(long / short)) for long, short in pairs]
    z, y, x = (edge * factor for edge, factor in zip(size.zyx_nm, factors, strict=True))
    return VoxelSize(z, y, x)


def _computed(coarsest: Level, *, kind: Kind, cache: Cache, owner: str, count: int) -> list[Level]:
    """Add levels above the coarsest stored one, as many as are cheap enough."""
    found: list[Level] = []
    finer, before = coarsest.volume, (1, 1, 1)
    for number, factors in enumerate(level_factors(coarsest.volume.shape, coarsest.size), count):
        if math.prod(factors) > MOST_COARSENING:
            break
        z, y, x = (now // last for now, last in zip(factors, before, strict=True))
        made = CoarserVolume(finer, factors=(z, y, x), kind=kind)
        chunk = _cut(coarsest.chunk, made.shape)
        finer = BlockwiseVolume(made, block=chunk, cache=cache, owner=owner, part=str(number))
        edges = zip(coarsest.size.zyx_nm, factors, strict=True)
        size = VoxelSize(*(edge * factor for edge, factor in edges))
        found.append(Level(key="", volume=finer, size=size, chunk=chunk))
        before = factors
    return found


def _with_keys(levels: list[Level]) -> list[Level]:
    """Name levels by their voxels' edges in x, y, z, as precomputed volumes usually are."""
    named: list[Level] = []
    for level in levels:
        key = "_".join(f"{edge:.12g}" for edge in level.size.zyx_nm[::-1])
        if any(key == other.key for other in named):
            key = f"{key}_level{len(named)}"
        named.append(Level(key=key, volume=level.volume, size=level.size, chunk=level.chunk))
    return named


def served_chunk(volume: Volume, *, cache_bytes: int) -> Zyx:
    """Choose the shape of served chunks (z, y, x) of a stored volume.

    Of volumes kept by section they are flatter and wider, so that the first picture needs
    fewer sections. Where the stored chunks behind one served chunk would take more than
    a quarter of the cache, so that the neighbours would read them again, they become
    flatter still.

    Parameters
    ----------
    cache_bytes
        What the cache keeps at most.
    """
    stored = volume.chunks
    is_by_section = stored[1:] == volume.shape[1:] and stored[0] <= _SECTIONS
    deep, wide = (_SECTIONS, _WIDE_EDGE) if is_by_section else (EDGE, EDGE)
    z, y, x = (_edge(a, near=b) for a, b in zip(stored, (deep, wide, wide), strict=True))
    one = bytes_of(stored, volume.dtype)
    while (deep := -(-z // stored[0])) > 1 and deep * one > cache_bytes // 4:
        z = -(-deep // 2) * stored[0]
        y, x = min(y * 2, _WIDEST_EDGE), min(x * 2, _WIDEST_EDGE)
    return _cut((z, y, x), volume.shape)


def _edge(stored: int, *, near: int) -> int:
    """Return a multiple or a divisor of a stored chunk's edge, or where none is near, `near`."""
    if stored <= near:
        return stored * (near // stored)
    sides = range(near * _LEAST // _MOST, near * _MOST // _LEAST + 1)
    divisors = [side for side in sides if stored % side == 0]
    return min(divisors, key=lambda side: abs(side - near), default=near)


def block_shape(volume: Volume, *, chunk: Zyx, cache_bytes: int) -> Zyx:
    """Choose what is read and kept as one: stored chunks, or served ones if those are larger.

    Stored chunks of which the cache would not keep two are not kept: then what is served
    is read alone.
    """
    if bytes_of(volume.chunks, volume.dtype) > cache_bytes // 2:
        return chunk
    if volume.chunks[1:] == volume.shape[1:]:
        return volume.chunks
    z, y, x = (max(own, served) for own, served in zip(volume.chunks, chunk, strict=True))
    return _cut((z, y, x), volume.shape)


def _cut(chunk: Zyx, shape: Zyx) -> Zyx:
    z, y, x = (min(edge, length) for edge, length in zip(chunk, shape, strict=True))
    return (z, y, x)
