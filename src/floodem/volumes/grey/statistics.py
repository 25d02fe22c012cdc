"""What an image's grey values are like: a volume in, mean, deviation, histogram, drift out.

Read block by block, in threads; every section (z) is also looked at alone, since
sections that are darker, flatter or empty are what spoils a segmentation. The
numbers that a network needs come out as `Statistics.suggested`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from floodem.errors import GeometryError
from floodem.geometry import Box, tiles
from floodem.progress import Progress, ProgressListener
from floodem.volumes.grey.moments import (
    COUNTABLE_ITEMSIZE,
    Moments,
    counts_of,
    moments_of,
    moments_of_counts,
)
from floodem.volumes.grey.reading import grey_blocks, grey_reader
from floodem.volumes.grey.report import (
    Histogram,
    OutlyingSection,
    SectionStatistics,
    Statistics,
    Suggestion,
)
from floodem.volumes.parallel import in_order, usable_threads
from floodem.volumes.volume import Array, Volume

FINE_BINS = 2**16
"""Bins of real numbers and wide integers between the smallest and the largest."""

OUTLYING_SCORE = 3.5
"""Modified z-scores beyond this are called outliers by Iglewicz and Hoaglin 1993, "How to
Detect and Handle Outliers" (ASQC Basic References in Quality Control 16), section 3.3."""

_NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal distribution (there as well)."""

_NORMAL_MEAN_AD = 0.7979
"""Mean absolute deviation of a standard normal distribution, the square root of 2 / pi."""


def statistics(
    volume: Volume,
    *,
    box: Box | None = None,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> Statistics:
    """Return mean, standard deviation, histogram and drift of an image.

    Exact for whole numbers; real ones are summed in float64 about their mean.
    NaN and infinities are counted and left out. Integers of more than 16 bits
    and real numbers are read twice, because their histogram lies between the
    smallest and the largest.

    Parameters
    ----------
    volume
        An open volume of any type.
    box
        The part to look at, in the volume's frame (z, y, x; offset included).
    threads
        By default one for each core that this process may use.
    progress
        Called after every block, in voxels.

    Raises
    ------
    GeometryError
        When the box is empty or not inside the volume.
    OptionError
        When fewer than one thread is asked for.
    """
    part = volume.box if box is None else box
    if not volume.box.contains(part) or part.size == 0:
        raise GeometryError(
            f"box {part} is empty or not inside {volume.uri}, which holds {volume.box} "
            "(z,y,x): choose a box in it"
        )
    is_countable = volume.dtype.kind in "ui" and volume.dtype.itemsize <= COUNTABLE_ITEMSIZE
    reading = _Reading(
        volume,
        part,
        threads=usable_threads(threads),
        progress=progress,
        passes=1 if is_countable else 2,
    )
    sections, histogram = _count(reading) if is_countable else _sum(reading)
    return _report(volume, part, sections=sections, histogram=histogram)


class _Reading:
    """A box of a volume, read block by block, once or twice, and worked on in threads."""

    def __init__(
        self,
        volume: Volume,
        box: Box,
        *,
        threads: int,
        progress: ProgressListener | None,
        passes: int,
    ) -> None:
        self.volume = volume
        self.box = box
        self._threads = threads
        self._report = progress or (lambda _: None)
        self._total = passes * box.size
        self._done = 0

    def blocks(self, work: Any) -> Iterator[tuple[Box, Any]]:
        """Yield each block's box and what `work` makes of its voxels."""

        def on_block(block: tuple[Box, Array]) -> tuple[Box, Any]:
            return block[0], work(block[1])

        self._tell()
        core, held = grey_blocks(
            self.volume,
            self.box.shape,
            chunks=self.volume.chunks,
            voxel_bytes=self.volume.dtype.itemsize,
            wanted=self._threads + 1,
        )
        with grey_reader(self.volume, threads=self._threads) as reader:
            blocks = ((tile.core, reader.read(tile.core)) for tile in tiles(self.box, core=core))
            for box, result in in_order(on_block, blocks, threads=self._threads, ahead=held):
                yield box, result
                self._done += box.size
                self._tell()

    def _tell(self) -> None:
        self._report(
            Progress(stage="statistics", done=self._done, total=self._total, unit="voxels")
        )


def _count(reading: _Reading) -> tuple[list[Moments], Histogram]:
    """Count every value of every section: all else follows."""
    smallest = int(np.iinfo(reading.volume.dtype).min)
    sections = [Moments()] * reading.box.shape[0]
    counts = np.zeros(2 ** (8 * reading.volume.dtype.itemsize), np.int64)

    def count(block: Array) -> tuple[list[Moments], Int64[np.ndarray, "v"]]:
        found, all_counts = [], np.zeros_like(counts)
        for section in block:
            section_counts = counts_of(section)
            found.append(moments_of_counts(section_counts, smallest=smallest))
            all_counts += section_counts
        return found, all_counts

    for box, (found, block_counts) in reading.blocks(count):
        _add(sections, found, first=box.start[0] - reading.box.start[0])
        counts += block_counts
    return sections, Histogram(start=smallest, width=1, counts=counts)


def _sum(reading: _Reading) -> tuple[list[Moments], Histogram]:
    """Sum first, and count what lies between the smallest and the largest in a second pass."""
    sections = [Moments()] * reading.box.shape[0]
    for box, found in reading.blocks(lambda block: [moments_of(section) for section in block]):
        _add(sections, found, first=box.start[0] - reading.box.start[0])
    whole = sum(sections, Moments())
    counts = np.zeros(FINE_BINS, np.int64)
    if whole.minimum is None or whole.maximum is None:
        return sections, Histogram(start=0, width=1, counts=counts)
    low, high = whole.minimum, whole.maximum

    def count(block: Array) -> Int64[np.ndarray, "v"]:
        return sum((_fine_counts(section, low, high) for section in block), np.zeros_like(counts))

    for _, block_counts in reading.blocks(count):
        counts += block_counts
    # An exact bin for each value where there are few enough of them.
    is_narrow = isinstance(low, int) and high - low < FINE_BINS
    width = 1 if is_narrow else float(high) / FINE_BINS - float(low) / FINE_BINS
    return sections, Histogram(start=low, width=width, counts=counts)


def _add(sections: list[Moments], found: Sequence[Moments], *, first: int) -> None:
    for index, moments in enumerate(found, start=first):
        sections[index] += moments


def _fine_counts(block: Array, low: float, high: float) -> Int64[np.ndarray, "v"]:
    """Count values in `FINE_BINS` bins of one width, or one for each value if they are few."""
    if block.dtype.kind == "f":
        finite = block[np.isfinite(block)].astype(np.float64)
        # Halves, so that the difference of the largest numbers does not overflow.
        distance = finite / 2 - low / 2
        whole = high / 2 - low / 2
    else:
        # Differences of 64-bit numbers are exact as unsigned ones.
        offset = np.array(low, block.dtype).astype(f"{block.dtype.kind}8").view(np.uint64)
        above = block.reshape(-1).astype(f"{block.dtype.kind}8").view(np.uint64) - offset
        if high - low < FINE_BINS:
            return np.bincount(above.astype(np.intp), minlength=FINE_BINS)
        distance, whole = above.astype(np.float64), float(high - low)
    if not whole:
        return np.bincount([0], weights=[distance.size], minlength=FINE_BINS).astype(np.int64)
    bins = np.minimum((distance / whole * FINE_BINS).astype(np.intp), FINE_BINS - 1)
    return np.bincount(bins, minlength=FINE_BINS)


def _report(
    volume: Volume, box: Box, *, sections: list[Moments], histogram: Histogram
) -> Statistics:
    whole = sum(sections, Moments())
    found = tuple(
        SectionStatistics(
            z=z,
            voxels=section.count,
            mean=section.mean,
            stddev=section.stddev,
            minimum=section.minimum,
            maximum=section.maximum,
        )
        for z, section in enumerate(sections, start=box.start[0])
    )
    used = sum(
        (one for one, section in zip(sections, found, strict=True) if not section.is_constant),
        Moments(),
    )
    suggested = None
    if used.count:
        suggested = Suggestion(image_mean=used.mean, image_stddev=used.stddev)
    return Statistics(
        uri=volume.uri,
        box=box,
        dtype=volume.dtype,
        kind=volume.kind,
        voxels=whole.count,
        not_finite=whole.not_finite,
        mean=whole.mean,
        stddev=whole.stddev,
        minimum=whole.minimum,
        maximum=whole.maximum,
        histogram=histogram,
        sections=found,
        outlying=outlying_sections(found),
        suggested=suggested,
    )


def outlying_sections(sections: Sequence[SectionStatistics]) -> tuple[OutlyingSection, ...]:
    """Name the sections whose mean or deviation stands out from the other sections'.

    The rule is that of Iglewicz and Hoaglin (see `OUTLYING_SCORE`); sections of one
    value are left out, as they are named anyway. In the order of z.
    """
    looked_at = [section for section in sections if not section.is_constant]
    found = []
    for quantity in ("mean", "stddev"):
        values = np.array([getattr(section, quantity) for section in looked_at], np.float64)
        for section, score in zip(looked_at, modified_z_scores(values), strict=True):
            if abs(score) > OUTLYING_SCORE:
                found.append(
                    OutlyingSection(
                        z=section.z,
                        quantity=quantity,
                        value=getattr(section, quantity),
                        usual=float(np.median(values)),
                        score=float(score),
                    )
                )
    return tuple(sorted(found, key=lambda one: (one.z, one.quantity)))


def modified_z_scores(values: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Return how many robust standard deviations each value lies from the median.

    Where more than half of the values are equal, the mean absolute deviation
    stands in for the median one; where all are, every score is 0.
    """
    if not values.size:
        return values.copy()
    distances = values - np.median(values)
    spread = float(np.median(np.abs(distances))) / _NORMAL_MAD
    if not spread:
        spread = float(np.mean(np.abs(distances))) / _NORMAL_MEAN_AD
    return distances / spread if spread else np.zeros_like(distances)
