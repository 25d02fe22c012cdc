"""Skeleton scores by their definitions, node by node and edge by edge: slow, obvious."""

from __future__ import annotations

import math


def skeleton_scores(skeletons: dict, segment_at: dict, *, merge_nodes: int = 1) -> dict:
    """Score skeletons.

    `skeletons` maps an id to (nodes, edges): nodes map a name to its place in nanometres, edges
    are pairs of names. `segment_at` maps (id, name) to a segment, 0 for none.
    """
    total = 0.0
    lengths = dict.fromkeys(("correct", "split", "omitted", "merged"), 0.0)
    splits = 0
    squares = {}
    joining = joining_segments(skeletons, segment_at, merge_nodes)
    for name, (nodes, edges) in skeletons.items():
        runs: dict = {}
        for one, other in edges:
            length = math.dist(nodes[one], nodes[other])
            total += length
            first, second = segment_at[name, one], segment_at[name, other]
            if first == 0 or second == 0:
                lengths["omitted"] += length
            elif first != second:
                lengths["split"] += length
                splits += 1
            elif first in joining:
                lengths["merged"] += length
            else:
                lengths["correct"] += length
                runs[first] = runs.get(first, 0.0) + length
        squares[name] = sum(run**2 for run in runs.values())
    return {
        "length_nm": total,
        "erl_nm": sum(squares.values()) / total,
        "possible_erl_nm": sum(
            sum(math.dist(nodes[a], nodes[b]) for a, b in edges) ** 2
            for nodes, edges in skeletons.values()
        )
        / total,
        **{kind: length / total for kind, length in lengths.items()},
        "splits": splits,
        "gaps": count_gaps(skeletons, segment_at),
        "mergers": len(joining),
    }


def joining_segments(skeletons: dict, segment_at: dict, merge_nodes: int) -> set:
    """Segments with enough nodes of two skeletons."""
    found = set()
    for segment in {segment for segment in segment_at.values() if segment}:
        holders = [
            name
            for name, (nodes, _) in skeletons.items()
            if sum(segment_at[name, node] == segment for node in nodes) >= merge_nodes
        ]
        if len(holders) > 1:
            found.add(segment)
    return found


def count_gaps(skeletons: dict, segment_at: dict) -> int:
    """Stretches of nodes in no segment with two segments around them."""
    count = 0
    for name, (nodes, edges) in skeletons.items():
        left = {node for node in nodes if segment_at[name, node] == 0}
        neighbours: dict = {node: set() for node in nodes}
        for one, other in edges:
            neighbours[one].add(other)
            neighbours[other].add(one)
        while left:
            stretch, around = [left.pop()], set()
            for node in stretch:
                for near in neighbours[node]:
                    segment = segment_at[name, near]
                    if segment:
                        around.add(segment)
                    elif near in left:
                        left.remove(near)
                        stretch.append(near)
            count += len(around) > 1
    return count
