"""Objects with known midlines, and what to ask of a skeleton."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from floodem.geometry import VoxelSize
from floodem.shapes.skeletons.skeleton import Skeleton

ISOTROPIC, THIN, THICK = VoxelSize(10, 10, 10), VoxelSize(30, 6, 6), VoxelSize(40, 4, 4)


def straight(start, direction, length_nm: float) -> np.ndarray:
    """Points of a line, close together."""
    direction = np.array(direction, float) / np.linalg.norm(direction)
    return np.array(start, float) + np.linspace(0, length_nm, 400)[:, None] * direction


def tubes(lines, radius_nm: float, voxel_size: VoxelSize, *, flat: bool = True) -> np.ndarray:
    """Voxels whose centres are nearer to a line than the radius; flat: but not beyond its ends."""
    edges = np.array(voxel_size.zyx_nm)
    farthest = np.max([line.max(axis=0) for line in lines], axis=0)
    mask = np.zeros(np.ceil((farthest + radius_nm) / edges).astype(int) + 2, bool)
    for line in lines:
        low = np.maximum(np.floor((line.min(axis=0) - radius_nm) / edges).astype(int), 0)
        high = np.ceil((line.max(axis=0) + radius_nm) / edges).astype(int) + 1
        part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        grid = np.stack(np.meshgrid(*map(np.arange, part.shape), indexing="ij"), axis=-1) + low
        centres = ((grid + 0.5) * edges).reshape(-1, 3)
        part |= _near(centres, line, radius_nm=radius_nm, flat=flat).reshape(part.shape)
    return mask


def _near(centres, line, *, radius_nm: float, flat: bool):
    distance, nearest = cKDTree(line).query(centres, distance_upper_bound=radius_nm * 1.01)
    is_near = distance <= radius_nm
    if flat:
        for end, inner in ((0, 1), (-1, -2)):
            outward = line[end] - line[inner]
            beyond = (centres - line[end]) @ outward > 0
            is_near &= ~(beyond & (nearest == end % len(line)))
    return is_near


def line_length(line) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def distances_to(lines, skeleton: Skeleton) -> np.ndarray:
    """How far each vertex is from the nearest point of the lines."""
    return cKDTree(np.concatenate(lines)).query(skeleton.vertices_zyx_nm)[0]


def is_forest(skeleton: Skeleton) -> bool:
    return len(skeleton.edges) == len(skeleton) - len(skeleton.components())


def same(one: Skeleton, other: Skeleton) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("vertices_zyx_nm", "edges", "radii_nm")
    )


def path(*points, radius: float = 1.0) -> Skeleton:
    """A skeleton of some points, one after the other."""
    vertices = np.array(points, np.float32).reshape(-1, 3)
    numbers = np.arange(len(vertices), dtype=np.uint32)
    edges = np.stack([numbers[1:], numbers[:-1]], axis=1)
    return Skeleton(vertices, edges, np.full(len(vertices), radius, np.float32))
