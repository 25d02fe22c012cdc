"""Tables of a project file held against what they may say; all mistakes are found at once.

In: plain values as TOML gives them. Out: options, and a list of problems with the key
that each is about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from floodem.errors import FloodemError, OptionError, VolumeNotFoundError
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
    """One mistake: the key it is about (dotted), the sentence, and whether a file is missing."""

    key: str
    sentence: str
    is_missing: bool = False


class Problems:
    """Collects mistakes, so that all can be told together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, key: str, sentence: str, *, is_missing: bool = False) -> None:
        """Keep a mistake; the same one only once."""
        problem = Problem(key, sentence, is_missing)
        if problem not in self.found:
            self.found.append(problem)

    def trying(self, key: str, make: Callable[[], _Value]) -> _Value | None:
        """Return what a function gives, or None where it refuses; its reason is kept."""
        try:
            return make()
        except FloodemError as error:
            self.add(key, str(error), is_missing=isinstance(error, VolumeNotFoundError))
            return None


def made_of(
    given: Mapping[str, Any],
    make: Callable[..., _Value],
    *,
    where: str,
    problems: Problems,
    said: str = "",
) -> _Value | None:
    """Return what a function makes of keys; else keep all that is wrong, each with its key.

    A mistake is of the one key without which it is not made; where there is none, or several,
    it is of the table.

    Parameters
    ----------
    given
        Values by key; all may be left out.
    make
        Refuses one mistake at a time.
    where
        Name of the table.
    said
        Begins each sentence.
    """
    left, made = dict(given), None
    while True:
        refusal, made = _tried(make, left)
        if refusal is None:
            return made if len(left) == len(given) else None
        culprits = [
            name
            for name in left
            if _tried(make, {key: one for key, one in left.items() if key != name})[0] != refusal
        ]
        key = f"{where}.{culprits[0]}" if len(culprits) == 1 else where
        problems.add(key if where else key.lstrip("."), f"{said}{refusal}")
        if len(culprits) != 1:
            return None
        del left[culprits[0]]


def _tried(
    make: Callable[..., _Value], given: Mapping[str, Any]
) -> tuple[str | None, _Value | None]:
    try:
        return None, make(**given)
    except FloodemError as error:
        return str(error), None


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
    said = f"[{where}]: " if where else ""
    return made_of(given, cls, where=where, problems=problems, said=said)


def _entry(kind: Any, value: Any, *, where: str, problems: Problems) -> Any:
    repeated = repeated_table(kind)
    if repeated is not None and isinstance(value, list):
        entries = [checked(repeated, one, where=where, problems=problems) for one in value]
        return tuple(entries)
    if is_table(kind):
        return checked(kind, value, where=where, problems=problems)
    return problems.trying(where, lambda: value_of(kind, value, where=where))
