"""One piece of work, and how it is done wherever it is done: its function, then its receipt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from floodem.cluster.events import Done, Failed
from floodem.cluster.receipts import Receipts

TaskFunction = Callable[[Any], Mapping[str, Any]]


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


def attempt_task(function: TaskFunction, task: Task, receipts: Receipts) -> Done | Failed:
    """Do a task and write its receipt, and say how it went.

    An interruption (Ctrl-C) passes through, as nobody is to go on after it.
    """
    try:
        result = receipts.write(task.key, function(task.argument))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is that task's
        return Failed.of(task.key, error)
    return Done(key=task.key, result=result)
