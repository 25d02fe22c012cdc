"""Paths of voxels made smooth: polylines in nanometres come in and go out.

A path through voxels is a staircase, longer than the line it follows by up to a
fifth. Each point is replaced by the mean of the path over a stretch around it,
as long as the object is wide there, twice; the ends stay where they are. And a
path that begins at the farthest voxel of a blunt end, mostly at its rim, is led
out along the middle instead. Used by `floodem.shapes.skeletons.teasar`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

Points = Float64[np.ndarray, "points 3"]
Cell = tuple[float, float]
Values = Float64[np.ndarray, "points"]
DepthAt = Callable[[Points], Values]
"""Depth of the voxels in which points (z, y, x nm) lie; 0 outside of the object."""

LEAST_STRETCH_CELLS = 2.0
"""Half the stretch that is averaged is at least this many cells, where staircases vanish."""

LEAST_STRETCH_LONG_EDGES = 1.0
"""... and as long as cells are on their longest axis."""

STRETCH_PER_RADIUS = 1.0
"""Half the stretch is at least so many radii: what a midline does within one is no course."""

BLUNT = 1.5
"""A path that has come less than this many radii from its first voxel is still in the end cap:
in a flat end it runs from the rim at 45 degrees to the middle, 1.41 radii."""

ROUNDS = 2


def along(points: Points) -> Values:
    """Return how far each point is from the first, along the path."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    distances: Values = np.concatenate([[0.0], np.cumsum(steps)])
    return distances


def polished(
    points: Points, radii: Values, *, is_whole: bool, cell_nm: Cell, depth_at: DepthAt
) -> tuple[
    Float64[np.ndarray, "made 3"],
    Float64[np.ndarray, "made"],
    Int64[np.ndarray, "points"],
    Float64[np.ndarray, "points"],
]:
    """Return a path with its blunt ends led out along the middle, and smoothed.

    Parameters
    ----------
    points, radii
        Centres of voxels in nanometres from a tip on, and how deep they lie.
    is_whole
        Whether the last point is a tip as well; otherwise the path ends at another one.
    cell_nm
        Shortest and longest edge of the cells whose voxels the points are.

    Returns
    -------
    points, radii
        The path as it should be.
    rows
        For each given point the row of the one that stands for it now.
    caps
        For each given point the radius of the blunt end that it lay in, or 0.
    """
    rows, caps = np.arange(len(points)), np.zeros(len(points))
    for _ in range(2 if is_whole else 1):
        dropped, out = lead_out(points, radii, cell_nm=cell_nm, depth_at=depth_at)
        is_cap = (rows <= dropped) & (dropped > 0)
        caps[is_cap] = np.maximum(caps[is_cap], radii[dropped])
        points = np.concatenate([out, points[dropped:]])
        radii = np.concatenate([depth_at(out), radii[dropped:]])
        rows = np.maximum(rows, dropped) - dropped + len(out)
        if is_whole:
            points, radii, rows = points[::-1], radii[::-1], len(points) - 1 - rows
    return smooth(points, radii, cell_nm=cell_nm, depth_at=depth_at), radii, rows, caps


def smooth(
    points: Points,
    radii: Values,
    *,
    cell_nm: Cell,
    depth_at: DepthAt,
) -> Points:
    """Return the path with each point at the mean of its surroundings; the ends stay.

    Parameters
    ----------
    points
        z, y, x in nanometres.
    radii
        Of the object at the points, in nanometres.
    cell_nm
        Shortest and longest edge of the cells whose voxels the points are.
    depth_at
        A mean that does not lie in the object is not taken.
    """
    made = points
    for _ in range(ROUNDS):
        made = _averaged(
            made,
            np.maximum(
                STRETCH_PER_RADIUS * radii,
                max(LEAST_STRETCH_CELLS * cell_nm[0], LEAST_STRETCH_LONG_EDGES * cell_nm[1]),
            ),
        )
    smoothed: Points = np.where(depth_at(made)[:, None] > 0, made, points)
    return smoothed


def _averaged(points: Points, half: Values) -> Points:
    """Average over as much on both sides as `half` says, and as there is path on both sides."""
    distances = along(points)
    half = np.minimum(half, np.minimum(distances, distances[-1] - distances))
    middles = (points[1:] + points[:-1]) / 2 * np.diff(distances)[:, None]
    integral = np.concatenate([np.zeros((1, 3)), np.cumsum(middles, axis=0)])

    def until(at: Values) -> Points:
        row = np.clip(np.searchsorted(distances, at, side="right") - 1, 0, len(points) - 2)
        step = at - distances[row]
        span = np.maximum(distances[row + 1] - distances[row], np.finfo(float).tiny)
        slope = (points[row + 1] - points[row]) / span[:, None]
        reached: Points = (
            integral[row] + step[:, None] * points[row] + step[:, None] ** 2 / 2 * slope
        )
        return reached

    is_wide = half > 0
    wide = np.where(is_wide, half, 1.0)[:, None]
    mean = (until(distances + half) - until(distances - half)) / (2 * wide)
    averaged: Points = np.where(is_wide[:, None], mean, points)
    return averaged


def lead_out(
    points: Points,
    radii: Values,
    *,
    cell_nm: Cell,
    depth_at: DepthAt,
) -> tuple[int, Float64[np.ndarray, "out 3"]]:
    """Return how many points at a path's beginning to replace, and what by.

    From where the path has left its end cap, it is led straight on along its
    direction there, as far as the object goes. A path that begins at a sharp tip, or
    in an end that is bent, stays (0 and no points).

    Parameters
    ----------
    points
        z, y, x in nanometres, from the tip on.
    radii, cell_nm, depth_at
        As `smooth` takes them.
    """
    nothing = (0, np.zeros((0, 3)))
    distances = along(points)
    is_cap = distances <= BLUNT * radii + cell_nm[0] + cell_nm[1]
    first = int(np.argmin(is_cap)) - 1 if not is_cap.all() else len(points) - 1
    if first < 1:
        return nothing
    behind = int(np.searchsorted(distances, distances[first] + radii[first]))
    behind = min(behind, len(points) - 1)
    course = points[first] - points[behind]
    length = float(np.linalg.norm(course))
    if length < radii[first] / 2 or length < cell_nm[0]:
        return nothing
    step = cell_nm[0] / 4
    # Between two points that lie inside, so that rounding does not move the end out of its voxel.
    reach = np.arange(1, int((BLUNT * radii[first] + cell_nm[0] + cell_nm[1]) / step) + 2) * step
    ray = points[first] + reach[:, None] * (course / length)
    is_out = depth_at(ray) <= 0
    steps_inside = int(np.argmax(is_out)) if is_out.any() else len(ray)
    is_short = (
        steps_inside * step < (points[0] - points[first]) @ course / length - radii[first] / 2
    )
    if is_short:
        return nothing
    if steps_inside == 0:
        return first, nothing[1]
    count = max(1, round(steps_inside * step / cell_nm[0]))
    chosen = np.linspace(steps_inside, 0, count, endpoint=False).round().astype(int) - 1
    return first, ray[chosen] - course / length * (step / 2)
