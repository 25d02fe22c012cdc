"""What a Dask worker does with a task: a sealed task comes in, JSON text goes out.

Nothing that a task raises reaches Dask, which would log it with all arguments, and
nothing but text comes back, so that whoever asked unpickles nothing of a task's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from floodem import __version__
from floodem.cluster.context import TaskContext, entering, seldom
from floodem.cluster.events import Done, Failed
from floodem.cluster.receipts import Receipts
from floodem.cluster.task import Task, TaskFunction, attempt_task
from floodem.errors import DependencyError, FloodemError, StoppedError

_STOPPED: set[str] = set()
"""Runs that were told to stop, as far as this worker knows."""

DECLINED_S = 0.5
"""A worker that takes nothing more looks idle to Dask: declining takes it some time."""

SECONDS_VARIABLE = "FLOODEM_WORKER_SECONDS"
BEGAN_VARIABLE = "FLOODEM_WORKER_BEGAN"
"""How long a worker of a batch job takes tasks, and since when (seconds since 1970)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A task on its way; logs show no more than its key, as addresses in it may be signed.

    Attributes
    ----------
    run
        Of this call of `run_tasks`; names the topic of its reports.
    version
        Of floodem, where it comes from.
    """

    function: TaskFunction
    task: Task
    receipts: Receipts
    run: str
    version: str = __version__

    def __repr__(self) -> str:
        return f"<task {self.task.key}>"


def do_sealed(sealed: Sealed) -> str:
    """Do a task in a Dask worker and return what became of it, for `unseal`.

    A task that has its receipt is not done: its result was lost on the way with its
    worker, or another one was faster.
    """
    from distributed import get_worker

    worker = get_worker()
    key = sealed.task.key
    if sealed.version != __version__:
        return _failed(
            Failed.of(
                key,
                DependencyError(
                    f"the worker at {worker.address} has floodem {__version__}, and the run "
                    f"{sealed.version}: install the same on all machines"
                ),
            )
        )
    try:
        known = sealed.receipts.read(key)
    except FloodemError as error:
        return _failed(Failed.of(key, error))
    if known is not None:
        return json.dumps({"done": known})

    def is_to_stop() -> bool:
        return sealed.run in _STOPPED or is_leaving()

    def tell(values: Mapping[str, Any]) -> None:
        worker.log_event(topic_of(sealed.run), {"key": key, "values": json.dumps(dict(values))})

    if is_to_stop():
        time.sleep(DECLINED_S)
        return _stopped(sealed, worker.address)
    context = TaskContext(
        key=key, worker=worker_number(worker.name), asks=is_to_stop, tells=seldom(tell)
    )
    with entering(context):
        event = attempt_task(sealed.function, sealed.task, sealed.receipts)
    if isinstance(event, Done):
        return json.dumps({"done": event.result})
    if event.kind == StoppedError.__name__ and is_to_stop():
        return _stopped(sealed, worker.address)
    return _failed(event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A task was not done, or not to its end, as its worker's time is over.

    Attributes
    ----------
    worker
        Its address; None: the run was told to stop.
    """

    key: str
    worker: str | None


def unseal(key: str, text: str) -> Done | Failed | Left:
    """Return what became of a task."""
    told = json.loads(text)
    if "done" in told:
        return Done(key=key, result=told["done"])
    if "failed" in told:
        return Failed(key=key, **told["failed"])
    return Left(key=key, worker=told["left"])


def _failed(event: Failed) -> str:
    told = {"kind": event.kind, "message": event.message, "trace": event.trace}
    return json.dumps({"failed": told})


def _stopped(sealed: Sealed, address: str) -> str:
    return json.dumps({"left": None if sealed.run in _STOPPED else address})


def topic_of(run: str) -> str:
    """Return the name of the topic for a run's reports."""
    return f"floodem-{run}"


def stop_run(run: str) -> None:
    """Let the tasks of a run in this worker hear that they are to stop."""
    _STOPPED.add(run)


def is_leaving(*, now: Callable[[], float] = time.time) -> bool:
    """Tell whether this worker's job is about to end."""
    seconds, began = os.environ.get(SECONDS_VARIABLE), os.environ.get(BEGAN_VARIABLE)
    if seconds is None or began is None:
        return False
    return now() >= float(began) + float(seconds)


def worker_number(name: object) -> int:
    """Return the number in a worker's name, from 0; those that somebody else named have none."""
    found = re.search(r"\d{1,9}$", str(name), re.ASCII)
    return int(found[0]) if found else 0


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all its processes, to the one that asks.

    Dask calls this when a worker starts, for ``--preload floodem.cluster.dask_worker``.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
