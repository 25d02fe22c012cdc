"""Numbers of things in messages: a number and a word in, "1 segment" or "1,204 segments" out."""

from __future__ import annotations


def counted(number: int, thing: str, *, many: str | None = None) -> str:
    """Return a number with the word for what it counts.

    Parameters
    ----------
    number
        Thousands are set apart by commas.
    thing
        The word for one.
    many
        The word for several; by default with an s.
    """
    return f"{number:,} {thing if number == 1 else many or f'{thing}s'}"
