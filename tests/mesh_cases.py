"""Labels and checks for tests of meshing: balls, tissue, what is closed, what trimesh says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from floodem.geometry import VoxelSize, Zyx
from floodem.shapes.meshes import Mesh

ISOTROPIC, ANISOTROPIC = VoxelSize(10, 10, 10), VoxelSize(30, 6, 6)


def ball(radius_nm: float, voxel_size: VoxelSize, *, label: int = 1) -> np.ndarray:
    """One ball in the middle of just enough voxels, which are its centre's distance from it."""
    shape = [2 * int(np.ceil(radius_nm / edge)) + 3 for edge in voxel_size.zyx_nm]
    axes = [
        (np.arange(size) + 0.5 - size / 2) * edge
        for size, edge in zip(shape, voxel_size.zyx_nm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.where(z**2 + y**2 + x**2 <= radius_nm**2, label, 0).astype(np.uint64)


def tissue(seed: int, shape: Zyx, *, objects: int = 8, background: float = 0.3) -> np.ndarray:
    """Objects that touch each other, rough and partly thin; they also cross the border."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, shape, (objects, 3))
    stretch = rng.uniform(0.5, 2, (objects, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = np.stack([(((grid - p) * s) ** 2).sum(-1) for p, s in zip(points, stretch, strict=True)])
    labels = away.argmin(axis=0).astype(np.uint64) + 1
    labels[away.min(axis=0) > np.quantile(away.min(axis=0), 1 - background)] = 0
    return labels


def edge_counts(mesh: Mesh) -> np.ndarray:
    """How many faces each edge has."""
    edges = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    return np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1]


def is_watertight(mesh: Mesh) -> bool:
    """What trimesh says after joining vertices in one place; skips without trimesh."""
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed (extra test)")
    found: Any = trimesh.Trimesh(*mesh.as_xyz(), process=True)
    return bool(found.is_watertight and found.is_winding_consistent)


def normals_zyx(mesh: Mesh) -> np.ndarray:
    a, b, c = mesh.vertices_zyx_nm.astype(np.float64)[mesh.faces.T]
    return np.cross(b - a, c - a)
