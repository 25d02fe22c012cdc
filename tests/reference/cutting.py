"""Triangles cut by cells one after the other, polygon by polygon, without a lattice."""

from __future__ import annotations

import itertools

import numpy as np


def area_in_box(corners: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Area of the part of a triangle (3, 3) inside a box (Sutherland and Hodgman 1974)."""
    polygon = [corner.astype(np.float64) for corner in corners]
    for axis in range(3):
        polygon = clip(polygon, axis, low[axis], sign=1)
        polygon = clip(polygon, axis, high[axis], sign=-1)
    total = np.zeros(3)
    for a, b in itertools.pairwise(polygon[1:]):
        total += np.cross(a - polygon[0], b - polygon[0]) / 2
    return float(np.linalg.norm(total))


def clip(polygon: list, axis: int, plane: float, *, sign: int) -> list:
    """Keep what lies above the plane (sign 1) or below it (-1)."""
    kept = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        above_a, above_b = (sign * (point[axis] - plane) for point in (a, b))
        if above_a >= 0:
            kept.append(a)
        if above_a * above_b < 0:
            kept.append(a + (b - a) * above_a / (above_a - above_b))
    return kept


def comes_before(one: tuple, other: tuple) -> bool:
    """Z-curve order of cells (x, y, z): their numbers written bit by bit, z first."""

    def digits(cell: tuple) -> list:
        return [cell[axis] >> bit & 1 for bit in range(20, -1, -1) for axis in (2, 1, 0)]

    return digits(one) < digits(other)
