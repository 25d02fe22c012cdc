"""What `floodem.volumes.grey.statistics` finds out: records that can be read, and what follows.

Grey values are in the units of the file; z counts in the volume's frame.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from floodem.geometry import Box
from floodem.volumes.volume import Kind

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)

SATURATION_ADVISED = 0.01
"""Share of voxels at one end of the range from which a note says so: an end that holds the
share of a whole percentile is no tail any more."""

OUTLYING_NAMED = 0.1
"""How far a section's mean or deviation must stand out to be named in a note, in standard
deviations of the voxels: in very even stacks a score alone points at differences nobody sees."""

DRIFT_ADVISED = 0.25
"""Spread of the sections' means, in standard deviations of the voxels, from which a note advises
CLAHE. Our choice: a network is given one mean for all, and is off by as much in each section."""

DRIFT_SECTION_VOXELS = 2**16
"""In smaller sections the mean depends on what happens to be there, and says little of drift."""

_JSON_BINS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """How many voxels have which grey value.

    Attributes
    ----------
    start
        Smallest value of the first bin.
    width
        Of a bin; with 1 and whole numbers, bins are values.
    counts
        Voxels in each bin.
    """

    start: float | int
    width: float | int
    counts: Int64[np.ndarray, "bins"]

    @property
    def is_exact(self) -> bool:
        """Whether each bin stands for one value."""
        return isinstance(self.start, int) and isinstance(self.width, int) and self.width == 1

    def percentile(self, percent: float) -> float | int | None:
        """Return the smallest value that at least so many percent of the voxels do not exceed.

        Exact where bins are values; else the middle of a bin. None without voxels.
        """
        total = int(self.counts.sum())
        if not total:
            return None
        rank = max(1, math.ceil(total * percent / 100))
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        if self.is_exact:
            return self.start + index
        return float(self.start) + (index + 0.5) * self.width

    def count_at(self, value: int) -> int:
        """Return how many voxels have this value, where bins are values."""
        assert self.is_exact
        index = value - int(self.start)
        return int(self.counts[index]) if 0 <= index < len(self.counts) else 0

    def grouped(self, bins: int) -> Histogram:
        """Return at most `bins` wider bins over the values that occur."""
        occupied = np.flatnonzero(self.counts)
        if not occupied.size:
            return Histogram(start=self.start, width=self.width, counts=self.counts[:1])
        first, last = int(occupied[0]), int(occupied[-1])
        group = -(-(last - first + 1) // bins)
        starts = np.arange(first, last + 1, group)
        return Histogram(
            start=self.start + first * self.width,
            width=group * self.width,
            counts=np.add.reduceat(self.counts[: last + 1], starts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionStatistics:
    """One section: where it lies and its grey values (finite ones)."""

    z: int
    voxels: int
    mean: float
    stddev: float
    minimum: float | int | None
    maximum: float | int | None

    @property
    def is_constant(self) -> bool:
        """Whether it has one grey value only, as missing and padded sections have."""
        return self.minimum == self.maximum


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlyingSection:
    """A section whose ``mean`` or ``stddev`` stands out, by how many robust deviations."""

    z: int
    quantity: str
    value: float
    usual: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Mean and standard deviation for training and segmentation (`floodem.volumes.normalise`).

    Those of all voxels outside of constant sections, which are no image.
    """

    image_mean: float
    image_stddev: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """Grey values of a box of an image; see `floodem.volumes.grey.statistics.statistics`.

    Attributes
    ----------
    uri, box, dtype, kind
        What was looked at.
    voxels, not_finite
        How many numbers, and how many NaN and infinities beside them.
    mean, stddev
        Of all voxels; the deviation is that of the population. NaN without any.
    minimum, maximum
        None without voxels.
    histogram, sections, outlying, suggested
        See there; `suggested` is None where every section is constant.
    """

    uri: str
    box: Box
    dtype: np.dtype[Any]
    kind: Kind | None
    voxels: int
    not_finite: int
    mean: float
    stddev: float
    minimum: float | int | None
    maximum: float | int | None
    histogram: Histogram
    sections: tuple[SectionStatistics, ...]
    outlying: tuple[OutlyingSection, ...]
    suggested: Suggestion | None

    @property
    def percentiles(self) -> dict[int, float | int | None]:
        """Grey values below or at which so many percent of the voxels lie."""
        return {percent: self.histogram.percentile(percent) for percent in PERCENTILES}

    @property
    def constant_sections(self) -> tuple[int, ...]:
        """Positions (z) of the sections with one value only."""
        return tuple(section.z for section in self.sections if section.is_constant)

    @property
    def drift(self) -> float:
        """Spread (standard deviation) of the sections' means, in deviations of the voxels.

        Constant sections left out; 0 where there is nothing to compare.
        """
        means = [section.mean for section in self.sections if not section.is_constant]
        if self.suggested is None or not self.suggested.image_stddev:
            return 0.0
        return float(np.std(means)) / self.suggested.image_stddev

    @property
    def saturation(self) -> tuple[float, float] | None:
        """Share of voxels at 0 (the type's smallest value) and at the type's largest value.

        Constant sections left out. None for real numbers and integers over 16 bits.
        """
        if not self._has_ends:
            return None
        limits = np.iinfo(self.dtype)
        return self._share_at(int(limits.min)), self._share_at(int(limits.max))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what a user should know before using these numbers."""
        from floodem.volumes.grey.notes import notes

        return notes(self)

    def share_at_ends(self) -> tuple[float, float] | None:
        """Return the shares of voxels at `minimum` and `maximum`, as `saturation` counts them."""
        if not self._has_ends or self.minimum is None or self.maximum is None:
            return None
        return self._share_at(int(self.minimum)), self._share_at(int(self.maximum))

    @property
    def _has_ends(self) -> bool:
        return self.histogram.is_exact and self.dtype.itemsize <= np.dtype(np.uint16).itemsize

    def _share_at(self, value: int) -> float:
        constant = [section for section in self.sections if section.is_constant]
        voxels = self.voxels - sum(section.voxels for section in constant)
        there = self.histogram.count_at(value) - sum(
            section.voxels for section in constant if section.minimum == value
        )
        return there / voxels if voxels else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; the histogram in at most 256 bins."""
        histogram = self.histogram.grouped(_JSON_BINS)
        return {
            "uri": self.uri,
            "box": str(self.box),
            "dtype": self.dtype.name,
            "voxels": self.voxels,
            "not_finite": self.not_finite,
            "mean": _plain(self.mean),
            "stddev": _plain(self.stddev),
            "minimum": _plain(self.minimum),
            "maximum": _plain(self.maximum),
            "percentiles": {str(p): _plain(value) for p, value in self.percentiles.items()},
            "saturation": self.saturation,
            "drift": _plain(self.drift),
            "suggested": None if self.suggested is None else asdict(self.suggested),
            "histogram": {
                "start": _plain(histogram.start),
                "width": _plain(histogram.width),
                "counts": histogram.counts.tolist(),
            },
            "constant_sections": list(self.constant_sections),
            "outlying_sections": [asdict(one) for one in self.outlying],
            "sections": [
                {name: _plain(value) for name, value in asdict(section).items()}
                for section in self.sections
            ],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """Return one line for each section: z, voxels, mean, stddev, minimum, maximum, outlying."""
        outlying: dict[int, list[str]] = {}
        for one in self.outlying:
            outlying.setdefault(one.z, []).append(f"{one.quantity} {one.score:+.1f}")
        lines = ["z,voxels,mean,stddev,minimum,maximum,outlying"]
        for section in self.sections:
            words = ["constant"] if section.is_constant else outlying.get(section.z, [])
            numbers = (section.minimum, section.maximum)
            lines.append(
                f"{section.z},{section.voxels},{section.mean!r},{section.stddev!r},"
                + ",".join("" if number is None else repr(number) for number in numbers)
                + f",{' '.join(words)}"
            )
        return "\n".join(lines) + "\n"


def _plain(value: float | None) -> float | int | None:
    """Return a number as JSON has it, which knows no NaN."""
    return None if value is None or not math.isfinite(value) else value
