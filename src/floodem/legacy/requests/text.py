r"""Requests as people write them: protobuf text in, a message out.

    image { hdf5: "em.h5@raw" }         # a message within a message; also < >
    image_mean: 128                     # numbers, texts, true or false, names of choices
    masks [ { invert: true }, { } ]     # lists where a field may be repeated

Between fields a comma or semicolon may stand. What is wrong is said with the place where
it stands and what was expected there.

References
----------
Protocol Buffers documentation, "Text Format Language Specification".
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from typing import Any

from floodem.errors import UsageError
from floodem.legacy.requests.message import Message, checked_value, described
from floodem.legacy.requests.schema import SCHEMAS, Field, Kind, Schema
from floodem.legacy.requests.tokens import Source, Token, TokenKind

DEEPEST_NESTING = 32
"""Messages within messages; the deepest of the old programs' has seven."""

_LONGEST_NAME = 80
_CLOSING = {"{": "}", "<": ">"}
_TRUE = frozenset({"true", "True", "t", "1"})
_FALSE = frozenset({"false", "False", "f", "0"})
_INFINITE = frozenset({"inf", "infinity"})
_OCTAL = re.compile(r"0[0-9]+")
_WHOLE = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")


def parse_text(text: str, *, message: str, source: str) -> Message:
    """Read a message from protobuf text.

    Parameters
    ----------
    text
        For example what is in ``inference.pbtxt``.
    message
        Name of the message, one of `SCHEMAS`.
    source
        What messages call the text: a file, or a flag.

    Raises
    ------
    UsageError
        With line and column, when the text is not such a message.
    """
    return _Parser(Source(text, source)).read(SCHEMAS[message])


class _Parser:
    """Reads tokens one after the other, with one of them in view."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tokens = source.tokens()
        self._token = next(self._tokens)
        self._depth = 0

    def read(self, schema: Schema) -> Message:
        message = self._fields(schema, opened=None)
        assert self._token.kind is TokenKind.END
        return message

    def _next(self) -> Token:
        token = self._token
        if token.kind is not TokenKind.END:
            self._token = next(self._tokens)
        return token

    def _take(self, symbol: str) -> bool:
        taken = self._token.kind is TokenKind.SYMBOL and self._token.text == symbol
        if taken:
            self._next()
        return taken

    def _refused(self, token: Token, why: str) -> UsageError:
        return self._source.refused(token.start, why)

    def _expected(self, what: str) -> UsageError:
        return self._refused(self._token, f"expected {what}, found {self._token}")

    def _fields(self, schema: Schema, *, opened: Token | None) -> Message:
        """Read fields up to the end of a message."""
        values: dict[str, Any] = {}
        groups: dict[str, str] = {}
        closing = None if opened is None else _CLOSING[opened.text]
        while closing is None or not self._take(closing):
            token = self._token
            if token.kind is TokenKind.END:
                if opened is None or closing is None:
                    break
                raise self._refused(
                    opened, f"{opened} of {schema.name} is never closed: write {closing}"
                )
            field = self._field(schema, closing=closing)
            found = self._values(field, name=token)
            if field.is_repeated:
                values.setdefault(field.name, []).extend(found)
            elif field.name in values:
                raise self._refused(
                    token, f"{field.name} of {schema.name} is given twice: leave one of them"
                )
            else:
                values[field.name] = found[0]
            if field.group and groups.setdefault(field.group, field.name) != field.name:
                raise self._refused(
                    token,
                    f"{field.name} and {groups[field.group]} exclude each other: leave one of them",
                )
            if not self._take(","):
                self._take(";")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        kept = {name: value for name, value in (values | lists).items() if value != ()}
        return Message(schema.name, kept)

    def _field(self, schema: Schema, *, closing: str | None) -> Field:
        """Read the name of a field."""
        token = self._token
        if token.kind is not TokenKind.NAME:
            what = f"a field of {schema.name}"
            if token.kind is TokenKind.SYMBOL and token.text == "[":
                raise self._refused(
                    token, f"expected {what}, found an extension in [ ], which none has"
                )
            raise self._expected(f"{what} or {closing!r}" if closing else what)
        field = schema.by_name.get(token.text)
        if field is None:
            raise self._refused(
                token, f"{schema.name} has no field {token}{_hint(schema, token.text)}"
            )
        self._next()
        return field

    def _values(self, field: Field, *, name: Token) -> list[Any]:
        """Read what stands behind a field's name: one value, or a list in brackets."""
        colon = self._take(":")
        read: Callable[[Field], Any] = self._scalar
        if field.kind is Kind.MESSAGE:
            read = self._message
        elif not colon:
            raise self._expected(f"':' behind {field.name}")
        bracket = self._token
        if not (bracket.kind is TokenKind.SYMBOL and bracket.text == "["):
            return [read(field)]
        if not field.is_repeated:
            raise self._refused(
                bracket, f"{field.name} takes one value, not a list: {described(field)}"
            )
        self._next()
        values: list[Any] = []
        if self._take("]"):
            return values
        while True:
            values.append(read(field))
            if self._take("]"):
                return values
            if not self._take(","):
                raise self._expected(f"',' or ']' in the list of {field.name}")

    def _message(self, field: Field) -> Message:
        opened = self._token
        if opened.kind is not TokenKind.SYMBOL or opened.text not in _CLOSING:
            raise self._expected(f"'{{' behind {field.name}, which is {field.message}")
        if self._depth >= DEEPEST_NESTING:
            raise self._refused(
                opened, f"messages lie more than {DEEPEST_NESTING} deep within each other"
            )
        self._next()
        self._depth += 1
        message = self._fields(SCHEMAS[field.message], opened=opened)
        self._depth -= 1
        return message

    def _scalar(self, field: Field) -> Any:
        if field.kind is Kind.STRING:
            return self._string(field)
        first = self._token
        is_negative = self._take("-")
        token = self._token
        if token.kind not in {TokenKind.NAME, TokenKind.NUMBER}:
            raise self._expected(f"{described(field)} for {field.name}")
        value = _plain_value(field, token.text, is_negative=is_negative)
        if value is None:
            found = f"-{token.text}" if is_negative else token.text
            raise self._refused(
                first, f"{field.name} is {described(field)}, found {found[:_LONGEST_NAME]!r}"
            )
        try:
            kept = checked_value(field, value)
        except UsageError as error:
            raise self._refused(first, str(error)) from None
        self._next()
        return kept

    def _string(self, field: Field) -> str:
        """Read a text in quotes, and those that follow it directly."""
        first = self._token
        if first.kind is not TokenKind.STRING:
            raise self._expected(f"text in quotes for {field.name}")
        parts = []
        while self._token.kind is TokenKind.STRING:
            parts.append(self._source.string_bytes(self._next()))
        try:
            return b"".join(parts).decode()
        except UnicodeDecodeError:
            raise self._refused(first, f"{field.name} is no text in UTF-8") from None


def _plain_value(field: Field, word: str, *, is_negative: bool) -> Any:
    """Return what a word or number means for a field, or None where it means nothing."""
    sign = -1 if is_negative else 1
    if field.kind is Kind.BOOL:
        if is_negative or word not in _TRUE | _FALSE:
            return None
        return word in _TRUE
    if field.kind in {Kind.FLOAT, Kind.DOUBLE}:
        value = _float(word)
        return None if value is None else sign * value
    if field.choices and not is_negative and word in field.choices:
        return field.choices[word]
    if not _WHOLE.fullmatch(word):
        return None
    if _OCTAL.fullmatch(word):
        try:
            return sign * int(word, 8)
        except ValueError:  # 8 or 9 behind a leading 0
            return None
    return sign * int(word, 0)


def _float(word: str) -> float | None:
    lowered = word.lower()
    if lowered in _INFINITE:
        return math.inf
    if lowered == "nan":
        return math.nan
    try:
        return float(word.removesuffix("f").removesuffix("F"))
    except ValueError:  # a name, or a hexadecimal number, which no float is
        return None


def _hint(schema: Schema, name: str) -> str:
    """Return where a field that was not found may be, or what it may be called."""
    inside = [
        field.name
        for field in schema.by_name.values()
        if field.kind is Kind.MESSAGE and name in SCHEMAS[field.message].by_name
    ]
    if inside:
        return f": it belongs into {inside[0]} {{ }}"
    nearest = difflib.get_close_matches(name[:_LONGEST_NAME], schema.by_name, n=1, cutoff=0.5)
    if nearest:
        return f": did you mean {nearest[0]}?"
    return f": it has {', '.join(schema.by_name)}"
