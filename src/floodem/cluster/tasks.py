"""Tasks done once each, by whatever crew: arguments in, results out.

A task is done when its receipt is there (floodem.cluster.receipts). Whoever runs
the same work again, after a kill or a full disk, repeats only what has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from floodem.cluster.crew import ALONE, Crew, Shard
from floodem.cluster.events import Done, Event, Failed, Reported
from floodem.cluster.here import Here
from floodem.cluster.holding import Hold, holding, taking_rest
from floodem.cluster.processes import Processes
from floodem.cluster.receipts import Receipts, identity_digest
from floodem.cluster.task import Task, TaskFunction
from floodem.counting import counted
from floodem.errors import OptionError, ShardDoneError, StoppedError, TasksFailedError

ReportListener = Callable[[str, Mapping[str, Any]], None]

_FAILURES_NAMED = 3


class Executor(Protocol):
    """Whoever does tasks."""

    def run(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        *,
        receipts: Receipts,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        """Do tasks until there are none, or until it is told to stop; then end what is begun.

        Each task gives one `Done` or `Failed`, in any order; one that was not begun none.
        """


def run_tasks(
    function: TaskFunction,
    tasks: Sequence[Task],
    *,
    receipts: str | Path,
    identity: Mapping[str, Any],
    crew: Crew = ALONE,
    progress: Callable[[int, int], None] | None = None,
    reported: ReportListener | None = None,
    ended: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    keeps_going: bool = False,
    takes_rest: bool = False,
) -> list[dict[str, Any]]:
    """Do every task that is not done yet.

    Parameters
    ----------
    function
        Of a module, not a closure. It must be repeatable: a killed task is done
        again from its beginning, and a lost host may do one beside its successor.
        What it returns becomes JSON. It may ask `task_context`.
    tasks
        Their keys differ.
    receipts
        Folder of the receipts, made where it is missing, or an s3:// or gs:// address;
        one kind of work each.
    identity
        What the results depend on (sources, options), as JSON values.
    crew
        Who does them. Processes are started afresh (spawned), so a script that calls
        this needs ``if __name__ == "__main__"``.
    progress
        Called with the tasks done and all tasks, those of earlier runs included; a
        shard counts its own.
    reported
        Called with a task's key and what it reports.
    ended
        Called with a task's key when it is done or has failed.
    should_stop
        Asked between tasks; when it answers True, what is begun is finished, or stops
        by itself (`TaskContext.should_stop`).
    keeps_going
        Do the other tasks when one fails; else what is begun is finished.
    takes_rest
        For work that follows on work done in shards: the shard that gets here first does
        it all, and the others end.

    Returns
    -------
    list of dict
        What the tasks returned, in their order.

    Raises
    ------
    RunConflictError
        When the receipts are of other work, or another process works on them.
    TasksFailedError
        When tasks failed and the others were done all the same (`keeps_going`).
    ShardDoneError
        When this shard's tasks are done and those of others are not.
    StoppedError
        When it was told to stop.
    ResourceError
        When the worker of a task was killed again and again.
    StorageError
        When the disk or the server refuses.
    FloodemError
        What a task raises, without `keeps_going`.
    """
    if len({task.key for task in tasks}) != len(tasks):
        raise OptionError("two tasks have one key: give each its own")
    kept = Receipts(str(receipts), identity_digest(identity))
    hold_as = taking_rest if takes_rest else holding
    with hold_as(receipts, crew=crew, what=str(receipts), should_stop=should_stop) as hold:
        if hold.crew.shard is None:
            kept.remove_partial()
        run = _Run(
            hold=hold,
            receipts=kept,
            progress=progress,
            reported=reported,
            ended=ended,
            was_told_to_stop=should_stop,
            keeps_going=keeps_going,
        )
        results = run.do(function, tasks)
    return [results[task.key] for task in tasks]


@dataclass(slots=True, kw_only=True)
class _Run:
    hold: Hold
    receipts: Receipts
    progress: Callable[[int, int], None] | None
    reported: ReportListener | None
    ended: Callable[[str], None] | None
    was_told_to_stop: Callable[[], bool]
    keeps_going: bool
    failures: list[Failed] = field(default_factory=list)

    def do(self, function: TaskFunction, tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
        shard = self.hold.crew.shard
        own = [task for at, task in enumerate(tasks) if shard is None or shard.takes(at)]
        results = self.receipts.read_all(task.key for task in own)
        left = [task for task in own if task.key not in results]
        self._tell(len(results), len(own))
        if left:
            who = self._executor(len(own), len(left))
            for event in who.run(
                function, left, receipts=self.receipts, should_stop=self.should_stop
            ):
                if not isinstance(event, Reported):
                    self._end(event.key)
                if isinstance(event, Done):
                    results[event.key] = event.result
                    self._tell(len(results), len(own))
                elif isinstance(event, Reported):
                    self._hear(event)
                elif event.kind != StoppedError.__name__ or not self.should_stop():
                    self.failures.append(event)
        self._require_all(len(results), len(own))
        if shard is not None:
            others = [task.key for at, task in enumerate(tasks) if not shard.takes(at)]
            results |= self._of_others(shard, others)
        return results

    def should_stop(self) -> bool:
        has_failed = bool(self.failures) and not self.keeps_going
        return has_failed or self.hold.is_lost() or self.was_told_to_stop()

    def _executor(self, own: int, left: int) -> Executor:
        crew = self.hold.crew
        if crew.cluster is not None:
            from floodem.cluster.dask_crew import OnCluster

            return OnCluster(crew=crew)
        if crew.workers == 1 or own == 1:
            return Here(slots=crew.slots, listener=self._hear)
        return Processes(workers=min(crew.workers, left), slots=crew.slots, deaths=crew.deaths)

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def _end(self, key: str) -> None:
        if self.ended is not None:
            self.ended(key)

    def _hear(self, event: Reported) -> None:
        if self.reported is not None:
            self.reported(event.key, event.values)

    def _require_all(self, done: int, total: int) -> None:
        """Say in one sentence why not everything is done."""
        self.hold.require()
        if self.failures and not self.keeps_going:
            raise self.failures[0].error
        if done + len(self.failures) < total:
            failed = f" ({len(self.failures)} failed)" if self.failures else ""
            raise StoppedError(
                f"stopped after {done} of {total} tasks{failed}: run the same command again "
                "to go on"
            )
        if self.failures:
            named = [f"{one.key}: {one.message}" for one in self.failures[:_FAILURES_NAMED]]
            more = len(self.failures) - len(named)
            raise TasksFailedError(
                f"{len(self.failures)} of {counted(total, 'task')} failed and the others are done "
                f"({'; '.join(named)}{f'; and {more} more' if more else ''}): mend the cause and "
                "run the same command again",
                failures={one.key: one.message for one in self.failures},
            )

    def _of_others(self, shard: Shard, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return what other shards did, when all of it is done."""
        left = len(self.receipts.missing(keys))
        found = {} if left else self.receipts.read_all(keys)
        # Another shard may end the work and remove its receipts at this very moment.
        left = left or len(keys) - len(found)
        if left:
            raise ShardDoneError(
                f"shard {shard} is done; {left} of the others' {len(keys)} tasks are left: run the "
                "other shards, of which the last one goes on, or run the same command without "
                "--shard"
            )
        return found
