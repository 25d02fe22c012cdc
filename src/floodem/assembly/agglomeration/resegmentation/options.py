"""How one decision point is flooded again: the numbers a user may choose, and their defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from floodem.errors import GeometryError, OptionError
from floodem.geometry import VoxelSize, Zyx

CANVAS_RADIUS = 50
ANALYSIS_RADIUS = 34
EXCLUSION_RADIUS = 8
"""The reference's radii in voxels, along the shortest edge of a voxel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResegmentationOptions:
    """Options of the two floods at a decision point; radii are z, y, x.

    The defaults are the reference's for isotropic voxels; `suited` gives them for others.

    Attributes
    ----------
    radius
        Voxels to every side of the point that floods may fill.
    analysis_radius
        Voxels to every side of the point in which floods are judged.
    exclusion_radius
        Voxels to every side of a seed that failed in which no other is tried.
    max_retries
        Most seeds that are tried on one side.
    recovery_fraction
        The part of its own segment, inside the analysis box, that a flood must cover, or the
        next seed is tried.
    terminate_early
        Whether the second flood is left out where the first did not cover its own segment, or
        does not cover the other one; both by `recovery_fraction`.
    smaller_first
        Whether, with `terminate_early`, the first flood is that of the segment with fewer
        voxels in the analysis box (of equal ones A), and not always that of A. Most points are
        between a large segment and a small one that are two objects: the small flood alone
        then says so.
    init_exclusion_radius
        Voxels to every side of the point in which no seed lies; None: seeds may lie there.

    Raises
    ------
    OptionError
        When a number is out of its range, or the radius is smaller than that of the analysis.

    References
    ----------
    Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
    """

    radius: Zyx = (CANVAS_RADIUS, CANVAS_RADIUS, CANVAS_RADIUS)
    analysis_radius: Zyx = (ANALYSIS_RADIUS, ANALYSIS_RADIUS, ANALYSIS_RADIUS)
    exclusion_radius: Zyx = (EXCLUSION_RADIUS, EXCLUSION_RADIUS, EXCLUSION_RADIUS)
    max_retries: int = 8
    recovery_fraction: float = 0.6
    terminate_early: bool = False
    smaller_first: bool = False
    init_exclusion_radius: Zyx | None = None

    def __post_init__(self) -> None:
        for name in ("radius", "analysis_radius", "exclusion_radius", "init_exclusion_radius"):
            radius = getattr(self, name)
            if radius is not None and min(radius) < 0:
                raise OptionError(f"{name} {radius} (z,y,x) is negative: give voxels from 0 on")
        if any(a < b for a, b in zip(self.radius, self.analysis_radius, strict=True)):
            raise OptionError(
                f"radius {self.radius} (z,y,x) is smaller than analysis_radius "
                f"{self.analysis_radius}: floods are judged only where they may go, so give a "
                "larger radius or a smaller analysis_radius"
            )
        if self.max_retries < 1:
            raise OptionError(f"max_retries {self.max_retries} tries no seed: give at least 1")
        if not 0 <= self.recovery_fraction <= 1:
            raise OptionError(
                f"recovery_fraction {self.recovery_fraction} is no fraction: give 0 to 1"
            )

    @classmethod
    def suited(
        cls, voxel_size: VoxelSize, *, fov: Zyx = (1, 1, 1), **changes: Any
    ) -> ResegmentationOptions:
        """Return the defaults for voxels of a size and a network's field of view.

        Radii reach equally far in nanometres on every axis, and the canvas holds half a field
        of view more than the analysis box: with half a field of view of 16, 16, 8 and voxels
        twice as long in z, they are the reference's 25, 50, 50 and 17, 34, 34 and 4, 8, 8.

        Parameters
        ----------
        changes
            Fields that shall have other values.
        """
        analysis = _scaled(ANALYSIS_RADIUS, voxel_size)
        canvas = _scaled(CANVAS_RADIUS, voxel_size)
        z, y, x = (
            max(radius, inner + edge // 2)
            for radius, inner, edge in zip(
                canvas, changes.get("analysis_radius", analysis), fov, strict=True
            )
        )
        suited: dict[str, Any] = {
            "radius": (z, y, x),
            "analysis_radius": analysis,
            "exclusion_radius": _scaled(EXCLUSION_RADIUS, voxel_size),
        }
        return cls(**suited | changes)

    def require_room(self, fov: Zyx) -> None:
        """Refuse a network whose field of view is larger than the box around a point.

        Raises
        ------
        GeometryError
            Saying both.
        """
        if any(2 * radius + 1 < edge for radius, edge in zip(self.radius, fov, strict=True)):
            z, y, x = (edge // 2 for edge in fov)
            raise GeometryError(
                f"radius {self.radius} (z,y,x) around a decision point does not hold the "
                f"network's field of view {fov}: give at least {z},{y},{x}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a run's record."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


def _scaled(voxels: int, voxel_size: VoxelSize) -> Zyx:
    """Return as many voxels along each axis as reach as far as along the shortest edge."""
    shortest = min(voxel_size.zyx_nm)
    z, y, x = (max(1, round(voxels * shortest / edge)) for edge in voxel_size.zyx_nm)
    return (z, y, x)
