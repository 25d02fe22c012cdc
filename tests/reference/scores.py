"""Scores by their definitions, voxel pair by voxel pair: slow, obvious, for tiny arrays."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np


def rand_precision_and_recall(segmentation: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Count ordered pairs of voxels (a voxel with itself included) that are joined in each."""
    voxels = list(zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True))
    both = in_segment = in_object = 0
    for (segment_a, object_a), (segment_b, object_b) in itertools.product(voxels, voxels):
        in_segment += segment_a == segment_b
        in_object += object_a == object_b
        both += segment_a == segment_b and object_a == object_b
    return both / in_segment, both / in_object


def voi_split_and_merge(segmentation: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Entropies in bits by H(A | B) = H(A, B) - H(B)."""
    segments, objects = segmentation.ravel().tolist(), truth.ravel().tolist()
    joint = _entropy_bits(list(zip(segments, objects, strict=True)))
    return joint - _entropy_bits(objects), joint - _entropy_bits(segments)


def _entropy_bits(values: list) -> float:
    total = len(values)
    return -sum(n / total * math.log2(n / total) for n in Counter(values).values())


def pairs_by_voxel(a: np.ndarray, b: np.ndarray) -> dict[tuple[int, int], int]:
    """Count label pairs one voxel at a time."""
    return dict(Counter(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)))


def pieces_by_flood(labels: np.ndarray) -> np.ndarray:
    """Give each 6-connected piece its id with a stack and a loop."""
    pieces = np.zeros(labels.shape, np.int64)
    count = 0
    for start in np.ndindex(labels.shape):
        if labels[start] == 0 or pieces[start]:
            continue
        count += 1
        pieces[start] = count
        stack = [start]
        while stack:
            here = stack.pop()
            for axis, step in itertools.product(range(3), (-1, 1)):
                there = list(here)
                there[axis] += step
                inside = 0 <= there[axis] < labels.shape[axis]
                near = tuple(there)
                if inside and labels[near] == labels[here] and not pieces[near]:
                    pieces[near] = count
                    stack.append(near)
    return pieces
