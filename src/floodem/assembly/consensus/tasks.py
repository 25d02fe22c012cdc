"""One block of a consensus: two segmentations in; tables of it, and in the end its voxels, out.

Volumes are read twice: for the tables, and when labels are written. Pieces are found
again instead of being kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt64

from floodem.assembly.blocks import Block
from floodem.assembly.consensus.overlay import LaidLabels, Overlay
from floodem.assembly.consensus.pieces import (
    BlockPieces,
    both_of,
    overlapping,
    pairs_of,
    touching,
)
from floodem.assembly.consensus.tables import ConsensusTables, Overlaps, Side, Touching
from floodem.assembly.writing import ChunkSums, require_going_on
from floodem.errors import VolumeFormatError
from floodem.volumes import open_volume

SIDES: tuple[Side, Side] = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTask:
    """One block; it can be sent to other processes.

    Attributes
    ----------
    overlay
        What is compared.
    tables
        Where stages leave what they find.
    splits
        Whether objects are split into components.
    target
        Address of the volume to be filled, for the stage that does so.
    """

    overlay: Overlay
    tables: ConsensusTables
    block: Block
    splits: bool
    target: str


def find_pieces_task(task: BlockTask) -> dict[str, Any]:
    """Find the pieces of both segmentations in a block, and which lie on each other.

    Returns
    -------
    dict
        ``pieces_a``, ``pieces_b`` and ``pairs`` that were found, and ``labelled_a``: voxels
        of A's objects.

    Raises
    ------
    LabelError
        When one holds negative numbers or no integers.
    StorageError, VolumeFormatError
        When something cannot be read or written.
    """
    box, block = task.tables.plan.box, task.block
    found: list[BlockPieces] = []
    counts = {}
    for side in SIDES:
        require_going_on()
        labels = _laid(task, side).read(block.core)
        pieces = BlockPieces(labels, splits=task.splits)
        table = pieces.table(core=block.core, box=box)
        del labels
        task.tables.write_pieces(side, block, table)
        if task.splits:
            task.tables.write_faces(side, block, pieces)
        counts[f"pieces_{side}"] = len(table)
        found.append(pieces)
    overlaps = _overlaps(*found)
    task.tables.write_overlaps(block, overlaps)
    return {**counts, "pairs": len(overlaps.a), "labelled_a": int(overlaps.voxels.sum())}


def find_touching_task(task: BlockTask) -> dict[str, Any]:
    """Find in which pieces of the next blocks those of a block go on.

    Returns
    -------
    dict
        ``pairs_a`` and ``pairs_b`` of pieces.

    Raises
    ------
    StorageError, VolumeFormatError
        When something cannot be read or written.
    """
    tables, block, counts = task.tables, task.block, {}
    for side in SIDES:
        objects = tables.read_pieces(side, block).objects
        found = []
        for axis, neighbour in tables.following(block):
            mine, theirs = touching(
                tables.read_face(side, block, axis=axis, is_far=True),
                tables.read_face(side, neighbour, axis=axis, is_far=False),
                objects_near=objects,
                objects_far=tables.read_pieces(side, neighbour).objects,
            )
            numbers = np.full(len(mine), neighbour.index, np.int64)
            found.append(Touching(pieces=mine, neighbours=numbers, theirs=theirs))
        tables.write_touching(side, block, found)
        counts[f"pairs_{side}"] = sum(len(one.pieces) for one in found)
    return counts


def write_consensus_task(task: BlockTask) -> dict[str, Any]:
    """Write the labels of a block.

    Returns
    -------
    dict
        As `floodem.assembly.writing.write_core_task`.

    Raises
    ------
    VolumeFormatError
        When a segmentation is not what it was when its pieces were found, or a table is
        damaged.
    StorageError
        When something cannot be read or written.
    StoppedError
        When the run was told to stop.
    """
    block, core = task.block, task.block.core
    found = _result(task)
    require_going_on()
    with open_volume(task.target, writable=True, stores_background=True) as target:
        target.write(core, found)
        sums = ChunkSums(core, chunks=target.chunks)
    sums.add(block.core, found)
    return {
        "voxels": core.size,
        "labelled": int(np.count_nonzero(found)),
        "crc32c": sums.total(),
    }


def _laid(task: BlockTask, side: Side) -> LaidLabels:
    return task.overlay.a if side == "a" else task.overlay.b


def _overlaps(a: BlockPieces, b: BlockPieces) -> Overlaps:
    pairs, lengths = overlapping(a, b)
    known, which = np.unique(pairs, return_inverse=True)
    # Sums of whole numbers below 2**53 are exact.
    voxels = np.bincount(which, weights=lengths).astype(np.int64)
    of_a, of_b = both_of(known)
    return Overlaps(a=of_a[of_a > 0], b=of_b[of_a > 0], voxels=voxels[of_a > 0])


def _result(task: BlockTask) -> UInt64[np.ndarray, "z y x"]:
    """Return the labels of a block in the consensus."""
    block, tables = task.block, task.tables
    overlaps, ids = tables.read_overlaps(block), tables.read_result(block)
    if len(ids) != len(overlaps.a):
        raise _changed(task)
    if not ids.any():
        return np.zeros(block.core.shape, np.uint64)
    found = (BlockPieces(_laid(task, side).read(block.core), splits=task.splits) for side in SIDES)
    wanted, lengths = overlapping(*found)
    known = pairs_of(overlaps.a, overlaps.b)
    rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    is_known = known[rows] == wanted
    if not np.array_equal(is_known, both_of(wanted)[0] > 0):
        raise _changed(task)
    values = np.where(is_known, ids[rows], np.uint64(0))
    return np.repeat(values, lengths).reshape(block.core.shape)


def _changed(task: BlockTask) -> VolumeFormatError:
    a, b = task.overlay.a.source.uri, task.overlay.b.source.uri
    return VolumeFormatError(
        f"{a} or {b} has changed in {task.block.core} since the run began: begin again with "
        "--overwrite"
    )
