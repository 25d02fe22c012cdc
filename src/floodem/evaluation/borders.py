"""Voxels near borders of the truth, as the CREMI challenge leaves them out: labels in, mask out.

In each section a voxel is of a border when one of its four neighbours has another label (at
the section's edge there is none), and left out when it lies within a distance of such a voxel,
centre to centre. Where a membrane was drawn matters less then. A block needs a rim of the
sections around it: as far as the distance reaches, and one voxel more.

References
----------
cremi/cremi_python, cremi/evaluation/border_mask.py and NeuronIds.py (25 nm in the challenge).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int32

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize
from floodem.labels.runs import Labels
from floodem.volumes.volume import Volume

LEFT_OUT = 2**64 - 1
"""What truth is where it does not count, as in the files of the challenge."""

_SAME_SIZE = 1e-6  # relative; how far y and x may differ


def border_radius(distance_nm: float, *, voxel_size: VoxelSize | None) -> float:
    """Return a distance within sections in voxels.

    Raises
    ------
    OptionError
        When it is not positive, the voxel size is not known, or voxels are not square in a
        section.
    """
    if not (math.isfinite(distance_nm) and distance_nm > 0):
        raise OptionError(f"a border of {distance_nm} nm is none: give more than 0 (CREMI: 25)")
    if voxel_size is None:
        raise OptionError(
            "neither volume states its voxel size, which a border in nm needs: give it in "
            "nanometres, z,y,x (--voxel-size 40,4,4)"
        )
    if not math.isclose(voxel_size.y_nm, voxel_size.x_nm, rel_tol=_SAME_SIZE):
        raise OptionError(
            f"voxels of {voxel_size} nm (z,y,x) are not square in a section, for which alone this "
            "border is defined: leave --cremi-border out"
        )
    return float(distance_nm) / voxel_size.y_nm


def read_without_borders(truth: Volume, box: Box, *, radius: float) -> Labels:
    """Return truth in a box, uint64, with `LEFT_OUT` near its borders.

    Parameters
    ----------
    radius
        How near, in voxels within a section (`border_radius`).
    """
    reach = math.floor(radius) + 1
    around = box.grow((0, reach, reach)).intersection(truth.box)
    assert around is not None
    labels = truth.read(around)
    inside = box.slices(origin=around.start)
    wanted = labels[inside].astype(np.uint64)
    wanted[near_borders(labels, radius=radius)[inside]] = LEFT_OUT
    return wanted


def near_borders(labels: Labels, *, radius: float) -> Bool[np.ndarray, "z y x"]:
    """Return which voxels lie near a border in their section.

    Parameters
    ----------
    labels
        Whole sections, z, y, x; 0 is a label like any other.
    radius
        How near, in voxels; a section without a border has none.
    """
    along_x = _distance_along_x(_borders(labels))
    rows = labels.shape[1]
    near = np.zeros(labels.shape, bool)
    for step in range(min(math.floor(radius), rows - 1) + 1):
        is_near = along_x <= _half_width(step, radius)
        near[:, : rows - step] |= is_near[:, step:]
        near[:, step:] |= is_near[:, : rows - step]
    return near


def _borders(labels: Labels) -> Bool[np.ndarray, "z y x"]:
    border = np.zeros(labels.shape, bool)
    in_y = labels[:, 1:] != labels[:, :-1]
    in_x = labels[:, :, 1:] != labels[:, :, :-1]
    border[:, 1:] |= in_y
    border[:, :-1] |= in_y
    border[:, :, 1:] |= in_x
    border[:, :, :-1] |= in_x
    return border


def _distance_along_x(border: Bool[np.ndarray, "z y x"]) -> Int32[np.ndarray, "z y x"]:
    """Return how far the nearest border voxel of the same row is; far more than a row: none."""
    far = np.int32(2**30)
    x = np.arange(border.shape[2], dtype=np.int32)
    before = np.maximum.accumulate(np.where(border, x, -far), axis=2)
    distance = x - before
    after = np.minimum.accumulate(np.where(border, x, far)[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.minimum(distance, after - x, out=distance)


def _half_width(step: int, radius: float) -> int:
    """Return how far along x a disk reaches, so many rows from its centre.

    Compared as the challenge compares: a rounded square root with the radius.
    """
    width = math.floor(math.sqrt(max(radius**2 - step**2, 0))) + 1
    while width > 0 and math.sqrt(step**2 + width**2) > radius:
        width -= 1
    return width
