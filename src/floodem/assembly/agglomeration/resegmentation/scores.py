"""What resegmentation says of one decision point: numbers of two floods, one from each side.

All are counted inside the analysis box around the point, at probability 0.5.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PointScores:
    """The floods from A and from B at one decision point.

    Attributes
    ----------
    iou
        Voxels in both floods over voxels in either; 0 where neither has any.
    a_covers_a, a_covers_b, b_covers_a, b_covers_b
        Fraction of segment A or B (second letter), in the analysis box, that the flood from A
        or B (first letter) has filled; 0 where the segment has no voxel there.
    size_a, size_b
        Voxels of the floods.
    deleted_a, deleted_b
        Voxels that steps of the floods, centred in the box, made fall from a probability of
        0.8 or more to below 0.5.
    depth_a_nm, depth_b_nm
        Largest distance of a flood's voxel to the flood's surface, in nanometres.
    seeds_a, seeds_b
        From how many seeds the floods were tried; 0 where one was not.
    recovered_a, recovered_b
        Whether the last of them covers its own segment well enough
        (`ResegmentationOptions.recovery_fraction`).
    calls
        Network calls of all tries.
    """

    iou: float
    a_covers_a: float
    a_covers_b: float
    b_covers_a: float
    b_covers_b: float
    size_a: int
    size_b: int
    deleted_a: int
    deleted_b: int
    depth_a_nm: float
    depth_b_nm: float
    seeds_a: int
    seeds_b: int
    recovered_a: bool
    recovered_b: bool
    calls: int
