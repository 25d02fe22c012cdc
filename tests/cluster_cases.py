"""What tests have clusters do: functions that workers can import, and commands that start Dask."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from floodem.cluster import Task
from floodem.cluster.context import task_context
from floodem.errors import LabelError, StoppedError

IDENTITY = {"source": "em.zarr", "threshold": 0.6}
POISON = 5


def note_down(argument: tuple[str, int]) -> dict[str, Any]:
    """Append a line to a file, so that a test can count how often a task was done."""
    folder, number = argument
    with open(Path(folder) / f"{number}.log", "a", encoding="ascii") as log:
        log.write(f"{os.getpid()}\n")
    return {"square": number * number}


def note_down_slowly(argument: tuple[str, int]) -> dict[str, Any]:
    result = note_down(argument)
    time.sleep(0.2)
    return result


def note_down_or_die(argument: tuple[str, int]) -> dict[str, Any]:
    if argument[1] == POISON:
        note_down(argument)
        os.kill(os.getpid(), signal.SIGKILL)
    return note_down_slowly(argument)


def note_down_or_refuse(argument: tuple[str, int]) -> dict[str, Any]:
    number = argument[1]
    if number == 2:
        raise LabelError("label -1 is negative")
    if number == 3:
        raise ZeroDivisionError("division by a foreign library")
    return note_down(argument)


def raise_address(argument: str) -> dict[str, Any]:
    """Do what a careless library does: put what it was given into its error."""
    raise ValueError(f"cannot open {argument}")


def die_with_address(argument: str) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def wait_for_stop(argument: tuple[str, int]) -> dict[str, Any]:
    """Be long, tell how far it is, and save the state when told to stop."""
    folder, number = argument
    state = Path(folder) / f"{number}.state"
    if state.exists():
        return note_down(argument)
    task_context().report({"begun": number, "worker": task_context().worker})
    deadline = time.monotonic() + 60
    while not task_context().should_stop():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody said stop")
        time.sleep(0.05)
    state.touch()
    raise StoppedError("its state is saved")


def environment(argument: object) -> dict[str, Any]:
    """Tell what a worker finds in its environment."""
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {name: os.environ.get(name) for name in names} | {"pid": os.getpid()}


def tasks_for(folder: Path, count: int) -> list[Task]:
    return [Task(key=f"task-{number}", argument=(str(folder), number)) for number in range(count)]


def times_done(folder: Path) -> dict[int, int]:
    return {
        int(log.stem): len(log.read_text(encoding="ascii").splitlines())
        for log in Path(folder).glob("*.log")
    }


def squares(count: int) -> list[dict[str, Any]]:
    return [{"square": number**2} for number in range(count)]
