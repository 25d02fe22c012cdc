"""What a field of shifts says: counts in, sections to look at and a mask to use out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Int64

from floodem.errors import OptionError
from floodem.flooding.masks import MaskPlace, ShiftMask
from floodem.geometry import Box, Zyx, tiles
from floodem.project.shift_blocks import PairCounts
from floodem.project.shifts import ShiftField
from floodem.volumes.servers.addresses import without_secrets

USUAL_FOV: Zyx = (33, 33, 33)
"""Field of view of most published networks, z, y, x."""

LEAST_THRESHOLD = 4
"""As in google/ffn (movement.py, shift_mask_threshold)."""

USUAL_SHARE, TIMES_USUAL = 0.9, 2
"""A shift is large when it is twice as long as 90 of 100 are: networks bear the usual ones."""

_BLOCK = 512
"""Edge along y and x, in voxels of the field, of what is looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionShift:
    """How the next section lies on one section.

    Attributes
    ----------
    z
        The section; the other one is z + 1.
    median_y, median_x
        Shift that half of the places do not exceed, in voxels of the finest level; None
        where nothing was found.
    largest
        Largest component that was found.
    large
        Share of the places, empty ones aside, with a large shift or none that fits.
    lost
        Share of those where none fits.
    """

    z: int
    median_y: int | None
    median_x: int | None
    largest: int
    large: float
    lost: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftReport:
    """A field of shifts in numbers.

    Attributes
    ----------
    places
        Where shifts were looked for, the last section aside.
    empty, lost
        Share of them without a picture; share of the others where no shift fits.
    usual, typical
        Size that 90 and 50 of 100 shifts do not exceed, in voxels of the finest level.
    threshold
        From which a shift is large.
    sections
        Every section but the last, the most shifted one first.
    mask
        What ``segment --mask`` takes.
    masked
        Share of the image in which that allows no field of view to be centred.
    """

    places: int
    empty: float
    lost: float
    usual: int
    typical: int
    threshold: int
    sections: tuple[SectionShift, ...]
    mask: str
    masked: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "sections": [one.to_json() for one in self.sections]}


def report_shifts(
    field: ShiftField, *, fov: Zyx = USUAL_FOV, threshold: int | None = None
) -> ShiftReport:
    """Sum up a field of shifts and propose a mask.

    Parameters
    ----------
    fov
        Field of view of the network, z, y, x: no such field may lie over a large shift.
    threshold
        From which a shift is large, in voxels of the finest level; None: twice what 90 of
        100 shifts do not exceed, and at least 4.

    Raises
    ------
    OptionError
        When the threshold is above what was looked for, so that lost places would pass.
    FloodemError
        When the field cannot be read.
    """
    pairs = {z: counts for z, counts in field.pairs.items() if z + 1 < field.box.stop[0]}
    search, step = field.matching.search, field.step
    total = reduce(add, pairs.values(), _nothing(search))
    usual = _quantile(total.largest, USUAL_SHARE) * step
    most = field.matching.lost * step
    if threshold is None:
        threshold = min(most, max(LEAST_THRESHOLD, TIMES_USUAL * usual))
    elif not 1 <= threshold <= most:
        raise OptionError(
            f"threshold {threshold} is not from 1 to {most}, where places that fit nowhere are "
            "large: give a smaller one, or look farther with a larger --search"
        )
    found = int(total.largest.sum())
    rule = ShiftMask(uri=field.uri, window=fov_window(fov), threshold=threshold, scale=field.scale)
    sections = [
        _section(z, counts, field=field, threshold=threshold) for z, counts in pairs.items()
    ]
    return ShiftReport(
        places=found + total.lost + total.empty,
        empty=total.empty / max(1, found + total.lost + total.empty),
        lost=total.lost / max(1, found + total.lost),
        usual=usual,
        typical=_quantile(total.largest, 0.5) * step,
        threshold=threshold,
        sections=tuple(sorted(sections, key=lambda one: (-one.large, -one.largest, one.z))),
        mask=mask_text(rule),
        masked=masked_share(rule, field.box),
    )


def fov_window(fov: Zyx) -> Box:
    """Return the voxels around its centre that a field of view looks at, for a shift mask.

    Along z a section's shift is that of the next one, and the last section has none
    within the field of view.
    """
    z, y, x = (size // 2 for size in fov)
    return Box((-z, -y, -x), (max(z, 1 - z), fov[1] - y, fov[2] - x))


def mask_text(rule: ShiftMask) -> str:
    """Return a shift mask as ``--mask`` takes it; signed queries are left out."""
    return (
        f"shift:{without_secrets(rule.uri)},threshold={rule.threshold:g},window={rule.window},"
        f"scale={rule.scale}"
    )


def masked_share(rule: ShiftMask, box: Box) -> float:
    """Return in which share of an image a mask allows no centre of a field of view.

    It is looked up in the middle of each voxel of the field, all over its box.
    """
    scale, middle = rule.scale, rule.scale // 2
    (z0, y0, x0), (z1, y1, x1) = rule.window.start, rule.window.stop
    first = (z0, (middle + y0) // scale, (middle + x0) // scale)
    last = (z1, (middle + y1 - 1) // scale + 1, (middle + x1 - 1) // scale + 1)
    coarse = ShiftMask(uri=rule.uri, window=Box(first, last), threshold=rule.threshold)
    masked = 0
    for tile in tiles(box, core=(box.shape[0], _BLOCK, _BLOCK)):
        masked += int(np.count_nonzero(coarse.masked(MaskPlace(box=tile.core))))
    return masked / box.size


def _section(z: int, counts: PairCounts, *, field: ShiftField, threshold: int) -> SectionShift:
    step, search = field.step, field.matching.search
    found = int(counts.largest.sum())
    large = int(counts.largest[math.ceil(threshold / step) :].sum()) + counts.lost
    compared = max(1, found + counts.lost)
    sizes = np.flatnonzero(counts.largest)
    medians = [
        (_quantile(component, 0.5) - search) * step if found else None
        for component in (counts.y, counts.x)
    ]
    return SectionShift(
        z=z,
        median_y=medians[0],
        median_x=medians[1],
        largest=int(sizes[-1]) * step if found else 0,
        large=large / compared,
        lost=counts.lost / compared,
    )


def _quantile(counts: Int64[np.ndarray, "sizes"], share: float) -> int:
    """Return the first index up to which this share of the counts lies; 0 without any."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _nothing(search: int) -> PairCounts:
    both, one = np.zeros(2 * search + 1, np.int64), np.zeros(search + 1, np.int64)
    return PairCounts(y=both, x=both, largest=one, lost=0, empty=0)
