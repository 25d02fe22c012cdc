"""Any volume to any format: two addresses in, a new volume out, block by block."""

from __future__ import annotations

import contextlib
from pathlib import Path

from numpy.typing import DTypeLike

from floodem.errors import GeometryError
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.progress import Progress, ProgressListener
from floodem.volumes.access import create_volume, open_volume
from floodem.volumes.volume import Volume

BLOCK_BYTES = 64 * 2**20
"""Blocks are grown to about this size: enough to keep a disk busy, little to hold."""


def convert(
    source: Volume | str | Path,
    destination: str | Path,
    *,
    box: Box | None = None,
    voxel_size: VoxelSize | None = None,
    offset: Zyx | None = None,
    dtype: DTypeLike | None = None,
    chunks: Zyx | None = None,
    channel: int | None = None,
    allow_external: bool = False,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
) -> None:
    """Copy a volume, or a box of it, to another address and format.

    Memory stays bounded by two blocks. When anything fails, what was at the
    destination before is still there.

    Parameters
    ----------
    source
        An open volume, which stays open, or an address.
    destination
        Address of the new volume; ending or prefix tell the format.
    box
        The part to copy, in the source's frame (z, y, x; offset included).
    voxel_size
        In nanometres, instead of the source's.
    offset
        Where the first voxel of the copy lies, instead of where it came from.
    dtype
        Another type of voxel. Values that do not fit are refused, never wrapped.
    chunks
        Of the destination, z, y, x.
    channel, allow_external
        As for `open_volume`, when the source is an address.
    overwrite
        Replace what is there, once the copy is complete.
    progress
        Called after every block, in voxels.

    Raises
    ------
    GeometryError
        When the box is not inside the source.
    LabelError
        When values do not fit `dtype`.
    FloodemError
        Whatever `open_volume` and `create_volume` refuse.
    """
    with contextlib.ExitStack() as stack:
        if not isinstance(source, Volume):
            source = stack.enter_context(
                open_volume(source, channel=channel, allow_external=allow_external)
            )
        part = source.box if box is None else box
        if not source.box.contains(part) or part.size == 0:
            raise GeometryError(
                f"box {part} is empty or not inside {source.uri}, which holds {source.box} "
                "(z,y,x): choose a box in it"
            )
        copy = create_volume(
            destination,
            shape=part.shape,
            dtype=source.dtype if dtype is None else dtype,
            voxel_size=source.voxel_size if voxel_size is None else voxel_size,
            offset=part.start if offset is None else offset,
            chunks=chunks,
            overwrite=overwrite,
        )
        try:
            _copy_blocks(source, copy, part=part, progress=progress)
            # The copy may take the place of the source, and an open file keeps its place.
            stack.close()
            copy.close()
        except BaseException:
            copy.discard()
            raise


def _copy_blocks(
    source: Volume, copy: Volume, *, part: Box, progress: ProgressListener | None
) -> None:
    to_copy = tuple(b - a for a, b in zip(part.start, copy.offset, strict=True))
    itemsize = max(source.dtype.itemsize, copy.dtype.itemsize)
    block = block_shape(part.shape, chunks=copy.chunks, itemsize=itemsize)
    done = 0
    report = progress or (lambda _: None)
    report(Progress(stage="convert", done=done, total=part.size, unit="voxels"))
    for tile in tiles(part, core=block):
        target = tile.core.translate((to_copy[0], to_copy[1], to_copy[2]))
        copy.write(target, source.read(tile.core))
        done += tile.core.size
        report(Progress(stage="convert", done=done, total=part.size, unit="voxels"))


def block_shape(shape: Zyx, *, chunks: Zyx, itemsize: int) -> Zyx:
    """Grow a chunk by whole chunks, along x, then y, then z, to about `BLOCK_BYTES`."""
    block = [min(c, s) for c, s in zip(chunks, shape, strict=True)]
    for axis in (2, 1, 0):
        size = block[0] * block[1] * block[2] * itemsize
        times = max(1, BLOCK_BYTES // size)
        block[axis] = min(block[axis] * times, shape[axis])
    return (block[0], block[1], block[2])
