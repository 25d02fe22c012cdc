"""One worker process: tasks come in through a pipe, what became of them goes out.

It ends with its parent: the pipe's end is the end of the process, whatever it computes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NoReturn

from floodem.cluster.context import TaskContext, entering, seldom
from floodem.cluster.events import Event, Reported
from floodem.cluster.receipts import Receipts
from floodem.cluster.task import Task, TaskFunction, attempt_task

STOP = "stop"
"""Tells tasks to stop; what has begun still ends as it likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The first thing that a worker is told."""

    function: TaskFunction
    receipts: Receipts


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The first thing that a worker tells: it has loaded what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A worker could not understand what it was sent, which is a bug.

    Attributes
    ----------
    trace
        Where it came from.
    """

    trace: str

    def complain(self) -> NoReturn:
        """Raise it where somebody reads it."""
        raise RuntimeError(f"a worker cannot load its work:\n{self.trace}")


def work(connection: Connection[Any, Any], number: int, slots: int) -> None:
    """Do what comes through a pipe until None comes.

    Parameters
    ----------
    connection
        Gives `Orders`, tasks, `STOP` and None; takes `Ready`, `Broken` and events.
    number
        The worker's.
    slots
        How many tasks it does at once, in threads.
    """
    _leave_signals_to_the_parent()
    # What tasks start themselves must not keep the pipe open.
    with contextlib.suppress(OSError):
        os.set_inheritable(connection.fileno(), False)
    _Worker(connection, number).work(slots)


class _Worker:
    def __init__(self, connection: Connection[Any, Any], number: int) -> None:
        self._connection = connection
        self._number = number
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._sending = threading.Lock()

    def work(self, slots: int) -> None:
        orders = self._receive()
        self._send(Ready())
        threading.Thread(target=self._listen, args=(slots,), daemon=True).start()
        others = [threading.Thread(target=self._do_tasks, args=(orders,)) for _ in range(slots - 1)]
        for thread in others:
            thread.start()
        self._do_tasks(orders)
        for thread in others:
            thread.join()

    def _listen(self, slots: int) -> None:
        while (message := self._receive()) is not None:
            if message == STOP:
                self._stopping.set()
            else:
                self._tasks.put(message)
        for _ in range(slots):
            self._tasks.put(None)

    def _do_tasks(self, orders: Orders) -> None:
        while (task := self._tasks.get()) is not None:
            self._send(self._do(task, orders))

    def _do(self, task: Task, orders: Orders) -> Event:
        context = TaskContext(
            key=task.key,
            worker=self._number,
            asks=self._stopping.is_set,
            tells=seldom(lambda values: self._send(Reported(key=task.key, values=dict(values)))),
        )
        with entering(context):
            return attempt_task(orders.function, task, orders.receipts)

    def _send(self, message: Event | Ready | Broken) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(1)  # the parent is gone

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone
        except Exception:  # noqa: BLE001 - whatever unpickling loads may raise anything
            self._send(Broken(trace=traceback.format_exc()))
            os._exit(1)


def _leave_signals_to_the_parent() -> None:
    """Ignore Ctrl-C and SIGTERM.

    Ctrl-C goes to a terminal's whole group, and so does SIGTERM from batch systems: what is
    begun is finished, or stopped by the parent in its own way.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
