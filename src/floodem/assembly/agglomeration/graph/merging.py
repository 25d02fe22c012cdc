"""Which base segments are one: pairs that are merges in, the id of each one's whole out.

And why they are: the edges inside a merged segment, the way from one segment to another,
and what falls apart where an edge is undone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt64

from floodem.assembly.agglomeration.graph.records import EdgeTable
from floodem.assembly.joining import Joining, node_dtype
from floodem.errors import LabelError


def smallest_of_components(
    ids_a: UInt64[np.ndarray, "pairs"], ids_b: UInt64[np.ndarray, "pairs"]
) -> tuple[UInt64[np.ndarray, "ids"], UInt64[np.ndarray, "ids"]]:
    """Join pairs and give each id that occurs the smallest one of its component.

    The order of the pairs does not matter.

    Returns
    -------
    old_ids, new_ids
        The ids that occur, ascending, and the smallest id that each is joined with.
    """
    ids = np.unique(np.concatenate([ids_a, ids_b]))
    # Nodes are places in the ascending ids, so that the smallest node is the smallest id.
    leads = np.arange(len(ids), dtype=node_dtype(len(ids)))
    joining = Joining(leads)
    if len(ids):
        joining.join(np.searchsorted(ids, ids_a), np.searchsorted(ids, ids_b))
    return ids, ids[joining.leaders(np.arange(len(ids)))]


def merged_ids(
    ids: UInt64[np.ndarray, "ids"],
    mapping: tuple[UInt64[np.ndarray, "known"], UInt64[np.ndarray, "known"]],
) -> UInt64[np.ndarray, "ids"]:
    """Return what a mapping makes of ids; those that it does not know stay as they are.

    Parameters
    ----------
    mapping
        Ascending old ids, and the new ones (`SegmentGraph.mapping`).
    """
    old_ids, new_ids = mapping
    if not len(old_ids):
        return ids.copy()
    rows = np.minimum(np.searchsorted(old_ids, ids), len(old_ids) - 1)
    return np.where(old_ids[rows] == ids, new_ids[rows], ids)


def rows_of_merged(edges: EdgeTable, merged_id: int) -> Int64[np.ndarray, "rows"]:
    """Return the rows of the merges inside a merged segment.

    Parameters
    ----------
    merged_id
        The id of any base segment in it; its own is the smallest of them.
    """
    mapping = smallest_of_components(*edges.joined())
    whole = merged_ids(np.array([merged_id], np.uint64), mapping)
    is_inside = merged_ids(edges.ids_a, mapping) == whole
    return np.flatnonzero(is_inside & edges.accepted)


def members_of(edges: EdgeTable, merged_id: int) -> UInt64[np.ndarray, "ids"]:
    """Return the base segments of a merged segment, ascending, by the id of any of them."""
    old_ids, new_ids = smallest_of_components(*edges.joined())
    whole = merged_ids(np.array([merged_id], np.uint64), (old_ids, new_ids))
    found = old_ids[new_ids == whole]
    return found if len(found) else np.array([merged_id], np.uint64)


def path_between(edges: EdgeTable, a: int, b: int) -> list[int]:
    """Return the base segments from `a` to `b` over as few merges as possible.

    Of several ways the one that goes over smaller ids is taken.

    Returns
    -------
    list of int
        Begins with `a` and ends with `b`; empty where they are not in one merged segment.
    """
    neighbours = _neighbours(*edges.joined())
    came_from: dict[int, int] = {b: b}
    waiting = deque([b])
    while waiting and a not in came_from:
        here = waiting.popleft()
        for there in neighbours.get(here, ()):
            if there not in came_from:
                came_from[there] = here
                waiting.append(there)
    if a not in came_from:
        return []
    path = [a]
    while path[-1] != b:
        path.append(came_from[path[-1]])
    return path


def parts_without(edges: EdgeTable, a: int, b: int) -> list[UInt64[np.ndarray, "ids"]]:
    """Return what is left of a merged segment where the merge of `a` and `b` is undone.

    Returns
    -------
    list of array
        The base segments of the part with `a` and of the part with `b`, ascending; one array
        where other merges still hold both together.

    Raises
    ------
    LabelError
        When the two are not merged with each other.
    """
    ids_a, ids_b = edges.joined()
    low, high = sorted((a, b))
    is_it = (ids_a == np.uint64(low)) & (ids_b == np.uint64(high))
    if not is_it.any():
        raise LabelError(
            f"segments {low} and {high} are not merged with each other: name an edge that is a "
            "merge"
        )
    left = smallest_of_components(ids_a[~is_it], ids_b[~is_it])
    wholes = [int(merged_ids(np.array([one], np.uint64), left)[0]) for one in (a, b)]
    parts = []
    for one, whole in zip((a, b), wholes, strict=True):
        members = left[0][left[1] == np.uint64(whole)]
        parts.append(members if len(members) else np.array([one], np.uint64))
    return parts[:1] if wholes[0] == wholes[1] else parts


def _neighbours(
    ids_a: UInt64[np.ndarray, "pairs"], ids_b: UInt64[np.ndarray, "pairs"]
) -> dict[int, Sequence[int]]:
    found: dict[int, list[int]] = {}
    for a, b in zip(ids_a.tolist(), ids_b.tolist(), strict=True):
        found.setdefault(a, []).append(b)
        found.setdefault(b, []).append(a)
    return {one: sorted(others) for one, others in found.items()}
