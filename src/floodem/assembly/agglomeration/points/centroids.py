"""The tie nearest to the centroid of a pair's ties: contacts in, one row for each pair out.

The centroid of n voxels p with sum S is S / n, and the tie nearest to it has the smallest sum
over the axes of (e (n p - S))^2, where e is the edge of a voxel: whole numbers, so that any
two ties that are equally near are known to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.assembly.agglomeration.points.contacts import Contacts, merge_contacts, nothing
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.geometry import Zyx
from floodem.labels.runs import runs

_FAR = 2.0**30
"""The squares of three numbers up to this can be summed in 64 bits."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pairs:
    """What is known of all ties of each pair, ordered by `ids_a`, then `ids_b`.

    Attributes
    ----------
    ids_a, ids_b
        The two segments, the smaller id first; no pair occurs twice.
    distances_nm
        The pair's smallest distance.
    counts
        How many ties there are.
    sums
        The sums of their positions z, y, x.
    """

    ids_a: UInt64[np.ndarray, " pairs"]
    ids_b: UInt64[np.ndarray, " pairs"]
    distances_nm: Float64[np.ndarray, " pairs"]
    counts: Int64[np.ndarray, " pairs"]
    sums: Int64[np.ndarray, "pairs 3"]

    def __len__(self) -> int:
        return len(self.ids_a)

    @classmethod
    def of(cls, contacts: Contacts, *, shape: Zyx) -> Pairs:
        """Return the pairs of some contacts in a box of this shape."""
        positions = contacts.positions(shape)
        starts, counts = runs(contacts.ids_a, contacts.ids_b)
        return cls(
            ids_a=contacts.ids_a[starts],
            ids_b=contacts.ids_b[starts],
            distances_nm=contacts.distances_nm[starts],
            counts=counts,
            sums=np.add.reduceat(positions, starts, axis=0) if len(starts) else positions,
        )

    def rows_of(self, contacts: Contacts) -> Int64[np.ndarray, " rows"]:
        """Return for each row of some contacts the row of its pair here, or -1."""
        low = np.searchsorted(self.ids_a, contacts.ids_a, side="left")
        high = end = np.searchsorted(self.ids_a, contacts.ids_a, side="right")
        # Among the rows with one `ids_a` the other id is sought by halves, for all at once.
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            is_before = (low < high) & (
                self.ids_b[np.minimum(middle, len(self) - 1)] < contacts.ids_b
            )
            low, high = np.where(is_before, middle + 1, low), np.where(is_before, high, middle)
        is_found = low < end
        is_found[is_found] = self.ids_b[low[is_found]] == contacts.ids_b[is_found]
        return np.where(is_found, low, -1)


def merge_pairs(found: Sequence[Pairs]) -> Pairs:
    """Return what is known of the ties of disjoint blocks together."""
    ids_a = np.concatenate([one.ids_a for one in found])
    ids_b = np.concatenate([one.ids_b for one in found])
    distances = np.concatenate([one.distances_nm for one in found])
    order = np.lexsort((distances, ids_b, ids_a))
    starts, lengths = runs(ids_a[order], ids_b[order])
    nearest = np.repeat(distances[order][starts], lengths)
    order = order[distances[order] == nearest]
    starts, _ = runs(ids_a[order], ids_b[order])
    counts = np.concatenate([one.counts for one in found])[order]
    sums = np.concatenate([one.sums for one in found])[order]
    return Pairs(
        ids_a=ids_a[order][starts],
        ids_b=ids_b[order][starts],
        distances_nm=distances[order][starts],
        counts=np.add.reduceat(counts, starts) if len(starts) else counts,
        sums=np.add.reduceat(sums, starts, axis=0) if len(starts) else sums,
    )


class PairCounter:
    """Adds up the ties of many blocks in memory proportional to the pairs that occur."""

    def __init__(self, shape: Zyx) -> None:
        self._shape = shape
        self._merged = Pairs.of(nothing(), shape=shape)
        self._waiting: list[Pairs] = []
        self._rows_waiting = 0

    def add(self, contacts: Contacts) -> None:
        """Count the ties of one more block; no voxel is in two blocks."""
        pairs = Pairs.of(contacts, shape=self._shape)
        self._waiting.append(pairs)
        self._rows_waiting += len(pairs)
        # Merging only when the rows have doubled keeps the whole sum linearithmic.
        if self._rows_waiting > len(self._merged):
            self._merge()

    def pairs(self) -> Pairs:
        """Return what is known of everything added so far."""
        self._merge()
        return self._merged

    def _merge(self) -> None:
        self._merged = merge_pairs([self._merged, *self._waiting])
        self._waiting, self._rows_waiting = [], 0


def nearest_to_centroids(
    found: Sequence[Contacts], *, pairs: Pairs, shape: Zyx, lengths: Lengths
) -> Contacts:
    """Return of each pair the tie nearest to the centroid of all its ties.

    Parameters
    ----------
    found
        Some ties, of several blocks in any order; those of pairs that have nearer ones are left
        out. There are so few that the sum of their positions fits 64 bits.
    pairs
        What is known of all ties.
    shape
        Of the box that is searched.
    """
    contacts = merge_contacts(found)
    rows = pairs.rows_of(contacts)
    is_tie = rows >= 0
    is_tie[is_tie] &= pairs.distances_nm[rows[is_tie]] == contacts.distances_nm[is_tie]
    ties, rows = contacts.select(is_tie), rows[is_tie]
    starts, sizes = runs(rows)
    if not len(starts):
        return ties
    edges, positions = np.array(lengths.edges, np.int64), ties.positions(shape)
    off = edges * (pairs.counts[rows, np.newaxis] * positions - pairs.sums[rows])
    costs = (off**2).sum(axis=1)
    least = np.repeat(np.minimum.reduceat(costs, starts), sizes)
    best = np.flatnonzero(costs == least)
    best = best[runs(rows[best])[0]]
    # Where squares may have left 64 bits, Python's own whole numbers have no end.
    roughly = edges * (
        pairs.counts[rows, np.newaxis].astype(np.float64) * positions - pairs.sums[rows]
    )
    is_far = np.maximum.reduceat(np.abs(roughly).max(axis=1), starts) > _FAR
    for number in np.flatnonzero(is_far).tolist():
        row = rows[starts[number]]
        some = slice(starts[number], starts[number] + sizes[number])
        exact = edges.astype(object) * (
            int(pairs.counts[row]) * positions[some].astype(object) - pairs.sums[row].astype(object)
        )
        best[number] = starts[number] + int(np.argmin((exact**2).sum(axis=1)))
    return ties.select(best)
