"""Contrast limited adaptive histogram equalisation, one window for every pixel.

The rule of ImageJ's "Enhance Local Contrast (CLAHE)", not the fast mode, written
from its description and behaviour: mpicbg.ij.clahe.Flat, dialog values block,
bins and slope.
"""

from __future__ import annotations

import numpy as np


def clip_histogram(histogram, limit):
    clipped = [int(count) for count in histogram]
    bins = len(clipped)
    cut = 0
    while True:
        cut_before, cut = cut, 0
        for i in range(bins):
            if clipped[i] > limit:
                cut += clipped[i] - limit
                clipped[i] = limit
        for i in range(bins):
            clipped[i] += cut // bins
        left_over = cut % bins
        if left_over:
            distance = (bins - 1) // left_over
            for i in range(distance // 2, bins, distance):
                clipped[i] += 1
        if cut == cut_before:
            return clipped


def transfer(clipped):
    """New value (0 to 1) of each bin from the first occupied one on, and 0 before it."""
    first = next(i for i, count in enumerate(clipped) if count)
    cumulative = np.cumsum(clipped)
    width = cumulative[-1] - clipped[first]
    if width == 0:
        return np.arange(len(clipped), dtype=np.float32) / np.float32(len(clipped) - 1)
    places = (cumulative - clipped[first]).astype(np.float32) / np.float32(width)
    return np.maximum(places, np.float32(0))


def bin_positions(values, bins, low=0, high=255):
    inside = np.clip(values.astype(np.float32), low, high) - np.float32(low)
    return inside / np.float32(high - low) * np.float32(bins - 1)


def equalised_pixel(section, y, x, *, block, bins, slope, value_range=(0, 255)):
    radius = (block - 1) // 2
    low, high = value_range
    window = section[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
    in_bins = np.floor(bin_positions(window, bins, low, high) + np.float32(0.5)).astype(int)
    histogram = np.bincount(in_bins.ravel(), minlength=bins)
    per_bin = np.float32(slope) * np.float32(window.size) / np.float32(bins - 1)
    places = transfer(clip_histogram(histogram, int(per_bin + np.float32(0.5))))
    position = bin_positions(section[y : y + 1, x], bins, low, high)[0]
    if section.dtype.itemsize == 1:
        place = places[int(position + np.float32(0.5))]
    else:
        place = np.interp(position, np.arange(bins), places)
    return int(np.floor(place * np.float32(high - low) + np.float32(low + 0.5)))


def equalised(section, *, block, bins, slope, value_range=(0, 255)):
    options = {"block": block, "bins": bins, "slope": slope, "value_range": value_range}
    return np.array(
        [
            [equalised_pixel(section, y, x, **options) for x in range(section.shape[1])]
            for y in range(section.shape[0])
        ],
        section.dtype,
    )
