"""Edges of an image and distances to them.

In: a normalised image, 2-D or 3-D. Out: where its gradient stands out from its
surroundings, and how far every other voxel is from there. Seed policies look
for the voxels in the middle between edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

# The reference compares the gradient with its average over a window of 49 voxels,
# which spans three standard deviations to either side.
EDGE_CONTEXT_SIGMA = 49.0 / 6.0


def image_edges(image: Float32[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Return where the Sobel gradient is larger than its Gaussian average."""
    gradient = ndimage.generic_gradient_magnitude(image, ndimage.sobel)
    average = np.empty(gradient.shape, dtype=np.float32)
    ndimage.gaussian_filter(gradient, EDGE_CONTEXT_SIGMA, output=average, mode="reflect")
    edges: Bool[np.ndarray, "*shape"] = gradient > average
    return edges


def distance_to(
    targets: Bool[np.ndarray, "*shape"], *, anisotropy: tuple[float, ...]
) -> Float32[np.ndarray, "*shape"]:
    """Return the Euclidean distance of every voxel to the nearest target.

    Infinite everywhere when there is no target. Equal voxel edges give the
    correctly rounded root of an integer, so the result is the same on every
    machine.

    Parameters
    ----------
    anisotropy
        Edge lengths of a voxel, one for each axis.
    """
    distance = np.full(targets.shape, np.inf, dtype=np.float32)
    if not targets.any():
        return distance
    nearest = ndimage.distance_transform_edt(
        ~targets, sampling=anisotropy, return_distances=False, return_indices=True
    )
    for first in range(targets.shape[0]):  # a section at a time: float64 of all would not fit
        distance[first] = _section_distance(nearest, first, anisotropy)
    return distance


def _section_distance(
    nearest: np.ndarray[Any, np.dtype[np.int32]], first: int, anisotropy: tuple[float, ...]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    section = nearest[:, first]
    here = np.ogrid[tuple(slice(0, length) for length in section.shape[1:])]
    squared = np.zeros(section.shape[1:], dtype=np.float64)
    for axis, place in enumerate([first, *here]):
        step = (section[axis] - place) * np.float64(anisotropy[axis])
        squared += step * step
    return np.sqrt(squared)
