"""Commands that are killed, all of their processes at once, and started again.

Each runs in a process of its own that has floodem and torch loaded already, so that a test
kills work and not imports.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

TIMEOUT_S = 300

_LOADED = ["torch", "floodem.cli.main", "floodem.assembly.agglomeration.agglomerate"]


def begin(arguments: list[str]) -> multiprocessing.Process:
    """Start ``floodem ARGUMENTS`` in a process group of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    process = context.Process(target=_run, args=(arguments,))
    process.start()
    return process


def finish(arguments: list[str]) -> float:
    """Run a command to its end; return how long it took, in seconds."""
    began = time.monotonic()
    process = begin(arguments)
    process.join(TIMEOUT_S)
    assert process.exitcode == 0
    return time.monotonic() - began


def kill_often(arguments: list[str], *, seed: int, kills: int, longest_s: float) -> None:
    """Kill a command at random moments and start it again; let the last one end."""
    moments = random.Random(seed)
    for _ in range(kills):
        process = begin(arguments)
        process.join(moments.uniform(0.0, longest_s))
        if process.exitcode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet, or has ended
                process.kill()
        process.join(TIMEOUT_S)
        assert process.exitcode in (0, -signal.SIGKILL)
    finish(arguments)


def _run(arguments: list[str]) -> None:
    os.setsid()
    from floodem.cli.main import main

    main(arguments)
