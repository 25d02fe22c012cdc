"""Which axis is z: a survey of an image and its voxel size in, a finding out.

Sections are cut and imaged one by one, so that along z neighbours differ most: sections
are thick, lie a little askew and differ in brightness. Where they differ most along
another axis, axes are named wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

from floodem.geometry import VoxelSize
from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.image import ANISOTROPIC
from floodem.project.doctor.survey import Survey

PART = "image"

ODD = 2.0
"""How many times more neighbours differ along one axis than along both others, so that it must
be z. SNEMI3D has 8 (6 x 6 x 30 nm), synthetic sections of 30 nm 5; FIB-25 has 1.2, synthetic
cubes 1.1."""


def look_at_axes(found: Survey, *, voxel_size: VoxelSize | None) -> Iterator[Finding]:
    """Yield whether the axis along which neighbours differ most is z."""
    if not found.axis_changes:
        return
    axis, times, changes = _most(found)
    told = ", ".join(f"{name} {value:.2f}" for name, value in zip("zyx", changes, strict=True))
    value = dict(zip("zyx", map(float, changes), strict=True))
    if times < ODD:
        flat = voxel_size is not None and voxel_size.z_nm >= 2 * ODD * voxel_size.x_nm
        yield _finding(
            Level.NOTE if flat else Level.OK,
            f"neighbours differ about alike along all axes ({told})",
            value=value,
            reason="sections much thicker than pixels are wide differ more" if flat else "",
            advice="check the voxel size: the data look isotropic" if flat else "",
        )
    elif axis == "z":
        is_cube = voxel_size is not None and voxel_size.z_nm < ANISOTROPIC * voxel_size.x_nm
        yield _finding(
            Level.WARNING if is_cube and voxel_size != VoxelSize(1, 1, 1) else Level.OK,
            f"neighbours differ {times:.1f} times more along z than along y and x: z are sections",
            value=value,
            reason="the voxel size says cubes, whose neighbours differ alike" if is_cube else "",
            advice="check the voxel size, and the alignment of the sections" if is_cube else "",
        )
    else:
        yield _finding(
            Level.PROBLEM,
            f"neighbours differ {times:.1f} times more along {axis} than along the other axes "
            f"({told}): {axis} seems to be the axis of the sections, not z",
            value=value,
            reason=f"{ODD:g} times and more mean sections; cubes have 1.0 to 1.3",
            advice=f"name the axes as they are stored: --axes {_named(axis)} (floodem convert "
            "--axes writes it down)",
        )


def has_thick_sections(found: Survey) -> bool:
    """Tell whether neighbours differ so much more along z that it must be sections."""
    if not found.axis_changes:
        return False
    axis, times, _ = _most(found)
    return axis == "z" and times >= ODD


def _most(found: Survey) -> tuple[str, float, Float64[np.ndarray, "3"]]:
    """Return the axis along which neighbours differ most, how many times more, and by how much."""
    changes = np.median(np.array(found.axis_changes, np.float64), axis=0)
    order = np.argsort(-changes)
    most, second = float(changes[order[0]]), float(changes[order[1]])
    return "zyx"[int(order[0])], most / max(second, 1e-12), changes


def _named(axis: str) -> str:
    """Return the names to give where z lies on this axis of what is read as z, y, x."""
    return {"y": "yzx", "x": "xyz"}[axis]


def _finding(
    level: Level, says: str, *, value: object, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what="axes", says=says, value=value, reason=reason, advice=advice
    )
