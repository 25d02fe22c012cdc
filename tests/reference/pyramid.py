"""Coarser levels, one voxel after the other."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np


def coarse_voxel(window: list, kind: str):
    """Mean of an image, ties to even; of labels the most frequent value, the smallest of ties."""
    if kind == "image":
        return round(Fraction(sum(window), len(window)))
    counts = {value: window.count(value) for value in window}
    most = max(counts.values())
    return min(value for value, count in counts.items() if count == most)


def downsample(array: np.ndarray, *, start, factors, kind: str) -> np.ndarray:
    """Put every voxel into the window that its place in the absolute frame belongs to."""
    windows: dict = {}
    for index in itertools.product(*map(range, array.shape)):
        place = tuple((s + i) // f for s, i, f in zip(start, index, factors, strict=True))
        windows.setdefault(place, []).append(array[index].item())
    first = tuple(min(place[axis] for place in windows) for axis in range(3))
    last = tuple(max(place[axis] for place in windows) for axis in range(3))
    found = np.zeros([b - a + 1 for a, b in zip(first, last, strict=True)], array.dtype)
    for place, window in windows.items():
        at = tuple(p - a for p, a in zip(place, first, strict=True))
        found[at] = coarse_voxel(window, kind)
    return found
