"""Who is who in a consensus: tables of all blocks in, ids of components and of pairs out.

Plain functions on columns; none depends on the order of its rows, and so not on how
a volume was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt64

from floodem.assembly.consensus.pieces import PieceTable
from floodem.errors import LabelError
from floodem.labels import OverlapTable

_LARGEST_ID = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What became of one segmentation before it was compared.

    Attributes
    ----------
    objects
        Different labels that came in.
    segments
        Components (or objects, where they are not split) that are left.
    largest_id
        Their largest id, 0 where there is none.
    """

    objects: int
    segments: int
    largest_id: int


def component_ids(
    table: PieceTable,
    components: Integer[np.ndarray, "pieces"],
    *,
    min_size: int,
) -> tuple[UInt64[np.ndarray, "pieces"], Cleaned]:
    """Give every component an id, and return it for each piece.

    The largest component of an object keeps the object's id; of equally large ones the one
    whose first voxel in C order comes first. The others are numbered on from the largest
    id that came in, in the order of (object's id, first voxel in C order). Then components
    that are too small become 0; their ids are not given again.

    Parameters
    ----------
    table
        The pieces of all blocks.
    components
        For each piece a number that it shares with the others of its component.
    min_size
        Components with fewer voxels become 0.

    Raises
    ------
    LabelError
        When new ids would reach 2**64.
    """
    if not len(table):
        return np.zeros(0, np.uint64), Cleaned(objects=0, segments=0, largest_id=0)
    _, rows, inverse = np.unique(components, return_index=True, return_inverse=True)
    objects = table.objects[rows]
    voxels = np.zeros(len(rows), np.int64)
    np.add.at(voxels, inverse, table.voxels)
    firsts = np.full(len(rows), np.iinfo(np.int64).max)
    np.minimum.at(firsts, inverse, table.firsts)
    order = np.lexsort((firsts, -voxels, objects))
    keeps = np.zeros(len(rows), np.bool_)
    keeps[order[_is_first(objects[order])]] = True
    ids = objects.copy()
    others = np.flatnonzero(~keeps)
    others = others[np.lexsort((firsts[others], objects[others]))]
    ids[others] = _after(int(objects.max()), len(others), what="components")
    ids[voxels < min_size] = 0
    cleaned = Cleaned(
        objects=int(np.count_nonzero(keeps)),
        segments=int(np.count_nonzero(ids)),
        largest_id=int(ids.max()),
    )
    return ids[inverse], cleaned


def pair_ids(
    table: OverlapTable, *, largest_a: int, split_min_size: int
) -> UInt64[np.ndarray, "pairs"]:
    """Give every pair (id in A, id in B) the id of its segment.

    A's id stays with its largest partner; of equally large ones with that of the smaller
    id in B, of which 0 is one. The others are numbered on from A's largest id, in the order
    of (id in B, id in A). Pairs that are too small become 0 and take no number.

    Parameters
    ----------
    table
        All pairs whose id in A is not 0, each once.
    largest_a
        The largest id in A.
    split_min_size
        Pairs with fewer voxels become 0.

    Raises
    ------
    LabelError
        When new ids would reach 2**64.
    """
    order = np.lexsort((table.ids_b, -table.counts, table.ids_a))
    keeps = np.zeros(len(table), np.bool_)
    keeps[order[_is_first(table.ids_a[order])]] = True
    is_enough = table.counts >= split_min_size
    ids = np.where(keeps & is_enough, table.ids_a, np.uint64(0))
    others = np.flatnonzero(is_enough & ~keeps)
    others = others[np.lexsort((table.ids_a[others], table.ids_b[others]))]
    ids[others] = _after(largest_a, len(others), what="pairs")
    return ids


def _is_first(values: Integer[np.ndarray, "rows"]) -> Bool[np.ndarray, "rows"]:
    """Tell for sorted values which are the first of their kind."""
    is_first = np.ones(len(values), np.bool_)
    is_first[1:] = values[1:] != values[:-1]
    return is_first


def _after(largest: int, count: int, *, what: str) -> UInt64[np.ndarray, "ids"]:
    if largest + count > _LARGEST_ID:
        raise LabelError(
            f"ids up to {largest} leave no room below 2**64 for {count} new ones of {what}: give "
            "the segmentation smaller ids, for example by floodem convert --relabel"
        )
    return np.arange(count, dtype=np.uint64) + np.uint64(largest + 1) if count else _NO_IDS


_NO_IDS = np.zeros(0, np.uint64)


class PairRows:
    """Finds pairs in a table that is ordered by both ids.

    Parameters
    ----------
    table
        Every pair once.
    """

    def __init__(self, table: OverlapTable) -> None:
        self._known_a, self._known_b = np.unique(table.ids_a), np.unique(table.ids_b)
        self._keys = self._numbered(table.ids_a, table.ids_b)

    def of(
        self, ids_a: UInt64[np.ndarray, "n"], ids_b: UInt64[np.ndarray, "n"]
    ) -> Int64[np.ndarray, "n"]:
        """Return in which row of the table each of some pairs, all of them there, stands."""
        return np.searchsorted(self._keys, self._numbered(ids_a, ids_b))

    def _numbered(
        self, ids_a: UInt64[np.ndarray, "n"], ids_b: UInt64[np.ndarray, "n"]
    ) -> UInt64[np.ndarray, "n"]:
        """Return one number for each pair, in the order of the pairs."""
        at_a, at_b = np.searchsorted(self._known_a, ids_a), np.searchsorted(self._known_b, ids_b)
        return at_a.astype(np.uint64) * np.uint64(len(self._known_b)) + at_b.astype(np.uint64)
