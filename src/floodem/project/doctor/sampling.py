"""Which voxels of an image are looked at: its shape and chunks in, boxes to read out.

A volume may be larger than any disk nearby. What says most about sections is a column
through all of them; where even that is too much, runs of neighbouring sections are
taken, spread evenly::

      y,x -->
    z  +-----------+
    |  |    |##|   |   a window of whole chunks around the middle, over all sections
    v  |    |##|   |   or over some runs of them
       |    |##|   |
       +-----------+

Whoever asks for everything gets windows that tile the sections.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from floodem.counting import counted
from floodem.geometry import Box, Zyx, tiles

SAMPLED_BYTES = 2**26
"""What is looked at unless everything is asked for: some seconds of one core."""

DECODED_BYTES = 2**29
"""What is decoded for that at most: whole chunks come, and large ones come often in vain."""

PIECE_BYTES = 2**26
"""What is held at once."""

WIDEST = 512
NARROWEST = 256
"""Edges of a window in voxels. Means of smaller sections depend on what happens to be there
(DRIFT_SECTION_VOXELS of floodem.volumes.grey), and patches of 160 need room to be shifted in."""

RUN = 32
"""Sections that follow each other, where not all are looked at."""

FEWEST_PAIRS = 2
"""Pairs of sections that are read once more even so."""

FEWEST = 4
"""Sections of a run where chunks are so large that a whole run costs too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What is looked at.

    Attributes
    ----------
    box
        The whole volume.
    windows
        Columns over all sections, one below the other nowhere.
    runs
        First section and the one behind the last, ascending, without overlap.
    piece_sections
        Sections that are read at once.
    """

    box: Box
    windows: tuple[Box, ...]
    runs: tuple[tuple[int, int], ...]
    piece_sections: int

    def affordable_pairs(self, *, chunks: Zyx, itemsize: int) -> int:
        """Return of how many pairs of sections a window may be read once more.

        Chunks come whole: of large ones few can be decoded twice.
        """
        edges = zip((2, *self.windows[0].shape[1:]), chunks, strict=True)
        decoded = itemsize * math.prod(_up(length, chunk) for length, chunk in edges)
        return max(FEWEST_PAIRS, DECODED_BYTES // decoded)

    @property
    def voxels(self) -> int:
        """How many voxels are looked at."""
        sections = sum(stop - start for start, stop in self.runs)
        return sections * sum(math.prod(window.shape[1:]) for window in self.windows)

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.voxels == self.box.size

    @property
    def has_all_sections(self) -> bool:
        """Whether every section is looked at somewhere."""
        return self.runs == ((self.box.start[0], self.box.stop[0]),)

    def pieces(self) -> Iterator[Box]:
        """Yield boxes to read, window by window; each begins with the last section before it.

        So every two sections that follow each other within a run come together.
        """
        for window in self.windows:
            for start, stop in self.runs:
                for first in range(start, stop, self.piece_sections):
                    last = min(first + self.piece_sections, stop)
                    yield _sections(window, max(first - 1, start), last)

    def says(self) -> str:
        """Say in words what was looked at."""
        if self.is_all:
            return f"all {self.voxels:,} voxels"
        sections = sum(stop - start for start, stop in self.runs)
        _, height, width = self.windows[0].shape
        of = "all" if self.has_all_sections else f"{sections:,} of"
        columns = counted(len(self.windows), "window")
        return (
            f"{columns} of {height} x {width} voxels (y,x) in {of} {self.box.shape[0]:,} sections: "
            f"{self.voxels:,} voxels, {self.voxels / self.box.size:.2g} of the volume"
        )


def _sections(window: Box, first: int, stop: int) -> Box:
    (_, y0, x0), (_, y1, x1) = window.start, window.stop
    return Box((first, y0, x0), (stop, y1, x1))


def choose_sampling(
    box: Box, *, chunks: Zyx, itemsize: int, thorough: bool = False, most: int = SAMPLED_BYTES
) -> Sampling:
    """Decide what is looked at.

    Parameters
    ----------
    box
        The volume.
    chunks
        What is cheap to read alone, z, y, x.
    itemsize
        Bytes of a voxel.
    thorough
        Look at everything.
    most
        Bytes that are looked at otherwise, about.
    """
    depth = box.shape[0]
    if box.size * itemsize <= most:
        windows: tuple[Box, ...] = (box,)
        runs: tuple[tuple[int, int], ...] = ((box.start[0], box.stop[0]),)
    elif thorough:
        edges = (depth, _up(WIDEST, chunks[1]), _up(WIDEST, chunks[2]))
        windows = tuple(tile.core for tile in tiles(box, core=edges))
        runs = ((box.start[0], box.stop[0]),)
    else:
        affordable = math.isqrt(max(1, most // (itemsize * depth)))
        edge = min(WIDEST, max(NARROWEST, affordable))
        window = _window(box, chunks=chunks, edge=edge)
        windows = (window,)
        runs = _runs(box, window, chunks=chunks, itemsize=itemsize, most=most)
    area = max(math.prod(window.shape[1:]) for window in windows)
    held = max(2, PIECE_BYTES // (area * itemsize))
    whole = max(1, held // chunks[0]) * chunks[0] if held >= chunks[0] else held
    return Sampling(box=box, windows=windows, runs=runs, piece_sections=min(whole, depth))


def _window(box: Box, *, chunks: Zyx, edge: int) -> Box:
    """Return a column around the middle, on whole chunks where these are not larger."""
    bounds = []
    for start, stop, chunk in zip(box.start[1:], box.stop[1:], chunks[1:], strict=True):
        length = min(edge, stop - start)
        first = (stop - start - length) // 2
        if chunk <= length:
            first -= first % chunk
        bounds.append((start + first, start + first + length))
    (y0, y1), (x0, x1) = bounds
    return Box((box.start[0], y0, x0), (box.stop[0], y1, x1))


def _runs(
    box: Box, window: Box, *, chunks: Zyx, itemsize: int, most: int
) -> tuple[tuple[int, int], ...]:
    """Spread runs of sections evenly over what may be looked at and decoded."""
    depth = box.shape[0]
    looked_at = itemsize * math.prod(window.shape[1:])
    decoded = itemsize * math.prod(
        _up(length, chunk) for length, chunk in zip(window.shape[1:], chunks[1:], strict=True)
    )
    # A chunk that is deeper than a run comes as a whole, whatever is wanted of it.
    length = min(depth, _up(RUN, chunks[0]) if looked_at * _up(RUN, chunks[0]) <= most else RUN)
    cost = decoded * _up(length, chunks[0])
    if cost > DECODED_BYTES:
        length = min(depth, max(FEWEST, DECODED_BYTES // (FEWEST * decoded)))
        cost = decoded * _up(length, chunks[0])
    count = max(1, min(most // (looked_at * length), DECODED_BYTES // cost))
    if count * length >= depth:
        return ((box.start[0], box.stop[0]),)
    gap = (depth - length) / max(1, count - 1)
    starts = [round(number * gap) for number in range(count)]
    starts = [start - start % chunks[0] if chunks[0] <= length else start for start in starts]
    return _joined([(box.start[0] + start, box.start[0] + start + length) for start in starts])


def _joined(runs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


def _up(length: int, chunk: int) -> int:
    return -(-length // chunk) * chunk
