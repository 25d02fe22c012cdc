"""One pass over what is sampled: pieces of an image in, numbers for every section out.

All that findings about grey values and sections need comes from here, so that voxels
are read once and never held as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64
from scipy import ndimage

from floodem.geometry import Box
from floodem.progress import Progress, ProgressListener
from floodem.project.doctor.sampling import Sampling
from floodem.volumes.grey.moments import Moments, moments_of
from floodem.volumes.volume import Array

BIN = 4
"""Sections are compared with voxels of this edge: noise is gone, cells are not."""

LEVELLING = 8
"""Standard deviation, in such voxels, of the surroundings whose brightness is taken away."""

TILE = 64
"""Voxels along y and x of what is looked at together for sharpness."""

KEPT_VALUES = 2**21
"""Grey values kept for shares and percentiles, spread evenly."""

LINE_SECTIONS = 12
"""Sections in which lines are looked for."""

LINE_SCALE = 1.5
"""Standard deviation in voxels of the second derivatives that find membranes."""

LINE_SHARE = 0.05
"""The strongest voxels of lines, as a share of all."""

AXIS_EDGE = 96
"""Voxels along y and x on which axes are compared."""


@dataclass(slots=True)
class SectionFacts:
    """Sums over what was seen of one section."""

    moments: Moments = field(default_factory=Moments)
    sharpness: float = 0.0
    flat: float = 0.0
    looks: int = 0


@dataclass(slots=True)
class PairFacts:
    """Sums over what was seen of one section and the next."""

    correlation: float = 0.0
    is_equal: bool = True
    looks: int = 0


@dataclass(kw_only=True)
class Survey:
    """What a pass over an image has found.

    Attributes
    ----------
    sections, pairs
        By z; a pair has the z of its lower section.
    values
        Grey values, spread evenly over what was seen.
    dark_lines
        For some sections, which share of the strongest lines is darker than its surroundings.
    axis_changes
        For some places, how much neighbouring voxels differ along z, y and x, as a share of
        what voxels far apart do.
    not_finite
        Voxels that are NaN or infinite.
    """

    sections: dict[int, SectionFacts] = field(default_factory=dict)
    pairs: dict[int, PairFacts] = field(default_factory=dict)
    values: Array = field(default_factory=lambda: np.zeros(0))
    dark_lines: list[float] = field(default_factory=list)
    axis_changes: list[tuple[float, float, float]] = field(default_factory=list)
    not_finite: int = 0

    def mean(self, z: int) -> float:
        """Return the mean of a section."""
        return self.sections[z].moments.mean

    def stddev(self, z: int) -> float:
        """Return the standard deviation of a section."""
        return self.sections[z].moments.stddev

    def is_constant(self, z: int) -> bool:
        """Tell whether a section has one grey value only."""
        moments = self.sections[z].moments
        return moments.minimum == moments.maximum

    def pictured(self) -> list[int]:
        """Return the sections with more than one grey value, ascending."""
        return [z for z in sorted(self.sections) if not self.is_constant(z)]

    def whole(self) -> Moments:
        """Return the moments of all sections that are not constant."""
        return sum((self.sections[z].moments for z in self.pictured()), Moments())

    def sharpness(self) -> dict[int, float]:
        """Return, of each section with a picture, its finest detail against its contrast."""
        return {z: self.sections[z].sharpness / self.sections[z].looks for z in self.pictured()}

    def correlations(self) -> dict[int, float]:
        """Return how much each section is like the next, where both have a picture."""
        pictured = set(self.pictured())
        return {
            z: facts.correlation / facts.looks
            for z, facts in sorted(self.pairs.items())
            if z in pictured and z + 1 in pictured
        }


def survey(
    read: Callable[[Box], Array], sampling: Sampling, *, progress: ProgressListener | None = None
) -> Survey:
    """Look at all pieces of a sampling once.

    Parameters
    ----------
    read
        Returns the grey values of a box.
    progress
        Called after each piece, in voxels.
    """
    found = Survey()
    pieces = list(sampling.pieces())
    total, done = sum(piece.size for piece in pieces), 0
    step = max(1, total // KEPT_VALUES)
    line_step = max(1, len(sampling.windows) * _sections_of(sampling) // LINE_SECTIONS)
    values = []
    for piece in pieces:
        if progress is not None:
            progress(Progress(stage="looking at sections", done=done, total=total, unit="voxels"))
        grey = read(piece)
        _look(found, grey, first=piece.start[0], line_step=line_step)
        values.append(grey.reshape(-1)[::step])
        done += piece.size
    kept = np.concatenate(values) if values else np.zeros(0)
    finite = np.isfinite(kept) if kept.dtype.kind == "f" else np.ones(kept.shape, bool)
    found.values = kept[finite]
    found.not_finite = sum(facts.moments.not_finite for facts in found.sections.values())
    if progress is not None:
        progress(Progress(stage="looking at sections", done=total, total=total, unit="voxels"))
    return found


def _sections_of(sampling: Sampling) -> int:
    return sum(stop - start for start, stop in sampling.runs)


def _look(found: Survey, grey: Array, *, first: int, line_step: int) -> None:
    """Add one piece; its first section may be the last one of the piece before."""
    before: tuple[Array, Float32[np.ndarray, "y x"]] | None = None
    for z, section in enumerate(grey, start=first):
        clean = _clean(section)
        binned = _levelled(clean)
        facts = found.sections.setdefault(z, SectionFacts())
        is_repeated = z == first and facts.looks > 0 and z - 1 in found.pairs
        if not is_repeated:
            facts.moments += moments_of(section)
            facts.sharpness += sharpness(clean)
            facts.flat += flat_share(section)
            facts.looks += 1
            if (z - first) % line_step == 0:
                share = dark_line_share(clean)
                found.dark_lines += [] if share is None else [share]
        if before is not None:
            pair = found.pairs.setdefault(z - 1, PairFacts())
            pair.correlation += _correlation(before[1], binned)
            pair.is_equal &= bool(np.array_equal(before[0], section))
            pair.looks += 1
        before = (section, binned)
    changes = axis_changes(grey)
    found.axis_changes += [] if changes is None else [changes]


def _clean(section: Array) -> Float32[np.ndarray, "y x"]:
    """Return a section as float32 of at most 1, without NaN and infinities."""
    whole: Float32[np.ndarray, "y x"] = section.astype(np.float32)
    if section.dtype.kind == "f":
        whole = np.nan_to_num(section.astype(np.float64), posinf=0, neginf=0).astype(np.float32)
    return whole


def _levelled(section: Float32[np.ndarray, "y x"]) -> Float32[np.ndarray, "b a"]:
    """Return a section in larger voxels, without slow changes of brightness."""
    height, width = (max(1, length // BIN) for length in section.shape)
    edge = BIN if min(section.shape) >= BIN else 1
    if edge == 1:
        height, width = section.shape
    cut = section[: height * edge, : width * edge]
    binned = cut.reshape(height, edge, width, edge).mean(axis=(1, 3))
    levelled: Float32[np.ndarray, "b a"] = binned - ndimage.gaussian_filter(binned, LEVELLING)
    return levelled


def _correlation(a: Float32[np.ndarray, "y x"], b: Float32[np.ndarray, "y x"]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(float((a * a).sum()) * float((b * b).sum())))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def sharpness(section: Float32[np.ndarray, "y x"]) -> float:
    """Return the mean square of the discrete Laplacian over the variance, of the usual tile.

    The median of tiles is taken, as folds and dirt raise the variance where they lie.
    """
    inner = section[1:-1, 1:-1]
    if not inner.size:
        return 0.0
    laplacian = (
        section[:-2, 1:-1] + section[2:, 1:-1] + section[1:-1, :-2] + section[1:-1, 2:] - 4 * inner
    )
    squares, variances = _tiled(laplacian * laplacian), _tiled(inner * inner)
    variances -= _tiled(inner) ** 2
    has_picture = variances > 0
    if not has_picture.any():
        return 0.0
    return float(np.median(squares[has_picture] / variances[has_picture]))


def _tiled(values: Float32[np.ndarray, "y x"]) -> Float64[np.ndarray, "rows columns"]:
    """Return the means of tiles; what does not fill one at the far ends is left out."""
    rows, columns = (max(1, length // TILE) for length in values.shape)
    height, width = values.shape[0] // rows, values.shape[1] // columns
    cut = values[: rows * height, : columns * width]
    tiles = cut.reshape(rows, height, columns, width)
    means: Float64[np.ndarray, "rows columns"] = tiles.mean(axis=(1, 3), dtype=np.float64)
    return means


def flat_share(section: Array) -> float:
    """Return the share of voxels that equal those behind them along y, x and both."""
    if min(section.shape) < 2:
        return 0.0
    here = section[:-1, :-1]
    is_flat = (here == section[1:, :-1]) & (here == section[:-1, 1:]) & (here == section[1:, 1:])
    return float(is_flat.mean())


def dark_line_share(section: Float32[np.ndarray, "y x"]) -> float | None:
    """Return which share of the strongest lines of a section is dark; None without lines.

    A line is where the second derivative across is more than twice that along it.
    """
    if min(section.shape) < BIN * LEVELLING or float(section.std()) == 0:
        return None
    yy, xx, xy = (
        ndimage.gaussian_filter(section, LINE_SCALE, order=order)
        for order in ((2, 0), (0, 2), (1, 1))
    )
    middle, apart = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    high, low = middle + apart, middle - apart
    across = np.where(np.abs(high) > np.abs(low), high, low)
    along = np.where(np.abs(high) > np.abs(low), low, high)
    strength = np.where(np.abs(across) > 2 * np.abs(along), across, 0)
    strongest = np.abs(strength) >= np.quantile(np.abs(strength), 1 - LINE_SHARE)
    strongest &= strength != 0
    if not strongest.any():
        return None
    return float((strength[strongest] > 0).mean())


def axis_changes(grey: Array) -> tuple[float, float, float] | None:
    """Return how much neighbours differ along z, y and x, half their squares over the variance.

    Of planes the median is taken, so that single bad sections do not matter. None where
    there is too little to see.
    """
    _, height, width = grey.shape
    y0, x0 = max(0, (height - AXIS_EDGE) // 2), max(0, (width - AXIS_EDGE) // 2)
    part = grey[:AXIS_EDGE, y0 : y0 + AXIS_EDGE, x0 : x0 + AXIS_EDGE].astype(np.float64)
    if min(part.shape) < 3 or not np.isfinite(part).all():
        return None
    variance = float(np.median(part.var(axis=(1, 2))))
    if variance <= 0:
        return None
    found: list[float] = []
    for axis in range(3):
        squares: Float64[np.ndarray, "a b c"] = np.diff(part, axis=axis) ** 2
        others = tuple(other for other in range(3) if other != axis)
        found.append(float(np.median(squares.mean(axis=others))) / 2 / variance)
    return found[0], found[1], found[2]
