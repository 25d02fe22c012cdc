"""Which thresholds are best: edges and overlaps with truth in, a rule out.

Every rule of a grid is tried. What it makes of the segmentation is computed from the table
of overlaps: segments that hang together are added up, and the variation of information of
the sums is taken. It is a sum over the objects of the truth, and so is kept for each fold
of them apart: one pass over the grid serves the fit and its cross-validation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from floodem.assembly.agglomeration.graph.records import EdgeTable
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.errors import StoppedError
from floodem.evaluation.scores import conditional_entropy_bits, group_sizes
from floodem.labels import OverlapTable
from floodem.progress import Progress, ProgressListener

_TWENTIETHS = tuple(step / 20 for step in range(20))
GRID_IOU = (*_TWENTIETHS, 1.0)
"""The last accepts nothing, so that the base itself is among what is compared."""

GRID_COVERAGE = _TWENTIETHS
GRID_DELETED = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_DISTANCE_SHARES = (0.5, 0.75, 0.9)
"""Distances that are tried are those below which so large a share of the edges lies."""

_SAME_BITS = 1e-9
"""Sums that differ by less are ties: additions in another order differ by 1e-13."""

_TOLD_EVERY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """All rules of the grid, and what they make of the segmentation.

    Attributes
    ----------
    rules
        From lenient to careful in no particular order.
    split_bits, merge_bits
        Variation of information of each rule, by fold.
    base_split_bits, base_merge_bits
        Of the base segmentation, by fold.
    shares
        Share of all voxels that each fold's objects have.
    """

    rules: tuple[MergeRule, ...]
    split_bits: Float64[np.ndarray, "rules folds"]
    merge_bits: Float64[np.ndarray, "rules folds"]
    base_split_bits: Float64[np.ndarray, "folds"]
    base_merge_bits: Float64[np.ndarray, "folds"]
    shares: Float64[np.ndarray, "folds"]

    def best(self, *, max_merge_bits: float, without: int | None = None) -> int:
        """Return the number of the best rule.

        It has the lowest sum of VOI split and merge of those whose VOI merge is not much above
        the base's; among equals that with the strictest thresholds is taken (iou before
        coverage before deleted), and a limit of the distance only where it helps.

        Parameters
        ----------
        max_merge_bits
            How much of VOI merge may be added to that of the base.
        without
            A fold whose objects do not count.
        """
        counts = np.ones(len(self.shares), np.bool_)
        if without is not None:
            counts[without] = False
        split = self.split_bits[:, counts].sum(axis=1)
        merge = self.merge_bits[:, counts].sum(axis=1)
        allowed = self.base_merge_bits[counts].sum() + max_merge_bits * self.shares[counts].sum()
        is_allowed = merge <= allowed + _SAME_BITS
        sums = np.where(is_allowed, split + merge, np.inf)
        ties = np.flatnonzero(sums <= sums.min() + _SAME_BITS)
        return int(min(ties, key=lambda row: _leniency(self.rules[row])))


def _leniency(rule: MergeRule) -> tuple[float, ...]:
    distance = -1.0 if rule.distance_nm is None else rule.distance_nm
    return (-rule.iou, -rule.coverage, rule.deleted, distance)


def grid(edges: EdgeTable, *, also: tuple[MergeRule, ...] = ()) -> list[MergeRule]:
    """Return the rules that are tried.

    Parameters
    ----------
    also
        Rules that are tried besides those of the grid.
    """
    distances: list[float | None] = [None]
    if len(edges):
        found = np.quantile(edges.columns["distance_nm"], _DISTANCE_SHARES)
        distances += sorted({float(math.ceil(one)) for one in found})
    rules = [
        MergeRule(iou=iou, coverage=coverage, deleted=deleted, distance_nm=distance)
        for iou, coverage, deleted, distance in itertools.product(
            GRID_IOU, GRID_COVERAGE, GRID_DELETED, distances
        )
    ]
    return [*rules, *(rule for rule in also if rule not in rules)]


def try_rules(
    edges: EdgeTable,
    table: OverlapTable,
    *,
    rules: list[MergeRule],
    folds: int,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tried:
    """Compute what each rule makes of the segmentation.

    Parameters
    ----------
    table
        Segments as `ids_a`, truth objects as `ids_b`; only voxels that count.
    folds
        Into how many groups the objects of the truth are dealt.

    Raises
    ------
    StoppedError
        When it was told to stop.
    """
    merged = _Merged(edges, table, folds=folds)
    known: dict[bytes, Float64[np.ndarray, "folds 2"]] = {}
    bits = np.zeros((len(rules), merged.folds, 2))
    for number, rule in enumerate(rules):
        if number % _TOLD_EVERY == 0:
            if should_stop():
                raise StoppedError("stopped before all thresholds were tried: run it again")
            if progress is not None:
                progress(Progress(stage="try", done=number, total=len(rules), unit="rules"))
        is_merge = rule.accepts(edges.columns)
        key = np.packbits(is_merge).tobytes()
        if key not in known:
            known[key] = merged.bits(is_merge)
        bits[number] = known[key]
    base = merged.bits(np.zeros(len(edges), np.bool_))
    return Tried(
        rules=tuple(rules),
        split_bits=bits[:, :, 0],
        merge_bits=bits[:, :, 1],
        base_split_bits=base[:, 0],
        base_merge_bits=base[:, 1],
        shares=merged.shares,
    )


class _Merged:
    """Variation of information of any choice of merges, from overlaps alone."""

    def __init__(self, edges: EdgeTable, table: OverlapTable, *, folds: int) -> None:
        object_sizes, objects, row_objects = group_sizes(table.ids_b, table.counts)
        self.folds = max(1, min(folds, len(objects)))
        fold_of = np.empty(len(objects), np.int64)
        # Large objects are dealt first, so that all folds have some.
        fold_of[np.lexsort((objects, -object_sizes))] = np.arange(len(objects)) % self.folds
        self._total = float(table.counts.sum())
        self.shares = np.bincount(fold_of, object_sizes, minlength=self.folds) / self._total
        self._nodes = np.unique(np.concatenate([edges.ids_a, edges.ids_b]))
        self._a = np.searchsorted(self._nodes, edges.ids_a)
        self._b = np.searchsorted(self._nodes, edges.ids_b)
        self._object_sizes, self._fold_of = object_sizes, fold_of
        is_inside = np.isin(table.ids_a, self._nodes)
        sizes, _, group = group_sizes(table.ids_a[~is_inside], table.counts[~is_inside])
        self._rest = self._summed(
            row_objects[~is_inside], table.counts[~is_inside].astype(np.float64), sizes[group]
        )
        self._row_nodes = np.searchsorted(self._nodes, table.ids_a[is_inside])
        self._row_objects = row_objects[is_inside].astype(np.int64)
        self._counts = table.counts[is_inside].astype(np.float64)

    def bits(self, is_merge: Bool[np.ndarray, "edges"]) -> Float64[np.ndarray, "folds 2"]:
        """Return VOI split and merge where these edges are merges, by fold."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(self._row_nodes):
            return self._rest
        a, b, count = self._a[is_merge], self._b[is_merge], len(self._nodes)
        graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
        _, component = connected_components(graph, directed=False)
        keys = component[self._row_nodes].astype(np.int64) * len(self._object_sizes)
        cells, row_cells = np.unique(keys + self._row_objects, return_inverse=True)
        counts = np.bincount(row_cells, self._counts)
        wholes, cell_objects = np.divmod(cells, len(self._object_sizes))
        sizes = np.bincount(wholes, counts)
        inside = self._summed(cell_objects, counts, sizes[wholes])
        both: Float64[np.ndarray, "folds 2"] = self._rest + inside
        return both

    def _summed(
        self,
        objects: UInt64[np.ndarray, "cells"] | Int64[np.ndarray, "cells"],
        counts: Float64[np.ndarray, "cells"],
        sizes: Float64[np.ndarray, "cells"],
    ) -> Float64[np.ndarray, "folds 2"]:
        """Add up what pairs of a segment and an object cost, by the object's fold."""
        if not len(counts):
            return np.zeros((self.folds, 2))
        # Shares of these voxels become shares of all.
        scale = counts.sum() / self._total
        folds = self._fold_of[objects]
        sums = [
            np.bincount(folds, scale * conditional_entropy_bits(counts, whole), self.folds)
            for whole in (self._object_sizes[objects], sizes)
        ]
        return np.stack(sums, axis=1)


def held_out(tried: Tried, *, max_merge_bits: float) -> Iterator[tuple[MergeRule, float, float]]:
    """Yield for each fold the rule that fits the others best, and its VOI split and merge here.

    With one fold there are no others, and nothing is yielded.
    """
    folds = len(tried.shares)
    for fold in range(folds if folds > 1 else 0):
        row = tried.best(max_merge_bits=max_merge_bits, without=fold)
        yield (
            tried.rules[row],
            float(tried.split_bits[row, fold]),
            float(tried.merge_bits[row, fold]),
        )
