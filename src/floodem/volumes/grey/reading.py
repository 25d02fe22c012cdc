"""How images are read for their grey values: a volume in, blocks and a reader for them out."""

from __future__ import annotations

from floodem.errors import FloodemError
from floodem.geometry import Zyx
from floodem.volumes.conversion.block_plan import block_shape, blocks_at_once
from floodem.volumes.conversion.block_reading import Reader
from floodem.volumes.conversion.destination import is_resumable
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Volume


def grey_reader(volume: Volume, *, threads: int) -> Reader:
    """Return a reader that decodes several sections at once where the format lets it."""
    try:
        serves_threads = is_resumable(parse_location(volume.uri))
    except FloodemError:
        serves_threads = False  # a volume that has no address of its own
    return Reader(volume, serves_threads=serves_threads, threads=threads)


def grey_blocks(
    volume: Volume, shape: Zyx, *, chunks: Zyx, voxel_bytes: int, wanted: int
) -> tuple[Zyx, int]:
    """Choose the blocks in which a box of a volume is read, and how many are held at once.

    Parameters
    ----------
    shape
        Of the box, ordered z, y, x.
    chunks
        Of what is written; the volume's own where nothing is.
    voxel_bytes
        What one voxel takes in all its copies while its block is worked on.
    wanted
        How many blocks are held at once where memory permits.

    Raises
    ------
    ResourceError
        When not even one block fits in memory.
    """
    block = block_shape(
        shape, chunks=chunks, itemsize=wanted * voxel_bytes, source_chunks=volume.chunks
    )
    held = blocks_at_once(block, itemsize=voxel_bytes, threads=wanted, uri=volume.uri)
    return block, held
