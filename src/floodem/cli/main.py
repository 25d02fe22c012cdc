"""The command line: what the user typed comes in, an exit code goes out.

Each command is one function in the module of its name; it parses, makes one
library call and prints. Here they are listed, started, and their errors turned
into one sentence. Only the module of the command that was asked for is loaded.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NoReturn

import typer
import typer.main
from typer.exceptions import TyperException

import floodem
from floodem.errors import (
    EXIT_BUG,
    EXIT_INPUT_REFUSED,
    FloodemError,
    ShardDoneError,
    StoppedError,
    UsageError,
)

COMMANDS = {
    "demo": "See neurons within a minute, without any data: tissue, flood, scores, browser.",
    "info": "Say what a volume is: shape, voxel size, type, chunks, levels, size on disk.",
    "convert": "Copy a volume from any format to any other.",
    "verify": "Check a volume against the receipts of its making.",
    "stats": "Mean, standard deviation, histogram and drift of an image.",
    "clahe": "Equalise the contrast of an image's sections, as ImageJ does.",
    "doctor": "Look for what is wrong with machine and data, and propose options.",
    "synthetic": "Make synthetic electron microscopy with exact labels and skeletons.",
    "partition": "Sort the voxels of labels by how much of their surroundings is the same object.",
    "sample": "Index where training examples are centred, in balance.",
    "train": "Train a flood-filling network, or go on with a run.",
    "compare": "Table the scores of training runs against their cost.",
    "fetch": "Bring a published network and its sample volumes.",
    "models": "List the networks at hand, and those that can be fetched.",
    "import-model": "Turn a TensorFlow checkpoint of a flood-filling network into a model file.",
    "segment": "Segment an image of any size with a flood-filling network.",
    "consensus": "Split the objects of one segmentation where another one sees several.",
    "agglomerate": "Score which segments belong together, by flooding them again from both sides.",
    "merges": "Inspect the merges of a segment graph, undo them, and change their thresholds.",
    "calibrate": "Fit the thresholds of merges on labelled data.",
    "open-results": "Turn a folder of the older programs' results into one volume.",
    "evaluate": "Score a segmentation against the truth.",
    "mesh": "Make meshes of the objects of a segmentation.",
    "skeletonize": "Find the midlines of the objects of a segmentation.",
    "measure": "Measure the objects of a segmentation.",
    "scene": "Put images, segmentations and shapes into one folder that opens in a browser.",
    "view": "Open images, segmentations and scenes in the browser.",
    "serve": "Serve a folder to a Neuroglancer of your own, or to any page.",
    "run": "Make all results of a project, or those that are stale, from one file.",
    "legacy": "Run an old program's command line as it stands.",
}
"""Every command and the first line of its help, in the order of the help."""

_PASSES_WORDS_ON = frozenset({"legacy"})
"""Commands whose first word is a program's name, and that hand it all words behind."""

EXIT_INTERRUPTED = 130
"""What a shell gives a program that Ctrl-C ended (128 + SIGINT)."""

EXIT_PIPE_CLOSED = 141
"""What a shell gives a program whose reader went away (128 + SIGPIPE)."""

BUG_SENTENCE = (
    "this is a bug in floodem, not a mistake of yours: "
    "please report it with the lines above and the command you ran"
)

_NUMPYDOC_SECTION = re.compile(r"^\s*[A-Z][A-Za-z ]+\n\s*-{3,}\s*$", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit code.

    0 done, 1 a bug, 2 usage, 3 input refused, 4 stopped and resumable; 130 after
    Ctrl-C where there is nothing to resume, 141 when the reader of a pipe went away.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    make_output_safe()
    # Libraries' remarks are for programmers, and an error is one sentence.
    logging.getLogger().addHandler(logging.NullHandler())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    with reporting():
        command = typer.main.get_command(build_app(arguments))
        try:
            code = command.main(
                args=list(arguments) or ["--help"], prog_name="floodem", standalone_mode=False
            )
        except TyperException as error:
            raise UsageError(_usage_sentence(error, arguments)) from error
    raise SystemExit(code or 0)


def _usage_sentence(error: TyperException, arguments: Sequence[str]) -> str:
    """Say in one line what the parser says in four."""
    message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    asked = _asked(arguments)
    help_line = f"floodem {asked} --help" if asked in COMMANDS else "floodem --help"
    return f"{message[:1].lower()}{message[1:]}: see `{help_line}`"


def _asked(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def make_output_safe() -> None:
    """Let any text be printed on any console; what it cannot show becomes an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Return the application with the asked command loaded and the others only listed."""
    app = typer.Typer(
        name="floodem",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_options)
    asked = _asked(arguments)
    for name, summary in COMMANDS.items():
        function = load_command(name) if name == asked else _listed
        text = help_text(function) if name == asked else summary
        settings = {"allow_interspersed_args": False} if name in _PASSES_WORDS_ON else None
        app.command(name, help=text, short_help=summary, context_settings=settings)(function)
    return app


def load_command(name: str) -> Callable[..., Any]:
    """Import the command of this name; its errors are reported where it runs."""
    word = name.replace("-", "_")
    function: Callable[..., Any] = getattr(importlib.import_module(f"floodem.cli.{word}"), word)

    @functools.wraps(function)
    def run(*positional: Any, **named: Any) -> None:
        with reporting():
            function(*positional, **named)
            sys.stdout.flush()

    return run


def help_text(function: Callable[..., Any]) -> str:
    """Return a function's docstring up to its first section (Parameters, Raises, ...)."""
    return _NUMPYDOC_SECTION.split(function.__doc__ or "", maxsplit=1)[0].strip()


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """End the process with one sentence where the body raises."""
    try:
        yield
    except (typer.Exit, typer.Abort, TyperException):
        raise
    except (StoppedError, ShardDoneError) as end:
        _end(str(end), end.exit_code)
    except FloodemError as error:
        _end(f"error: {error}", error.exit_code)
    except MemoryError:
        _end(
            "error: the memory of this machine is not enough: give a smaller --box",
            EXIT_INPUT_REFUSED,
        )
    except KeyboardInterrupt:
        _end("stopped by Ctrl-C; run the same command again to start over", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last stop before the user
        if _is_closed_pipe(error):
            _leave_closed_pipe()
        traceback.print_exc()
        _end(BUG_SENTENCE, EXIT_BUG)


def _end(sentence: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        print(" ".join(sentence.splitlines()), file=sys.stderr, flush=True)
    raise SystemExit(code or 0)


def _is_closed_pipe(error: Exception) -> bool:
    codes = {errno.EPIPE, errno.EINVAL} if sys.platform == "win32" else {errno.EPIPE}
    return isinstance(error, OSError) and error.errno in codes


def _leave_closed_pipe() -> NoReturn:
    # Python flushes stdout once more at its end and would complain there.
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(EXIT_PIPE_CLOSED)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"floodem {floodem.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Turn electron-microscope images into 3-D neurons with flood-filling networks.

    Triples are z,y,x; a box is z0:z1,y0:y1,x0:x1, half-open; voxel sizes are nanometres.

    A volume is a path or an address, with @dataset for HDF5: em.h5@raw, zarr://em.zarr.
    """


def _listed() -> None:
    """Stand in the help for a command that was not asked for."""
