"""The old programs by name: a name comes in, what the program does in floodem goes out.

Each program is a module of this package with the constant ``PROGRAM``. From its flags
it makes a `Translation`: the floodem commands that do the same, the sentences that its
user should read once, and the work itself, which a `Console` makes heard.

    name --> Program --> flags parsed --> Translation --> work
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from floodem.errors import UsageError
from floodem.legacy.flags import Flag, Flags, help_lines, parse_flags, unused_flags
from floodem.progress import ProgressListener

PROGRAM_NAMES = (
    "png_to_h5",
    "png_mean_std",
    "compute_partitions",
    "build_coordinates",
    "train",
    "run_inference",
    "run_inference_win",
    "npz_to_png",
    "npz_png",
)
"""In the order in which one runs them."""

EXPLAIN = Flag(
    name="explain",
    kind="boolean",
    default=False,
    help="Print the floodem commands that do the same, and do nothing (floodem's own).",
)
"""A flag of every program here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What a program may tell; the library itself never prints.

    Attributes
    ----------
    say
        Takes a line of the result.
    notice
        Takes a sentence that is no result.
    progress
        Hears how far the work is.
    should_stop
        Asked now and then whether the user wants to stop.
    """

    say: Callable[[str], None]
    notice: Callable[[str], None]
    progress: ProgressListener | None
    should_stop: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What an old command line means in floodem.

    Attributes
    ----------
    commands
        The floodem command lines, in words, that do the same when they are typed.
    notes
        Traps of old defaults, a sentence each.
    remarks
        What the commands do otherwise, or why there is none, for those who ask for them.
    work
        Does it.
    """

    commands: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    work: Callable[[Console], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One old program.

    Attributes
    ----------
    name
        Without ``.py``.
    summary
        What it does, in a sentence.
    flags
        Those it understands, in the order of its help.
    positional
        What the words without a flag are called, in order; one in brackets may be left out.
    translate
        Makes the translation of parsed flags and positional words.
    resumes
        Whether the same command goes on where it was stopped; only then is `should_stop`
        of its console ever true.
    """

    name: str
    summary: str
    flags: tuple[Flag, ...]
    positional: tuple[str, ...] = ()
    translate: Callable[[Flags, Sequence[str]], Translation]
    resumes: bool = False

    def parse(self, arguments: Sequence[str]) -> Flags:
        """Read the words behind the program's name.

        Raises
        ------
        UsageError
            As `parse_flags`, and when there are too few positional words or too many.
        """
        flags = parse_flags((*self.flags, EXPLAIN), arguments, program=self.name)
        if flags.asks_help:
            return flags
        needed = [word for word in self.positional if not word.startswith("[")]
        found = flags.positional
        if len(found) < len(needed):
            raise UsageError(
                f"{self.name} needs {needed[len(found)]}: write {self.name} "
                f"{' '.join(self.positional)}"
            )
        if len(found) > len(self.positional):
            raise UsageError(
                f"{self.name} has no use for {found[len(self.positional)]!r}: flags begin with "
                "two dashes, and values with blanks need quotes"
            )
        return flags

    def translation(self, flags: Flags) -> Translation:
        """Return what parsed flags mean, with a note for each that does nothing here."""
        made = self.translate(flags, flags.positional)
        return Translation(
            commands=made.commands,
            notes=(*unused_flags(self.flags, flags), *made.notes),
            remarks=made.remarks,
            work=made.work,
        )

    def help_lines(self) -> Iterator[str]:
        """Yield the lines of the program's help."""
        yield " ".join((self.name, *self.positional, *(["--flag=value ..."] if self.flags else [])))
        yield self.summary
        yield ""
        yield from help_lines((*self.flags, EXPLAIN))
        yield "  --flagfile: a file with one flag on each line"
        yield "  --help, --helpfull, --helpshort: this list"


def find_program(name: str) -> Program:
    """Return the old program of this name, with or without ``.py``.

    Raises
    ------
    UsageError
        When there is none.
    """
    bare = name.removesuffix(".py")
    if bare not in PROGRAM_NAMES:
        nearest = difflib.get_close_matches(bare, PROGRAM_NAMES, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageError(
            f"there is no old program {name!r}: {hint}known are {', '.join(PROGRAM_NAMES)}"
        )
    program: Program = importlib.import_module(f"floodem.legacy.programs.{bare}").PROGRAM
    return program
