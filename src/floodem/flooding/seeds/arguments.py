"""Arguments of seed policies, as they come out of JSON: checked and made plain.

In: a value of any JSON type and the names for a message. Out: an int, float,
bool or tuple, or an error that says what was given and what is possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from floodem.errors import OptionError


def whole_number(value: Any, *, of: str, at_least: int) -> int:
    """Return an integer of at least `at_least`; `of` names policy and argument."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise OptionError(f"{of} is {value!r}: give a whole number of at least {at_least}")
    return value


def number(value: Any, *, of: str) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise OptionError(f"{of} is {value!r}: give a finite number")
    return float(value)


def truth(value: Any, *, of: str) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise OptionError(f"{of} is {value!r}: give true or false")
    return value


def whole_numbers(value: Any, *, of: str, at_least: int) -> tuple[int, ...]:
    """Return a sequence of integers of at least `at_least`, which may be empty."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionError(f"{of} is {value!r}: give a list of whole numbers")
    return tuple(whole_number(one, of=of, at_least=at_least) for one in value)
