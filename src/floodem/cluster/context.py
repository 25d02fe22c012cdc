"""What a task may ask and tell while it is done: whether to stop, and how far it is.

Whoever does tasks (floodem.cluster.here, processes, a cluster) enters a `TaskContext`
around each; the task's function finds it by `task_context()`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

REPORTED_EVERY_S = 0.25
"""Four a second are more than anyone reads, and cost nothing."""


def _ignore(values: Mapping[str, Any]) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What surrounds a task.

    Attributes
    ----------
    key
        The task's; empty outside of tasks.
    worker
        Number, from 0, of the worker that does it.
    asks
        Tells whether the run was told to stop.
    tells
        Takes what the task reports.
    """

    key: str = ""
    worker: int = 0
    asks: Callable[[], bool] = lambda: False
    tells: Callable[[Mapping[str, Any]], None] = _ignore

    def should_stop(self) -> bool:
        """Tell whether the run was told to stop.

        A long task then saves its state and raises `floodem.errors.StoppedError`, which
        counts as stopped and not as failed; a short one goes on to its end.
        """
        return self.asks()

    def report(self, values: Mapping[str, Any]) -> None:
        """Tell how far the task is, in JSON values; what comes too often is dropped."""
        self.tells(values)


_CURRENT: ContextVar[TaskContext] = ContextVar("floodem_task")
_OUTSIDE = TaskContext()


def task_context() -> TaskContext:
    """Return what surrounds the task that is done in this thread.

    A task that starts threads asks once and hands the context on: new threads have none.
    Outside of tasks nobody stops anything and reports go nowhere.
    """
    return _CURRENT.get(_OUTSIDE)


@contextlib.contextmanager
def entering(context: TaskContext) -> Iterator[None]:
    """Make a context the one of this thread while the body runs."""
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def seldom(
    tell: Callable[[Mapping[str, Any]], None], *, every_s: float = REPORTED_EVERY_S
) -> Callable[[Mapping[str, Any]], None]:
    """Return a listener that passes on the first of many reports, and then one in a while."""
    lock = threading.Lock()
    last = -every_s

    def tell_seldom(values: Mapping[str, Any]) -> None:
        nonlocal last
        with lock:
            now = time.monotonic()
            if now - last < every_s:
                return
            last = now
        tell(values)

    return tell_seldom
