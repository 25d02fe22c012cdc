"""Grey values made like those of a reference, as the old program did before a flood.

In: sections (z, y, x) and a lookup table that ``compute_histogram_lut`` of the old
program made. Out: sections whose contrast is first equalised locally, then spread over
all levels, then looked up, so that their histogram is that of the reference.

References
----------
K. Zuiderveld 1994, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV;
the variant here is that of ``skimage.exposure.equalize_adapthist``, bit for bit, since
the old program used that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt8

from floodem.errors import VolumeFormatError
from floodem.legacy.results.archive import open_archive

LUT_KEY = "lut"
LUT_LENGTH = 256
_LARGEST_LEVEL = 2**14 - 1
"""Grey levels are brought to this range before they are counted."""

_BINS = 256
_BIN_LEVELS = 1 + (_LARGEST_LEVEL + 1) // _BINS
_TILES = 8
_CLIP = 0.01
_LARGEST_GREY = 255
_WIDENING = 257
"""From 8 to 16 bits: 255 becomes 65535."""


def read_lookup_table(path: Path) -> UInt8[np.ndarray, "256"]:
    """Read the table from the old program's npz file, member ``lut``.

    Raises
    ------
    VolumeNotFoundError, VolumeFormatError, UnsafeFileError
        When it is not there, damaged, or no table of 256 grey values.
    """
    with open_archive(path) as archive:
        archive.require(LUT_KEY)
        header = archive.header(LUT_KEY)
        if header.shape != (LUT_LENGTH,) or header.dtype != np.uint8:
            raise VolumeFormatError(
                f"{path} holds {header.dtype} of shape {header.shape} as {LUT_KEY!r}: a "
                "reference_histogram is a table of 256 uint8 grey values"
            )
        return archive.numbers(LUT_KEY)


def match_histogram(
    sections: Integer[np.ndarray, "z y x"],
    lut: UInt8[np.ndarray, "256"],
    *,
    ignored: Bool[np.ndarray, "z y x"] | None = None,
) -> Integer[np.ndarray, "z y x"]:
    """Return sections with the histogram of a reference; each one stands for itself.

    Parameters
    ----------
    sections
        Grey values of 8 or 16 bits.
    lut
        See `read_lookup_table`.
    ignored
        True where voxels do not count for the histogram; they are changed all the same,
        and a section of such voxels only is left as it is.
    """
    matched = sections.copy()
    for z, section in enumerate(sections):
        levels = (equalise(section) * _LARGEST_GREY).astype(np.uint8)
        counted = levels if ignored is None else levels[~ignored[z]]
        if counted.size:
            share = np.cumsum(np.bincount(counted.ravel(), minlength=LUT_LENGTH)) / counted.size
            # Below the darkest level that counts, the share is that level's.
            reached = np.maximum(np.arange(LUT_LENGTH), counted.min())
            spread = (share[reached] * _LARGEST_GREY).astype(np.uint8)
            matched[z] = lut[spread[levels]]
    return matched


def equalise(section: Integer[np.ndarray, "y x"]) -> Float64[np.ndarray, "y x"]:
    """Return a section (y, x) of 8 or 16 bits with even local contrast, from 0 to 1.

    Each of about 8 x 8 tiles has its own table from levels to levels, and a pixel gets
    the value between those of the four tables around it.
    """
    height, width = section.shape
    tile = (max(height // _TILES, 1), max(width // _TILES, 1))
    before = (tile[0] // 2, tile[1] // 2)
    padding = [
        (first, -length % edge + -(-edge // 2))
        for first, length, edge in zip(before, section.shape, tile, strict=True)
    ]
    bins = np.pad(_all_levels(section) // _BIN_LEVELS, padding, mode="reflect")
    rows, columns = bins.shape[0] // tile[0], bins.shape[1] // tile[1]
    tables = np.pad(_tables(bins, tile=tile, before=before), [(1, 1), (1, 1), (0, 0)], mode="edge")
    tiles = _in_tiles(bins, tile)
    weights_x = np.arange(tile[1]) / tile[1]
    weights_y = (np.arange(tile[0]) / tile[0])[:, np.newaxis]
    summed = np.zeros(tiles.shape, np.float32)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        table = tables[down : down + rows, right : right + columns].reshape(rows * columns, _BINS)
        values = np.take_along_axis(table, tiles.reshape(rows * columns, -1), axis=-1)
        weights = (weights_x if right else 1 - weights_x) * (weights_y if down else 1 - weights_y)
        summed += (values.reshape(tiles.shape) * weights).astype(np.float32)
    whole = summed.astype(np.uint16).reshape(rows, columns, *tile).swapaxes(1, 2)
    cut = whole.reshape(bins.shape)[before[0] : before[0] + height, before[1] : before[1] + width]
    return _between(cut.astype(np.float64), largest=1.0)


def _all_levels(section: Integer[np.ndarray, "y x"]) -> Int64[np.ndarray, "y x"]:
    """Spread a section over all levels that are told apart."""
    wide = section.astype(np.uint16)
    if section.dtype == np.uint8:
        wide *= _WIDENING
    return np.round(_between(wide.astype(np.float64), largest=_LARGEST_LEVEL)).astype(np.int64)


def _between(values: Float64[np.ndarray, "y x"], *, largest: float) -> Float64[np.ndarray, "y x"]:
    """Bring values to the range from 0 to `largest`; where all are alike, cut them to it."""
    low, high = float(values.min()), float(values.max())
    spread: Float64[np.ndarray, "y x"] = (
        np.clip(values, 0.0, largest) if low == high else (values - low) / (high - low) * largest
    )
    return spread


def _in_tiles(array: Int64[np.ndarray, "y x"], tile: tuple[int, int]) -> Int64[np.ndarray, "n a b"]:
    """Return an array cut into tiles, row by row."""
    rows, columns = array.shape[0] // tile[0], array.shape[1] // tile[1]
    cut = array.reshape(rows, tile[0], columns, tile[1]).swapaxes(1, 2)
    tiles: Int64[np.ndarray, "n a b"] = cut.reshape(rows * columns, *tile)
    return tiles


def _tables(
    bins: Int64[np.ndarray, "y x"], *, tile: tuple[int, int], before: tuple[int, int]
) -> Int64[np.ndarray, "rows columns 256"]:
    """Return for each tile of the section itself what its bins become."""
    rows, columns = bins.shape[0] // tile[0] - 1, bins.shape[1] // tile[1] - 1
    inner = bins[before[0] : before[0] + rows * tile[0], before[1] : before[1] + columns * tile[1]]
    pixels = tile[0] * tile[1]
    limit = max(int(_CLIP * pixels), 1)
    counts = [
        _clipped(np.bincount(one.ravel(), minlength=_BINS), limit=limit)
        for one in _in_tiles(inner, tile)
    ]
    summed = np.cumsum(counts, axis=-1).astype(np.float64) * (_LARGEST_LEVEL / pixels)
    levels: Int64[np.ndarray, "n 256"] = np.minimum(summed, _LARGEST_LEVEL).astype(np.int64)
    tables: Int64[np.ndarray, "rows columns 256"] = levels.reshape(rows, columns, _BINS)
    return tables


def _clipped(counts: Int64[np.ndarray, "256"], *, limit: int) -> Int64[np.ndarray, "256"]:
    """Cut what lies above the limit and give it to all bins, as far as they have room."""
    excess = int(np.maximum(counts - limit, 0).sum())
    counts = np.minimum(counts, limit)
    share = excess // _BINS
    is_low = counts < limit - share
    excess -= int(np.count_nonzero(is_low)) * share
    counts[is_low] += share
    is_nearly_full = (counts >= limit - share) & (counts < limit)
    excess -= int((limit - counts[is_nearly_full]).sum())
    counts[is_nearly_full] = limit
    while excess > 0:
        left = excess
        for first in range(_BINS):
            room = counts < limit
            step = max(1, int(np.count_nonzero(room)) // excess)
            taking = room[first::step]
            counts[first::step][taking] += 1
            excess -= int(np.count_nonzero(taking))
            if excess <= 0:
                break
        if excess == left:
            break
    return counts
