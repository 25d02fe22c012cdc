"""Where the mouse is: a page's action comes in, a voxel of the image goes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from floodem.geometry import Zyx

_AXES_XYZ = ("x", "y", "z")


def voxel_under_mouse(
    action_state: Any, dimensions: Any, *, scales_xyz: Sequence[float]
) -> Zyx | None:
    """Return the voxel that a page names in an action.

    Parameters
    ----------
    action_state
        A ``neuroglancer.viewer_config_state.ActionState``: places are in voxels of the
        picture, in the order of its axes.
    dimensions
        Of the picture, a ``neuroglancer.CoordinateSpace``.
    scales_xyz
        Length of the image's voxels in the unit of the dimensions.

    Returns
    -------
    voxel
        z, y, x; None where the mouse points at nothing.
    """
    place = action_state.mouse_position
    if place is None:
        return None
    names = list(dimensions.names)
    if not set(_AXES_XYZ) <= set(names) or len(place) != len(names):
        return None
    found = []
    for name, own in zip(_AXES_XYZ, scales_xyz, strict=True):
        at = names.index(name)
        where = float(place[at]) * float(dimensions.scales[at]) / own
        if not math.isfinite(where):
            return None
        found.append(math.floor(where))
    x, y, z = found
    return (z, y, x)
