"""Consensus of two label arrays, written from LEGACY.md with dictionaries, voxel by voxel.

"Inputs are first split into 6-connected components and cleaned by min_size. Every pair
(id in A, id in B) becomes its own segment; A's id stays with its largest partner (ties:
smaller B id; 0 counts as a partner); new ids follow max(A) in order of (B id, A id);
pieces below split_min_size become 0; (id, 0) is a pair, (0, id) is 0."

What LEGACY.md leaves open: the largest component keeps the object's id (ties: first voxel
in C order), the others follow the largest id in order of (object's id, first voxel).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

Place = tuple[int, ...]


def consensus(
    a: np.ndarray, b: np.ndarray, *, splits: bool, min_size: int, split_min_size: int
) -> np.ndarray:
    """Return the consensus of two arrays of one shape, as uint64."""
    one, other = (cleaned(labels, splits=splits, min_size=min_size) for labels in (a, b))
    pairs: dict[tuple[int, int], list[Place]] = defaultdict(list)
    for place in places(a):
        if one[place]:
            pairs[one[place], other[place]].append(place)
    best: dict[int, tuple[int, int]] = {}
    for (id_a, id_b), voxels in pairs.items():
        # The most voxels first, then the smaller id in B.
        best[id_a] = min(best.get(id_a, (0, 2**64)), (-len(voxels), id_b))
    result = np.zeros(a.shape, np.uint64)
    next_id = max((id_a for id_a, _ in pairs), default=0) + 1
    for id_a, id_b in sorted(pairs, key=lambda pair: (pair[1], pair[0])):
        voxels = pairs[id_a, id_b]
        if len(voxels) < split_min_size:
            continue
        keeps = best[id_a][1] == id_b
        for place in voxels:
            result[place] = id_a if keeps else next_id
        next_id += not keeps
    return result


def cleaned(labels: np.ndarray, *, splits: bool, min_size: int) -> dict[Place, int]:
    """Return the id at each voxel after splitting and cleaning."""
    ids = {place: int(labels[place]) for place in places(labels)}
    if splits:
        by_object: dict[int, list[list[Place]]] = defaultdict(list)
        for component in components(labels):
            by_object[int(labels[component[0]])].append(component)
        next_id = max(by_object, default=0) + 1
        for label in sorted(by_object):
            found = by_object[label]  # in the order of their first voxels
            largest = max(found, key=len)  # the first of the largest
            for component in found:
                if component is largest:
                    continue
                for place in component:
                    ids[place] = next_id
                next_id += 1
    sizes: dict[int, int] = defaultdict(int)
    for one in ids.values():
        sizes[one] += 1
    return {place: one if sizes[one] >= min_size else 0 for place, one in ids.items()}


def components(labels: np.ndarray) -> list[list[Place]]:
    """Return the voxels of each 6-connected component, by first voxel in C order."""
    seen: set[Place] = set()
    found = []
    for start in places(labels):
        if not labels[start] or start in seen:
            continue
        seen.add(start)
        component, waiting = [start], [start]
        while waiting:
            place = waiting.pop()
            for axis, step in itertools.product(range(3), (-1, 1)):
                near = tuple(at + step * (axis == one) for one, at in enumerate(place))
                inside = all(
                    0 <= at < length for at, length in zip(near, labels.shape, strict=True)
                )
                if inside and near not in seen and labels[near] == labels[start]:
                    seen.add(near)
                    component.append(near)
                    waiting.append(near)
        found.append(component)
    return found


def places(labels: np.ndarray) -> Iterator[Place]:
    """Yield the place of every voxel in C order."""
    return itertools.product(*(range(length) for length in labels.shape))
