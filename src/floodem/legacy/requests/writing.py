"""A message as text: `floodem.legacy.requests.text` makes the same message of it again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from floodem.legacy.requests.message import Message
from floodem.legacy.requests.schema import INTEGER_RANGES, SCHEMAS, Field


def format_text(message: Message) -> str:
    """Return the text of a message.

    Fields of the binary form that the schema does not have become comments.
    """
    return "".join(f"{line}\n" for line in _lines(message, indent=""))


def _lines(message: Message, *, indent: str) -> Iterator[str]:
    for field in SCHEMAS[message.name].by_name.values():
        value = message.get(field.name)
        if not message.has(field.name):
            continue
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Message):
                yield f"{indent}{field.name} {{"
                yield from _lines(one, indent=f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field.name}: {_written(field, one)}"
    for raw in message.unknown:
        yield f"{indent}# a field that {message.name} does not have: {raw.hex()}"


def _written(field: Field, value: Any) -> str:
    if field.choices:
        return next(name for name, number in field.choices.items() if number == value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if field.kind in INTEGER_RANGES:
        return str(value)
    return repr(value).removesuffix(".0")


def _quoted(text: str) -> str:
    """Return a text in quotes, with escapes for what could not stand in them."""
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return '"{}"'.format(
        "".join(
            named.get(one) or (one if one.isprintable() else _octal_escapes(one)) for one in text
        )
    )


def _octal_escapes(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())
