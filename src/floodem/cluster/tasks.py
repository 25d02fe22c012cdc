"""Tasks done once each, by whatever crew: arguments in, results out.

A task is done when its receipt is there (floodem.cluster.receipts). Whoever runs
the same work again, after a kill or a full disk, repeats only what has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from floodem.cluster.crew import ALONE, Crew
from floodem.cluster.events import Done, Failed, Reported
from floodem.cluster.here import Here
from floodem.cluster.processes import Processes
from floodem.cluster.receipts import Receipts, identity_digest
from floodem.cluster.task import Task, TaskFunction
from floodem.errors import OptionError, StoppedError, TasksFailedError
from floodem.files import exclusive, making_folders, remove_partial_files

ReportListener = Callable[[str, Mapping[str, Any]], None]

_LOCK = "lock"
_FAILURES_NAMED = 3


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Task],
    *,
    receipts: str | Path,
    identity: Mapping[str, Any],
    crew: Crew = ALONE,
    progress: Callable[[int, int], None] | None = None,
    reported: ReportListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    keeps_going: bool = False,
    takes_rest: bool = False,
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
    crew
        Who does them. Processes are started afresh (spawned), so a script that calls
        this needs ``if __name__ == "__main__"``.
    progress
        Called with the tasks done and all tasks, those of earlier runs included.
    reported
        Called with a task's key and what it reports (`task_context`).
    should_stop
        Asked between tasks; when it answers True, what is begun is finished.
    keeps_going
        Do the other tasks when one fails.
    takes_rest
        Let a shard do all tasks that are left, as it does after the first stage.

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
    TasksFailedError
        When tasks failed and the others were done all the same (`keeps_going`).
    ShardDoneError
        When this shard's tasks are done and those of others are not.
    StoppedError
        When it was told to stop.
    FloodemError
        What a task raises; tasks that are begun are finished first.
    """
    if len({task.key for task in tasks}) != len(tasks):
        raise OptionError("two tasks have one key: give each its own")
    receipts = Path(receipts)
    kept = Receipts(receipts, identity_digest(identity))
    failures: list[Failed] = []

    def is_to_stop() -> bool:
        return should_stop() or bool(failures and not keeps_going)

    def hear(event: Reported) -> None:
        if reported is not None:
            reported(event.key, event.values)

    with making_folders(receipts), exclusive(receipts / _LOCK, what=str(receipts)):
        remove_partial_files(receipts)
        known = ((task.key, kept.read(task.key)) for task in tasks)
        results = {key: result for key, result in known if result is not None}
        left = [task for task in tasks if task.key not in results]
        if progress is not None:
            progress(len(results), len(tasks))
        is_alone = crew.workers == 1 or len(left) < 2
        who = Here(listener=hear) if is_alone else Processes(workers=min(crew.workers, len(left)))
        for event in who.run(function, left, receipts=kept, should_stop=is_to_stop):
            if isinstance(event, Done):
                results[event.key] = event.result
                if progress is not None:
                    progress(len(results), len(tasks))
            elif isinstance(event, Failed):
                if not (event.kind == StoppedError.__name__ and is_to_stop()):
                    failures.append(event)
            else:
                hear(event)
        _require_all(results, tasks, failures, keeps_going=keeps_going)
    return [results[task.key] for task in tasks]


def _require_all(
    results: Mapping[str, Any],
    tasks: Sequence[Task],
    failures: Sequence[Failed],
    *,
    keeps_going: bool,
) -> None:
    if failures and not keeps_going:
        raise failures[0].error
    if len(results) + len(failures) < len(tasks):
        raise StoppedError(
            f"stopped after {len(results)} of {len(tasks)} tasks: run the same command again "
            "to go on"
        )
    if failures:
        named = "; ".join(f"{one.key}: {one.message}" for one in failures[:_FAILURES_NAMED])
        raise TasksFailedError(
            f"{len(failures)} of {len(tasks)} tasks failed and the others are done ({named}): "
            "mend the cause and run the same command again",
            failures={one.key: one.message for one in failures},
        )
