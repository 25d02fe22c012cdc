"""Which values of a volume a mask means: some of them, a range, or all but 0.

In: an array of labels or intensities. Out: where its values are selected.
Values are compared in the array's own type, so that no label beyond 2**53 loses
its last digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from floodem.errors import OptionError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSelection:
    """Some values of one channel; without any of the first three, all but 0.

    Attributes
    ----------
    values
        The values themselves.
    minimum, maximum
        Or the ends of a range, both included; None leaves an end open.
    invert
        Select all other values instead.
    channel
        Which channel of a volume with several, counted from 0.

    Raises
    ------
    OptionError
        When values and a range are given, a range is empty, or a number is not finite.
    """

    values: tuple[float, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    invert: bool = False
    channel: int | None = None

    def __post_init__(self) -> None:
        ends = [end for end in (self.minimum, self.maximum) if end is not None]
        if self.values and ends:
            raise OptionError("a mask selects values or a range from min to max: give one of them")
        if not all(math.isfinite(value) for value in (*self.values, *ends)):
            raise OptionError("a mask selects values that are not finite: give numbers")
        if len(ends) == 2 and ends[0] > ends[1]:
            raise OptionError(f"a mask's min {ends[0]} lies above its max {ends[1]}: exchange them")

    @property
    def is_nonzero(self) -> bool:
        """Whether it names neither values nor a range."""
        return not self.values and self.minimum is None and self.maximum is None

    def of(self, array: Array) -> Bool[np.ndarray, "*shape"]:
        """Return where the array has a selected value."""
        if array.dtype == np.bool_:
            array = array.view(np.uint8)
        if self.values:
            chosen = np.isin(array, _fitting(self.values, array.dtype))
        elif self.is_nonzero:
            chosen = array != 0
        else:
            chosen = _in_range(array, minimum=self.minimum, maximum=self.maximum)
        return ~chosen if self.invert else chosen

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary that leaves out what is not set."""
        told = {
            "channel": self.channel,
            "values": list(self.values) or None,
            "min": self.minimum,
            "max": self.maximum,
            "invert": self.invert or None,
        }
        return {name: value for name, value in told.items() if value is not None}


def _fitting(values: tuple[float, ...], dtype: np.dtype[Any]) -> Array:
    """Return those values that this type can hold, in it."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        whole = [int(value) for value in values if value == int(value)]
        return np.array([v for v in whole if limits.min <= v <= limits.max], dtype=dtype)
    largest = float(np.finfo(dtype).max)
    return np.array([value for value in values if abs(value) <= largest], dtype=dtype)


def _in_range(
    array: Array, *, minimum: float | None, maximum: float | None
) -> Bool[np.ndarray, "*shape"]:
    if array.dtype.kind in "ui":
        # Against a fraction numpy would compare as float64 and round large labels.
        minimum = None if minimum is None else math.ceil(minimum)
        maximum = None if maximum is None else math.floor(maximum)
    chosen = np.ones(array.shape, dtype=bool)
    with np.errstate(over="ignore"):  # a bound beyond a float type is as good as infinite
        if minimum is not None:
            chosen &= array >= minimum
        if maximum is not None:
            chosen &= array <= maximum
    return chosen
