"""Floods from both sides of a decision point in, the numbers that decide about a merge out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from floodem.assembly.agglomeration.resegmentation.floods import SideFlood, depths_nm
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.geometry import VoxelSize


def point_scores(
    a: SideFlood,
    b: SideFlood,
    *,
    segment_a: Bool[np.ndarray, "z y x"],
    segment_b: Bool[np.ndarray, "z y x"],
    voxel_size: VoxelSize,
) -> PointScores:
    """Compare the floods from A and from B with each other and with the segments.

    Parameters
    ----------
    a, b
        The floods.
    segment_a, segment_b
        The original segments in the analysis box.
    """
    either = int(np.count_nonzero(a.filled | b.filled))
    both = int(np.count_nonzero(a.filled & b.filled))
    return PointScores(
        iou=both / either if either else 0.0,
        a_covers_a=covered(segment_a, a.filled),
        a_covers_b=covered(segment_b, a.filled),
        b_covers_a=covered(segment_a, b.filled),
        b_covers_b=covered(segment_b, b.filled),
        size_a=int(np.count_nonzero(a.filled)),
        size_b=int(np.count_nonzero(b.filled)),
        deleted_a=a.deleted,
        deleted_b=b.deleted,
        depth_a_nm=float(depths_nm(a.filled, voxel_size).max()),
        depth_b_nm=float(depths_nm(b.filled, voxel_size).max()),
        seeds_a=len(a.seeds),
        seeds_b=len(b.seeds),
        recovered_a=a.is_recovered,
        recovered_b=b.is_recovered,
        calls=a.calls + b.calls,
    )


def covered(segment: Bool[np.ndarray, "z y x"], flood: Bool[np.ndarray, "z y x"]) -> float:
    """Return the fraction of a segment's voxels that a flood has filled; 0 where it has none."""
    voxels = int(np.count_nonzero(segment))
    return int(np.count_nonzero(segment & flood)) / voxels if voxels else 0.0
