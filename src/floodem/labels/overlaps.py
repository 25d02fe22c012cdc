"""Which labels of two arrays lie on each other, and over how many voxels.

Two label arrays (or many blocks of them) come in, one sparse table of pairs goes
out. Scores and the joining of blocks are computed from such tables alone, so that
they need memory for the pairs that occur, never for the largest id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from floodem.errors import GeometryError
from floodem.labels.runs import Counts, Ids, Labels, require_labels, runs


@dataclass(frozen=True, slots=True, eq=False)
class OverlapTable:
    """The pairs of labels that occur, each once, ordered by `ids_a`, then `ids_b`.

    Attributes
    ----------
    ids_a, ids_b
        Ids of the pair, uint64; 0 is an id like any other here.
    counts
        Number of voxels that carry both, int64, above 0.
    """

    ids_a: Ids
    ids_b: Ids
    counts: Counts

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> OverlapTable:
        """Return the table of the rows marked True."""
        return OverlapTable(self.ids_a[rows], self.ids_b[rows], self.counts[rows])


def contingency(a: Labels, b: Labels) -> OverlapTable:
    """Count the voxels of every pair of labels (label in `a`, label in `b`).

    Parameters
    ----------
    a, b
        Label arrays of one shape, any unsigned integer type (or signed without
        negative values), ids up to 2**64 - 1.

    Raises
    ------
    GeometryError
        When the shapes differ.
    LabelError
        When a value is negative or not an integer.
    """
    if a.shape != b.shape:
        raise GeometryError(f"label arrays have different shapes {a.shape} and {b.shape}")
    require_labels(a, what="the first array")
    require_labels(b, what="the second array")
    starts, lengths = runs(a, b)
    ids_a = a.reshape(-1)[starts].astype(np.uint64)
    ids_b = b.reshape(-1)[starts].astype(np.uint64)
    return _sum_equal_pairs(ids_a, ids_b, lengths)


def merge_tables(tables: Sequence[OverlapTable]) -> OverlapTable:
    """Add up the tables of disjoint blocks; the order of the blocks does not matter."""
    if not tables:
        return contingency(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    return _sum_equal_pairs(
        np.concatenate([table.ids_a for table in tables]),
        np.concatenate([table.ids_b for table in tables]),
        np.concatenate([table.counts for table in tables]),
    )


class OverlapCounter:
    """Adds up the tables of many blocks in memory proportional to the pairs that occur."""

    def __init__(self) -> None:
        self._merged = merge_tables([])
        self._waiting: list[OverlapTable] = []
        self._rows_waiting = 0

    def add(self, table: OverlapTable) -> None:
        """Count the pairs of one more block."""
        self._waiting.append(table)
        self._rows_waiting += len(table)
        # Merging only when the rows have doubled keeps the whole sum linearithmic.
        if self._rows_waiting > len(self._merged):
            self._merge()

    def table(self) -> OverlapTable:
        """Return the sum of everything added so far."""
        self._merge()
        return self._merged

    def _merge(self) -> None:
        self._merged = merge_tables([self._merged, *self._waiting])
        self._waiting, self._rows_waiting = [], 0


def _sum_equal_pairs(ids_a: Ids, ids_b: Ids, counts: Counts) -> OverlapTable:
    order = np.lexsort((ids_b, ids_a))
    ids_a, ids_b, counts = ids_a[order], ids_b[order], counts[order]
    firsts, _ = runs(ids_a, ids_b)
    summed = np.add.reduceat(counts, firsts) if len(firsts) else counts
    return OverlapTable(ids_a[firsts], ids_b[firsts], summed.astype(np.int64))
