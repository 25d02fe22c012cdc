"""An image seen with even contrast: an open volume in, one whose voxels are equalised out.

Each section (y, x) stands for itself. The rule is in `floodem.volumes.grey.tables`;
here boxes are read with what their windows cover, and their sections are equalised
in threads.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from floodem.geometry import Box
from floodem.progress import ProgressListener
from floodem.volumes.conversion.block_reading import Reader
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.description import Description
from floodem.volumes.grey.reading import grey_reader
from floodem.volumes.grey.tables import Rule, Span, equalise
from floodem.volumes.volume import Array, Kind, Volume

_TILE = 512
"""Edge of what is equalised at a time: its tables take a few megabytes."""


class EqualisedVolume(DerivedVolume):
    """An image of 8 or 16 bits as it is with the contrast of its sections equalised.

    Voxels are the same whatever the boxes in which they are read. The source stays
    open when this volume is closed.

    Parameters
    ----------
    source
        Read with what the windows around a box cover.
    block, bins, slope
        See `floodem.volumes.grey.tables.Rule`.
    value_range
        Darkest and brightest value that the bins span. By default 0 to 255 for
        uint8, else those of the whole source, which is read for them at the first
        reading.
    threads
        How many sections are equalised at once.
    progress
        Called while the source is read for its range.
    """

    def __init__(
        self,
        source: Volume,
        *,
        block: int,
        bins: int,
        slope: float,
        value_range: tuple[int, int] | None,
        threads: int,
        progress: ProgressListener | None = None,
    ) -> None:
        super().__init__(
            uri=source.uri,
            shape=source.shape,
            dtype=source.dtype,
            # Windows reach far, so that whole sections are cheapest.
            chunks=(source.chunks[0], *source.shape[1:]),
            description=Description(
                voxel_size=source.voxel_size, offset=source.offset, kind=Kind.IMAGE
            ),
            notices=source.notices,
        )
        self.recipe = {
            "clahe": {
                "block": block,
                "bins": bins,
                "slope": float(slope),
                "range": None if value_range is None else list(value_range),
            }
        }
        self._rule_over = functools.partial(Rule, block=block, bins=bins, slope=slope)
        self._value_range = value_range
        self._threads = threads
        self._progress = progress
        self._source = source
        self._reader = grey_reader(source, threads=threads)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._finding_rule = threading.Lock()
        self._found_rule: tuple[Rule | None] | None = None

    def _release(self) -> None:
        self._reader.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _read(self, box: Box) -> Array:
        rule = self._rule()
        result = np.empty(box.shape, self.dtype)
        parts = list(_parts(self._reader, box, result=result, rule=rule))
        if self._pool is None or len(parts) == 1:
            for part in parts:
                equalise_part(part, rule)
            return result
        for _ in self._pool.map(equalise_part, parts, itertools.repeat(rule)):
            pass
        return result

    def _rule(self) -> Rule | None:
        """Return the rule for all sections; None where all voxels are alike and stay."""
        with self._finding_rule:
            if self._found_rule is None:
                low, high = self._value_range or _range_of_volume(
                    self._source, threads=self._threads, progress=self._progress
                )
                is_even = self._value_range is None and low == high
                self._found_rule = (None if is_even else self._rule_over(low=low, high=high),)
            return self._found_rule[0]


def _range_of_volume(
    volume: Volume, *, threads: int, progress: ProgressListener | None
) -> tuple[int, int]:
    """Return what the bins span: of the whole volume, so that every box of it gets the same."""
    if volume.dtype == np.uint8:
        return 0, int(np.iinfo(np.uint8).max)
    from floodem.volumes.grey.statistics import statistics

    found = statistics(volume, threads=threads, progress=progress)
    assert found.minimum is not None
    assert found.maximum is not None
    return int(found.minimum), int(found.maximum)


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a section to be equalised, and the pixels around it.

    Attributes
    ----------
    pixels
        What was read of the section (y, x).
    origin
        Where its first pixel lies in the section.
    start
        Where the first pixel of `result` lies in the section.
    shape
        Of the whole section.
    result
        Where the new values go.
    """

    pixels: Array
    origin: tuple[int, int]
    start: tuple[int, int]
    shape: tuple[int, ...]
    result: Array


def equalise_part(part: Part, rule: Rule | None) -> None:
    """Fill the result of a part; without a rule with what is there."""
    (top, left), (y0, x0) = part.origin, part.start
    height, width = part.result.shape
    if rule is None:
        part.result[...] = part.pixels[y0 - top :, x0 - left :][:height, :width]
        return
    for y, x in itertools.product(range(0, height, _TILE), range(0, width, _TILE)):
        ys = (y0 + y, y0 + min(y + _TILE, height))
        xs = (x0 + x, x0 + min(x + _TILE, width))
        spans = (
            Span.around(*ys, length=part.shape[0], rule=rule),
            Span.around(*xs, length=part.shape[1], rule=rule),
        )
        (above, below), (before, behind) = spans[0].reach, spans[1].reach
        part.result[y : y + _TILE, x : x + _TILE] = equalise(
            part.pixels[above - top : below - top, before - left : behind - left],
            ys,
            xs,
            spans=spans,
            rule=rule,
        )


def _parts(reader: Reader, box: Box, *, result: Array, rule: Rule | None) -> Iterator[Part]:
    """Read a block with what its windows cover, and yield its sections."""
    source = reader.volume
    (_, oy, ox), (_, y0, x0), (_, y1, x1) = source.offset, box.start, box.stop
    _, height, width = source.shape
    ys, xs = (y0 - oy, y1 - oy), (x0 - ox, x1 - ox)
    if rule is not None:
        ys = Span.around(*ys, length=height, rule=rule).reach
        xs = Span.around(*xs, length=width, rule=rule).reach
    covered = Box(
        (box.start[0], ys[0] + oy, xs[0] + ox),
        (box.stop[0], ys[1] + oy, xs[1] + ox),
    )
    pixels = reader.read(covered)
    for section, new in zip(pixels, result, strict=True):
        yield Part(section, (ys[0], xs[0]), (y0 - oy, x0 - ox), (height, width), new)
