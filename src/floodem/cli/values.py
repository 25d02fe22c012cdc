"""Text behind an option becomes a value; an error names the option."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

from floodem.errors import GeometryError, OptionError

_Value = TypeVar("_Value")


@overload
def option_value(option: str, parse: Callable[[str], _Value], *, text: str) -> _Value: ...
@overload
def option_value(
    option: str, parse: Callable[[str], _Value], *, text: str | None
) -> _Value | None: ...
def option_value(option: str, parse: Callable[[str], _Value], *, text: str | None) -> _Value | None:
    """Return what `parse` makes of the text that the user wrote behind an option; None for none.

    Raises
    ------
    OptionError
        When it is not understood: a mistake in the command, not in a file.
    """
    if text is None:
        return None
    try:
        return parse(text)
    except (GeometryError, OptionError) as error:
        raise OptionError(f"{option}: {error}") from error
