"""Contrast limited adaptive histogram equalisation of one section: grey values in and out.

The rule is that of ImageJ and Fiji ("Enhance Local Contrast (CLAHE)", Saalfeld;
after Zuiderveld 1994): each pixel is looked up in the cumulative histogram of the
window around it, clipped so that the contrast grows at most `slope` times. Here a
table stands at every point of a grid, and pixels between the points take the
bilinear mean of the four tables around them::

    table 0,0 . . . . . table 0,12 . . .      each from the window of
       .        pixel      .                  block x block pixels around it
       .          .        .
    table 12,0  . . . . table 12,12

The grid lies in the section, wherever the piece at hand lies, so that a section
comes out the same in one piece and in many.

References
----------
Zuiderveld 1994, "Contrast limited adaptive histogram equalization", Graphics
Gems IV, 474-485. Rule of clipping: mpicbg.ij.clahe (github.com/axtimwalde/mpicbg).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int64, Integer

from floodem.errors import OptionError

MAX_BLOCK = 2047
"""Counts of a larger window would not be exact in float32."""

MAX_BINS = 256
"""ImageJ looks at every image through 8 bits."""

_POINTS_PER_BLOCK = 10
"""Grid points along one window. Mean error against a table for every pixel, on SNEMI3D and
FIB-25 in grey levels: 0.3 to 0.5 with 10, 0.3 with 16 (twice the time), 0.6 to 1.7 with 4,
2 to 5.5 with 1."""

_ROWS_AT_ONCE = 1024
"""Tables made at once: about what fits in a core's cache."""

Section = Integer[np.ndarray, "y x"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How far a pixel looks, and how much contrast may grow.

    Attributes
    ----------
    block
        Edge of the window in pixels, odd; it is cut at the section's border.
    bins
        Of the histogram.
    slope
        Limit of the contrast: 1 changes little, 3 is ImageJ's default, 1.5 is usual for EM.
    low, high
        Grey values that the bins span; values beyond them become these.
    spacing
        Pixels between two points of the grid; 1 gives every pixel a table of its own.
    """

    block: int = 127
    bins: int = 256
    slope: float = 1.5
    low: int = 0
    high: int = 255
    spacing: int = 0

    def __post_init__(self) -> None:
        if not (1 < self.block <= MAX_BLOCK and self.block % 2):
            raise OptionError(
                f"block {self.block} is not an odd number from 3 to {MAX_BLOCK}: "
                "for example 127, in pixels"
            )
        if not 2 <= self.bins <= MAX_BINS:
            raise OptionError(f"{self.bins} bins are not between 2 and {MAX_BINS}: usual are 256")
        if not (math.isfinite(self.slope) and self.slope >= 1):
            raise OptionError(f"slope {self.slope} is not 1 or more: for example 1.5")
        if self.low >= self.high:
            raise OptionError(
                f"the grey values {self.low} to {self.high} are no range: give the darkest and "
                "the brightest value"
            )
        if not self.spacing:
            object.__setattr__(self, "spacing", max(1, self.block // _POINTS_PER_BLOCK))

    @property
    def radius(self) -> int:
        """Pixels that a window reaches from its centre."""
        return self.block // 2


@dataclass(frozen=True, slots=True)
class Span:
    """Grid points around a range of pixels along one axis of a section, and their windows."""

    points: Int64[np.ndarray, "p"]
    starts: Int64[np.ndarray, "p"]
    stops: Int64[np.ndarray, "p"]

    @classmethod
    def around(cls, start: int, stop: int, *, length: int, rule: Rule) -> Span:
        """Return the points between which the pixels ``start <= index < stop`` lie.

        Points are the multiples of the spacing and the last of `length` pixels.
        """
        first = start - start % rule.spacing
        points = np.arange(first, stop - 1 + rule.spacing, rule.spacing, dtype=np.int64)
        points = np.unique(np.minimum(points, length - 1))
        return cls(
            points,
            np.maximum(points - rule.radius, 0),
            np.minimum(points + rule.radius + 1, length),
        )

    @property
    def reach(self) -> tuple[int, int]:
        """The pixels that all windows together cover, half-open."""
        return int(self.starts[0]), int(self.stops[-1])

    def weights(
        self, start: int, stop: int
    ) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
        """Return for each pixel the point before, the point after, and the share of the latter.

        A pixel on a point takes that one alone, so that it does not matter
        which points stand beside it.
        """
        index = np.arange(start, stop)
        before = np.searchsorted(self.points, index, side="right") - 1
        after = np.minimum(before + 1, len(self.points) - 1)
        gap = np.maximum(self.points[after] - self.points[before], 1)
        share = ((index - self.points[before]) / gap).astype(np.float32)
        return before, after, share


@dataclass(frozen=True, slots=True)
class Scale:
    """For every value of an 8- or 16-bit type: its bin, and where between two bins it lies.

    `share` is None where the value of a bin is taken as it is (8 bits, as in ImageJ).
    """

    nearest: Int64[np.ndarray, "v"]
    below: Int64[np.ndarray, "v"]
    share: Float32[np.ndarray, "v"] | None

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def of(dtype: np.dtype[Any], rule: Rule) -> Scale:
        """Return the scale of a type, indexed by its bits read as unsigned."""
        unsigned = np.dtype(f"u{dtype.itemsize}")
        values = np.arange(np.iinfo(unsigned).max + 1, dtype=unsigned).view(dtype)
        inside = np.clip(values.astype(np.float32), rule.low, rule.high) - np.float32(rule.low)
        position = inside / np.float32(rule.high - rule.low) * np.float32(rule.bins - 1)
        nearest = np.floor(position + np.float32(0.5)).astype(np.int64)
        if dtype.itemsize == 1:
            return Scale(nearest, nearest, None)
        below = np.minimum(np.floor(position), rule.bins - 2)
        return Scale(nearest, below.astype(np.int64), (position - below).astype(np.float32))


def equalise(
    pixels: Section,
    ys: tuple[int, int],
    xs: tuple[int, int],
    *,
    spans: tuple[Span, Span],
    rule: Rule,
) -> Integer[np.ndarray, "h w"]:
    """Return the pixels ``ys`` by ``xs`` of a section, equalised, in their own type.

    Parameters
    ----------
    pixels
        The pixels of the section that the windows cover (`Span.reach`).
    ys, xs
        Half-open ranges, in the section's frame.
    spans
        The grid along y and along x around them.
    """
    (top, _), (left, _) = spans[0].reach, spans[1].reach
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}")
    scale = Scale.of(pixels.dtype, rule)
    tables = _tables(scale.nearest[unsigned], spans, rule)
    inner = unsigned[ys[0] - top : ys[1] - top, xs[0] - left : xs[1] - left]
    found = _between(tables, scale.below[inner], (spans[0].weights(*ys), spans[1].weights(*xs)))
    if scale.share is not None:
        above = _between(
            tables, scale.below[inner] + 1, (spans[0].weights(*ys), spans[1].weights(*xs))
        )
        found += (above - found) * scale.share[inner]
    found *= np.float32(rule.high - rule.low)
    found += np.float32(rule.low + 0.5)
    result: Integer[np.ndarray, "h w"] = np.floor(found, out=found).astype(pixels.dtype)
    return result


def _tables(
    binned: Int64[np.ndarray, "h w"], spans: tuple[Span, Span], rule: Rule
) -> Float32[np.ndarray, "p q bins"]:
    """Return the table of every grid point: for each bin the new value, from 0 to 1."""
    rows, columns = spans
    below, column_edges = _sums_below(binned, spans, bins=rule.bins)
    row_edges = _edges(rows)
    first, last = np.searchsorted(row_edges, rows.starts), np.searchsorted(row_edges, rows.stops)
    left = np.searchsorted(column_edges, columns.starts)
    right = np.searchsorted(column_edges, columns.stops)
    tables = np.empty((len(first), len(left), rule.bins), np.float32)
    step = max(1, _ROWS_AT_ONCE // len(left))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        strips = below[last[part]] - below[first[part]]
        windows = _window_sums(strips, left, right)
        clipped = clip_histograms(
            windows.reshape(-1, rule.bins).astype(np.float32), slope=rule.slope
        )
        tables[part] = _transfers(clipped).reshape(windows.shape)
    return tables


def _edges(span: Span) -> Int64[np.ndarray, "e"]:
    """Return where windows begin or end: between two edges all pixels belong to the same ones."""
    return np.unique(np.concatenate((span.starts, span.stops)))


def _sums_below(
    binned: Int64[np.ndarray, "h w"], spans: tuple[Span, Span], *, bins: int
) -> tuple[Int[np.ndarray, "e g bins"], Int64[np.ndarray, "f"]]:
    """Return histograms of the pixels above each row edge, one for each piece between columns."""
    row_edges, column_edges = (_edges(span) for span in spans)
    pieces = len(column_edges) - 1
    piece = np.repeat(np.arange(pieces) * bins, np.diff(column_edges))
    keys = binned + piece
    below = np.zeros((len(row_edges), pieces * bins), np.int32)
    top = row_edges[0]
    for index in range(len(row_edges) - 1):
        strip = keys[row_edges[index] - top : row_edges[index + 1] - top]
        counts = np.bincount(strip.ravel(), minlength=pieces * bins)
        np.add(below[index], counts, out=below[index + 1], casting="unsafe")
    return below.reshape(-1, pieces, bins), column_edges


def _window_sums(
    strips: Int[np.ndarray, "p g bins"], left: Int64[np.ndarray, "q"], right: Int64[np.ndarray, "q"]
) -> Int[np.ndarray, "p q bins"]:
    """Sum pieces from `left` to `right`, exclusive."""
    count, pieces, bins = strips.shape
    sums = np.zeros((count, pieces + 1, bins), np.int32)
    for index in range(pieces):  # an accumulate along the middle axis is several times slower
        np.add(sums[:, index], strips[:, index], out=sums[:, index + 1])
    windows: Int[np.ndarray, "p q bins"] = sums[:, right] - sums[:, left]
    return windows


@functools.cache
def _remainders(bins: int) -> tuple[Float32[np.ndarray, "m bins"], Float32[np.ndarray, "m"]]:
    """Return which bins get one of m left-over counts each, and how many do.

    They lie at even distances, as in ImageJ, where because of the rounded
    distance more bins than m may get one.
    """
    table = np.zeros((bins, bins), np.float32)
    for left_over in range(1, bins):
        distance = (bins - 1) // left_over
        table[left_over, distance // 2 :: distance] = 1
    handed_out: Float32[np.ndarray, "m"] = table.sum(axis=1)
    return table, handed_out


def clip_histograms(
    histograms: Float32[np.ndarray, "n bins"], *, slope: float
) -> Float32[np.ndarray, "n bins"]:
    """Cut every histogram at `slope` times its mean, and spread what was cut over all bins.

    What then stands above the limit is cut again, until no more is cut than
    in the round before. Counts are whole numbers throughout.
    """
    bins = histograms.shape[1]
    table, handed_out = _remainders(bins)
    total = histograms.sum(axis=1)
    per_bin = np.float32(slope) * total / np.float32(bins - 1)
    limit = np.floor(per_bin + np.float32(0.5))
    result = np.empty_like(histograms)
    unsettled = np.arange(len(histograms))
    rest, cut_before = histograms, np.zeros_like(total)
    while unsettled.size:
        rest = np.minimum(rest, limit[:, None])
        kept = rest.sum(axis=1)
        cut = total - kept
        for_each = np.floor(cut / bins)
        left_over = (cut - for_each * bins).astype(np.intp)
        rest += for_each[:, None]
        rest += table[left_over]
        total = kept + for_each * bins + handed_out[left_over]
        settled = cut == cut_before
        if settled.any():
            result[unsettled[settled]] = rest[settled]
            goes_on = ~settled
            unsettled, rest, limit = unsettled[goes_on], rest[goes_on], limit[goes_on]
            total, cut = total[goes_on], cut[goes_on]
        cut_before = cut
    return result


def _transfers(clipped: Float32[np.ndarray, "n bins"]) -> Float32[np.ndarray, "n bins"]:
    """Return for each bin its place between the first occupied bin (0) and the last (1)."""
    bins = clipped.shape[1]
    first = np.take_along_axis(clipped, (clipped > 0).argmax(axis=1)[:, None], axis=1)
    places = np.cumsum(clipped, axis=1)
    places -= first
    width = places[:, -1:].copy()
    is_one_value = width[:, 0] == 0
    width[is_one_value] = 1
    places /= width
    # All pixels of a window alike and none cut away: each keeps its value.
    places[is_one_value] = np.arange(bins, dtype=np.float32) / np.float32(bins - 1)
    np.maximum(places, 0, out=places)
    return places


_Down = tuple[Int64[np.ndarray, "h"], Int64[np.ndarray, "h"], Float32[np.ndarray, "h"]]
_Along = tuple[Int64[np.ndarray, "w"], Int64[np.ndarray, "w"], Float32[np.ndarray, "w"]]


def _between(
    tables: Float32[np.ndarray, "p q bins"],
    bin_of: Int64[np.ndarray, "h w"],
    weights: tuple[_Down, _Along],
) -> Float32[np.ndarray, "h w"]:
    """Look every pixel up in the four tables around it and take their bilinear mean."""
    (above, below, down), (left, right, along) = weights
    _, columns, bins = tables.shape
    flat = tables.reshape(-1)
    to_right = (right - left) * bins
    at = bin_of + (above * (columns * bins))[:, None] + left * bins
    upper: Float32[np.ndarray, "h w"] = flat[at]
    upper += (flat[at + to_right] - upper) * along
    at += ((below - above) * (columns * bins))[:, None]
    lower = flat[at]
    lower += (flat[at + to_right] - lower) * along
    lower -= upper
    lower *= down[:, None]
    upper += lower
    return upper
