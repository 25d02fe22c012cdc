"""Tables of a project file held against what they may say; all mistakes are found at once.

In: plain values as TOML gives them. Out: options, and a list of problems with the key
that each is about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from floodem.errors import FloodemError, OptionError
from floodem.training.configuration.tables import (
    annotations_of,
    is_table,
    key_of,
    repeated_table,
    require_known,
    value_of,
    without_none,
)

_Options = TypeVar("_Options")
_Value = TypeVar("_Value")


def about(text: str, *, decides: bool = True) -> dict[str, Any]:
    """Return what a field knows of itself: its sentence, and whether it decides the result."""
    return {"help": text, "decides": decides}


def deciding(table: Any) -> set[str]:
    """Return the names of a table's fields that decide the result."""
    return {one.name for one in dataclasses.fields(table) if one.metadata.get("decides", True)}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key it is about (dotted), and the sentence."""

    key: str
    sentence: str


class Problems:
    """Collects mistakes, so that all can be told together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, key: str, sentence: str) -> None:
        """Keep a mistake; the same one only once."""
        problem = Problem(key, sentence)
        if problem not in self.found:
            self.found.append(problem)

    def trying(self, key: str, make: Callable[[], _Value]) -> _Value | None:
        """Return what a function gives, or None where it refuses; its reason is kept."""
        try:
            return make()
        except FloodemError as error:
            self.add(key, str(error))
            return None


def checked(cls: type[_Options], values: Any, *, where: str, problems: Problems) -> _Options | None:
    """Build a table's options; None where something is wrong with it.

    Parameters
    ----------
    cls
        A dataclass whose fields are the keys.
    values
        What the file says.
    where
        Name of the table.
    problems
        Where each mistake goes.
    """
    if not isinstance(values, Mapping):
        problems.add(where, f"{where} is {values!r:.60}, not a table: write it as [{where}]")
        return None
    members = {key_of(one): one for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kinds = annotations_of(cls)
    before = len(problems.found)
    given: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        try:
            require_known({name: value}, members, where=where)
        except OptionError as error:
            problems.add(path, str(error))
            continue
        kind = without_none(kinds[members[name].name])
        entry = _entry(kind, value, where=path, problems=problems)
        if entry is not None:
            given[members[name].name] = entry
    if len(problems.found) > before:
        return None
    try:
        return cls(**given)
    except FloodemError as error:
        problems.add(where, f"[{where}]: {error}" if where else str(error))
        return None


def _entry(kind: Any, value: Any, *, where: str, problems: Problems) -> Any:
    repeated = repeated_table(kind)
    if repeated is not None and isinstance(value, list):
        entries = [checked(repeated, one, where=where, problems=problems) for one in value]
        return tuple(entries)
    if is_table(kind):
        return checked(kind, value, where=where, problems=problems)
    return problems.trying(where, lambda: value_of(kind, value, where=where))
