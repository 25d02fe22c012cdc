"""Text behind an option becomes a value; an error names the option."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from floodem.errors import GeometryError, OptionError

_Value = TypeVar("_Value")


def option_value(option: str, parse: Callable[[str], _Value], *, text: str) -> _Value:
    """Return what `parse` makes of the text that the user wrote behind an option.

    Raises
    ------
    OptionError
        When it is not understood: a mistake in the command, not in a file.
    """
    try:
        return parse(text)
    except GeometryError as error:
        raise OptionError(f"{option}: {error}") from error
