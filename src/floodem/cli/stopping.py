"""Ctrl-C and SIGTERM: signals come in, a polite question or an interruption goes out."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


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
