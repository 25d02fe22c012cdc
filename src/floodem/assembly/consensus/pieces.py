"""The objects of one block as pieces: an array of labels in, numbered pieces and a table out.

A piece is what a block holds of an object: each 6-connected part of it, or all of it
together where objects are not split. The same labels give the same pieces, so that a
later stage finds them again without keeping a volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from floodem.geometry import Box
from floodem.labels import connected_pieces
from floodem.labels.runs import Labels, runs

_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PieceTable:
    """The pieces of one block, or of many one after the other: numbers 1 to n in rows 0 to n - 1.

    Attributes
    ----------
    objects
        The label that a piece is of.
    voxels
        How many it has.
    firsts
        Its first voxel: number in C order in the box that is compared, from 0.
    """

    objects: UInt64[np.ndarray, "pieces"]
    voxels: Int64[np.ndarray, "pieces"]
    firsts: Int64[np.ndarray, "pieces"]

    def __len__(self) -> int:
        return len(self.objects)


class BlockPieces:
    """The pieces of one block, numbered 1 to n by their first voxels in C order.

    Voxels keep whatever numbers they have; only where one is asked for it is looked up.

    Parameters
    ----------
    labels
        Of the block; 0 is background.
    splits
        Whether parts of an object that do not share a face of a voxel are several pieces.
    """

    def __init__(self, labels: Labels, *, splits: bool) -> None:
        self.voxels = connected_pieces(labels, connectivity=6) if splits else labels
        starts, lengths = runs(self.voxels)
        found = self.voxels.reshape(-1)[starts]
        if splits:
            found = found.astype(np.int64)  # numbers of pieces, not ids
        self._values: Labels | None = None
        if not splits:
            self._values, found = np.unique(found, return_inverse=True)
        firsts = np.full(int(found.max()) + 1, -1, np.int64)
        firsts[found[::-1]] = starts[::-1]  # the first of each kind is written last
        is_piece = firsts >= 0
        is_piece[is_piece] = labels.reshape(-1)[firsts[is_piece]] != 0
        order = np.flatnonzero(is_piece)[np.argsort(firsts[is_piece])]
        self._numbers = np.zeros(len(firsts), np.uint32)
        self._numbers[order] = np.arange(1, len(order) + 1, dtype=np.uint32)
        # Sums of whole numbers below 2**53 are exact.
        self._sizes = np.bincount(found, weights=lengths).astype(np.int64)[order]
        self._firsts = firsts[order]
        self._objects = labels.reshape(-1)[self._firsts].astype(np.uint64)

    def numbered(self, voxels: Labels) -> UInt32[np.ndarray, "..."]:
        """Return the pieces of some of `voxels`; 0 is background."""
        if self._values is None:
            return self._numbers[voxels]
        return self._numbers[np.searchsorted(self._values, voxels)]

    def table(self, *, core: Box, box: Box) -> PieceTable:
        """Return the table of the pieces.

        Parameters
        ----------
        core
            Where the block lies.
        box
            The whole of what is compared, in which first voxels are counted.
        """
        places = np.unravel_index(self._firsts, self.voxels.shape)
        z, y, x = (
            at.astype(np.int64) + low - origin
            for at, low, origin in zip(places, core.start, box.start, strict=True)
        )
        firsts = (z * box.shape[1] + y) * box.shape[2] + x
        return PieceTable(objects=self._objects, voxels=self._sizes, firsts=firsts)


def overlapping(
    a: BlockPieces, b: BlockPieces
) -> tuple[UInt64[np.ndarray, "runs"], Int64[np.ndarray, "runs"]]:
    """Return the runs, in C order, over which the pieces of A and of B do not change.

    Returns
    -------
    pairs
        A's piece times 2**32 plus B's, of each run.
    lengths
        Its voxels.
    """
    starts, lengths = runs(a.voxels, b.voxels)
    return pairs_of(*(one.numbered(one.voxels.reshape(-1)[starts]) for one in (a, b))), lengths


def pairs_of(
    a: UInt32[np.ndarray, "pairs"], b: UInt32[np.ndarray, "pairs"]
) -> UInt64[np.ndarray, "pairs"]:
    """Return one number for each pair of pieces, in the order of the pairs."""
    return a.astype(np.uint64) << _HALF | b.astype(np.uint64)


def both_of(
    pairs: UInt64[np.ndarray, "pairs"],
) -> tuple[UInt32[np.ndarray, "pairs"], UInt32[np.ndarray, "pairs"]]:
    """Return the pieces of each pair."""
    return (pairs >> _HALF).astype(np.uint32), pairs.astype(np.uint32)


def touching(
    near: UInt32[np.ndarray, "rows columns"],
    far: UInt32[np.ndarray, "rows columns"],
    *,
    objects_near: UInt64[np.ndarray, "n"],
    objects_far: UInt64[np.ndarray, "m"],
) -> tuple[UInt32[np.ndarray, "pairs"], UInt32[np.ndarray, "pairs"]]:
    """Return which pieces of two blocks are of one object and share a voxel's face, each pair once.

    Parameters
    ----------
    near, far
        Pieces of the two layers of voxels that meet where the blocks do.
    objects_near, objects_far
        The objects of the pieces 1 to n of each block.
    """
    is_both = (near > 0) & (far > 0)
    mine, theirs = both_of(np.unique(pairs_of(near[is_both], far[is_both])))
    is_one = objects_near[mine - 1] == objects_far[theirs - 1]
    return mine[is_one], theirs[is_one]
