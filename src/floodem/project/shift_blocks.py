"""The shifts of one block of a field: a place and an image in, numbers and counts out.

Each voxel of a field stands for one square of the image in one section and says by how
much the next section is shifted there. Where the next section shows nothing (black,
resin, a fold), the nearest one that does is compared instead::

    section   4   5   6   7         5 is black: the fields of 4 and 5 both say by how
              #   .   #   #         much 6 is shifted against 4

What one square finds alone among its eight neighbours is a mistake, since their patches
overlap: each takes the median of what they find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from floodem.geometry import Box
from floodem.project.matching import FILTER_MARGIN, LEAST_QUALITY, Matching, Section, match
from floodem.volumes.volume import Array

BRIDGED = 4
"""Sections so far apart are compared where those between show nothing (max_delta_z in SOFIMA)."""

_KEPT_SECTIONS = BRIDGED + 1
_NOWHERE = np.iinfo(np.int64).min // 2

Read = Callable[[Box], Array]
Matched = tuple[Int16[np.ndarray, "2 rows columns"], Float32[np.ndarray, "rows columns"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """What became of the squares of one section.

    Attributes
    ----------
    y, x
        How many shifts there are of each size, from -search to search.
    largest
        The same of the larger one of both, regardless of its sign, from 0 to search.
    lost
        Squares with texture in both sections that fit nowhere.
    empty
        Squares without anything to compare.
    """

    y: Int64[np.ndarray, "sizes"]
    x: Int64[np.ndarray, "sizes"]
    largest: Int64[np.ndarray, "absolute"]
    lost: int
    empty: int

    def to_json(self) -> list[Any]:
        """Return the counts as JSON values."""
        return [self.y.tolist(), self.x.tolist(), self.largest.tolist(), self.lost, self.empty]

    @classmethod
    def from_json(cls, values: list[Any]) -> PairCounts:
        """Read what `to_json` has written."""
        y, x, largest = (np.array(one, np.int64) for one in values[:3])
        return cls(y=y, x=x, largest=largest, lost=values[3], empty=values[4])

    def __add__(self, other: PairCounts) -> PairCounts:
        return PairCounts(
            y=self.y + other.y,
            x=self.x + other.x,
            largest=self.largest + other.largest,
            lost=self.lost + other.lost,
            empty=self.empty + other.empty,
        )


@dataclass(kw_only=True)
class ShiftBlock:
    """One block of a field.

    Attributes
    ----------
    read
        Returns the grey levels of a box of the image.
    image_box
        Where the image is.
    core
        Voxels of the field.
    """

    read: Read
    image_box: Box
    core: Box
    matching: Matching
    _sections: dict[int, Section] = field(default_factory=dict)
    _textured: dict[int, Bool[np.ndarray, "rows columns"]] = field(default_factory=dict)
    _matched: dict[tuple[int, int], Matched] = field(default_factory=dict)
    _raw: tuple[Box, Array] | None = None

    def measure(self) -> tuple[Int16[np.ndarray, "2 z rows columns"], list[PairCounts]]:
        """Return the field, y and x, and the counts of each of its sections."""
        self._read_ahead()
        made = [self._pair(z) for z in range(self.core.start[0], self.core.stop[0])]
        return np.stack([shifts for shifts, _ in made], axis=1), [counts for _, counts in made]

    @property
    def _wide(self) -> Box:
        """The core and the neighbours that its squares are compared with."""
        return self.core.grow((0, 1, 1))

    def _read_ahead(self) -> None:
        first, last = self.core.start[0], self.core.stop[0] + 1
        around = self._around(first, last).intersection(self.image_box)
        if around is not None:
            self._raw = (around, self.read(around))

    def _around(self, first: int, last: int) -> Box:
        """Return the voxels of the image that decide about the core, in some sections."""
        edge, margin = self.matching.stride, self.matching.margin + FILTER_MARGIN
        (_, y0, x0), (_, y1, x1) = self._wide.start, self._wide.stop
        low = (first, y0 * edge - margin, x0 * edge - margin)
        return Box(low, (last, y1 * edge + margin, x1 * edge + margin))

    def _pair(self, z: int) -> tuple[Int16[np.ndarray, "2 rows columns"], PairCounts]:
        lower, upper = self._nearest(z, step=-1), self._nearest(z + 1, step=1)
        shifts = np.full((2, *lower.shape), np.nan, np.float32)
        comparable = (lower != _NOWHERE) & (upper != _NOWHERE) & (upper - lower <= BRIDGED)
        ends = zip(lower[comparable].tolist(), upper[comparable].tolist(), strict=True)
        for below, above in sorted(set(ends)):
            here = comparable & (lower == below) & (upper == above)
            matched, quality = self._match(below, above)
            is_found = quality >= LEAST_QUALITY
            shifts[:, here & is_found] = matched[:, here & is_found]
            # Farther apart the tissue itself may have become another: that says nothing.
            if above - below == 1:
                shifts[:, here & ~is_found] = self.matching.lost
        return _summed_up(_median(shifts), self.matching)

    def _nearest(self, z: int, *, step: int) -> Int64[np.ndarray, "rows columns"]:
        """Return for each square the nearest section from z on in which it has texture."""
        nearest = np.full(self._wide.shape[1:], _NOWHERE)
        for one in range(z, z + step * BRIDGED, step):
            is_open = (nearest == _NOWHERE) & self._over_image()
            if not is_open.any():
                break
            nearest[is_open & self._has_texture(one)] = one
        return nearest

    def _over_image(self) -> Bool[np.ndarray, "rows columns"]:
        """Return which squares lie over the image: those around the core need not."""
        edge = self.matching.stride
        found = [
            (np.arange(low, high) * edge < stop) & ((np.arange(low, high) + 1) * edge > start)
            for low, high, start, stop in zip(
                self._wide.start[1:],
                self._wide.stop[1:],
                self.image_box.start[1:],
                self.image_box.stop[1:],
                strict=True,
            )
        ]
        over: Bool[np.ndarray, "rows columns"] = np.logical_and.outer(*found)
        return over

    def _has_texture(self, z: int) -> Bool[np.ndarray, "rows columns"]:
        if z not in self._textured:
            if self.image_box.start[0] <= z < self.image_box.stop[0]:
                self._textured[z] = self._section(z).has_texture(self.matching)
            else:
                self._textured[z] = np.zeros(self._wide.shape[1:], bool)
        return self._textured[z]

    def _match(self, below: int, above: int) -> Matched:
        if (below, above) not in self._matched:
            sections = self._section(below), self._section(above)
            self._matched[below, above] = match(*sections, matching=self.matching)
        return self._matched[below, above]

    def _section(self, z: int) -> Section:
        if z not in self._sections:
            if len(self._sections) == _KEPT_SECTIONS:
                del self._sections[min(self._sections)]
            self._sections[z] = self._prepare(z)
        return self._sections[z]

    def _prepare(self, z: int) -> Section:
        around = self._around(z, z + 1)
        held = around.intersection(self.image_box)
        assert held is not None  # the core lies over the image
        grey = self._voxels(held)[0]
        place = held.slices(origin=around.start)[1:]
        whole = np.zeros(around.shape[1:], grey.dtype)
        whole[place] = grey
        inside = np.zeros(around.shape[1:], bool)
        inside[place] = True
        prepared = Section.prepare(whole, inside=inside)
        return prepared.cropped(FILTER_MARGIN)

    def _voxels(self, box: Box) -> Array:
        if self._raw is not None and self._raw[0].contains(box):
            return self._raw[1][box.slices(origin=self._raw[0].start)]
        return self.read(box)


def _median(
    shifts: Float32[np.ndarray, "2 wide high"],
) -> Float32[np.ndarray, "2 rows columns"]:
    """Return the median of each square and its neighbours; where it has none itself, NaN."""
    around = np.lib.stride_tricks.sliding_window_view(shifts, (3, 3), axis=(1, 2))
    inner = shifts[:, 1:-1, 1:-1]
    median: Float32[np.ndarray, "2 rows columns"] = np.full_like(inner, np.nan)
    has_one = np.isfinite(inner[0])
    median[:, has_one] = np.nanquantile(around[:, has_one], 0.5, axis=(2, 3), method="lower")
    return median


def _summed_up(
    shifts: Float32[np.ndarray, "2 rows columns"], matching: Matching
) -> tuple[Int16[np.ndarray, "2 rows columns"], PairCounts]:
    """Return the field of one section, 0 where there is no shift, and its counts."""
    is_empty = ~np.isfinite(shifts[0])
    whole = np.where(is_empty, 0, shifts).astype(np.int64)
    is_lost = (whole == matching.lost).any(axis=0)
    whole[:, is_lost] = matching.lost
    search, is_found = matching.search, ~is_empty & ~is_lost
    y, x = (
        np.bincount(component[is_found] + search, minlength=2 * search + 1) for component in whole
    )
    counts = PairCounts(
        y=y,
        x=x,
        largest=np.bincount(np.abs(whole).max(axis=0)[is_found], minlength=search + 1),
        lost=int(np.count_nonzero(is_lost)),
        empty=int(np.count_nonzero(is_empty)),
    )
    return whole.astype(np.int16), counts
