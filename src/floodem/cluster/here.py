"""Tasks done in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from floodem.cluster.context import TaskContext, entering, seldom
from floodem.cluster.events import Event, Reported
from floodem.cluster.receipts import Receipts
from floodem.cluster.task import Task, TaskFunction, attempt_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The process that asks.

    Attributes
    ----------
    listener
        Told of reports at once, as nothing can be yielded while a task computes.
    """

    listener: Callable[[Reported], None]

    def run(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        *,
        receipts: Receipts,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        """Do tasks until there are none or it is told to stop."""
        for task in tasks:
            if should_stop():
                return
            context = TaskContext(
                key=task.key, asks=should_stop, tells=seldom(partial(self._tell, task.key))
            )
            with entering(context):
                event = attempt_task(function, task, receipts)
            yield event

    def _tell(self, key: str, values: Mapping[str, Any]) -> None:
        self.listener(Reported(key=key, values=values))
