r"""Flags of the old programs: words of a command line come in, values by name go out.

The rules are those of absl and of TensorFlow's flags, as old scripts rely on them:
``--name value``, ``--name=value`` and one dash alike; ``--name`` and ``--noname`` for
what is true or false; lists by commas; ``--flagfile=FILE`` for flags in a file, which
may name further files; ``--`` ends the flags; of a flag that comes twice the last counts.

    words --> words of flag files put in --> values by name, positional words
"""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from floodem.errors import OptionError, UsageError
from floodem.files import storage_error

Kind = Literal["text", "number", "integer", "boolean", "list"]

HELP_WORDS = frozenset({"help", "helpfull", "helpshort"})

_TRUE = frozenset({"true", "t", "1", "yes", "y"})
_FALSE = frozenset({"false", "f", "0", "no", "n"})
_SPELLED_OUT = frozenset({"true", "false"})

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DECIMAL = re.compile(r"[+-]?[0-9]+")
_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F]+")
_MOST_DIGITS = 40

_DEEPEST_FLAGFILE = 16
_MOST_FLAGFILES = 256
_LARGEST_FLAGFILE_BYTES = 2**20
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag of an old program.

    Attributes
    ----------
    name
        Without dashes.
    kind
        What its value is; a list is a tuple of texts.
    default
        The old program's.
    help
        One sentence or less.
    is_required
        Whether the program does nothing without it.
    no_effect
        Why it does nothing here, said once when it is given; empty: it does something.
    choices
        The only values, where not every text is one.
    """

    name: str
    kind: Kind
    default: Any = None
    help: str = ""
    is_required: bool = False
    no_effect: str = ""
    choices: tuple[str, ...] = ()


_OF_LOGGING = "what floodem says of its work goes to stderr, and no file of log lines is written"

LOGGING_FLAGS = (
    Flag(name="alsologtostderr", kind="boolean", default=False, no_effect=_OF_LOGGING),
    Flag(name="logtostderr", kind="boolean", default=False, no_effect=_OF_LOGGING),
    Flag(name="log_dir", kind="text", default="", no_effect=_OF_LOGGING),
    Flag(name="stderrthreshold", kind="text", default="fatal", no_effect=_OF_LOGGING),
    Flag(name="showprefixforinfo", kind="boolean", default=True, no_effect=_OF_LOGGING),
    Flag(name="verbosity", kind="integer", default=-1, no_effect=_OF_LOGGING),
    Flag(name="v", kind="integer", default=-1, no_effect=_OF_LOGGING),
)
"""What absl gave every program beside its own flags."""


class Flags(Mapping[str, Any]):
    """Values by name: those given, and the defaults of the others.

    Attributes
    ----------
    given
        Names of flags that were on the command line or in a flag file.
    positional
        Words that belong to no flag, in order.
    asks_help
        Whether one of ``--help``, ``--helpfull`` and ``--helpshort`` was there.
    """

    __slots__ = ("_values", "asks_help", "given", "positional")

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        given: frozenset[str] = frozenset(),
        positional: tuple[str, ...] = (),
        asks_help: bool = False,
    ) -> None:
        self._values = dict(values)
        self.given = given
        self.positional = positional
        self.asks_help = asks_help

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def parse_flags(flags: Sequence[Flag], arguments: Sequence[str], *, program: str) -> Flags:
    """Read the words behind an old program's name.

    Parameters
    ----------
    flags
        The program's; those of `LOGGING_FLAGS` are understood beside them.
    arguments
        The words, without the program's name.
    program
        Its name, for messages.

    Returns
    -------
    Flags
        With everything in `given` where help is asked for, required or not.

    Raises
    ------
    UsageError
        When a flag is unknown, has no value, or a required one is missing.
    OptionError
        When a value is not of its flag's kind.
    StorageError
        When a flag file cannot be read.
    """
    known = {flag.name: flag for flag in (*LOGGING_FLAGS, *flags)}
    reader = _Reader(known, program=program)
    reader.read(arguments)
    missing = [flag.name for flag in flags if flag.is_required and flag.name not in reader.values]
    if missing and not reader.asks_help:
        needed = " and ".join(f"--{name}" for name in missing)
        raise UsageError(
            f"{program} needs {needed}: add {'it' if len(missing) == 1 else 'them'}, or ask for "
            "--help"
        )
    values = {flag.name: flag.default for flag in known.values()}
    return Flags(
        values | reader.values,
        given=frozenset(reader.values),
        positional=tuple(reader.positional),
        asks_help=reader.asks_help,
    )


def unused_flags(flags: Sequence[Flag], parsed: Flags) -> tuple[str, ...]:
    """Return a sentence for each reason why flags that were given do nothing here."""
    reasons: dict[str, list[str]] = {}
    for flag in (*LOGGING_FLAGS, *flags):
        if flag.no_effect and flag.name in parsed.given:
            reasons.setdefault(flag.no_effect, []).append(f"--{flag.name}")
    return tuple(
        f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect here: {reason}"
        for reason, names in reasons.items()
    )


def help_lines(flags: Sequence[Flag]) -> Iterator[str]:
    """Yield lines that name every flag with its default and its help."""
    for flag in flags:
        name = f"--[no]{flag.name}" if flag.kind == "boolean" else f"--{flag.name}"
        yield f"  {name}: {flag.help}".rstrip(": ")
        if flag.choices:
            yield f"    (one of {', '.join(flag.choices)})"
        default = "required" if flag.is_required else f"default: {_shown(flag.default)}"
        yield f"    ({default}; {_KIND_WORDS[flag.kind]})"
        if flag.no_effect:
            yield f"    (no effect here: {flag.no_effect})"


_KIND_WORDS: Mapping[Kind, str] = {
    "text": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "list": "a list, by commas",
}


def _shown(default: Any) -> str:
    if default is None or default == "":
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (tuple, list)):
        return ",".join(str(one) for one in default) or "none"
    return str(default)


class _Reader:
    """Takes words one after the other, and those of flag files where they are named."""

    def __init__(self, known: Mapping[str, Flag], *, program: str) -> None:
        self._known = known
        self._program = program
        self._files = 0
        self._ignored: set[str] = set()
        self._unknown: list[tuple[str, str]] = []
        self.values: dict[str, Any] = {}
        self.positional: list[str] = []
        self.asks_help = False

    def read(self, arguments: Sequence[str]) -> None:
        """Read all words of the command line."""
        self._read(arguments, opened=())
        for name, word in self._unknown:
            if name not in self._ignored and name.removeprefix("no") not in self._ignored:
                raise self._unknown_flag(name, word)

    def _read(self, arguments: Sequence[str], *, opened: tuple[Path, ...]) -> None:
        words = iter(arguments)
        ahead: list[str] = []

        def following() -> str | None:
            return ahead.pop() if ahead else next(words, None)

        while (word := following()) is not None:
            if word == "--":
                self.positional.extend(words)
                return
            name, equals, text = _split(word)
            if name is None:
                self.positional.append(word)
            elif name in HELP_WORDS:
                self.asks_help = True
            elif name in {"flagfile", "undefok"}:
                value = text if equals else self._value(name, following())
                if name == "undefok":
                    self._ignored.update(one.strip() for one in value.split(","))
                elif value:
                    self._read_file(Path(os.path.expanduser(value)), opened=opened)
            elif (flag := self._flag(name)) is None:
                self._take_negated(name, word=word, has_value=bool(equals))
            elif flag.kind == "boolean":
                spelled = None if equals else following()
                if spelled is not None and spelled.lower() not in _SPELLED_OUT:
                    ahead.append(spelled)
                    spelled = None
                self.values[flag.name] = _boolean(flag, text if equals else spelled or "true")
            else:
                self.values[flag.name] = _convert(
                    flag, text if equals else self._value(name, following())
                )

    def _flag(self, name: str) -> Flag | None:
        """Return the flag of a name; dashes may stand for underscores, as elsewhere in floodem."""
        return self._known.get(name) or self._known.get(name.replace("-", "_"))

    def _value(self, name: str, word: str | None) -> str:
        following = None if word is None else _split(word)[0]
        if word is None or (following in self._known and word.startswith("--")):
            raise UsageError(
                f"--{name} of {self._program} has no value: write --{name}=VALUE, and "
                f"--{name}= for an empty one"
            )
        return word

    def _take_negated(self, name: str, *, word: str, has_value: bool) -> None:
        flag = self._flag(name.removeprefix("no"))
        if not name.startswith("no") or flag is None or flag.kind != "boolean":
            # Whether --undefok lets it pass is known at the end only.
            self._unknown.append((name, word))
        elif has_value:
            raise OptionError(f"{word} is true or false by itself: write --{name} or --{flag.name}")
        else:
            self.values[flag.name] = False

    def _read_file(self, path: Path, *, opened: tuple[Path, ...]) -> None:
        place = path.absolute()
        if place in opened:
            raise UsageError(f"flag file {path} names itself again: take one --flagfile out")
        self._files += 1
        if len(opened) >= _DEEPEST_FLAGFILE or self._files > _MOST_FLAGFILES:
            raise UsageError(
                f"flag file {path} is one too many: at most {_MOST_FLAGFILES} files, "
                f"{_DEEPEST_FLAGFILE} within each other"
            )
        self._read(list(_flagfile_words(path)), opened=(*opened, place))

    def _unknown_flag(self, name: str, word: str) -> UsageError:
        names = [
            *self._known,
            *(f"no{f.name}" for f in self._known.values() if f.kind == "boolean"),
        ]
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean --{nearest[0]}? " if nearest else ""
        return UsageError(
            f"{self._program} has no flag {_cut(word)!r}: {hint}--help lists all flags"
        )


def _split(word: str) -> tuple[str | None, str, str]:
    """Return the name of a flag, ``=`` if it is there, and what follows; None: no flag."""
    if not word.startswith("-"):
        return None, "", ""
    name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
    # -5 and -.5 are numbers, and a dash alone is a word.
    return (name, equals, text) if _NAME.fullmatch(name) else (None, "", "")


def _flagfile_words(path: Path) -> Iterator[str]:
    """Yield the words of a flag file: one flag a line, # and // begin a comment line.

    Raises
    ------
    StorageError
        When the file cannot be read.
    UsageError
        When it is too large, or no text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FLAGFILE_BYTES + 1)
    except OSError as error:
        raise storage_error("read flag file", path, error) from error
    except ValueError as error:  # a name that no file can have
        raise UsageError(f"flag file {str(path)!r} has an impossible name: {error}") from error
    if len(data) > _LARGEST_FLAGFILE_BYTES:
        raise UsageError(
            f"flag file {path} is larger than {_LARGEST_FLAGFILE_BYTES} bytes: is it a text of "
            "flags?"
        )
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(
            f"flag file {path} is no text: give a file of --flag=value lines"
        ) from None
    for line in (one.strip() for one in lines):
        if not line or line.startswith(("#", "//")):
            continue
        name, space, rest = line.partition(" ")
        if name.startswith("-") and "=" not in name and space:
            yield name
            yield rest.strip()
        else:
            yield line


def _convert(flag: Flag, text: str) -> Any:
    if flag.kind == "list":
        return _entries(flag, text)
    if flag.kind == "integer":
        return _integer(flag, text)
    if flag.kind == "number":
        return _number(flag, text)
    if flag.choices and text not in flag.choices:
        raise OptionError(
            f"--{flag.name} {_cut(text)!r} is unknown: choose one of {', '.join(flag.choices)}"
        )
    return text


def _boolean(flag: Flag, text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise OptionError(
            f"--{flag.name} {_cut(text)!r} is neither true nor false: write one of them"
        )
    return lowered in _TRUE


def _integer(flag: Flag, text: str) -> int:
    bare = text.strip()
    if len(bare) <= _MOST_DIGITS:
        if _DECIMAL.fullmatch(bare):
            return int(bare)
        if _HEXADECIMAL.fullmatch(bare):
            return int(bare, 16)
    raise OptionError(f"--{flag.name} {_cut(text)!r} is no whole number: write digits only")


def _number(flag: Flag, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise OptionError(f"--{flag.name} {_cut(text)!r} is no number: write for example 0.5")
    return value


def _entries(flag: Flag, text: str) -> tuple[str, ...]:
    """Split a list at its commas; quotes keep one, as in a line of CSV."""
    if not text.strip():
        return ()
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise OptionError(f"--{flag.name} {_cut(text)!r} is no list by commas: {error}") from None
    return tuple(entry.strip() for entry in rows[0])


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
