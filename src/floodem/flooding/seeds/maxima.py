"""Local maxima of an array, found and thinned as scikit-image's `peak_local_max` does.

In: a 2-D or 3-D array of heights. Out: the positions of its peaks, highest
first. Seed policies turn distances and intensities into seeds with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from scipy import ndimage

# Breaks ties between equal distances, the same way in every run (the reference's values).
TIE_NOISE_SEED = 42
TIE_NOISE_HEIGHT = 1e-4

Heights = np.ndarray[Any, np.dtype[np.floating[Any]]]


def local_maxima(
    heights: Heights,
    *,
    min_distance: int,
    threshold_abs: float | None = None,
    threshold_rel: float | None = None,
    disk_radius: int | None = None,
) -> Int64[np.ndarray, "n d"]:
    """Return where `heights` is the largest of its surroundings, highest first.

    A peak equals the maximum of the cube of ``2 * min_distance + 1`` voxels
    around it, is higher than both thresholds and lies at least `min_distance`
    from the border. Of two peaks closer together than `min_distance` the higher
    one stays; equal ones rank in C order. An array without any difference has
    no peaks.

    Parameters
    ----------
    threshold_abs
        Peaks are higher than this (default: than the lowest value).
    threshold_rel
        Peaks are higher than this part of the highest value.
    disk_radius
        Take the surroundings from a ball of this radius instead of the cube,
        and Euclidean instead of chessboard distances between peaks.
    """
    floor = float(heights.min()) if threshold_abs is None else threshold_abs
    if threshold_rel is not None:
        floor = max(floor, threshold_rel * float(heights.max()))
    if disk_radius is None:
        footprint = np.ones((2 * min_distance + 1,) * heights.ndim, dtype=bool)
    else:
        footprint = ball(disk_radius, ndim=heights.ndim)
    peaks = _above_surroundings(heights, footprint)
    peaks &= heights > floor
    _clear_border(peaks, width=min_distance)
    positions = np.argwhere(peaks)
    order = np.argsort(-heights[peaks], kind="stable")
    return _spaced(
        positions[order],
        shape=heights.shape,
        distance=min_distance,
        euclidean=disk_radius is not None,
    )


def noisy_maxima(
    heights: Heights, *, min_distance: int, threshold_abs: float
) -> Int64[np.ndarray, "n d"]:
    """Return local maxima of heights with ties broken by fixed noise, in C order."""
    noise = np.random.RandomState(TIE_NOISE_SEED).rand(*heights.shape)
    noise *= TIE_NOISE_HEIGHT
    noise += heights
    peaks = local_maxima(
        noise, min_distance=min_distance, threshold_abs=threshold_abs, threshold_rel=0.0
    )
    return c_ordered(peaks)


def c_ordered(positions: Int64[np.ndarray, "n d"]) -> Int64[np.ndarray, "n d"]:
    """Return positions sorted ascending by their first, then second, ... coordinate."""
    return positions[np.lexsort(positions.T[::-1])]


def ball(radius: int, *, ndim: int) -> Bool[np.ndarray, "*shape"]:
    """Return the voxels within `radius` of the centre of a cube of 2 * radius + 1."""
    return _squared_distances(radius, ndim=ndim) <= radius**2


def _above_surroundings(
    heights: Heights, footprint: Bool[np.ndarray, "*near"]
) -> Bool[np.ndarray, "*shape"]:
    if footprint.size == 1 or heights.size == 1:
        return np.ones(heights.shape, dtype=bool)
    peaks: Bool[np.ndarray, "*shape"] = heights == ndimage.maximum_filter(
        heights, footprint=footprint, mode="nearest"
    )
    if peaks.all():
        peaks[...] = False
    return peaks


def _clear_border(peaks: Bool[np.ndarray, "*shape"], *, width: int) -> None:
    if width == 0:
        return
    for axis in range(peaks.ndim):
        sides = np.moveaxis(peaks, axis, 0)
        sides[:width] = False
        sides[-width:] = False


def _spaced(
    positions: Int64[np.ndarray, "n d"],
    *,
    shape: tuple[int, ...],
    distance: int,
    euclidean: bool,
) -> Int64[np.ndarray, "m d"]:
    """Keep each position that no kept earlier one is closer to than `distance`."""
    if distance <= 1:
        return positions
    reach = distance - 1
    near = np.ones((2 * reach + 1,) * positions.shape[1], dtype=bool)
    if euclidean:
        near = _squared_distances(reach, ndim=positions.shape[1]) < distance**2
    # No kept position lies within `distance` of the border, so the stamp always fits.
    blocked = np.zeros(shape, dtype=bool)
    kept = np.zeros(len(positions), dtype=bool)
    for index, position in enumerate(positions.tolist()):
        if blocked[tuple(position)]:
            continue
        kept[index] = True
        blocked[tuple(slice(p - reach, p + reach + 1) for p in position)] |= near
    return positions[kept]


def _squared_distances(reach: int, *, ndim: int) -> Int64[np.ndarray, "*shape"]:
    """Return squared distances to the centre of a cube of 2 * reach + 1."""
    squared = np.zeros((2 * reach + 1,) * ndim, dtype=np.int64)
    for axis in np.ogrid[(slice(-reach, reach + 1),) * ndim]:
        squared += axis**2
    return squared
