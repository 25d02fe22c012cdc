"""Curves and bars as SVG text: numbers in, a drawing out that any browser shows without scripts.

Colours and lines are classes of the page's style sheet (floodem.training.record.report),
so that drawings follow its light and dark themes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

WIDTH, HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 26, 34
_POINTS = 220
"""Of one drawn curve; longer ones are averaged in bins, with a band from least to greatest."""

_LOGARITHMIC_FROM = 5.0
"""Ratio of greatest to least value from which the axis is logarithmic."""

_DECADES = 3
"""Powers of ten from which a logarithmic axis names nothing between them."""

_SAME, _NOTHING = 1e-9, 1e-30
"""Values closer than this share of their size are one value; smaller ones are 0."""

_TICKS = 5
_ROUND = (1, 2, 5)
"""Times a power of ten: what numbers of an axis are."""

_TITLE_LINE = 13
_GAP, _DESCENT, _BELOW = 5, 4, 14
"""Pixels: between an axis and its numbers, from their middle to their line, and below an axis."""

_THICKEST, _BETWEEN = 22.0, 2
"""Pixels of a bar, and between two."""

_THOUSAND, _MILLION = 1e3, 1e6
_SHORTENED_FROM = 1e4
"""Numbers from which thousands are a k."""

_LETTER = 6.2
"""Pixels of one letter of a legend, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One curve: its name, and y over x; what is not finite is left out.

    `has_dots` draws its points, `marked` is the x of one that stands out.
    """

    name: str
    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]
    has_dots: bool = False
    marked: float | None = None


@dataclass(frozen=True, slots=True)
class _Axis:
    """Numbers to pixels, along one axis."""

    low: float
    high: float
    start: float
    stop: float
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.is_logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(at, self.low))
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if self.is_logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            step = max(1, (last - first) // _TICKS)
            factors = _ROUND if last - first < _DECADES else (1,)
            ticks = [f * 10.0**power for power in range(first, last + 1, step) for f in factors]
        else:
            step_size = nice_step((self.high - self.low) / _TICKS)
            first = math.ceil(self.low / step_size - _SAME)
            last = math.floor(self.high / step_size + _SAME)
            ticks = [number * step_size for number in range(first, last + 1)]
        return [tick for tick in ticks if self.low * (1 - _SAME) <= tick <= self.high * (1 + _SAME)]


def nice_step(size: float) -> float:
    """Return the least of 1, 2, 5, 10, 20, ... (and tenths) that is at least `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (*_ROUND, 10) if factor * power >= size * (1 - _SAME))


def curve_chart(title: str, series: Sequence[Series], *, floor: float | None = None) -> str:
    """Draw curves over training steps; an empty text where there is nothing to draw.

    Parameters
    ----------
    floor
        Least value of the y axis; by default the least of the curves.
    """
    shown = [_finite(one) for one in series]
    shown = [one for one in shown if len(one.x)]
    if not shown:
        return ""
    x = _axis([one.x for one in shown], start=_LEFT, stop=WIDTH - _RIGHT, may_be_log=False)
    y = _axis(
        [one.y for one in shown],
        start=HEIGHT - _BOTTOM,
        stop=_TOP,
        may_be_log=floor is None,
        floor=floor,
    )
    parts = [_frame(title, x=x, y=y), _legend(title, [one.name for one in shown])]
    parts += [_curve(one, number, x=x, y=y) for number, one in enumerate(shown)]
    return _drawing(title, parts)


def bar_chart(
    title: str, bars: Sequence[tuple[str, Sequence[float]]], *, names: Sequence[str]
) -> str:
    """Draw one bar for each entry, divided into shares that sum to 1."""
    if not bars:
        return ""
    thick = min(_THICKEST, (HEIGHT - _TOP - _BOTTOM) / len(bars) - _BETWEEN)
    x = _Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    parts = [f'<text class="title" x="{_LEFT}" y="{_TITLE_LINE}">{html.escape(title)}</text>']
    parts.append(_legend(title, names))
    for row, (name, shares) in enumerate(bars):
        top, left = _TOP + _DESCENT + row * (thick + _BETWEEN), 0.0
        middle = top + thick / 2 + _DESCENT
        parts.append(
            f'<text class="tick" x="{_LEFT - _GAP}" y="{middle:.1f}" text-anchor="end">'
            f"{html.escape(name)}</text>"
        )
        for number, share in enumerate(shares):
            a, b = x.place(left), x.place(left + share)
            parts.append(
                f'<rect class="f{number}" x="{a:.1f}" y="{top:.1f}" width="{b - a:.1f}" '
                f'height="{thick:.1f}"><title>{html.escape(names[number])} {share:.1%}</title>'
                "</rect>"
            )
            left += share
    return _drawing(title, parts)


def _finite(series: Series) -> Series:
    keep = np.isfinite(series.x) & np.isfinite(series.y)
    return Series(
        name=series.name,
        x=series.x[keep],
        y=series.y[keep],
        has_dots=series.has_dots,
        marked=series.marked,
    )


def _axis(
    values: Sequence[Float64[np.ndarray, "_"]],
    *,
    start: float,
    stop: float,
    may_be_log: bool,
    floor: float | None = None,
) -> _Axis:
    low = min(float(part.min()) for part in values)
    high = max(float(part.max()) for part in values)
    if may_be_log and low > 0 and high / low > _LOGARITHMIC_FROM:
        return _Axis(low, high, start, stop, is_logarithmic=True)
    low = low if floor is None else min(low, floor)
    size = max(abs(low), abs(high))
    if high - low <= _SAME * max(size, _NOTHING):
        wide = size / 2 if size > _NOTHING else 0.5
        low, high = low - wide, high + wide
    return _Axis(low, high, start, stop)


def _frame(title: str, *, x: _Axis, y: _Axis) -> str:
    parts = [f'<text class="title" x="{_LEFT}" y="{_TITLE_LINE}">{html.escape(title)}</text>']
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{_LEFT - _GAP}" y="{at + _DESCENT:.1f}" text-anchor="end">'
            f"{number_text(tick)}</text>"
        )
    for tick in x.ticks():
        at = x.place(tick)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
            f'<text class="tick" x="{at:.1f}" y="{HEIGHT - _BOTTOM + _BELOW}" text-anchor="middle">'
            f"{number_text(tick)}</text>"
        )
    parts.append(
        f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - _GAP}" text-anchor="end">step</text>'
    )
    return "".join(parts)


def _legend(title: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return ""
    parts, right = [], float(WIDTH - _RIGHT)
    for number, name in reversed(list(enumerate(names))):
        right -= _LETTER * len(name)
        parts.append(
            f'<text class="t{number}" x="{right:.1f}" y="{_TITLE_LINE}">{html.escape(name)}</text>'
        )
        right -= 2 * _LETTER
    return "".join(parts)


def _curve(series: Series, number: int, *, x: _Axis, y: _Axis) -> str:
    parts = []
    xs, middle, low, high = _binned(series)
    if len(xs) < len(series.x):
        upper = [(x.place(a), y.place(b)) for a, b in zip(xs, high, strict=True)]
        lower = [(x.place(a), y.place(b)) for a, b in zip(xs, low, strict=True)]
        parts.append(f'<polygon class="b{number}" points="{_points([*upper, *lower[::-1]])}"/>')
    line = [(x.place(a), y.place(b)) for a, b in zip(xs, middle, strict=True)]
    parts.append(f'<polyline class="l{number}" points="{_points(line)}"/>')
    if series.has_dots or len(line) == 1:
        parts += [f'<circle class="f{number}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in line]
    if series.marked is not None:
        at = int(np.argmin(np.abs(series.x - series.marked)))
        a, b = x.place(float(series.x[at])), y.place(float(series.y[at]))
        parts.append(f'<circle class="best" cx="{a:.1f}" cy="{b:.1f}" r="6"/>')
    return "".join(parts)


def _binned(series: Series) -> tuple[list[float], list[float], list[float], list[float]]:
    if len(series.x) <= _POINTS:
        y = series.y.tolist()
        return series.x.tolist(), y, y, y
    pieces = zip(np.array_split(series.x, _POINTS), np.array_split(series.y, _POINTS), strict=True)
    rows = [(float(x.mean()), float(y.mean()), float(y.min()), float(y.max())) for x, y in pieces]
    xs, middle, low, high = (list(column) for column in zip(*rows, strict=True))
    return xs, middle, low, high


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def _drawing(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def number_text(value: float) -> str:
    """Write a number of an axis in a few letters: 0.25, 40k, 1.5M, 1e-05."""
    size = abs(value)
    if size >= _MILLION:
        return f"{value / _MILLION:.4g}M"
    if size >= _SHORTENED_FROM:
        return f"{value / _THOUSAND:.4g}k"
    return f"{value:.4g}"
