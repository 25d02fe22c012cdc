"""Decision points by their definition, voxel by voxel: slow, obvious, for small arrays."""

from __future__ import annotations

import heapq
import itertools
import math
from fractions import Fraction

import numpy as np

Zyx = tuple[int, int, int]
FACES = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0)]


def edges_pm(voxel_size_nm: tuple[float, float, float]) -> list[int]:
    """Edges of a voxel in whole picometres."""
    return [round(edge * 1000) for edge in voxel_size_nm]


def squared_distances(labels: np.ndarray, edges: list[int]) -> dict[Zyx, int]:
    """Return for each voxel the squared distance to the nearest segment voxel."""
    segments = np.argwhere(labels != 0)
    return {
        voxel: 0
        if labels[voxel]
        else int(((np.array(edges) * (segments - np.array(voxel))) ** 2).sum(axis=1).min())
        for voxel in np.ndindex(labels.shape)
        if len(segments)
    }


def watershed(labels: np.ndarray, distances: dict[Zyx, int], limit: int) -> np.ndarray:
    """Flood with a queue of voxels beside what is flooded, nearest first, then in C order."""
    grown = labels.copy()
    queue: list[tuple[int, Zyx, int]] = []
    waiting: set[Zyx] = set()

    def push_neighbours(voxel: Zyx) -> None:
        for step in FACES:
            near = tuple(a + b for a, b in zip(voxel, step, strict=True))
            if near in distances and not grown[near] and near not in waiting:
                waiting.add(near)
                heapq.heappush(queue, (distances[near], near, int(grown[voxel])))

    # Segments are at distance 0, so they come first, and in C order.
    for voxel in sorted(distances):
        if labels[voxel]:
            push_neighbours(voxel)
    while queue:
        distance, voxel, label = heapq.heappop(queue)
        if distance > limit:
            break
        grown[voxel] = label
        push_neighbours(voxel)
    return grown


def decision_points(
    labels: np.ndarray,
    *,
    voxel_size_nm: tuple[float, float, float],
    max_distance_nm: float,
    min_size: int = 0,
) -> dict[tuple[int, int], tuple[Zyx, float]]:
    """Return the place and the distance in nanometres for each pair of segments."""
    kept = labels.copy()
    for label in set(labels.ravel().tolist()):
        if np.count_nonzero(labels == label) < min_size:
            kept[labels == label] = 0
    edges = edges_pm(voxel_size_nm)
    distances = squared_distances(kept, edges)
    grown = watershed(kept, distances, round(max_distance_nm * 1000) ** 2)
    candidates: dict[tuple[int, int], set[tuple[float, Zyx]]] = {}
    for upper in distances:
        for offset in itertools.product((0, -1), repeat=3):
            lower = tuple(a + b for a, b in zip(upper, offset, strict=True))
            if lower not in distances or not grown[lower] or not grown[upper]:
                continue
            if grown[lower] != grown[upper]:
                pair = tuple(sorted((int(grown[lower]), int(grown[upper]))))
                mean = mean_nm(distances[lower], distances[upper], edges)
                candidates.setdefault(pair, set()).add((mean, lower))
    return {pair: best(found, edges) for pair, found in candidates.items()}


def mean_nm(one_pm2: int, other_pm2: int, edges: list[int]) -> float:
    """Return the mean of two distances, each the root of a whole number of the common unit."""
    unit = math.gcd(*edges)
    roots = math.sqrt(one_pm2 // unit**2) + math.sqrt(other_pm2 // unit**2)
    return roots * (unit / 2000)


def best(found: set[tuple[float, Zyx]], edges: list[int]) -> tuple[Zyx, float]:
    """Return the nearest candidate; among ties the one nearest to their centroid."""
    nearest = min(distance for distance, _ in found)
    ties = sorted(voxel for distance, voxel in found if distance == nearest)
    centroid = [Fraction(sum(axis), len(ties)) for axis in zip(*ties, strict=True)]

    def off(voxel: Zyx) -> Fraction:
        return sum((e * (a - c)) ** 2 for e, a, c in zip(edges, voxel, centroid, strict=True))

    return min(ties, key=off), nearest
