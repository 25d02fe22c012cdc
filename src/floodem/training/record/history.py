"""The curves of a run in memory: rows of numbers in, one column for each name out.

A run of weeks has tens of thousands of rows; as columns of doubles they take a
few megabytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

STEP = "step"


class History:
    """Rows of named numbers, each of one step; steps ascend."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._steps = array("q")
        self._columns: dict[str, array[float]] = {}
        for row in rows:
            self.add(int(row[STEP]), row)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def names(self) -> list[str]:
        """Return the names of all columns, sorted."""
        return sorted(self._columns)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a row; what is no number counts as missing."""
        for name in values.keys() - self._columns.keys() - {STEP}:
            self._columns[name] = array("d", [math.nan] * len(self._steps))
        self._steps.append(step)
        for name, column in self._columns.items():
            value = values.get(name)
            column.append(float(value) if isinstance(value, int | float) else math.nan)

    def steps(self) -> Int64[np.ndarray, " n"]:
        """Return the steps of all rows."""
        return np.array(self._steps, dtype=np.int64)

    def column(self, name: str) -> Float64[np.ndarray, " n"]:
        """Return a column; NaN where a row has no such number, all NaN for an unknown name."""
        if name not in self._columns:
            return np.full(len(self._steps), math.nan)
        return np.array(self._columns[name], dtype=np.float64)

    def last(self, name: str) -> float | None:
        """Return the newest number of this name, or None."""
        finite = self.column(name)
        finite = finite[np.isfinite(finite)]
        return float(finite[-1]) if len(finite) else None
