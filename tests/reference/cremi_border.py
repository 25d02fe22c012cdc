"""What the CREMI challenge leaves out around borders, pixel by pixel: slow, obvious."""

from __future__ import annotations

import math

import numpy as np


def left_out(truth: np.ndarray, *, distance_nm: float, pixel_nm: float) -> np.ndarray:
    """Mark pixels within a distance of one that has a 4-neighbour of another label."""
    most = float(distance_nm) / pixel_nm
    mask = np.zeros(truth.shape, bool)
    for section, marked in zip(truth, mask, strict=True):
        borders = [at for at in np.ndindex(section.shape) if is_border(section, at)]
        for at in np.ndindex(section.shape):
            marked[at] = any(
                math.sqrt((at[0] - y) ** 2 + (at[1] - x) ** 2) <= most for y, x in borders
            )
    return mask


def is_border(section: np.ndarray, at: tuple[int, int]) -> bool:
    y, x = at
    for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        is_inside = all(0 <= i < edge for i, edge in zip(near, section.shape, strict=True))
        if is_inside and section[near] != section[at]:
            return True
    return False
