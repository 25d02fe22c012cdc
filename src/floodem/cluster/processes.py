"""Tasks done in several processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait as wait_for_handles

from floodem.cluster.events import Event
from floodem.cluster.receipts import Receipts
from floodem.cluster.task import Task, TaskFunction, attempt_task
from floodem.errors import ResourceError

_QUEUED_PER_WORKER = 2
"""Enough to keep a worker busy, few enough to stop soon."""
_ASKED_EVERY_S = 0.5
"""How long a stop may go unheard while all workers compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Spawned processes."""

    workers: int

    def run(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        *,
        receipts: Receipts,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        """Do tasks until there are none or it is told to stop."""
        context = multiprocessing.get_context("spawn")
        waiting = iter(tasks)
        begun: set[Future[Event]] = set()
        with ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=_become_worker
        ) as pool:
            try:
                while True:
                    if not should_stop():
                        for task in islice(waiting, self.workers * _QUEUED_PER_WORKER - len(begun)):
                            begun.add(pool.submit(attempt_task, function, task, receipts))
                    if not begun:
                        return
                    ended, begun = wait(begun, timeout=_ASKED_EVERY_S, return_when=FIRST_COMPLETED)
                    for future in ended:
                        yield future.result()
            except BrokenProcessPool as error:
                raise ResourceError(
                    "a worker process was killed, most likely for its memory: run the same "
                    "command again with fewer workers"
                ) from error
            finally:
                for future in begun:
                    future.cancel()


def _become_worker() -> None:
    """Leave signals to the first process, and end when that one is killed.

    Ctrl-C goes to a terminal's whole group, and so does SIGTERM from batch systems: what is
    begun is finished.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for_handles([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
