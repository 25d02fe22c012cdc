"""What the stages of a consensus leave for each other: small tables of blocks in, the same out.

Below ``DST.floodem/consensus``, on a disk or on a server, for each block KEY::

    a/KEY.npz           pieces of A: object, voxels, first voxel
    a/KEY-faces.npz     pieces in its outermost voxels, where other blocks follow
    a/KEY-touching.npz  which pieces of the next blocks they go on in
    a/KEY-ids.npz       the id of each piece in all of A
    b/...               the same of B
    overlaps/KEY.npz    pairs (piece of A, piece of B or 0) and their voxels
    result/KEY.npz      the id of each of these pairs
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.columns import Column, pack_columns, unpack_columns
from floodem.assembly.consensus.pieces import BlockPieces, PieceTable
from floodem.errors import VolumeFormatError
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store

TABLE_VERSION = 1

Side = Literal["a", "b"]

_NO_32: Column = np.zeros(0, np.uint32)
_NO_64: Column = np.zeros(0, np.uint64)
_NO_COUNTS: Column = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Touching:
    """Pieces of one block and the pieces of later blocks that they go on in.

    Attributes
    ----------
    pieces
        Of the block.
    neighbours, theirs
        Number of the other block, and its piece.
    """

    pieces: UInt32[np.ndarray, "pairs"]
    neighbours: Int64[np.ndarray, "pairs"]
    theirs: UInt32[np.ndarray, "pairs"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlaps:
    """Which pieces of a block lie on each other, ordered by both numbers.

    Attributes
    ----------
    a, b
        Piece of A, and of B or 0.
    voxels
        How many they share.
    """

    a: UInt32[np.ndarray, "pairs"]
    b: UInt32[np.ndarray, "pairs"]
    voxels: Int64[np.ndarray, "pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusTables:
    """The tables of one run; it can be sent to other processes.

    Attributes
    ----------
    address
        The run's folder, ``DST.floodem``.
    plan
        How the volume is cut.
    """

    address: str
    plan: BlockPlan

    def write_pieces(self, side: Side, block: Block, table: PieceTable) -> None:
        """Keep the pieces of a block."""
        columns = {"objects": table.objects, "voxels": table.voxels, "firsts": table.firsts}
        self._write(f"{side}/{block.key}", columns)

    def read_pieces(self, side: Side, block: Block) -> PieceTable:
        """Return the pieces of a block.

        Raises
        ------
        VolumeFormatError
            When they are missing, damaged or of another block.
        """
        name = f"{side}/{block.key}"
        like = {"objects": _NO_64, "voxels": _NO_COUNTS, "firsts": _NO_COUNTS}
        found = PieceTable(**self._read(name, like, what="pieces"))
        counts = found.voxels
        if np.any((counts < 1) | (counts > block.core.size)) or counts.sum() > block.core.size:
            raise self._unusable(name, f"it counts other voxels than {block.core} has")
        if np.any((found.firsts < 0) | (found.firsts >= self.plan.box.size)):
            raise self._unusable(name, f"a piece begins outside of {self.plan.box}")
        return found

    def write_faces(self, side: Side, block: Block, pieces: BlockPieces) -> None:
        """Keep the outermost pieces of a block, on all sides where other blocks are."""
        planes = [
            pieces.numbered(_plane(pieces.voxels, face).reshape(-1)) for face in self._faces(block)
        ]
        self._write(f"{side}/{block.key}-faces", {"pieces": np.concatenate([_NO_32, *planes])})

    def read_face(
        self, side: Side, block: Block, *, axis: int, is_far: bool
    ) -> UInt32[np.ndarray, "rows columns"]:
        """Return the outermost pieces of a block on one side.

        Raises
        ------
        VolumeFormatError
            When they are missing, damaged or of another block.
        """
        name = f"{side}/{block.key}-faces"
        faces = list(self._faces(block))
        shapes = [_plane(np.empty(block.core.shape, np.bool_), face).shape for face in faces]
        ends = [0, *itertools.accumulate(rows * columns for rows, columns in shapes)]
        flat = self._read(name, {"pieces": _NO_32}, what="faces")["pieces"]
        if len(flat) != ends[-1]:
            raise self._unusable(name, f"it is not of block {block.core}")
        at = faces.index((axis, is_far))
        found: UInt32[np.ndarray, "rows columns"] = flat[ends[at] : ends[at + 1]]
        return found.reshape(shapes[at])

    def write_touching(self, side: Side, block: Block, found: Sequence[Touching]) -> None:
        """Keep in which pieces of later blocks those of a block go on."""
        columns = {
            "pieces": np.concatenate([_NO_32, *(one.pieces for one in found)]),
            "neighbours": np.concatenate([_NO_COUNTS, *(one.neighbours for one in found)]),
            "theirs": np.concatenate([_NO_32, *(one.theirs for one in found)]),
        }
        self._write(f"{side}/{block.key}-touching", columns)

    def read_touching(self, side: Side, block: Block) -> Touching:
        """Return in which pieces of later blocks those of a block go on.

        Raises
        ------
        VolumeFormatError
            When this is missing, damaged or of another volume.
        """
        name = f"{side}/{block.key}-touching"
        like = {"pieces": _NO_32, "neighbours": _NO_COUNTS, "theirs": _NO_32}
        found = Touching(**self._read(name, like, what="touching pieces"))
        is_block = (found.neighbours >= 0) & (found.neighbours < len(self.plan))
        if not (is_block.all() and found.pieces.all() and found.theirs.all()):
            raise self._unusable(name, "it names pieces that no block has")
        return found

    def write_overlaps(self, block: Block, overlaps: Overlaps) -> None:
        """Keep which pieces of a block lie on each other."""
        columns = {"a": overlaps.a, "b": overlaps.b, "voxels": overlaps.voxels}
        self._write(f"overlaps/{block.key}", columns)

    def read_overlaps(self, block: Block) -> Overlaps:
        """Return which pieces of a block lie on each other.

        Raises
        ------
        VolumeFormatError
            When this is missing, damaged or of another block.
        """
        like = {"a": _NO_32, "b": _NO_32, "voxels": _NO_COUNTS}
        name = f"overlaps/{block.key}"
        found = Overlaps(**self._read(name, like, what="overlaps"))
        if not found.a.all() or np.any((found.voxels < 1) | (found.voxels > block.core.size)):
            raise self._unusable(name, f"it is not of block {block.core}")
        return found

    def write_ids(self, side: Side, block: Block, ids: UInt64[np.ndarray, "pieces"]) -> None:
        """Keep the id of each piece of a block in all of its segmentation."""
        self._write(f"{side}/{block.key}-ids", {"ids": ids})

    def read_ids(self, side: Side, block: Block) -> UInt64[np.ndarray, "pieces"]:
        """Return the id of each piece of a block in all of its segmentation.

        Raises
        ------
        VolumeFormatError
            When they are missing or damaged.
        """
        found = self._read(f"{side}/{block.key}-ids", {"ids": _NO_64}, what="ids")
        ids: UInt64[np.ndarray, "rows"] = found["ids"]
        return ids

    def write_result(self, block: Block, ids: UInt64[np.ndarray, "pairs"]) -> None:
        """Keep the id of each overlap of a block."""
        self._write(f"result/{block.key}", {"ids": ids})

    def read_result(self, block: Block) -> UInt64[np.ndarray, "pairs"]:
        """Return the id of each overlap of a block.

        Raises
        ------
        VolumeFormatError
            When they are missing or damaged.
        """
        found = self._read(f"result/{block.key}", {"ids": _NO_64}, what="ids")
        ids: UInt64[np.ndarray, "rows"] = found["ids"]
        return ids

    def following(self, block: Block) -> Iterator[tuple[int, Block]]:
        """Yield the blocks that share a face with a block and come later, with their axes."""
        for axis, (at, count) in enumerate(zip(block.place, self.plan.grid, strict=True)):
            if at + 1 < count:
                z, y, x = (one + (number == axis) for number, one in enumerate(block.place))
                yield axis, self.plan.at((z, y, x))

    def _faces(self, block: Block) -> Iterator[tuple[int, bool]]:
        for axis, (at, count) in enumerate(zip(block.place, self.plan.grid, strict=True)):
            if at > 0:
                yield axis, False
            if at + 1 < count:
                yield axis, True

    def _write(self, name: str, columns: Mapping[str, Column]) -> None:
        packed = pack_columns(columns, version=TABLE_VERSION)
        open_store(self.address).write(self._path(name), packed)

    def _read(self, name: str, like: Mapping[str, Column], *, what: str) -> dict[str, Any]:
        path = self._path(name)
        return unpack_columns(
            open_store(self.address).read(path),
            like=like,
            version=TABLE_VERSION,
            what=f"a table of {what}",
            uri=f"{without_secrets(self.address)}/{path}",
        )

    def _unusable(self, name: str, reason: str) -> VolumeFormatError:
        return VolumeFormatError(
            f"{without_secrets(self.address)}/{self._path(name)} cannot be used, because {reason}: "
            "begin again with --overwrite"
        )

    @staticmethod
    def _path(name: str) -> str:
        return f"consensus/{name}.npz"


def _plane(voxels: np.ndarray[Any, np.dtype[Any]], face: tuple[int, bool]) -> Any:
    axis, is_far = face
    return voxels.take(-1 if is_far else 0, axis=axis)
