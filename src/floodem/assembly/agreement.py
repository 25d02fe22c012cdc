"""Which segments of two blocks are one: both labels of one zone in, a verdict per pair out.

Where two blocks look at the same voxels (the zone), each block's labels are cut into
connected pieces, and each piece of one block is held against the pieces of the other
that it lies on. Joining (floodem.assembly.joining) only adds up what is decided here::

    block A    block B
    aa..bb     cc..cc     a-c joined, b-c joined: c comes here twice, in two pieces,
    aa..bb     cc..cc     whose way from one to the other A does not see

    aabbbb     cccccc     a-c refused (little of c is shared), b-c joined: at most one
    aabbbb     cccccc     piece of A can be most of c, and c most of it
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt32

from floodem.errors import GeometryError, OptionError
from floodem.geometry import Zyx
from floodem.labels.components import connected_pieces

DEFAULT_AGREEMENT = 0.6
DEFAULT_MIN_SHARED = 10

Zone = UInt32[np.ndarray, "z y x"]
_Column = np.ndarray[tuple[int], np.dtype[np.int64]]


class Verdict(IntEnum):
    """What became of a pair of pieces that share voxels."""

    JOINED = 0
    TOO_SMALL = 1
    """They share too few voxels to tell."""
    LITTLE_OF_A = 2
    """Most of B's piece is shared, but A's goes beyond it."""
    LITTLE_OF_B = 3
    """Most of A's piece is shared, but B's goes beyond it."""
    LITTLE_OF_BOTH = 4

    @property
    def words(self) -> str:
        """How tables name it."""
        return _WORDS[self]


_WORDS = {
    Verdict.JOINED: "joined",
    Verdict.TOO_SMALL: "too small",
    Verdict.LITTLE_OF_A: "little of A",
    Verdict.LITTLE_OF_B: "little of B",
    Verdict.LITTLE_OF_BOTH: "little of both",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRule:
    """When two blocks' segments are one.

    Attributes
    ----------
    agreement
        Least part of each of two pieces that both must share; more than half, so that
        a piece agrees with one piece of the other block at most.
    min_shared
        Least number of voxels shared.
    trim
        By how many voxels (z, y, x) the zone keeps away from faces of halos, where a
        network sees less; faces of the whole box count as seen.

    Raises
    ------
    OptionError
        When a value is outside its range.
    """

    agreement: float = DEFAULT_AGREEMENT
    min_shared: int = DEFAULT_MIN_SHARED
    trim: Zyx = (0, 0, 0)

    def __post_init__(self) -> None:
        if not 0.5 < self.agreement <= 1:
            raise OptionError(
                f"agreement {self.agreement} is not above 0.5 and up to 1: with half or less a "
                f"segment could agree with two others, and merge them; {DEFAULT_AGREEMENT} is usual"
            )
        if self.min_shared < 1:
            raise OptionError(
                f"min_shared {self.min_shared} would join segments that share nothing: give 1 or "
                "more voxels"
            )
        if min(self.trim) < 0:
            raise OptionError(
                f"trim {self.trim} (z,y,x) is negative: give 0 or more voxels, at best half the "
                "field of view"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PiecePairs:
    """Pairs of pieces that share voxels, ordered by their places.

    Attributes
    ----------
    a, b
        Labels that the pieces are of, in the one block and the other.
    shared
        Voxels in both.
    voxels_a, voxels_b
        Of each piece, in the zone.
    place
        A voxel in both (z, y, x), the nearest to their middle.
    verdict
        Values of `Verdict`.
    """

    a: UInt32[np.ndarray, "pairs"]
    b: UInt32[np.ndarray, "pairs"]
    shared: Int64[np.ndarray, "pairs"]
    voxels_a: Int64[np.ndarray, "pairs"]
    voxels_b: Int64[np.ndarray, "pairs"]
    place: Int64[np.ndarray, "pairs 3"]
    verdict: UInt8[np.ndarray, "pairs"]

    def __len__(self) -> int:
        return len(self.shared)

    def select(self, rows: Bool[np.ndarray, "pairs"]) -> PiecePairs:
        """Return the rows marked True."""
        return PiecePairs(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def compare_zone(labels_a: Zone, labels_b: Zone, *, rule: JoinRule, start: Zyx) -> PiecePairs:
    """Hold what two blocks found in one zone against each other.

    Pieces are what hangs together (by faces, edges or corners) of one label within the
    zone. Two pieces agree when they share at least `rule.min_shared` voxels, and at
    least the part `rule.agreement` of each. Background takes no part. Swapping the
    blocks swaps the columns, and other numbers for the same labels change nothing else.

    Parameters
    ----------
    labels_a, labels_b
        Labels (z, y, x) of the zone in the one block and the other, 0 for background.
    rule
        When pieces agree.
    start
        Where the zone begins, for `PiecePairs.place`.

    Raises
    ------
    GeometryError
        When the shapes differ.
    """
    if labels_a.shape != labels_b.shape:
        raise GeometryError(
            f"labels of one zone have different shapes {labels_a.shape} and {labels_b.shape}"
        )
    starts, lengths = _runs_within_rows(labels_a, labels_b)
    run_a, voxels_a = _pieces_of_runs(labels_a, starts, lengths=lengths)
    run_b, voxels_b = _pieces_of_runs(labels_b, starts, lengths=lengths)
    in_both = (run_a != 0) & (run_b != 0)
    starts, lengths, run_a, run_b = (c[in_both] for c in (starts, lengths, run_a, run_b))
    _, firsts, pair = np.unique(
        run_a * len(voxels_b) + run_b, return_index=True, return_inverse=True
    )
    shared = _sums(pair, lengths)
    middle_run, place = _middles(pair, starts, lengths=lengths, shape=labels_a.shape)
    order = np.argsort(middle_run)
    shared, voxels_a, voxels_b = (
        column[order] for column in (shared, voxels_a[run_a[firsts]], voxels_b[run_b[firsts]])
    )
    return PiecePairs(
        a=labels_a.reshape(-1)[starts[firsts[order]]],
        b=labels_b.reshape(-1)[starts[firsts[order]]],
        shared=shared,
        voxels_a=voxels_a,
        voxels_b=voxels_b,
        place=place[order] + np.asarray(start, np.int64),
        verdict=_verdicts(shared, voxels_a, voxels_b=voxels_b, rule=rule),
    )


def _runs_within_rows(a: Zone, b: Zone) -> tuple[_Column, _Column]:
    """Return where runs begin, along x, over which both labels stay the same, and their lengths."""
    is_start = np.ones(a.shape, np.bool_)
    np.not_equal(a[..., 1:], a[..., :-1], out=is_start[..., 1:])
    is_start[..., 1:] |= b[..., 1:] != b[..., :-1]
    starts = np.flatnonzero(is_start)
    return starts, np.diff(starts, append=a.size)


def _pieces_of_runs(labels: Zone, starts: _Column, *, lengths: _Column) -> tuple[_Column, _Column]:
    """Return the piece that each run is of (0: background), and the voxels of each piece."""
    pieces = connected_pieces(labels, connectivity=26).reshape(-1)[starts].astype(np.int64)
    return pieces, _sums(pieces, lengths)


def _middles(
    pair: _Column, starts: _Column, *, lengths: _Column, shape: Zyx
) -> tuple[_Column, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return, for each pair, its voxel nearest to the mean of its voxels, and the run that is in.

    The mean is rounded, so that only whole numbers are compared; ties go to the first
    in C order.
    """
    z, y, x = np.unravel_index(starts, shape)
    last_x = x + lengths - 1
    shared = _sums(pair, lengths)
    # Twice the mean of each run is whole along x as well.
    twice = [2 * z, 2 * y, x + last_x]
    mean = [(_sums(pair, lengths * one) + shared) // (2 * shared) for one in twice]
    near_x = np.clip(mean[2][pair], x, last_x)
    away = (z - mean[0][pair]) ** 2 + (y - mean[1][pair]) ** 2 + (near_x - mean[2][pair]) ** 2
    order = np.lexsort((away, pair))
    nearest = order[np.searchsorted(pair[order], np.arange(len(shared)))]
    return nearest, np.stack([z[nearest], y[nearest], near_x[nearest]], axis=1)


def _verdicts(
    shared: _Column, voxels_a: _Column, *, voxels_b: _Column, rule: JoinRule
) -> UInt8[np.ndarray, "pairs"]:
    # Divided, because 0.55 * 100 is more than 55 in floating point, and 55 / 100 is 0.55.
    is_enough_a = shared / voxels_a >= rule.agreement
    is_enough_b = shared / voxels_b >= rule.agreement
    verdict = np.full(len(shared), Verdict.LITTLE_OF_BOTH, np.uint8)
    verdict[is_enough_b] = Verdict.LITTLE_OF_A
    verdict[is_enough_a] = Verdict.LITTLE_OF_B
    verdict[is_enough_a & is_enough_b] = Verdict.JOINED
    verdict[shared < rule.min_shared] = Verdict.TOO_SMALL
    return verdict


def _sums(groups: _Column, values: _Column) -> _Column:
    """Add up values by group; exact, as sums stay far below 2**53."""
    sums: _Column = np.bincount(groups, weights=values).astype(np.int64)
    return sums
