"""Tissue for the doctor: cells with dark membranes, and their labels."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from floodem.geometry import VoxelSize
from floodem.volumes import create_volume

DEPTH, EDGE = 32, 144
WIDE = 176
"""From 160 voxels on shifts between sections are measured."""
SECTIONS = VoxelSize(30, 6, 6)
CUBES = VoxelSize(8, 8, 8)
BLAMES = ("warning", "problem")


@functools.cache
def tissue(depth=DEPTH, edge=EDGE, *, thick=4.0, seed=0):
    """Return an image (uint8) and labels (uint32) of cells about 30 voxels wide.

    `thick`: how many voxels along y one along z is long.
    """
    rng = np.random.default_rng(seed)
    size = np.array([depth * thick, edge, edge])
    seeds = rng.uniform(0, size, (max(8, round(float(size.prod()) / 30**3)), 3))
    grid = np.stack(np.meshgrid(*map(np.arange, (depth, edge, edge)), indexing="ij"), axis=-1)
    at = grid.reshape(-1, 3) * (thick, 1, 1) + 3 * np.sin(grid.reshape(-1, 3)[:, ::-1] / 17)
    distances, nearest = cKDTree(seeds).query(at, k=2)
    across = (distances[:, 1] - distances[:, 0]).reshape(depth, edge, edge)
    labels = (nearest[:, 0] + 1).reshape(depth, edge, edge).astype(np.uint32)
    texture = ndimage.gaussian_filter(rng.normal(size=across.shape), (0, 2, 2)) * 40
    grey = 165 - 90 * np.exp(-((across / 3) ** 2)) + texture
    # One section is a little brighter than the next, as everywhere.
    grey += rng.normal(0, 1.5, (depth, 1, 1)) + rng.normal(0, 8, grey.shape)
    return np.clip(grey, 0, 255).astype(np.uint8), labels


def write(path, array, *, voxel_size=SECTIONS, **facts):
    """Write a volume and return its address."""
    array = np.ascontiguousarray(array)
    with create_volume(
        str(path), shape=array.shape, dtype=array.dtype, voxel_size=voxel_size, **facts
    ) as volume:
        volume.write(volume.box, array)
    return str(path)


def blamed(found):
    """Return which findings blame, as pairs of what and level."""
    return {(one.what, str(one.level)) for one in found.findings if one.level in BLAMES}


def finding(found, what, *, part=None):
    """Return the gravest finding of a name."""
    named = [one for one in found.findings if one.what == what and part in {None, one.part}]
    assert named, f"nothing was found about {what}"
    return max(named, key=lambda one: one.level.weight)
