"""Ctrl-C and SIGTERM: signals come in, a polite question or an interruption goes out."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from floodem.errors import StoppedError


@contextlib.contextmanager
def stopping_on_signals(last_work: str) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a polite question; a second one interrupts.

    Parameters
    ----------
    last_work
        What is still done before the command ends: "saving the state".
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> Any:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        # The signal may come amid another print, which then allows no second one.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            print(f"stopping: {last_work}...", file=sys.stderr, flush=True)

    with _handling(ask, signal.SIGINT, signal.SIGTERM):
        yield lambda: asked


@contextlib.contextmanager
def saving_state(*, overwrite: bool) -> Iterator[dict[str, Any]]:
    """Give what a command that can go on needs: ``progress``, ``notice`` and ``should_stop``.

    Raises
    ------
    StoppedError
        When a second signal interrupts the body.
    """
    from floodem.cli.progress import progress_bar

    try:
        with stopping_on_signals("saving the state") as should_stop, progress_bar() as progress:
            yield {"progress": progress, "notice": _print_note, "should_stop": should_stop}
    except KeyboardInterrupt:
        raise interrupted("what was saved last", overwrite=overwrite) from None


@contextlib.contextmanager
def finishing_tasks(*, overwrite: bool) -> Iterator[dict[str, Any]]:
    """Give what work in tasks needs: ``progress`` and ``should_stop``.

    Raises
    ------
    StoppedError
        When a second signal interrupts the body.
    """
    from floodem.cli.progress import progress_bar

    try:
        with (
            stopping_on_signals("finishing what is begun") as should_stop,
            progress_bar() as progress,
        ):
            yield {"progress": progress, "should_stop": should_stop}
    except KeyboardInterrupt:
        raise interrupted("what is finished", overwrite=overwrite) from None


def interrupted(kept: str, *, overwrite: bool) -> StoppedError:
    """Return the sentence for work that was interrupted, and how to go on from what is kept."""
    without = " without --overwrite" if overwrite else ""
    return StoppedError(
        f"interrupted; {kept} is kept: run the same command again{without} to go on"
    )


def _print_note(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def interrupting_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM interrupt as Ctrl-C does, so that what is half written is removed."""

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    with _handling(interrupt, signal.SIGTERM):
        yield lambda: False


@contextlib.contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], Any], *numbers: signal.Signals
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
