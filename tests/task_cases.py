"""Functions for tasks that go well, badly or slowly; processes of their own load them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from floodem.cluster import Task, task_context
from floodem.errors import LabelError, StoppedError

IDENTITY = {"source": "em.zarr", "threshold": 0.6}


def tasks_for(folder, count):
    return [Task(key=f"task-{number}", argument=(str(folder), number)) for number in range(count)]


def note_down(argument):
    """Append a line to a file, so that a test can count how often a task was begun."""
    folder, number = argument
    with open(Path(folder) / f"{number}.log", "a", encoding="ascii") as log:
        log.write(f"{os.getpid()} {task_context().worker} {task_context().key}\n")
    return {"square": number * number}


def times_done(folder):
    return {
        int(log.stem): len(log.read_text(encoding="ascii").splitlines())
        for log in Path(folder).glob("*.log")
    }


def slowly(argument):
    result = note_down(argument)
    time.sleep(0.05)
    return result


def refuse_odd(argument):
    result = note_down(argument)
    if argument[1] % 2:
        raise LabelError(f"label -{argument[1]} is negative")
    return result


def poison(argument):
    """Kill whoever does task 3."""
    result = note_down(argument)
    if argument[1] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return result


def leave(argument):
    note_down(argument)
    os._exit(7)


def die_once(argument):
    result = note_down(argument)
    if times_done(argument[0])[argument[1]] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


class ForeignError(Exception):
    """What cannot be pickled, nor made from a message."""

    def __init__(self, one, two):
        super().__init__(one, two)
        self.what = lambda: one


class WordlessError(Exception):
    def __str__(self):
        raise RuntimeError


def raise_kind(kind):
    if kind == "foreign":
        raise ForeignError("a", 2)
    if kind == "wordless":
        raise WordlessError
    if kind == "value":
        raise ValueError("this is a bug")
    if kind == "unicode":
        return {"text": b"\xff".decode()}
    if kind == "exit":
        sys.exit("enough")
    if kind == "memory":
        raise MemoryError
    if kind == "result":
        return {"what": object()}
    if kind == "secret":
        raise LabelError("cannot read https://me:word@host/em?Signature=secret: denied")
    if kind == "stopped":
        raise StoppedError("stopped by itself")
    raise AssertionError(kind)


def tuples(argument):
    return {"box": (1, 2), "sizes": {3: 4}}


def count_on(argument):
    """Compute until told to stop, then save the state."""
    folder, number = argument
    state = Path(folder) / f"{number}.state"
    (Path(folder) / f"{number}.begun").touch()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if task_context().should_stop():
            state.write_text("saved", encoding="ascii")
            raise StoppedError("saved")
        time.sleep(0.02)
    return {}


def tell(argument):
    for step in range(200):
        task_context().report({"step": step, "of": argument[1]})
        time.sleep(0.005)
    return {"worker": task_context().worker}


def look_around(argument):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    time.sleep(0.3)  # so that all workers get some
    return {name: os.environ.get(name) for name in names} | {"worker": task_context().worker}


def wait_long(argument):
    folder, number = argument
    (Path(folder) / f"{number}.pid").write_text(str(os.getpid()), encoding="ascii")
    time.sleep(0.2 if number < 2 else 60)
    return {}


def slow_square(number):
    time.sleep(0.5)
    return {"square": number * number}


def write_result_twice(argument):
    """Do as if another host had finished the same task a moment ago."""
    receipts, key = argument
    receipts.write(key, {"seconds": 1})
    return {"seconds": 2}


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
