"""Cores of blocks become part of the segmentation: block labels and global ids in, voxels out.

Each task writes the core of one block, which is made of whole chunks, so that tasks
never meet. A task may be repeated: it writes the same voxels again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt32, UInt64

from floodem.assembly.block_store import BlockStore
from floodem.assembly.blocks import Block
from floodem.assembly.columns import unpack_columns
from floodem.assembly.destination import LabelDestination
from floodem.cluster import Task
from floodem.cluster.context import task_context
from floodem.errors import StoppedError, VolumeFormatError
from floodem.geometry import Box, Zyx, tiles
from floodem.volumes import open_volume
from floodem.volumes.conversion.receipts import checksum
from floodem.volumes.servers.transport import open_store

MAPPING_VERSION = 1

PIECE_VOXELS = 2**24
"""Voxels that a task holds at once: 128 MiB of global ids and half of that of block labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTask:
    """The core of one block.

    Attributes
    ----------
    store
        Where the block's labels and its global ids are.
    target
        Address of the volume to be filled, see `LabelDestination.target`.
    """

    store: BlockStore
    block: Block
    target: str


def write_tasks(destination: LabelDestination, *, store: BlockStore) -> list[Task]:
    """Return the tasks that fill the finest level, in the order of the blocks."""
    return [
        Task(key=block.key, argument=WriteTask(store=store, block=block, target=destination.target))
        for block in store.plan
    ]


def write_core_task(task: WriteTask) -> dict[str, Any]:
    """Write the global ids of a block's core; background where it has no segments.

    Returns
    -------
    dict
        ``voxels`` of the core, how many are ``labelled``, and ``crc32c``: the checksum
        of the checksums of its chunks in C order (each of a chunk's bytes in C order).

    Raises
    ------
    VolumeFormatError
        When the block's labels and its mapping do not fit each other, or one is damaged.
    StorageError
        When the disk or the server refuses.
    StoppedError
        When the run was told to stop.
    """
    core = task.block.core
    with contextlib.ExitStack() as opened:
        target = opened.enter_context(
            open_volume(task.target, writable=True, stores_background=True)
        )
        ids = read_mapping(task.store, task.block)
        labels = opened.enter_context(task.store.open_labels(task.block)) if len(ids) > 1 else None
        sums = ChunkSums(core, chunks=target.chunks)
        labelled = 0
        for piece in pieces(core, chunks=target.chunks):
            require_going_on()
            if labels is None:
                found = np.zeros(piece.shape, np.uint64)
            else:
                found = _renumbered(labels.read(piece), ids, what=labels.uri)
            target.write(piece, found)
            sums.add(piece, found)
            labelled += int(np.count_nonzero(found))
    return {"voxels": core.size, "labelled": labelled, "crc32c": sums.total()}


def read_mapping(store: BlockStore, block: Block) -> UInt64[np.ndarray, "ids"]:
    """Return the global id of each local id of a block; background first.

    Raises
    ------
    VolumeFormatError
        When there is no mapping, or it is damaged.
    """
    name = f"mapping/{block.key}.npz"
    where = f"{store.address}/{name}"
    found = unpack_columns(
        open_store(store.address).read(name),
        like={"ids": np.zeros(0, np.uint64)},
        version=MAPPING_VERSION,
        what="a mapping of ids",
        uri=where,
    )
    ids: UInt64[np.ndarray, "ids"] = found["ids"]
    if not len(ids) or ids[0] != 0:
        raise VolumeFormatError(
            f"{where} cannot be used as a mapping of ids, because it does not begin with "
            "background: begin again with --overwrite"
        )
    return ids


def _renumbered(
    labels: UInt32[np.ndarray, "z y x"], ids: UInt64[np.ndarray, "ids"], *, what: str
) -> UInt64[np.ndarray, "z y x"]:
    largest = int(labels.max(initial=0))
    if largest >= len(ids):
        raise VolumeFormatError(
            f"{what} holds label {largest}, and its mapping ends with {len(ids) - 1}: one of both "
            "is of another run; begin again with --overwrite"
        )
    found = np.empty(labels.shape, np.uint64)
    for local, final in zip(labels, found, strict=True):
        np.take(ids, local, out=final, mode="clip")  # without looking again whether they fit
    return found


def require_going_on() -> None:
    """End a task that was told to stop; what it has written is written again.

    Raises
    ------
    StoppedError
        When the run was told to stop.
    """
    if task_context().should_stop():
        raise StoppedError("stopped while labels were written: run the same command again")


def pieces(box: Box, *, chunks: Zyx, voxels: int = PIECE_VOXELS) -> Iterator[Box]:
    """Cut a box that begins at a chunk's face into pieces of whole chunks, in C order.

    A piece has at most `voxels` voxels, unless one chunk has more.
    """
    edges = [min(chunk, length) for chunk, length in zip(chunks, box.shape, strict=True)]
    for axis in (2, 1, 0):
        times = max(1, voxels // math.prod(edges))
        edges[axis] = min(edges[axis] * times, box.shape[axis])
    z, y, x = edges
    for tile in tiles(box, core=(z, y, x)):
        yield tile.core


class ChunkSums:
    """Checksums of the chunks of a box, which may come in any order and in any pieces."""

    def __init__(self, box: Box, *, chunks: Zyx) -> None:
        self._start, self._chunks = box.start, chunks
        grid = [-(-length // chunk) for length, chunk in zip(box.shape, chunks, strict=True)]
        self._sums = np.zeros(grid, ">u4")

    def add(self, piece: Box, voxels: Shaped[np.ndarray, "z y x"]) -> None:
        """Note the voxels of a piece of whole chunks."""
        for tile in tiles(piece, core=self._chunks):
            z, y, x = (
                (at - first) // chunk
                for at, first, chunk in zip(tile.core.start, self._start, self._chunks, strict=True)
            )
            self._sums[z, y, x] = checksum(voxels[tile.core.slices(origin=piece.start)])

    def total(self) -> int:
        """Return one checksum of all."""
        return checksum(self._sums)
