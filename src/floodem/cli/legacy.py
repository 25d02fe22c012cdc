"""``floodem legacy NAME ...``: an old command line in, the same work by floodem out.

The scripts with the historic names call `run_program`, which is the same command.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from floodem.cli.stopping import interrupting_on_sigterm, saving_state
from floodem.errors import UsageError

if TYPE_CHECKING:
    from floodem.legacy.flags import Flags
    from floodem.legacy.programs import Console, Program, Translation


def legacy(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME ...", help="An old program, and all that is written behind its name."
        ),
    ] = None,
    *,
    list_: Annotated[bool, typer.Option("--list", help="Name the old programs.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the floodem commands it stands for.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Lay out the folder that the old documentation describes."
        ),
    ] = None,
) -> None:
    """Run an old program's command line as it stands.

    NAME is png_to_h5, png_mean_std, compute_partitions, build_coordinates, train,
    run_inference, run_inference_win, npz_to_png or npz_png. Everything behind it goes to
    the program: `floodem legacy train --helpfull` lists its flags.

    `floodem legacy NAME --explain ...` prints the floodem commands that do the same.
    """
    if list_ or layout is not None:
        if words or (list_ and layout is not None):
            raise UsageError("--list and --layout stand alone: leave the rest out")
        _print_programs() if layout is None else _lay_out(layout)
        return
    if not words:
        raise UsageError("no old program is named: floodem legacy --list names them")
    _run(words[0], words[1:], explain=explain)


def run_program(name: str) -> NoReturn:
    """Run an old program with the words of this process's command line, and end the process."""
    from floodem.cli.main import main

    main(["legacy", name, *sys.argv[1:]])


def _run(name: str, words: Sequence[str], *, explain: bool) -> None:
    from floodem.legacy.programs import find_program

    program = find_program(name)
    flags = program.parse(words)
    if flags.asks_help:
        for line in program.help_lines():
            print(line)
        return
    translation = program.translation(flags)
    if explain or flags["explain"]:
        _explain(translation)
        return
    for note in translation.notes:
        _notice(note)
    with _console(program, flags) as console:
        translation.work(console)


@contextmanager
def _console(program: Program, flags: Flags) -> Iterator[Console]:
    """Give what a program tells its user by, with the stopping that fits it."""
    from floodem.cli.progress import progress_bar
    from floodem.legacy.programs import Console

    if program.resumes:
        replaces = "overwrite" in flags and flags["overwrite"]
        with saving_state(overwrite=bool(replaces)) as listening:
            yield Console(
                say=_say,
                notice=_notice,
                progress=listening["progress"],
                should_stop=listening["should_stop"],
            )
        return
    with interrupting_on_sigterm() as should_stop, progress_bar() as progress:
        yield Console(say=_say, notice=_notice, progress=progress, should_stop=should_stop)


def _explain(translation: Translation) -> None:
    for command in translation.commands:
        print(as_typed(command))
    if not translation.commands:
        _notice("no floodem command does the same")
    for note in (*translation.notes, *translation.remarks):
        _notice(note)


def as_typed(command: Sequence[str]) -> str:
    """Return a command line as this system's shell takes it."""
    if sys.platform == "win32":
        return subprocess.list2cmdline(command)
    return shlex.join(command)


def _print_programs() -> None:
    from floodem.legacy.programs import PROGRAM_NAMES, find_program

    width = max(len(name) for name in PROGRAM_NAMES)
    for name in PROGRAM_NAMES:
        print(f"{name:{width}}  {find_program(name).summary}")


def _lay_out(folder: str) -> None:
    from floodem.legacy.layout import lay_out

    made = lay_out(Path(folder))
    for path in made.written:
        print(path)
    for path in made.kept:
        _notice(f"{path} is there with other contents and was left as it is")
    if not made.written:
        print(f"{folder} holds all of it already: nothing was written")


def _say(line: str) -> None:
    print(line, flush=True)


def _notice(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr, flush=True)
