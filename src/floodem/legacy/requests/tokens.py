"""The smallest parts of a request text: text in, tokens with their places out.

Every character is looked at once; nothing is tried twice, so that the time grows with
the length of the text and not faster.

References
----------
Protocol Buffers documentation, "Text Format Language Specification".
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from floodem.errors import UsageError

LONGEST_TEXT = 64 * 2**20
"""Characters; a request that names a million points to resegment has about as many."""

LONGEST_NUMBER = 100
_SHOWN_CHARACTERS = 40

# ++ and *+ never give back what they have taken.
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n\f\v]++|\#[^\n]*+)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*+)
  | (?P<number>0[xX][0-9a-fA-F]++|(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?[fF]?+)
  | (?P<string>"(?:[^"\\\n]++|\\[^\n])*+"|'(?:[^'\\\n]++|\\[^\n])*+')
  | (?P<symbol>[{}<>\[\]:;,.\-])
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"[A-Za-z0-9_.]")
_ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})|u(?P<short>[0-9a-fA-F]{4})"
    r"|U(?P<long>[0-9a-fA-F]{8})|(?P<plain>[abfnrtv?\\'\"]))"
)
_PLAIN = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "?": "?",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_LARGEST_BYTE = 0xFF
_HIGH_SURROGATES = range(0xD800, 0xDC00)
_LOW_SURROGATES = range(0xDC00, 0xE000)
_LARGEST_CODE_POINT = 0x10FFFF


class TokenKind(enum.StrEnum):
    """What a token is; the words are those of messages."""

    NAME = "name"
    NUMBER = "number"
    STRING = "string"
    SYMBOL = "symbol"
    END = "end of the text"


@dataclass(frozen=True, slots=True)
class Token:
    """One token and where it begins, in characters from the beginning."""

    kind: TokenKind
    text: str
    start: int

    def __str__(self) -> str:
        if self.kind is TokenKind.END:
            return str(self.kind)
        cut = len(self.text) > _SHOWN_CHARACTERS
        return repr(f"{self.text[:_SHOWN_CHARACTERS]}..." if cut else self.text)


@dataclass(frozen=True, slots=True)
class Source:
    """A text and what messages call it."""

    text: str
    name: str

    def refused(self, start: int, why: str) -> UsageError:
        """Return the error for what is wrong at a place of the text."""
        line = self.text.count("\n", 0, start) + 1
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        return UsageError(f"{self.name}, line {line}, column {column}: {why}")

    def tokens(self) -> Iterator[Token]:
        """Yield all tokens, the last one of kind END.

        Raises
        ------
        UsageError
            When a character has no meaning, or the text is too long.
        """
        text = self.text
        if len(text) > LONGEST_TEXT:
            raise UsageError(
                f"{self.name} has {len(text)} characters: a request has at most {LONGEST_TEXT}"
            )
        position = 1 if text.startswith("\ufeff") else 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._no_token(position)
            start, position = position, match.end()
            if match.lastgroup == "space":
                continue
            kind = TokenKind(match.lastgroup or "")
            if kind is TokenKind.NUMBER:
                self._require_number(match[0], start=start, end=position)
            yield Token(kind, match[0], start)
        yield Token(TokenKind.END, "", len(text))

    def _no_token(self, position: int) -> UsageError:
        character = self.text[position]
        if character in "\"'":
            return self.refused(position, f"this text is not closed with {character} on its line")
        return self.refused(
            position, f"{character!r} has no meaning here: put texts in quotes, comments behind #"
        )

    def _require_number(self, number: str, *, start: int, end: int) -> None:
        if len(number) > LONGEST_NUMBER:
            raise self.refused(
                start, f"a number of {len(number)} characters: write at most {LONGEST_NUMBER}"
            )
        if _WORD.match(self.text, end):
            raise self.refused(
                end, f"the number {number} goes on with {self.text[end]!r}: put a blank between"
            )

    def string_bytes(self, token: Token) -> bytes:
        """Return what a string in quotes means.

        Raises
        ------
        UsageError
            When a backslash stands before something it has no meaning with.
        """
        body = token.text[1:-1]
        parts: list[bytes] = []
        position = 0
        while position < len(body):
            backslash = body.find("\\", position)
            plain = body[position:] if backslash < 0 else body[position:backslash]
            parts.append(self._encoded(plain, start=token.start + 1 + position))
            if backslash < 0:
                break
            meaning, position = self._unescaped(body, backslash, start=token.start + 1)
            parts.append(meaning)
        return b"".join(parts)

    def _encoded(self, text: str, *, start: int) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise self.refused(
                start + error.start, "half a character: write the text in UTF-8"
            ) from None

    def _unescaped(self, body: str, at: int, *, start: int) -> tuple[bytes, int]:
        """Return the bytes of the escape at a place of a string's body, and where it ends."""
        match = _ESCAPE.match(body, at)
        if match is None:
            raise self.refused(
                start + at,
                f"{body[at : at + 2]!r} has no meaning: a backslash goes before a b f n r t v ? "
                "\\ ' \", octal digits, x, u or U; write \\\\ for itself",
            )
        if match["plain"]:
            return _PLAIN[match["plain"]].encode(), match.end()
        if match["octal"] or match["hex"]:
            byte = int(match["octal"], 8) if match["octal"] else int(match["hex"], 16)
            if byte > _LARGEST_BYTE:
                raise self.refused(start + at, f"{match[0]} is no byte: write at most \\377")
            return bytes([byte]), match.end()
        code, end = int(match["short"] or match["long"], 16), match.end()
        if code in _HIGH_SURROGATES:
            low = _ESCAPE.match(body, end)
            if low is not None and low["short"] and int(low["short"], 16) in _LOW_SURROGATES:
                code = 0x10000 + ((code - 0xD800) << 10) + (int(low["short"], 16) - 0xDC00)
                end = low.end()
        if code > _LARGEST_CODE_POINT or code in _HIGH_SURROGATES or code in _LOW_SURROGATES:
            raise self.refused(start + at, f"{match[0]} is no character of Unicode")
        return chr(code).encode(), end
