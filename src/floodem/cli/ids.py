"""Ids of objects on the command line: words in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable

from floodem.errors import OptionError

LARGEST_ID = 2**64 - 1


def read_ids(texts: Iterable[str], *, option: str) -> tuple[int, ...]:
    """Read ids from ``["0,5", "7 9"]``, in their order.

    Parameters
    ----------
    texts
        Numbers apart by commas, blanks or lines.
    option
        Where they were given, for the message: ``--ids``.

    Raises
    ------
    OptionError
        When a word is no number, or one that no id can be.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    parts = [part for word in words for part in word.split() or [word]]
    for part in parts:
        is_number = part.isascii() and part.isdecimal()
        if not is_number or int(part) > LARGEST_ID:
            raise OptionError(f"{option} {part[:40]!r} is not an id: give numbers, as in 5,7")
    return tuple(int(part) for part in parts)
