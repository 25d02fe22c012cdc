"""Seed policies written the slow and obvious way, with scikit-image for the peaks."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.morphology import disk


def edges(image):
    gradient = ndimage.generic_gradient_magnitude(image.astype(np.float32), ndimage.sobel)
    average = np.zeros(gradient.shape, dtype=np.float32)
    ndimage.gaussian_filter(gradient, 49.0 / 6.0, output=average, mode="reflect")
    return gradient > average


def distance(targets, edge_lengths):
    """Distance of every voxel to the nearest target, by looking at all of them."""
    places = np.argwhere(targets) * np.asarray(edge_lengths, dtype=np.float64)
    far = np.full(targets.shape, np.inf, dtype=np.float32)
    if len(places):
        for index in np.ndindex(targets.shape):
            here = np.asarray(index) * np.asarray(edge_lengths, dtype=np.float64)
            far[index] = math.sqrt(((places - here) ** 2).sum(axis=1).min())
    return far


def noisy_peaks(heights, **options):
    if not np.isfinite(heights).all():
        return []  # no target anywhere: an array without any difference has no peaks
    noise = np.random.RandomState(42).rand(*heights.shape) * 1e-4
    return sorted(
        tuple(int(p) for p in row)
        for row in peak_local_max(heights + noise, threshold_rel=0, **options)
    )


def peaks(image, segmentation, excluded, anisotropy):
    edge = edges(image)
    if excluded is not None:
        edge[excluded] = True
    if edge.all():
        return []
    far = distance(edge, anisotropy)
    far[segmentation > 0] = -1
    if excluded is not None:
        far[excluded] = -1
    far[~np.isfinite(far)] = -1
    return noisy_peaks(far, min_distance=3, threshold_abs=0)


def peaks_2d(image, excluded, *, min_distance=7, threshold_abs=2.5, descending=False):
    found = []
    for z in range(len(image)):
        edge = edges(image[z])
        if excluded is not None:
            edge[excluded[z]] = True
        far = distance(edge, (1, 1))
        for y, x in noisy_peaks(far, min_distance=min_distance, threshold_abs=threshold_abs):
            found.append((z, y, x))
    return sorted(found, reverse=descending)


def fill_empty_space(segmentation):
    far = distance(segmentation != 0, (1, 1, 1))
    return noisy_peaks(far, min_distance=2, threshold_abs=0.5)


def brightest_first(image):
    return sorted(np.ndindex(image.shape), key=lambda index: (-image[index], index))


def max_peaks(image, segmentation, excluded):
    image = image.copy()
    image[segmentation > 0] = 0
    if excluded is not None:
        image[excluded] = 0
    return noisy_peaks(image, min_distance=3, threshold_abs=0)


def image_peaks_3d_2d(image, *, min_distance_2d=2, min_distance_3d=4):
    found = [tuple(row) for row in peak_local_max(image, min_distance=min_distance_3d).tolist()]
    for z in range(len(image)):
        found += [
            (z, y, x) for y, x in peak_local_max(image[z], min_distance=min_distance_2d).tolist()
        ]
    return found


def image_peaks_2d_disk(image, *, min_distance_2d=3, threshold_rel=0.5, disk_radius=1):
    found = []
    for z in range(len(image)):
        rows = peak_local_max(
            image[z],
            min_distance=min_distance_2d,
            threshold_rel=threshold_rel,
            footprint=disk(disk_radius),
            p_norm=2,
            exclude_border=True,
        )
        found += [(z, y, x) for y, x in rows.tolist()]
    return found


def grid_3d(shape, *, step=16, offsets=(0, 8, 4, 12, 2, 10, 14)):
    return [
        (z, y, x)
        for offset in offsets
        for z in range(offset, shape[0], step)
        for y in range(offset, shape[1], step)
        for x in range(offset, shape[2], step)
    ]


def grid_2d(shape, *, step=16, offsets=(0, 8, 4, 12, 2, 6, 10, 14)):
    return [
        (z, y, x)
        for offset in offsets
        for z in range(shape[0])
        for y in range(offset, shape[1], step)
        for x in range(offset, shape[2], step)
    ]


def dense_seeds(image, *, threshold=0.5, num_erosions=0, invert=False):
    chosen = {index for index in np.ndindex(image.shape) if (image[index] > threshold) != invert}
    for _ in range(num_erosions):
        chosen = {index for index in chosen if _neighbours(index, image.shape) <= chosen}
    return sorted(chosen)


def _neighbours(index, shape):
    found = set()
    for axis in range(3):
        for step in (-1, 1):
            near = list(index)
            near[axis] += step
            if 0 <= near[axis] < shape[axis]:
                found.add(tuple(near))
    return found


def inside(positions, shape, margin):
    return [
        position
        for position in positions
        if all(m <= p < n - m for p, n, m in zip(position, shape, margin, strict=True))
    ]
