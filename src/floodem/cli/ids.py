"""Ids of objects on the command line: words in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from floodem.errors import OptionError

LARGEST_ID = 2**64 - 1

_MAX_IDS_BYTES = 2**28
"""Ten million ids of twenty digits and a little more; larger files are no lists of ids."""


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


def parse_ids(texts: list[str] | None, file: Path | None) -> tuple[int, ...] | None:
    """Read ids from ``["5,7", "9"]`` and from a file with commas, blanks or lines between them.

    Raises
    ------
    OptionError
        When a word is not a number, or the file cannot be read.
    """
    if texts is None and file is None:
        return None
    ids = read_ids(texts or [], option="--ids")
    if file is not None:
        try:
            if file.stat().st_size > _MAX_IDS_BYTES:
                raise OptionError(f"--ids-file: {file} is too large to be a list of ids")
            words = file.read_text(encoding="utf-8").replace(",", " ").split()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise OptionError(f"--ids-file: {file} cannot be read: {reason}") from error
        ids += read_ids(words, option="--ids-file")
    return ids
