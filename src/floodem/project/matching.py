"""By how much one section is shifted against another, place by place: two sections in, shifts out.

Sections are freed of what differs between them and is no tissue (slow changes of
brightness, noise of single voxels, places without a picture) and compared patch by
patch: a patch of the one is laid on the other at every shift up to a limit, and the
normalised cross-correlation tells where it fits best.

All sums over a patch are sums over the square blocks that it consists of. So each block
is correlated once, by FFT, and neighbouring patches share it::

    +----+----+----+----+----+
    |    |    |    |    |    |    a patch of 5 x 5 blocks around
    +----+----+----+----+----+    the one that gets its shift
    |    |    |    |    |    |
    +----+----+====+----+----+
    |    |    ||  ||    |    |
    +----+----+====+----+----+

References
----------
Li et al. 2019, bioRxiv 605634, on shifts between sections from patch cross-correlation.
Padfield 2012, IEEE Transactions on Image Processing 21:2706, on normalised
cross-correlation of images of which parts are unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Int16
from scipy import fft, ndimage

from floodem.errors import OptionError
from floodem.volumes.volume import Array

SMOOTHING = 1.5
"""Standard deviation of the smoothing against noise, in voxels."""

LEVELLING = 16.0
"""The same of the surroundings whose brightness is taken away: several membranes wide."""

FILLED_EDGE = 5
"""Squares of one grey level that are so large (voxels) are no picture: black, white, padding."""

FEWEST_VALID = 0.3
"""Share of a patch that must lie on picture in both sections, as in SOFIMA (flow_field.py)."""

LEAST_TEXTURE = 0.25
"""Variance of a patch against that of its voxels' noise, below which it is called empty.

Noise alone leaves 0.035 after the filters; FIB-25 has 37, SNEMI3D 59.
"""

LEAST_QUALITY = 0.75
"""Correlation, times by how many standard deviations it lies above that of all other shifts.

Patches of sections that have nothing to do with each other (50 and 125 sections apart)
stay below 0.73 (SNEMI3D) and 0.80 (FIB-25) in 95 of 100 cases; 96 % and 100 % of those of
neighbouring sections lie above 0.75.
"""

LONGEST_EDGE = 1024
"""No stride, patch or search is larger: FFTs of hundreds of blocks are held at once."""

_NO_WEIGHT = 1e-3
_LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Blind to slow changes, and of unit gain for noise (Immerkaer 1996)."""
_ROUNDING_VARIANCE = 1 / 12
"""What storing whole grey levels adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How patches are compared.

    Attributes
    ----------
    stride
        Edge of a block in voxels: each block gets a shift.
    patch
        Edge of a patch: an odd multiple of the stride, so that it lies around its block.
        Patches of 160 voxels every 40 are what SOFIMA, by the authors of the reference,
        takes for electron microscopy; 96 find less (docs/large-volumes.md).
    search
        Largest shift along y and x that is looked for.

    Raises
    ------
    OptionError
        When one is not positive or too large, or the patch no odd multiple of the stride.
    """

    stride: int = 32
    patch: int = 160
    search: int = 32

    def __post_init__(self) -> None:
        for name in ("stride", "patch", "search"):
            edge = getattr(self, name)
            if not 1 <= edge <= LONGEST_EDGE:
                raise OptionError(f"{name} {edge} is not from 1 to {LONGEST_EDGE}: give voxels")
        if self.patch % (2 * self.stride) != self.stride:
            raise OptionError(
                f"patch {self.patch} is no odd multiple of stride {self.stride}: give for example "
                f"{5 * self.stride}"
            )

    @property
    def reach(self) -> int:
        """How many blocks a patch has on each side of its own."""
        return self.patch // self.stride // 2

    @property
    def margin(self) -> int:
        """How far around blocks sections are looked at, in voxels."""
        return self.reach * self.stride + self.search

    @property
    def lost(self) -> int:
        """What stands for the shift where nothing fits: more than can be found."""
        return self.search + 1


FILTER_MARGIN = int(4 * LEVELLING)
"""How much farther the filters look (Gaussians are cut at 4 standard deviations)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """A section made ready for comparison.

    Attributes
    ----------
    texture
        What is left between noise and slow changes; 0 where there is no picture.
    valid
        1 where there is a picture, else 0.
    noise
        Variance of single voxels.
    """

    texture: Float32[np.ndarray, "y x"]
    valid: Float32[np.ndarray, "y x"]
    noise: Float32[np.ndarray, "y x"]

    @classmethod
    def prepare(cls, grey: Array, *, inside: Bool[np.ndarray, "y x"]) -> Section:
        """Filter a section.

        Parameters
        ----------
        grey
            Grey levels of any type (y, x).
        inside
            Where the image has voxels.
        """
        finite = np.isfinite(grey)
        image = np.where(finite, grey, 0).astype(np.float32)
        valid = (inside & finite & ~_filled(image)).astype(np.float32)
        # Float images may have any scale, and sums of squares must not leave float32.
        image *= valid
        image /= max(float(np.abs(image).max()), 1.0) if grey.dtype.kind == "f" else 1.0
        texture = (_smooth(image, valid, SMOOTHING) - _smooth(image, valid, LEVELLING)) * valid
        noise = ndimage.convolve(image, _LAPLACE, mode="nearest") ** 2 * valid
        if grey.dtype.kind in "ui":
            noise += _ROUNDING_VARIANCE * valid
        return cls(texture=texture, valid=valid, noise=noise)

    def cropped(self, margin: int) -> Section:
        """Return the section without so many voxels at each side."""
        inner = slice(margin, -margin)
        return Section(
            texture=self.texture[inner, inner],
            valid=self.valid[inner, inner],
            noise=self.noise[inner, inner],
        )

    def has_texture(self, matching: Matching) -> Bool[np.ndarray, "rows columns"]:
        """Tell in which blocks' patches there is something to compare.

        The section has `Matching.margin` voxels around the blocks.
        """
        parts = (self.texture**2, self.noise, self.valid)
        texture, noise, valid = (
            _patch_sums(_blocks(part, matching).sum(axis=(2, 3)), matching) for part in parts
        )
        enough = valid >= FEWEST_VALID * matching.patch**2
        found: Bool[np.ndarray, "rows columns"] = enough & (texture > LEAST_TEXTURE * noise)
        return found


def match(
    here: Section, there: Section, *, matching: Matching
) -> tuple[Int16[np.ndarray, "2 rows columns"], Float32[np.ndarray, "rows columns"]]:
    """Return by how much one section is shifted against another around each block.

    Parameters
    ----------
    here, there
        Of the same place, with `Matching.margin` voxels around the blocks.

    Returns
    -------
    shifts
        y and x of `there` less those of `here`, of the same tissue, in voxels.
    quality
        See `LEAST_QUALITY`; 0 where nothing could be compared.
    """
    rows: deque[Float32[np.ndarray, "6 columns k k"]] = deque(maxlen=2 * matching.reach + 1)
    shifts, qualities = [], []
    for row in _correlated_rows(here, there, matching):
        rows.append(row)
        if len(rows) == rows.maxlen:
            shift, quality = _best(_normalised(sum(rows), matching), search=matching.search)
            shifts.append(shift)
            qualities.append(quality)
    return np.stack(shifts, axis=1), np.stack(qualities)


def _correlated_rows(
    here: Section, there: Section, matching: Matching
) -> Iterator[Float32[np.ndarray, "6 columns k k"]]:
    """Yield for each row of blocks the sums of each patch's part in that row, for all shifts.

    They are: voxels valid in both, sums of here and there over these, sums of their
    squares, and the sum of their products.
    """
    edge = matching.stride + 2 * matching.search
    length = fft.next_fast_len(edge, real=True)
    ones, values = here.valid, here.texture
    blocks = [_blocks(part, matching) for part in (ones, values, values**2)]
    windows = [
        np.lib.stride_tricks.sliding_window_view(part, (edge, edge))[
            :: matching.stride, :: matching.stride
        ]
        for part in (there.valid, there.texture, there.texture**2)
    ]

    def transformed(part: Array, row: int) -> Complex64[np.ndarray, "columns l m"]:
        found: Complex64[np.ndarray, "columns l m"] = fft.rfft2(part[row], s=(length, length))
        return found

    for row in range(len(blocks[0])):
        one, a, aa = (transformed(part, row).conj() for part in blocks)
        all_, b, bb = (transformed(part, row) for part in windows)
        pairs = ((one, all_), (a, all_), (one, b), (aa, all_), (one, bb), (a, b))
        shifts = slice(0, 2 * matching.search + 1)
        sums = [fft.irfft2(x * y, s=(length, length))[:, shifts, shifts] for x, y in pairs]
        yield _run_sums(np.stack(sums), count=2 * matching.reach + 1, axis=1)


def _normalised(sums: Any, matching: Matching) -> Float32[np.ndarray, "columns k k"]:
    """Return the correlation coefficients of sums over patches; -1 where there is too little."""
    count, a, b, aa, bb, ab = sums
    voxels = np.maximum(count, 1)
    spread_a = np.maximum(aa - a * a / voxels, 0)
    spread_b = np.maximum(bb - b * b / voxels, 0)
    scale = np.sqrt(spread_a * spread_b)
    is_enough = count > FEWEST_VALID * matching.patch**2 - 0.5  # whole numbers, after an FFT
    # Rounding leaves no more than this of a spread that is nought.
    is_enough &= scale > _NO_WEIGHT * scale.max(axis=(1, 2), keepdims=True)
    found = np.divide(ab - a * b / voxels, scale, out=np.full_like(ab, -1), where=is_enough)
    clipped: Float32[np.ndarray, "columns k k"] = np.clip(found, -1, 1)
    return clipped


def _best(
    correlation: Float32[np.ndarray, "columns k k"], *, search: int
) -> tuple[Int16[np.ndarray, "2 columns"], Float32[np.ndarray, "columns"]]:
    flat = correlation.reshape(len(correlation), -1)
    at = flat.argmax(axis=1)
    best = flat.max(axis=1)
    compared = flat > -1
    count = np.maximum(compared.sum(axis=1), 1)
    mean = np.where(compared, flat, 0).sum(axis=1) / count
    spread = np.where(compared, flat - mean[:, None], 0)
    deviation = np.sqrt((spread**2).sum(axis=1) / count)
    quality = np.divide(
        best * (best - mean), deviation, out=np.zeros_like(best), where=deviation > 0
    )
    quality[best <= 0] = 0
    y, x = np.divmod(at, 2 * search + 1)
    return np.stack([y - search, x - search]).astype(np.int16), quality.astype(np.float32)


def _blocks(part: Array, matching: Matching) -> Array:
    """Cut a section (y, x) into its blocks: rows, columns, y, x."""
    edge, search = matching.stride, matching.search
    inner = part[search : len(part) - search, search : part.shape[1] - search]
    rows, columns = (length // edge for length in inner.shape)
    return inner.reshape(rows, edge, columns, edge).swapaxes(1, 2)


def _patch_sums(blocks: Array, matching: Matching) -> Array:
    count = 2 * matching.reach + 1
    return _run_sums(_run_sums(blocks, count=count, axis=0), count=count, axis=1)


def _run_sums(values: Array, *, count: int, axis: int) -> Array:
    """Return the sums of each `count` neighbours along an axis."""
    runs = np.lib.stride_tricks.sliding_window_view(values, count, axis=axis)
    sums: Array = runs.sum(axis=-1, dtype=values.dtype)
    return sums


def _filled(grey: Array) -> Bool[np.ndarray, "y x"]:
    """Return which voxels lie in squares of one grey level."""
    low, high = (
        one(grey, size=FILLED_EDGE, mode="nearest")
        for one in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    found: Bool[np.ndarray, "y x"] = ndimage.maximum_filter(low == high, size=FILLED_EDGE)
    return found


def _smooth(
    image: Float32[np.ndarray, "y x"], valid: Float32[np.ndarray, "y x"], width: float
) -> Float32[np.ndarray, "y x"]:
    """Return the weighted mean around each voxel, of valid voxels alone."""
    weight = ndimage.gaussian_filter(valid, width, mode="constant")
    total = ndimage.gaussian_filter(image, width, mode="constant")
    mean: Float32[np.ndarray, "y x"] = np.zeros_like(total)
    np.divide(total, weight, out=mean, where=weight > _NO_WEIGHT)
    return mean
