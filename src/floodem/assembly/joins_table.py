"""What neighbours agree on, as files: pairs of pieces in, ``pairs/KEY.npz`` and ``joins.csv`` out.

``pairs/KEY.npz`` holds what one block and its forward neighbours were found to share,
in their own ids; ``joins.csv`` holds the same of all blocks with the final ids::

    z,y,x,block_a,block_b,segment_a,segment_b,id_a,id_b,shared,voxels_a,voxels_b,verdict

z, y, x is a voxel in both pieces; blocks are named by their keys, segments by their ids
in the block; id_a and id_b are equal where the segments are one in the end, and 0 where
nothing of the segment lies in a core. The voxels are those of the pieces in the zone,
and the verdict says why they were joined or not (see `Verdict`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int64, UInt8, UInt32, UInt64

from floodem.assembly.agreement import PiecePairs, Verdict
from floodem.assembly.block_store import BlockStore
from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.columns import pack_columns, unpack_columns
from floodem.errors import VolumeFormatError
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import Store, open_store

PAIRS_VERSION = 1

COLUMNS = (
    "z",
    "y",
    "x",
    "block_a",
    "block_b",
    "segment_a",
    "segment_b",
    "id_a",
    "id_b",
    "shared",
    "voxels_a",
    "voxels_b",
    "verdict",
)

ROWS_PER_FILE = 1_000_000
"""What spreadsheets open (1,048,576 rows), and some 80 MB of text."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockPairs:
    """What one block (A) and its forward neighbours (B) share.

    Attributes
    ----------
    neighbour
        Number of the block B.
    carried_a, carried_b
        What the segments are called outside (see `SegmentTable.carried`); 0 for new ones.
    a, b, shared, voxels_a, voxels_b, place, verdict
        As in `PiecePairs`.
    """

    neighbour: Int64[np.ndarray, "pairs"]
    carried_a: UInt64[np.ndarray, "pairs"]
    carried_b: UInt64[np.ndarray, "pairs"]
    a: UInt32[np.ndarray, "pairs"]
    b: UInt32[np.ndarray, "pairs"]
    shared: Int64[np.ndarray, "pairs"]
    voxels_a: Int64[np.ndarray, "pairs"]
    voxels_b: Int64[np.ndarray, "pairs"]
    place: Int64[np.ndarray, "pairs 3"]
    verdict: UInt8[np.ndarray, "pairs"]

    def __len__(self) -> int:
        return len(self.verdict)


_NUMBERS = np.zeros(0, np.int64)
_NONE = BlockPairs(
    neighbour=_NUMBERS,
    carried_a=np.zeros(0, np.uint64),
    carried_b=np.zeros(0, np.uint64),
    a=np.zeros(0, np.uint32),
    b=np.zeros(0, np.uint32),
    shared=_NUMBERS,
    voxels_a=_NUMBERS,
    voxels_b=_NUMBERS,
    place=np.zeros((0, 3), np.int64),
    verdict=np.zeros(0, np.uint8),
)


def pairs_with(
    neighbour: Block,
    pairs: PiecePairs,
    *,
    carried_a: UInt64[np.ndarray, "carried_a"],
    carried_b: UInt64[np.ndarray, "carried_b"],
) -> BlockPairs:
    """Say of pairs which neighbour they are with, and leave out what is one already.

    Segments that are called the same outside are one, whatever they share.
    """
    outside_a, outside_b = _outside(pairs.a, carried_a), _outside(pairs.b, carried_b)
    is_open = (outside_a != outside_b) | (outside_a == 0)
    kept = pairs.select(is_open)
    return BlockPairs(
        neighbour=np.full(len(kept), neighbour.index, np.int64),
        carried_a=outside_a[is_open],
        carried_b=outside_b[is_open],
        **{field.name: getattr(kept, field.name) for field in fields(kept)},
    )


def _outside(
    ids: UInt32[np.ndarray, "pairs"], carried: UInt64[np.ndarray, "carried"]
) -> UInt64[np.ndarray, "pairs"]:
    """Return what the first segments of a block are called outside, 0 for the others."""
    names = np.concatenate([np.zeros(1, np.uint64), carried])
    outside: UInt64[np.ndarray, "pairs"] = names[np.where(ids < len(names), ids, 0)]
    return outside


def write_pairs(store: BlockStore, block: Block, *, pairs: Sequence[BlockPairs]) -> None:
    """Keep what a block shares with its neighbours, in one piece.

    Raises
    ------
    StorageError
        When the disk or the server refuses.
    """
    columns = {
        field.name: np.concatenate([getattr(one, field.name) for one in (_NONE, *pairs)])
        for field in fields(BlockPairs)
    }
    packed = pack_columns(columns, version=PAIRS_VERSION)
    open_store(store.address).write(_name(block), packed)


def read_pairs(store: BlockStore, block: Block, *, objects: Store) -> BlockPairs:
    """Return what a block shares with its neighbours.

    Parameters
    ----------
    objects
        The store's folder, opened; it is asked for many blocks.

    Raises
    ------
    VolumeFormatError
        When the file is missing or damaged, or names what cannot be.
    """
    uri = f"{without_secrets(store.address)}/{_name(block)}"
    columns = unpack_columns(
        objects.read(_name(block)),
        like={field.name: getattr(_NONE, field.name) for field in fields(BlockPairs)},
        version=PAIRS_VERSION,
        what="pairs of segments",
        uri=uri,
    )
    pairs = BlockPairs(**columns)
    known = [neighbour.index for neighbour in store.plan.neighbours(block)]
    if not np.isin(pairs.neighbour, known).all() or (pairs.verdict > max(Verdict)).any():
        raise VolumeFormatError(
            f"{uri} names blocks that are no neighbours, or unknown verdicts: begin again with "
            "--overwrite"
        )
    return pairs


def _name(block: Block) -> str:
    return f"pairs/{block.key}.npz"


class JoinsTable:
    """``joins.csv``, and ``joins-2.csv`` and so on where it is long.

    Files are written whole, each when it is full, and the last by `close`.

    Parameters
    ----------
    objects
        Where they go.
    plan
        The blocks that are named.
    rows_per_file
        When one is full.
    """

    def __init__(
        self, objects: Store, *, plan: BlockPlan, rows_per_file: int = ROWS_PER_FILE
    ) -> None:
        self._objects = objects
        self._plan = plan
        self._rows_per_file = rows_per_file
        self._lines: list[str] = []
        self._files = 0

    def add(
        self,
        block: Block,
        pairs: BlockPairs,
        *,
        id_a: UInt64[np.ndarray, "pairs"],
        id_b: UInt64[np.ndarray, "pairs"],
    ) -> None:
        """Add the pairs of a block, with the final ids of their segments.

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        keys = {index: self._plan.block(index).key for index in np.unique(pairs.neighbour).tolist()}
        columns = (
            *pairs.place.T.tolist(),
            [block.key] * len(pairs),
            [keys[index] for index in pairs.neighbour.tolist()],
            pairs.a.tolist(),
            pairs.b.tolist(),
            id_a.tolist(),
            id_b.tolist(),
            pairs.shared.tolist(),
            pairs.voxels_a.tolist(),
            pairs.voxels_b.tolist(),
            [Verdict(value).words for value in pairs.verdict.tolist()],
        )
        self._lines += [",".join(map(str, row)) for row in zip(*columns, strict=True)]
        while len(self._lines) > self._rows_per_file:
            self._write(self._lines[: self._rows_per_file])
            del self._lines[: self._rows_per_file]

    def close(self) -> None:
        """Write what is left; the first file is there even where nothing was shared."""
        if self._lines or not self._files:
            self._write(self._lines)
        self._lines = []

    def _write(self, lines: Sequence[str]) -> None:
        self._files += 1
        name = "joins.csv" if self._files == 1 else f"joins-{self._files}.csv"
        text = "\n".join([",".join(COLUMNS), *lines, ""])
        self._objects.write(name, text.encode("ascii"))
