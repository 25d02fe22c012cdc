"""Tasks done once each, in this process or in several: arguments in, results out.

A task is done when its receipt is there (floodem.cluster.receipts). Whoever runs
the same work again, after a kill or a full disk, repeats only what has none.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait as wait_for_handles
from pathlib import Path
from typing import Any

from floodem.cluster.receipts import Receipts, identity_digest
from floodem.errors import OptionError, ResourceError, StoppedError
from floodem.files import exclusive, making_folders, remove_partial_files

TaskFunction = Callable[[Any], Mapping[str, Any]]
Done = tuple[str, dict[str, Any]]

_LOCK = "lock"
_QUEUED_PER_WORKER = 2
"""Enough to keep a worker busy, few enough to stop soon."""
_ASKED_EVERY_S = 0.5
"""How long a stop may go unheard while all workers compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    key
        Its name among the others, of letters, digits, ``-`` and ``_``.
    argument
        What the function is called with; it must survive pickling where there are
        several workers.
    """

    key: str
    argument: Any


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Task],
    *,
    receipts: Path,
    identity: Mapping[str, Any],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Do every task that is not done yet.

    Parameters
    ----------
    function
        Of a module, not a closure. It must be repeatable: a killed task is done
        again from its beginning. What it returns becomes JSON.
    tasks
        Their keys differ.
    receipts
        Folder of the receipts, made where it is missing; one kind of work each.
    identity
        What the results depend on (sources, options), as JSON values.
    workers
        Processes; 1 works in this one. Several are started afresh (spawned), so a
        script that calls this needs ``if __name__ == "__main__"``.
    progress
        Called with the tasks done and all tasks, those of earlier runs included.
    should_stop
        Asked between tasks; when it answers True, what is begun is finished.

    Returns
    -------
    list of dict
        What the tasks returned, in their order.

    Raises
    ------
    RunConflictError
        When the receipts are of other work, or another process holds them.
    ResourceError
        When a worker was killed.
    StoppedError
        When it was told to stop.
    FloodemError
        What a task raises; tasks that are begun are finished first.
    """
    if workers < 1:
        raise OptionError(f"{workers} workers cannot work: give 1 or more")
    if len({task.key for task in tasks}) != len(tasks):
        raise OptionError("two tasks have one key: give each its own")
    kept = Receipts(receipts, identity_digest(identity))
    with making_folders(receipts), exclusive(receipts / _LOCK, what=str(receipts)):
        remove_partial_files(receipts)
        known = ((task.key, kept.read(task.key)) for task in tasks)
        results = {key: result for key, result in known if result is not None}
        left = [task for task in tasks if task.key not in results]
        if progress is not None:
            progress(len(results), len(tasks))
        work = _Work(function, left, kept, should_stop)
        alone = workers == 1 or len(left) < 2
        for key, result in work.here() if alone else work.in_processes(min(workers, len(left))):
            results[key] = result
            if progress is not None:
                progress(len(results), len(tasks))
        if len(results) < len(tasks):
            raise StoppedError(
                f"stopped after {len(results)} of {len(tasks)} tasks: run the same command again "
                "to go on"
            )
    return [results[task.key] for task in tasks]


@dataclass(frozen=True, slots=True)
class _Work:
    function: TaskFunction
    tasks: Sequence[Task]
    kept: Receipts
    should_stop: Callable[[], bool]

    def here(self) -> Iterator[Done]:
        for task in self.tasks:
            if self.should_stop():
                return
            yield _do(self.function, task, self.kept)

    def in_processes(self, workers: int) -> Iterator[Done]:
        context = multiprocessing.get_context("spawn")
        waiting = iter(self.tasks)
        begun: set[Future[Done]] = set()
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_become_worker) as pool:
            try:
                while True:
                    if not self.should_stop():
                        for task in islice(waiting, workers * _QUEUED_PER_WORKER - len(begun)):
                            begun.add(pool.submit(_do, self.function, task, self.kept))
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


def _do(function: TaskFunction, task: Task, kept: Receipts) -> Done:
    result = dict(function(task.argument))
    kept.write(task.key, result)
    return task.key, result


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
