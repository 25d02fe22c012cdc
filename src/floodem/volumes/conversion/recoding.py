"""Other values for the same voxels: a block in the source's type in, one in the copy's out.

A conversion keeps values as they are, or maps a window of grey levels to the full
range of a smaller type, or gives labels the numbers 1..n.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import LabelError, OptionError, RunConflictError
from floodem.labels.runs import Ids, runs
from floodem.volumes.volume import Array, as_dtype

PIECE_VOXELS = 2**20
"""Voxels are recoded so many at a time, so that what it takes beside them stays small."""

_TABLE_BITS = 16
"""Types up to this width are mapped by a table of all their values."""

_CSV_HEADER = ("old", "new")


class Recoding:
    """Values as they are, in the type of the copy; see `as_dtype` for what is refused."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def apply(self, array: Array) -> Array:
        """Return an array of the same shape with the values of the copy."""
        return as_dtype(array, self.dtype)


@dataclass(frozen=True, slots=True)
class Window:
    """Grey levels from `low` to `high`, which become the full range of another type."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise OptionError(
                f"window {self} does not begin below its end: give LOW,HIGH, for example 0,4095"
            )

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``"LOW,HIGH"``.

        Raises
        ------
        OptionError
            When the text is not two numbers, the smaller one first.
        """
        try:
            low, high = (float(part) for part in text.split(","))
        except ValueError:
            raise OptionError(
                f"{text!r} is not a window: write LOW,HIGH, for example 0,4095"
            ) from None
        return cls(low, high)

    def __str__(self) -> str:
        return f"{self.low:.17g},{self.high:.17g}"


class WindowRecoding(Recoding):
    """A window of grey levels stretched linearly to the full range of an integer type.

    What lies outside is clipped; between, values are rounded to the nearest whole
    number, halves upwards.
    """

    def __init__(self, window: Window, *, source: np.dtype[Any], dtype: np.dtype[Any]) -> None:
        super().__init__(dtype)
        if dtype.kind not in "ui" or dtype.itemsize * 8 > _TABLE_BITS:
            raise OptionError(
                f"a window is mapped to the full range of a whole-number type of 8 or 16 bits, "
                f"not to {dtype}: give --dtype uint8"
            )
        self._window = window
        self._table: Array | None = None
        if source.kind in "ui" and source.itemsize * 8 <= _TABLE_BITS:
            unsigned = np.dtype(f"u{source.itemsize}")
            values = np.arange(np.iinfo(unsigned).max + 1).astype(unsigned).view(source)
            self._table = self._map(values)

    def apply(self, array: Array) -> Array:
        """Return an array of the same shape with the values of the copy."""
        found = np.empty(array.shape, self.dtype)
        flat, out = np.ascontiguousarray(array).reshape(-1), found.reshape(-1)
        for at in range(0, flat.size, PIECE_VOXELS):
            piece = flat[at : at + PIECE_VOXELS]
            if self._table is None:
                out[at : at + PIECE_VOXELS] = self._map(piece)
            else:
                unsigned = piece.view(f"u{piece.dtype.itemsize}")
                out[at : at + PIECE_VOXELS] = self._table[unsigned]
        return found

    def _map(self, values: Array) -> Array:
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise LabelError(
                f"NaN is in no window of grey levels and has no value in {self.dtype}: "
                "replace it in the source"
            )
        low, high = self._window.low, self._window.high
        bounds = np.iinfo(self.dtype)
        part = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
        levels = np.floor(part * (bounds.max - bounds.min) + 0.5) + bounds.min
        return levels.astype(self.dtype)


class Relabeling(Recoding):
    """Labels numbered 1..n in ascending order of their old ids; 0 stays 0."""

    def __init__(self, old_ids: Ids, *, dtype: np.dtype[Any]) -> None:
        super().__init__(dtype)
        if dtype.kind not in "ui" or len(old_ids) > np.iinfo(dtype).max:
            raise LabelError(
                f"{len(old_ids)} objects cannot be numbered 1 to {len(old_ids)} in {dtype}: "
                "choose a wider type of whole numbers (--dtype uint32, in Python dtype=)"
            )
        self.old_ids = old_ids
        self._known = np.concatenate([np.zeros(1, np.uint64), old_ids])

    def apply(self, array: Array) -> Array:
        """Return an array of the same shape with the values of the copy."""
        found = np.empty(array.shape, self.dtype)
        flat, out = np.ascontiguousarray(array).reshape(-1), found.reshape(-1)
        for at in range(0, flat.size, PIECE_VOXELS):
            piece = flat[at : at + PIECE_VOXELS]
            starts, lengths = runs(piece)
            values = piece[starts].astype(np.uint64)
            # The rank of an id among all, 0 included, is its new number.
            rows = np.minimum(np.searchsorted(self._known, values), len(self._known) - 1)
            unknown = self._known[rows] != values
            if unknown.any():
                raise RunConflictError(
                    f"the source has changed since its labels were counted: {values[unknown][0]} "
                    "is new; begin again with --overwrite"
                )
            out[at : at + PIECE_VOXELS] = np.repeat(rows.astype(self.dtype), lengths)
        return found


class IdCollector:
    """The distinct ids of many blocks, in memory proportional to their number."""

    def __init__(self) -> None:
        self._merged: Ids = np.zeros(0, np.uint64)
        self._waiting: list[Ids] = []
        self._count = 0

    def add(self, ids: Ids) -> None:
        """Note the ids of one block."""
        self._waiting.append(ids)
        self._count += len(ids)
        # Merging only when there are as many new as old keeps the whole linearithmic.
        if self._count > len(self._merged):
            self._merge()

    def ids(self) -> Ids:
        """Return all ids but 0, ascending."""
        self._merge()
        found: Ids = self._merged[self._merged != 0]
        return found

    def _merge(self) -> None:
        self._merged = np.unique(np.concatenate([self._merged, *self._waiting]))
        self._waiting, self._count = [], 0


def table_to_csv(old_ids: Sequence[int] | Ids) -> bytes:
    """Write which number each old id got, as CSV with the columns ``old`` and ``new``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    writer.writerows((int(old), new) for new, old in enumerate(old_ids, start=1))
    return text.getvalue().encode("ascii")


def table_from_csv(data: bytes) -> Ids | None:
    """Read the old ids of a table; None where it is damaged."""
    try:
        rows = list(csv.reader(io.StringIO(data.decode("ascii"))))
        numbers = [(int(old), int(new)) for old, new in rows[1:]]
        ids = np.array([old for old, _ in numbers], np.uint64)
    except (ValueError, OverflowError):
        return None
    in_order = [new for _, new in numbers] == list(range(1, len(numbers) + 1))
    is_ours = tuple(rows[0]) == _CSV_HEADER if rows else False
    return ids if is_ours and in_order and bool(np.all(ids[1:] > ids[:-1])) else None
