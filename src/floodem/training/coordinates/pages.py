"""Pages: partitions of a small box in, runs of equal voxels out, one uint32 each, and back.

A volume is cut into pages of `PAGE_SHAPE` from its first voxel on, in C order; the
last ones reach beyond it. A voxel's number in its page is its C-order index in a whole
page. The voxels of one partition in a page are a *segment*: runs in ascending order,
each with its first voxel's number in the upper bits and its length less one below.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt8, UInt32

from floodem.geometry import Box, Zyx

EXCLUDED = 255
"""The partition of voxels that no example may be centred on."""

PAGE_SHAPE: Zyx = (64, 128, 128)
PAGE_VOXELS = math.prod(PAGE_SHAPE)

_LENGTH_BITS = 12
_LONGEST_RUN = 2**_LENGTH_BITS
assert PAGE_VOXELS <= 2 ** (32 - _LENGTH_BITS)


def page_grid(box: Box) -> Zyx:
    """Return how many pages a box has along z, y and x."""
    z, y, x = (-(-size // page) for size, page in zip(box.shape, PAGE_SHAPE, strict=True))
    return (z, y, x)


def page_box(box: Box, number: int) -> Box:
    """Return where a page of a box lies; the last ones reach beyond the box."""
    index = np.unravel_index(number, page_grid(box))
    z, y, x = (
        first + int(at) * size for first, at, size in zip(box.start, index, PAGE_SHAPE, strict=True)
    )
    return Box.from_shape(PAGE_SHAPE, start=(z, y, x))


def pages_in(box: Box, part: Box) -> Iterator[tuple[int, Box]]:
    """Yield the number and the place of each page of `box` that has voxels in `part`."""
    ranges = [
        range((low - first) // size, -(-(high - first) // size))
        for first, low, high, size in zip(box.start, part.start, part.stop, PAGE_SHAPE, strict=True)
    ]
    for index in itertools.product(*ranges):
        number = int(np.ravel_multi_index(index, page_grid(box)))
        yield number, page_box(box, number)


def pack_page(
    partitions: UInt8[np.ndarray, "z y x"], *, start: Zyx
) -> tuple[Int64[np.ndarray, "segments 3"], UInt32[np.ndarray, "runs"]]:
    """Pack a part of a page, whose first voxel lies at `start` in the page.

    Returns
    -------
    segments
        One row for each partition that occurs, ascending and without `EXCLUDED`:
        partition, number of runs, number of voxels.
    words
        The runs of all segments, in their order.
    """
    page = np.full(PAGE_SHAPE, EXCLUDED, np.uint8)
    page[Box.from_shape(partitions.shape, start=start).slices()] = partitions
    flat = page.reshape(-1)
    is_start = np.ones(PAGE_VOXELS, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=is_start[1:])
    is_start[::_LONGEST_RUN] = True
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=PAGE_VOXELS)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    order = order[: len(order) - int(np.count_nonzero(values == EXCLUDED))]
    words = ((starts[order] << _LENGTH_BITS) | (lengths[order] - 1)).astype(np.uint32)
    found, runs = np.unique(values[order], return_counts=True)
    voxels = np.bincount(values[order], weights=lengths[order], minlength=EXCLUDED)
    return np.stack([found.astype(np.int64), runs, voxels[found].astype(np.int64)], axis=1), words


def unpack(
    words: UInt32[np.ndarray, "runs"],
) -> tuple[Int64[np.ndarray, "runs"], Int64[np.ndarray, "runs"]]:
    """Return where the runs of a segment begin in their page, and how long they are."""
    starts = (words >> _LENGTH_BITS).astype(np.int64)
    return starts, (words & (_LONGEST_RUN - 1)).astype(np.int64) + 1
