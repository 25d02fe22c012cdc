"""Stitching by its definition, voxel by voxel and pair by pair: slow, obvious, for tiny arrays."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def pieces_by_corners(labels: np.ndarray) -> np.ndarray:
    """Give each 26-connected piece its id with a stack and a loop, in the order of first voxels."""
    pieces = np.zeros(labels.shape, np.int64)
    for start in np.ndindex(labels.shape):
        if labels[start] == 0 or pieces[start]:
            continue
        pieces[start] = number = pieces.max() + 1
        stack = [start]
        while stack:
            here = stack.pop()
            for step in STEPS:
                there = tuple(a + b for a, b in zip(here, step, strict=True))
                inside = all(0 <= a < b for a, b in zip(there, labels.shape, strict=True))
                if inside and labels[there] == labels[here] and not pieces[there]:
                    pieces[there] = number
                    stack.append(there)
    return pieces


def compared(a: np.ndarray, b: np.ndarray, *, agreement: float, min_shared: int) -> list[tuple]:
    """Return label a, label b, shared, voxels a, voxels b, verdict, voxels shared of each pair."""
    pieces_a, pieces_b = pieces_by_corners(a), pieces_by_corners(b)
    sizes_a, sizes_b = Counter(pieces_a.ravel().tolist()), Counter(pieces_b.ravel().tolist())
    voxels: dict[tuple[int, int], list] = {}
    for place in np.ndindex(a.shape):
        if a[place] and b[place]:
            voxels.setdefault((int(pieces_a[place]), int(pieces_b[place])), []).append(place)
    rows = []
    for (one, other), places in voxels.items():
        enough_a = len(places) / sizes_a[one] >= agreement
        enough_b = len(places) / sizes_b[other] >= agreement
        if len(places) < min_shared:
            verdict = "too small"
        else:
            verdict = {
                (True, True): "joined",
                (False, True): "little of A",
                (True, False): "little of B",
                (False, False): "little of both",
            }[enough_a, enough_b]
        first = places[0]
        rows.append(
            (
                int(a[first]),
                int(b[first]),
                len(places),
                sizes_a[one],
                sizes_b[other],
                verdict,
                places,
            )
        )
    return rows


def smallest_of_components(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return the smallest node of each node's component, with a dict and a loop."""
    lead = {node: node for node in range(count)}
    for a, b in edges:
        keep, lose = sorted((lead[a], lead[b]))
        lead = {node: keep if leader == lose else leader for node, leader in lead.items()}
    return [lead[node] for node in range(count)]


def numbered(count: int, edges: list[tuple[int, int]], in_core: set[int]) -> list[int]:
    """Return the final id of each node without carried ones: 1 to n by smallest node, or 0."""
    lead = smallest_of_components(count, edges)
    leaders = sorted({lead[node] for node in in_core})
    return [leaders.index(leader) + 1 if leader in leaders else 0 for leader in lead]
