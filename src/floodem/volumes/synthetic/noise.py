"""Random numbers that belong to places: integers in, the same hash or noise for whoever asks.

Nothing here has a state. A number is a function of a key and of integer
coordinates alone, so that any box of a synthetic volume can be computed alone.
Only exactly rounded arithmetic is used, which gives the same bits whatever the
shape of the arrays.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from floodem.geometry import Box, Zyx

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Words = np.ndarray[Any, np.dtype[np.uint32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

_WORD = 2**32
_GOLDEN = np.uint32(0x9E3779B1)
"""2**32 divided by the golden ratio: consecutive numbers become distant ones."""

_IRWIN_HALL_STDDEV = 256 / np.sqrt(3)
"""Standard deviation of the sum of four random bytes."""


def scramble(words: Words) -> Words:
    """Mix the bits of each word, one to one.

    References
    ----------
    C. Wellons, "Prospecting for Hash Functions" (2018): lowbias32.
    """
    words = words ^ (words >> np.uint32(16))
    words *= np.uint32(0x7FEB352D)
    words ^= words >> np.uint32(15)
    words *= np.uint32(0x846CA68B)
    words ^= words >> np.uint32(16)
    return words


def make_key(seed: int, purpose: str) -> int:
    """Return a key for one purpose, unlike those for others."""
    word = np.array([zlib.crc32(f"{seed}/{purpose}".encode())], np.uint32)
    return int(scramble(word)[0])


def hashed(key: int, *coordinates: Any) -> Words:
    """Return a random word for each place; coordinates are integers that broadcast."""
    words = np.array([key], np.uint32)
    for coordinate in coordinates:
        step = np.atleast_1d(np.asarray(coordinate)).astype(np.int64).astype(np.uint32) * _GOLDEN
        words = scramble(words ^ (step + np.uint32(1)))
    return words


def uniform(words: Words) -> Floats:
    """Turn words into numbers from 0 up to but not including 1."""
    return words.astype(np.float64) / _WORD


def normal(words: Words) -> Floats:
    """Turn words into nearly normal numbers of mean 0 and standard deviation 1.

    The sum of a word's four bytes; none is further than 3.5 from 0.
    """
    total = np.zeros(words.shape, np.float32)
    for shift in (0, 8, 16, 24):
        total += ((words >> np.uint32(shift)) & np.uint32(255)).astype(np.float32)
    total -= np.float32(510)
    total *= np.float32(1 / _IRWIN_HALL_STDDEV)
    return total


def _spline(position: Floats) -> tuple[Integers, tuple[Floats, Floats, Floats]]:
    """Return the middle one of three support points, and the weights of the three.

    The quadratic B-spline: once continuously differentiable, weights sum to 1.
    """
    middle = np.floor(position + 0.5)
    rest = position - middle
    weights = (0.5 * (0.5 - rest) ** 2, 0.75 - rest**2, 0.5 * (0.5 + rest) ** 2)
    return middle.astype(np.int64), weights


def _signs(words: Words) -> Floats:
    return 1.0 - 2.0 * (words >> np.uint32(31)).astype(np.float64)


def noise_at(key: int, *positions: Floats) -> Floats:
    """Return smooth noise from -1 to 1 at points in any number of dimensions.

    Parameters
    ----------
    positions
        One array of coordinates for each dimension, in wavelengths.
    """
    splines = [_spline(np.asarray(position, np.float64)) for position in positions]
    total = np.zeros(np.shape(positions[0]))
    for taps in np.ndindex(*(3,) * len(splines)):
        weight = np.ones_like(total)
        for tap, (_, weights) in zip(taps, splines, strict=True):
            weight = weight * weights[tap]
        corner = (middle + (tap - 1) for tap, (middle, _) in zip(taps, splines, strict=True))
        total = total + weight * _signs(hashed(key, *corner))
    return total


def noise_over(key: int, box: Box, *, wavelength: tuple[float, float, float]) -> Floats:
    """Return smooth noise from -1 to 1 (standard deviation 0.4) for each voxel of a box.

    Parameters
    ----------
    wavelength
        In voxels, ordered z, y, x: distance of the independent support points.
    """
    axes = []
    for start, stop, length in zip(box.start, box.stop, wavelength, strict=True):
        middle, weights = _spline((np.arange(start, stop) + 0.5) / length)
        first = int(middle[0]) - 1
        support = np.arange(first, int(middle[-1]) + 2)
        axes.append((support, middle - first, weights))
    (zs, _, _), (ys, _, _), (xs, _, _) = axes
    field = _signs(hashed(key, zs[:, None, None], ys[:, None], xs)).astype(np.float32)
    for axis, (_, middle, weights) in enumerate(axes):
        along = [1, 1, 1]
        along[axis] = -1
        parts = [
            np.take(field, middle + (tap - 1), axis=axis) * weight.astype(np.float32).reshape(along)
            for tap, weight in enumerate(weights)
        ]
        field = parts[0] + parts[1]
        field += parts[2]
    return field


def voxel_words(key: int, box: Box) -> Words:
    """Return an independent random word for each voxel of a box."""
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    return hashed(
        key, np.arange(z0, z1)[:, None, None], np.arange(y0, y1)[:, None], np.arange(x0, x1)
    )


def scaled(length_nm: float, voxel_nm: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return a length in voxels of each axis."""
    z_nm, y_nm, x_nm = voxel_nm
    return (length_nm / z_nm, length_nm / y_nm, length_nm / x_nm)


def cell_shape(length_nm: float, voxel_nm: tuple[float, float, float]) -> Zyx:
    """Return the nearest whole number of voxels to a length on each axis, at least 1."""
    z, y, x = (max(1, round(count)) for count in scaled(length_nm, voxel_nm))
    return (z, y, x)
