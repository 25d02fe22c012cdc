"""Tasks done by a Dask cluster: tasks in, events out as they come.

At most one task more than it can hold lies at each worker. Dask hands the tasks of a lost
worker back as failed; they are counted and given again here, because those that only
waited beside the one that kills its workers would be blamed with it. What has died
too often but for once is kept to the end and done with nothing beside it.
"""

from __future__ import annotations

import contextlib
import json
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from floodem.cluster.addresses import parse_cluster
from floodem.cluster.crew import Crew
from floodem.cluster.dask_clusters import CONNECT_S, Cluster, opening
from floodem.cluster.dask_worker import Left, Sealed, do_sealed, stop_run, topic_of, unseal
from floodem.cluster.events import Done, Event, Failed, Reported
from floodem.cluster.receipts import Receipts
from floodem.cluster.task import Task, TaskFunction
from floodem.counting import counted
from floodem.errors import ResourceError

RETURN_DEADLINE_S = 600.0
"""A scheduler that is lost for longer does not come back."""
_LONGEST_PAUSE_S = 15.0
_ASKED_EVERY_S = 0.5
"""How long a stop may go unheard while all workers compute."""
_COUNTED_EVERY_S = 5.0
_NOTED_EVERY_S = 1.0
_FETCH_S = 10.0
"""For a result, which is text of a few kilobytes, to come from its worker."""
ANSWER_S = 30.0
"""A scheduler that answers no question for so long hangs, and is as good as lost."""

_ALL = "all"
"""Dask's topic of what happens to workers."""

_OPEN: dict[tuple[str, int], Cluster] = {}
"""Clusters that several stages of a run share."""


@contextlib.contextmanager
def keeping_cluster(crew: Crew) -> Iterator[None]:
    """Let all `run_tasks` of the body share one cluster; nothing for a crew without one.

    Starting workers takes seconds, and jobs wait in a queue.
    """
    if crew.cluster is None or (crew.cluster, crew.slots) in _OPEN:
        yield
        return
    key = crew.cluster, crew.slots
    address = parse_cluster(crew.cluster, is_insecure=crew.is_insecure)
    with opening(address, slots=crew.slots) as cluster:
        _OPEN[key] = cluster
        try:
            yield
        finally:
            del _OPEN[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCluster:
    """The workers of a Dask cluster."""

    crew: Crew

    def run(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        *,
        receipts: Receipts,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        """Do tasks until there are none or it is told to stop.

        `Reported` with an empty key tells about the cluster itself: ``note`` is a
        sentence, ``workers`` how many there are.
        """
        assert self.crew.cluster is not None
        with keeping_cluster(self.crew):
            cluster = _OPEN[self.crew.cluster, self.crew.slots]
            run = _Run(
                cluster=cluster,
                function=function,
                receipts=receipts,
                should_stop=should_stop,
                most_deaths=self.crew.deaths,
                waiting=deque(tasks),
            )
            try:
                yield from run.events()
            finally:
                run.close()


@dataclass(slots=True, kw_only=True)
class _Flight:
    """A task that is with the cluster."""

    task: Task
    future: Any
    is_alone: bool


@dataclass(slots=True, kw_only=True)
class _Run:
    cluster: Cluster
    function: TaskFunction
    receipts: Receipts
    should_stop: Callable[[], bool]
    most_deaths: int
    waiting: deque[Task]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    client: Any = None
    suspects: deque[Task] = field(default_factory=deque)
    deaths: dict[str, int] = field(default_factory=dict)
    flights: dict[int, _Flight] = field(default_factory=dict)
    inbox: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)
    submitted: int = 0
    workers: int = 0
    threads: int = 0
    joined: int = 0
    lost: int = 0
    counted_s: float = -_COUNTED_EVERY_S
    noted_s: float = -_NOTED_EVERY_S
    told_s: float = -_COUNTED_EVERY_S
    is_hung: bool = False

    def events(self) -> Iterator[Event]:
        if not self.waiting:
            return
        self._connect(timeout_s=CONNECT_S)
        yield self._note(f"{self.cluster.what} has {counted(self.workers, 'worker')}")
        while True:
            is_stopping = self.should_stop()
            if self.client.status != "running" or self.is_hung:
                yield from self._wait_for_scheduler()
                if self.client is None:  # told to stop meanwhile
                    return
            self._look_at_workers()
            self.cluster.tend()
            if is_stopping:
                self._tell_stop()
            else:
                self._submit()
            if not self.flights and (is_stopping or not (self.waiting or self.suspects)):
                return
            yield from self._hear()

    def close(self) -> None:
        """Give up what is with the cluster, and the connection to it."""
        if self.client is None:
            return
        if self.flights and self.client.status == "running":
            self.told_s = -_COUNTED_EVERY_S
            self._tell_stop()
            self.flights.clear()
        self._disconnect()

    def _connect(self, *, timeout_s: float) -> None:
        self.client = self.cluster.connect(timeout_s=timeout_s)
        self.is_hung = False
        inbox = self.inbox = queue.SimpleQueue()
        self.client.subscribe_topic(
            topic_of(self.name), lambda event: inbox.put(("report", event[1]))
        )
        self.client.subscribe_topic(_ALL, lambda event: inbox.put(("cluster", event[1])))
        self.counted_s = -_COUNTED_EVERY_S
        self._look_at_workers()

    def _disconnect(self) -> None:
        client, self.client = self.client, None
        with contextlib.suppress(OSError, TimeoutError):  # nothing is lost with it
            if client.status == "running":
                for topic in (topic_of(self.name), _ALL):
                    client.unsubscribe_topic(topic)
            client.close(timeout=_FETCH_S)

    def _look_at_workers(self) -> None:
        """Count workers, now and then, as tidings of them may get lost with a connection."""
        if time.monotonic() - self.counted_s < _COUNTED_EVERY_S:
            return
        self.counted_s = time.monotonic()
        try:
            threads = self.client.nthreads(callback_timeout=ANSWER_S)
        except TimeoutError:
            self.is_hung = True
        except OSError:  # lost: the next round notices
            return
        else:
            self.workers, self.threads = len(threads), sum(threads.values())

    def _submit(self) -> None:
        while self.waiting and len(self.flights) < self.threads + self.workers:
            self._begin(self.waiting.popleft(), is_alone=False)
        if self.suspects and self.workers and not self.flights:
            self._begin(self.suspects.popleft(), is_alone=True)

    def _begin(self, task: Task, *, is_alone: bool) -> None:
        self.submitted += 1
        number = self.submitted
        sealed = Sealed(function=self.function, task=task, receipts=self.receipts, run=self.name)
        future = self.client.submit(
            do_sealed, sealed, key=("floodem", self.name, task.key, number), pure=False, retries=0
        )
        self.flights[number] = _Flight(task=task, future=future, is_alone=is_alone)
        inbox = self.inbox
        future.add_done_callback(lambda _: inbox.put(("ended", number)))

    def _hear(self) -> Iterator[Event]:
        """Take one message, and all that wait behind it."""
        try:
            message = self.inbox.get(timeout=_ASKED_EVERY_S)
        except queue.Empty:
            yield from self._note_changes()
            return
        while True:
            kind, told = message
            if kind == "ended":
                yield from self._land(told)
            elif kind == "report":
                yield Reported(key=told["key"], values=json.loads(told["values"]))
            else:
                self._count_change(told)
            try:
                message = self.inbox.get_nowait()
            except queue.Empty:
                break
        yield from self._note_changes()

    def _count_change(self, told: Any) -> None:
        action = told.get("action") if isinstance(told, dict) else None
        if action == "add-worker":
            self.joined += 1
        elif action == "remove-worker" and not told.get("expected"):
            self.lost += 1
        if action in {"add-worker", "remove-worker"}:
            self.counted_s = -_COUNTED_EVERY_S

    def _note_changes(self) -> Iterator[Reported]:
        if not (self.joined or self.lost) or time.monotonic() - self.noted_s < _NOTED_EVERY_S:
            return
        self.noted_s = time.monotonic()
        self.counted_s = -_COUNTED_EVERY_S
        self._look_at_workers()
        parts = [f"{counted(self.joined, 'worker')} joined"] if self.joined else []
        if self.lost:
            parts.append(f"{counted(self.lost, 'worker')} lost, whose tasks are done again")
        self.joined = self.lost = 0
        yield self._note(f"{' and '.join(parts)}: {counted(self.workers, 'worker')} now")

    def _note(self, sentence: str) -> Reported:
        return Reported(key="", values={"note": sentence, "workers": self.workers})

    def _land(self, number: int) -> Iterator[Event]:
        """Say what became of a task whose future has ended."""
        from distributed.scheduler import KilledWorker

        flight = self.flights[number]
        if flight.future.cancelled():  # with the connection to the scheduler, or a lost future
            if self.client.status == "running":
                del self.flights[number]
                self.waiting.append(flight.task)
            return
        try:
            text = flight.future.result(timeout=_FETCH_S)
        except KilledWorker as error:
            del self.flights[number]
            yield from self._count_death(flight, error.allowed_failures + 1)
            return
        except (TimeoutError, OSError) as error:
            if flight.future.status == "error":
                del self.flights[number]
                yield Failed.of(flight.task.key, error)
                return
            # Its worker was lost before the result was fetched, and Dask has it done again.
            inbox = self.inbox
            flight.future.add_done_callback(lambda _: inbox.put(("ended", number)))
            return
        except Exception as error:  # noqa: BLE001 - what Dask says of a task goes to that task
            del self.flights[number]
            yield Failed.of(flight.task.key, error)
            return
        del self.flights[number]
        event = unseal(flight.task.key, text)
        if not isinstance(event, Left):
            yield event
        else:
            self.waiting.append(flight.task)
            if event.worker is not None:
                with contextlib.suppress(OSError, TimeoutError):  # it leaves by itself, later
                    self.client.retire_workers([event.worker], callback_timeout=ANSWER_S)

    def _count_death(self, flight: _Flight, deaths: int) -> Iterator[Event]:
        task = flight.task
        self.deaths[task.key] = count = self.deaths.get(task.key, 0) + deaths
        if flight.is_alone and count >= self.most_deaths:
            yield Failed(
                key=task.key,
                kind=ResourceError.__name__,
                message=f"its worker died {count} times, most likely for its memory: give workers "
                "more memory, or make blocks smaller",
            )
        elif count >= self.most_deaths - 1:
            self.suspects.append(task)
        else:
            self.waiting.append(task)

    def _tell_stop(self) -> None:
        """Let tasks hear that they are to stop; again and again, as workers may join."""
        if time.monotonic() - self.told_s < _COUNTED_EVERY_S:
            return
        self.told_s = time.monotonic()
        with contextlib.suppress(OSError, TimeoutError):  # lost: its tasks do not end by asking
            # what `client.run` does, which would wait for ever for a worker that hangs
            self.client.sync(
                self.client._run,  # noqa: SLF001
                stop_run,
                self.name,
                on_error="ignore",
                callback_timeout=ANSWER_S,
            )

    def _wait_for_scheduler(self) -> Iterator[Event]:
        """Connect again, and give again what has no receipt.

        A scheduler forgets everything when it ends: receipts decide.
        """
        what = self.cluster.what
        begun = [flight.task for flight in self.flights.values()]
        self.flights.clear()
        self._disconnect()
        self.workers = self.threads = 0
        deadline = time.monotonic() + RETURN_DEADLINE_S
        if not self.cluster.may_return:
            raise ResourceError(f"{what} has ended: run the same command again to go on")
        yield self._note(f"{what} is lost: waiting for it for {RETURN_DEADLINE_S / 60:g} minutes")
        pause_s = _ASKED_EVERY_S
        while self.client is None:
            if self.should_stop():
                return
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ResourceError(
                    f"{what} did not come back within {RETURN_DEADLINE_S / 60:g} minutes: start it "
                    "and run the same command again, which does only what is not done"
                )
            try:
                self._connect(timeout_s=min(pause_s, left_s))
            except ResourceError:
                time.sleep(min(_ASKED_EVERY_S, left_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        yield self._note(f"{what} is back with {counted(self.workers, 'worker')}")
        for task in begun:
            result = self.receipts.read(task.key)
            if result is None:
                self.waiting.append(task)
            else:
                yield Done(key=task.key, result=result)
