"""The objects of one block as pieces: an array of labels in, numbered pieces and a table out.

A piece is what a block holds of an object: each 6-connected part of it, or all of it
together where objects are not split. The same labels give the same pieces, so that a
later stage finds them again without keeping a volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped, UInt32, UInt64

from floodem.geometry import Box
from floodem.labels import compact, components
from floodem.labels.runs import Labels, runs

_HALF = np.uint64(32)

Pieces = np.ndarray[tuple[int, int, int], np.dtype[np.uint32]]


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


def pieces_of(labels: Labels, *, splits: bool) -> UInt32[np.ndarray, "z y x"]:
    """Return the pieces of a block, 1 to n; 0 where the labels are.

    Numbers go by the first voxel in C order where objects are split, else by label.

    Parameters
    ----------
    splits
        Whether parts of an object that do not share a face of a voxel are several pieces.
    """
    found = components(labels)[0] if splits else compact(labels)[0]
    return found.astype(np.uint32, copy=False)  # a block has fewer voxels than 2**32


def table_of(pieces: Pieces, labels: Labels, *, core: Box, box: Box) -> PieceTable:
    """Return the table of a block's pieces.

    Parameters
    ----------
    pieces, labels
        Of the block.
    core
        Where it lies.
    box
        The whole of what is compared, in which first voxels are counted.
    """
    starts, lengths = runs(pieces)
    numbers = pieces.reshape(-1)[starts]
    present, first_runs = np.unique(numbers, return_index=True)
    firsts = starts[first_runs[present > 0]]
    voxels = np.zeros(len(firsts) + 1, np.int64)
    np.add.at(voxels, numbers, lengths)
    places = np.unravel_index(firsts, pieces.shape)
    within = [
        at.astype(np.int64) + low - origin
        for at, low, origin in zip(places, core.start, box.start, strict=True)
    ]
    z, y, x = within
    return PieceTable(
        objects=labels.reshape(-1)[firsts].astype(np.uint64),
        voxels=voxels[1:],
        firsts=(z * box.shape[1] + y) * box.shape[2] + x,
    )


def touching(
    near: Shaped[np.ndarray, "rows columns"],
    far: Shaped[np.ndarray, "rows columns"],
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
    pairs = np.unique(near[is_both].astype(np.uint64) << _HALF | far[is_both].astype(np.uint64))
    mine, theirs = (pairs >> _HALF).astype(np.uint32), pairs.astype(np.uint32)
    is_one = objects_near[mine - 1] == objects_far[theirs - 1]
    return mine[is_one], theirs[is_one]
