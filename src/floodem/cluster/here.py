"""Tasks done in this process: one after the other, or a few at a time in threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from floodem.cluster.context import TaskContext, entering, seldom
from floodem.cluster.events import Event, Reported
from floodem.cluster.receipts import Receipts
from floodem.cluster.task import Task, TaskFunction, attempt_task

_ASKED_EVERY_S = 0.5
"""How long a stop may go unheard while all threads compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The process that asks.

    Attributes
    ----------
    listener
        Told of reports at once: with one slot nothing can be yielded while a task computes.
    slots
        How many tasks are done at once; with 1 in the calling thread.
    """

    listener: Callable[[Reported], None]
    slots: int = 1

    def run(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        *,
        receipts: Receipts,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        """Do tasks until there are none or it is told to stop."""
        if self.slots > 1:
            yield from self._in_threads(function, tasks, receipts, should_stop=should_stop)
            return
        for task in tasks:
            if should_stop():
                return
            tells = seldom(partial(self._tell, task.key))
            with entering(TaskContext(key=task.key, asks=should_stop, tells=tells)):
                event = attempt_task(function, task, receipts)
            yield event

    def _in_threads(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        receipts: Receipts,
        *,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        waiting, begun = deque(tasks), 0
        events: SimpleQueue[Event] = SimpleQueue()
        stopping = threading.Event()

        def do(task: Task) -> None:
            tells = seldom(lambda values: events.put(Reported(key=task.key, values=values)))
            with entering(TaskContext(key=task.key, asks=stopping.is_set, tells=tells)):
                events.put(attempt_task(function, task, receipts))

        try:
            while True:
                if should_stop():
                    stopping.set()
                while waiting and begun < self.slots and not stopping.is_set():
                    # An interruption (a second Ctrl-C) does not wait for daemons.
                    threading.Thread(target=do, args=(waiting.popleft(),), daemon=True).start()
                    begun += 1
                if not begun:
                    return
                try:
                    event = events.get(timeout=_ASKED_EVERY_S)
                except Empty:
                    continue
                begun -= not isinstance(event, Reported)
                yield event
        finally:
            stopping.set()

    def _tell(self, key: str, values: Mapping[str, Any]) -> None:
        self.listener(Reported(key=key, values=values))
