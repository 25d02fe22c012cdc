"""What several old programs read from their flags: entries of lists in, numbers and triples out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from floodem.errors import OptionError
from floodem.geometry import Zyx
from floodem.volumes.location import parse_location

_AXES = 3
_MOST_DIGITS = 20


def whole_numbers(flag: str, entries: Sequence[str]) -> tuple[int, ...]:
    """Return the whole numbers of a list.

    Raises
    ------
    OptionError
        When an entry is none.
    """
    return tuple(_whole(flag, entry) for entry in entries)


def numbers(flag: str, entries: Sequence[str]) -> tuple[float, ...]:
    """Return the numbers of a list.

    Raises
    ------
    OptionError
        When an entry is none, or not finite.
    """
    found = []
    for entry in entries:
        try:
            number = float(entry)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise OptionError(
                f"--{flag}: {entry!r} is no number: write all of them, for example 0.1,0.5,0.9"
            )
        found.append(number)
    return tuple(found)


def triple_zyx(flag: str, entries: Sequence[str]) -> Zyx:
    """Return three whole numbers that the old program took in the order z, y, x.

    Raises
    ------
    OptionError
        When they are not three.
    """
    z, y, x = _three(flag, entries, order="z,y,x")
    return (z, y, x)


def triple_xyz(flag: str, entries: Sequence[str]) -> Zyx:
    """Return, as z, y, x, three whole numbers that the old program took in the order x, y, z.

    Raises
    ------
    OptionError
        When they are not three.
    """
    x, y, z = _three(flag, entries, order="x,y,z")
    return (z, y, x)


def written(zyx: Zyx) -> str:
    """Return a triple as floodem's options take it."""
    return ",".join(str(one) for one in zyx)


def replacement_note(address: str | Path) -> tuple[str, ...]:
    """Return the sentence for a file that is there and will be replaced, or nothing."""
    location = None if isinstance(address, Path) else parse_location(address)
    path = Path(address) if location is None else location.local
    if not path.exists():
        return ()
    if location is None or location.dataset is None:
        return (f"{path} is there: it is replaced once the new one is whole",)
    sentence = (
        f"{path} is there: a dataset {location.dataset} in it is replaced once the new one is "
        "whole, and others stay"
    )
    return (sentence,)


def _three(flag: str, entries: Sequence[str], *, order: str) -> tuple[int, ...]:
    if len(entries) != _AXES:
        raise OptionError(
            f"--{flag} {','.join(entries)!r} is not three whole numbers: write {order}, for "
            "example 24,24,24"
        )
    return whole_numbers(flag, entries)


def _whole(flag: str, entry: str) -> int:
    digits = entry.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        raise OptionError(f"--{flag}: {entry!r} is no whole number: write digits only")
    return int(entry)
