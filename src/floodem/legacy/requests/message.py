"""A message of the old programs as plain values: names and values in, a checked message out.

Text (floodem.legacy.requests.text) and binary (floodem.legacy.requests.wire) both become
a `Message`, which holds what is set and nothing else; what is not set has its default.
Numbers are as the binary form keeps them: a ``float`` is one of float32, written with
as few digits as tell it from its neighbours, so that 0.95 stays 0.95.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import UsageError
from floodem.legacy.requests.schema import INTEGER_RANGES, SCHEMAS, Field, Kind

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Message:
    """The fields of one message that are set.

    Attributes
    ----------
    name
        Of the message, one of `SCHEMAS`.
    values
        Values by field: numbers, texts, messages, and tuples of them where a field
        is repeated.
    unknown
        Fields of the binary form that the schema does not have, as they were stored.
    """

    name: str
    values: Mapping[str, Any]
    unknown: tuple[bytes, ...] = ()

    def has(self, field: str) -> bool:
        """Tell whether a field is set."""
        _known(self.name, field)
        return field in self.values

    def get(self, field: str) -> Any:
        """Return a field's value, or its default where it is not set."""
        known = _known(self.name, field)
        if field in self.values:
            return self.values[field]
        if known.is_repeated:
            return ()
        return Message(known.message, {}) if known.kind is Kind.MESSAGE else known.default

    def replacing(self, **values: Any) -> Message:
        """Return this message with some fields set to other values.

        Raises
        ------
        UsageError
            When a value is not of its field's kind.
        """
        return make_message(self.name, {**self.values, **values}, unknown=self.unknown)


def make_message(
    name: str, values: Mapping[str, Any], *, unknown: tuple[bytes, ...] = ()
) -> Message:
    """Return a message of checked values.

    Parameters
    ----------
    name
        One of `SCHEMAS`.
    values
        By field; lists and tuples for repeated fields.

    Raises
    ------
    UsageError
        When there is no such field, a value is not of its field's kind, or two of
        the values exclude each other.
    """
    checked: dict[str, Any] = {}
    groups: dict[str, str] = {}
    for field_name, value in values.items():
        field = _known(name, field_name)
        if field.is_repeated:
            kept = tuple(checked_value(field, one) for one in value)
            if kept:
                checked[field_name] = kept
            continue
        checked[field_name] = checked_value(field, value)
        if field.group and groups.setdefault(field.group, field_name) != field_name:
            raise UsageError(
                f"{groups[field.group]} and {field_name} exclude each other: give one of them"
            )
    return Message(name, checked, unknown)


def checked_value(field: Field, value: Any) -> Any:
    """Return one value as a message keeps it.

    Raises
    ------
    UsageError
        When it is not of the field's kind.
    """
    match field.kind, value:
        case Kind.MESSAGE, Message(name=name) if name == field.message:
            return value
        case Kind.BOOL, bool():
            return value
        case Kind.STRING, str() if _is_text(value):
            return value
        case (Kind.FLOAT, int() | float()) if not isinstance(value, bool):
            return nearest_float32(value)
        case (Kind.DOUBLE, int() | float()) if not isinstance(value, bool):
            return float(value)
        case Kind.ENUM, int() if field.choices and value in field.choices.values():
            return int(value)
        case (Kind.INT32 | Kind.INT64 | Kind.UINT64, int()) if not isinstance(value, bool):
            low, high = INTEGER_RANGES[field.kind]
            if low <= value <= high:
                return value
            raise UsageError(f"{field.name} {_cut(value)} is not between {low} and {high}")
    raise UsageError(f"{field.name} cannot be {_cut(value)}: it is {described(field)}")


def described(field: Field) -> str:
    """Return in words what a field holds."""
    if field.choices:
        return "one of " + ", ".join(f"{name} ({n})" for name, n in field.choices.items())
    if field.kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[field.kind]
        return f"a whole number from {low} to {high}"
    return {
        Kind.FLOAT: "a number",
        Kind.DOUBLE: "a number",
        Kind.BOOL: "true or false",
        Kind.STRING: "text in quotes",
        Kind.MESSAGE: f"{field.message} in braces {{ }}",
    }[field.kind]


def nearest_float32(value: float) -> float:
    """Return the number of float32 nearest to `value`, with as few digits as name it."""
    with np.errstate(over="ignore"):
        try:
            return float(str(np.float32(value)))
        except OverflowError:  # an integer beyond every float
            return float("inf") if value > 0 else float("-inf")


def _known(name: str, field: str) -> Field:
    known = SCHEMAS[name].by_name.get(field)
    if known is None:
        raise UsageError(
            f"{name} has no field {field!r}: it has {', '.join(SCHEMAS[name].by_name)}"
        )
    return known


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _cut(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 128:
        return "of more than 38 digits"
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}..."
