"""Where a segmentation loses most along skeletons: judged edges in, the worst mistakes out.

A split is two segments that face each other along a skeleton, over an edge or over a gap:
a stretch of nodes in no segment between them. Flood-filling networks leave such gaps, so that
edges alone would hardly show where they stop. Each mistake is weighed by the expected run
length that mending it alone would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from floodem.evaluation.skeletons.edges import NOWHERE, JudgedEdges
from floodem.evaluation.skeletons.nodes import SkeletonNodes
from floodem.evaluation.skeletons.scores import SkeletonMistake
from floodem.geometry import Zyx


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Facing:
    """Pairs of segments that face each other along a skeleton, one row for each place."""

    skeletons: Int64[np.ndarray, "places"]
    pairs: Int64[np.ndarray, "places 2"]
    nodes: Int64[np.ndarray, "places 2"]
    between_nm: Float64[np.ndarray, "places"]


def find_gaps(judged: JudgedEdges) -> tuple[_Facing, int]:
    """Find the stretches of nodes in no segment that lie between segments.

    Returns
    -------
    facing, count
        Each gap's segments, paired with the one of the longest run, and how many gaps there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes, ends = judged.nodes, judged.ends
    is_out = ends == NOWHERE
    is_within = is_out.all(axis=1)
    within = nodes.edges[is_within]
    graph = coo_array(
        (np.ones(len(within), np.int8), (within[:, 0], within[:, 1])),
        shape=(len(nodes), len(nodes)),
    )
    _, stretch_of = connected_components(graph, directed=False)
    within_nm = np.bincount(
        stretch_of[within[:, 0]], weights=nodes.lengths_nm[is_within], minlength=len(nodes)
    )
    leaving = np.flatnonzero(is_out.sum(axis=1) == 1)
    outer = np.where(is_out[leaving, 0], *nodes.edges[leaving].T)
    inner = np.where(is_out[leaving, 0], *nodes.edges[leaving, ::-1].T)
    # One row for each stretch and segment, with the first node that is next to it.
    sides, first, number = np.unique(
        np.stack([stretch_of[outer], judged.segment_of[inner]], axis=1),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    side_nm = np.bincount(
        number.reshape(-1), weights=nodes.lengths_nm[leaving], minlength=len(sides)
    )
    return _star(judged, sides, places=inner[first], lengths=(within_nm, side_nm))


def _star(
    judged: JudgedEdges, sides: Any, *, places: Any, lengths: tuple[Any, Any]
) -> tuple[_Facing, int]:
    """Pair the segments of each stretch with that of the longest run.

    `lengths` are those of the edges within each stretch, and from it to each of its segments.
    """
    run_nm = _run_lengths(
        judged, judged.nodes.skeleton_of[places], segments=sides[:, 1].astype(np.int64)
    )
    order = np.lexsort((sides[:, 1], -run_nm, sides[:, 0]))
    stretches, places = sides[order, 0], places[order]
    within_nm, side_nm = lengths[0][stretches], lengths[1][order]
    _, starts, counts = np.unique(stretches, return_index=True, return_counts=True)
    hub = np.repeat(starts, counts)
    is_other = hub != np.arange(len(hub))
    pairs = np.stack([places[hub[is_other]], places[is_other]], axis=1)
    facing = _Facing(
        skeletons=judged.nodes.skeleton_of[pairs[:, 0]],
        pairs=judged.segment_of[pairs],
        nodes=pairs,
        between_nm=(within_nm + side_nm + side_nm[hub])[is_other],
    )
    return facing, int((counts > 1).sum())


def _run_lengths(judged: JudgedEdges, skeletons: Any, *, segments: Any) -> Any:
    """Return the runs of skeletons in segments that they have nodes in."""
    count = len(judged.segment_ids)
    keys = judged.runs.skeletons * count + judged.runs.segments
    return judged.runs.lengths_nm[np.searchsorted(keys, skeletons * count + segments)]


def worst_splits(judged: JudgedEdges, gaps: _Facing, *, limit: int) -> list[SkeletonMistake]:
    """Return the splits that cost most, the worst first; ties: the skeleton that came first.

    Segments that join skeletons are left out: to join more to them would not help.
    """
    nodes, is_split = judged.nodes, judged.is_split
    places = np.concatenate([nodes.edges[is_split], gaps.nodes])
    pairs = np.concatenate([judged.ends[is_split], gaps.pairs])
    between = np.concatenate([nodes.lengths_nm[is_split], gaps.between_nm])
    turned = pairs[:, 0] > pairs[:, 1]
    places[turned], pairs[turned] = places[turned, ::-1], pairs[turned, ::-1]
    keys = np.column_stack([nodes.skeleton_of[places[:, 0]], pairs])
    keys, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    between = np.bincount(number.reshape(-1), weights=between, minlength=len(keys))
    skeletons, one, other = keys.reshape(-1, 3).T
    run_a = _run_lengths(judged, skeletons, segments=one)
    run_b = _run_lengths(judged, skeletons, segments=other)
    cost = ((run_a + run_b + between) ** 2 - run_a**2 - run_b**2) / judged.length_nm
    cost[judged.joins[one] | judged.joins[other]] = 0
    ranked = np.argsort(-cost, kind="stable")[:limit]
    return [
        SkeletonMistake(
            skeletons=(nodes.ids[skeletons[row]],),
            segments=(judged.segment_ids[one[row]], judged.segment_ids[other[row]]),
            positions=(nodes.voxel(places[first[row], 0]), nodes.voxel(places[first[row], 1])),
            cost_nm=float(cost[row]),
        )
        for row in ranked.tolist()
        if cost[row] > 0
    ]


def worst_mergers(judged: JudgedEdges, *, merge_nodes: int, limit: int) -> list[SkeletonMistake]:
    """Return the segments that cost most by joining skeletons; ties: the one met first."""
    runs = judged.runs
    squares = np.bincount(
        runs.segments, weights=runs.lengths_nm**2, minlength=len(judged.segment_ids)
    )
    joining = np.flatnonzero(judged.joins)
    ranked = joining[np.argsort(-squares[joining], kind="stable")][:limit]
    return [
        _merger(judged, int(segment), squares[segment] / judged.length_nm, merge_nodes=merge_nodes)
        for segment in ranked
    ]


def _merger(
    judged: JudgedEdges, segment: int, cost_nm: float, *, merge_nodes: int
) -> SkeletonMistake:
    runs, nodes = judged.runs, judged.nodes
    rows = np.flatnonzero((runs.segments == segment) & (runs.nodes >= merge_nodes))
    rows = rows[np.argsort(-runs.nodes[rows], kind="stable")]
    skeletons = runs.skeletons[rows]
    return SkeletonMistake(
        skeletons=tuple(nodes.ids[skeleton] for skeleton in skeletons),
        segments=(judged.segment_ids[segment],),
        positions=_nearest(nodes, judged.segment_of == segment, skeletons),
        cost_nm=float(cost_nm),
    )


def _nearest(nodes: SkeletonNodes, is_in: Any, skeletons: Any) -> tuple[Zyx, ...]:
    """Return a node of each skeleton near the first one; that of the first near the second."""
    from scipy.spatial import cKDTree

    scale = np.array(nodes.voxel_size.zyx_nm)
    rows_in = np.flatnonzero(is_in)
    owners = nodes.skeleton_of[rows_in]  # ascending
    starts = np.searchsorted(owners, skeletons, side="left")
    stops = np.searchsorted(owners, skeletons, side="right")
    own = [rows_in[start:stop] for start, stop in zip(starts, stops, strict=True)]
    tree = cKDTree(nodes.voxels[own[0]] * scale)
    found: list[Zyx] = []
    for rows in own[1:]:
        distances, near = tree.query(nodes.voxels[rows] * scale)
        least = int(np.argmin(distances))
        if not found:
            found.append(nodes.voxel(int(own[0][near[least]])))
        found.append(nodes.voxel(int(rows[least])))
    return tuple(found)
