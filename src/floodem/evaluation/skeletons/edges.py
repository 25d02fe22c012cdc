"""Expected run length: nodes with their segments in, numbers out; nothing here sees a voxel.

An edge is *omitted* when an end lies in no segment, *split* when its ends lie in two segments,
*merged* when its one segment joins skeletons, and else *correct*. A segment joins skeletons
when it holds at least `merge_nodes` nodes of two or more of them. A *run* is the length of all
correct edges that a skeleton has in a segment; the expected run length is the sum of all squared
runs over the length of all edges: from a random point, how long its run is.

Runs are summed for each segment within a skeleton, also where they do not hang together, as in
published figures (funlib.evaluate, em_erl): whoever has the segment has all of it. Ids of
segments do not matter: they are numbered by the first node that lies in each.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Skeleton metrics".
funkelab/funlib.evaluate, run_length.py (which calls every edge of a skeleton merged when one
of its nodes lies in a merging segment; here, as in PytorchConnectomics/em_erl, only the edges
in that segment are).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from floodem.evaluation.skeletons.nodes import SkeletonNodes

NOWHERE = -1
"""The number of no segment."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """What each skeleton has of each segment, in one row each, by skeleton, then segment.

    Attributes
    ----------
    skeletons, segments
        Their rows and numbers.
    nodes
        Nodes of the skeleton in the segment.
    lengths_nm
        Length of the skeleton's edges with both ends in it.
    """

    skeletons: Int64[np.ndarray, "runs"]
    segments: Int64[np.ndarray, "runs"]
    nodes: Int64[np.ndarray, "runs"]
    lengths_nm: Float64[np.ndarray, "runs"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedEdges:
    """What became of every edge, and the runs.

    Attributes
    ----------
    nodes
        What was judged.
    segment_ids
        Ids of the segments, numbered by the first node in each.
    segment_of
        For each node the number of its segment, or `NOWHERE`.
    is_omitted, is_split, is_merged, is_correct
        For each edge; exactly one holds.
    joins
        For each segment whether it joins skeletons.
    runs
        Runs in segments that join skeletons among them.
    """

    nodes: SkeletonNodes
    segment_ids: tuple[int, ...]
    segment_of: Int64[np.ndarray, "nodes"]
    is_omitted: Bool[np.ndarray, "edges"]
    is_split: Bool[np.ndarray, "edges"]
    is_merged: Bool[np.ndarray, "edges"]
    is_correct: Bool[np.ndarray, "edges"]
    joins: Bool[np.ndarray, "segments"]
    runs: Runs

    @property
    def length_nm(self) -> float:
        """Length of all edges."""
        return float(self.nodes.lengths_nm.sum())

    @property
    def ends(self) -> Int64[np.ndarray, "edges 2"]:
        """For each edge the numbers of its ends' segments."""
        ends: Int64[np.ndarray, "edges 2"] = self.segment_of[self.nodes.edges]
        return ends

    def share(self, edges: Bool[np.ndarray, "edges"]) -> float:
        """Return which fraction of the length some edges are."""
        return float(self.nodes.lengths_nm[edges].sum()) / self.length_nm

    def skeleton_lengths(self) -> Float64[np.ndarray, "skeletons"]:
        """Return the length of each skeleton, in nanometres."""
        return np.bincount(
            self.nodes.edge_skeletons,
            weights=self.nodes.lengths_nm,
            minlength=len(self.nodes.ids),
        )

    def squared_runs(self) -> Float64[np.ndarray, "skeletons"]:
        """Return the sum of each skeleton's squared runs; those that are merged count nothing."""
        squares = np.where(self.joins[self.runs.segments], 0.0, self.runs.lengths_nm**2)
        return np.bincount(
            self.runs.skeletons, weights=squares, minlength=len(self.nodes.ids)
        ).astype(np.float64)

    def erl_nm(self) -> float:
        """Return the expected run length, in nanometres."""
        return float(self.squared_runs().sum()) / self.length_nm

    def possible_erl_nm(self) -> float:
        """Return the expected run length of a segmentation without mistakes."""
        return float((self.skeleton_lengths() ** 2).sum()) / self.length_nm


def judge_edges(nodes: SkeletonNodes, segments: Any, *, merge_nodes: int) -> JudgedEdges:
    """Say of each edge whether it is correct, and if not, why.

    Parameters
    ----------
    segments
        Id of each node's segment, unsigned integers; 0: in none.
    merge_nodes
        How many nodes each of two skeletons must have in a segment that joins them.
    """
    segment_of, ids = _numbered(segments)
    ends = segment_of[nodes.edges]
    is_omitted = (ends == NOWHERE).any(axis=1)
    is_split = ~is_omitted & (ends[:, 0] != ends[:, 1])
    is_inside = ~is_omitted & ~is_split
    runs = _runs(nodes, segment_of, inside=is_inside, segments=len(ids))
    holders = np.bincount(runs.segments[runs.nodes >= merge_nodes], minlength=len(ids))
    joins = holders > 1
    is_merged = is_inside.copy()
    is_merged[is_inside] = joins[ends[is_inside, 0]]
    return JudgedEdges(
        nodes=nodes,
        segment_ids=ids,
        segment_of=segment_of,
        is_omitted=is_omitted,
        is_split=is_split,
        is_merged=is_merged,
        is_correct=is_inside & ~is_merged,
        joins=joins,
        runs=runs,
    )


def _numbered(segments: Any) -> tuple[Any, tuple[int, ...]]:
    """Return the number of each node's segment, and ids by number: by the first node in each."""
    ids, first, numbers = np.unique(segments, return_index=True, return_inverse=True)
    numbers = numbers.reshape(-1)
    is_segment = ids != 0
    order = np.argsort(first[is_segment], kind="stable")
    number_of = np.full(len(ids), NOWHERE, np.int64)
    number_of[np.flatnonzero(is_segment)[order]] = np.arange(len(order))
    return number_of[numbers], tuple(ids[is_segment][order].tolist())


def _runs(nodes: SkeletonNodes, segment_of: Any, *, inside: Any, segments: int) -> Runs:
    """Gather what each skeleton has of each segment."""
    is_in = segment_of != NOWHERE
    keys, counts = np.unique(
        nodes.skeleton_of[is_in] * segments + segment_of[is_in], return_counts=True
    )
    edge_keys = nodes.edge_skeletons[inside] * segments + segment_of[nodes.edges[inside, 0]]
    lengths = np.bincount(
        np.searchsorted(keys, edge_keys), weights=nodes.lengths_nm[inside], minlength=len(keys)
    )
    count = max(segments, 1)
    return Runs(
        skeletons=keys // count,
        segments=keys % count,
        nodes=counts.astype(np.int64),
        lengths_nm=lengths.astype(np.float64),
    )
