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
from floodem.cluster.dask_clusters import CONNECT_S, Cluster
from floodem.cluster.dask_opening import opening
from floodem.cluster.dask_watch import TOPIC, Watch
from floodem.cluster.dask_worker import Left, Sealed, do_sealed, topic_of, unseal
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
_FETCH_S = 10.0
"""For a result, which is text of a few kilobytes, to come from its worker."""

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
    watch: Watch | None = None
    suspects: deque[Task] = field(default_factory=deque)
    deaths: dict[str, int] = field(default_factory=dict)
    flights: dict[int, _Flight] = field(default_factory=dict)
    inbox: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)
    submitted: int = 0

    def events(self) -> Iterator[Event]:
        if not self.waiting:
            return
        watch = self._connect(timeout_s=CONNECT_S)
        yield watch.note(f"{self.cluster.what} has {counted(watch.workers, 'worker')}")
        while True:
            is_stopping = self.should_stop()
            watch.look()
            if watch.is_lost:
                yield from self._wait_for_scheduler()
                if self.watch is None:  # told to stop meanwhile
                    return
                watch = self.watch
            self.cluster.tend()
            watch.retire([flight.future.key for flight in self.flights.values()])
            if is_stopping:
                watch.tell_stop()
            else:
                self._submit(watch)
            if not self.flights and (is_stopping or not (self.waiting or self.suspects)):
                return
            yield from self._hear(watch)

    def close(self) -> None:
        """Give up what is with the cluster, and the connection to it."""
        if self.watch is not None and self.flights and not self.watch.is_lost:
            self.watch.tell_stop(at_once=True)
        self.flights.clear()
        self._disconnect()

    def _connect(self, *, timeout_s: float) -> Watch:
        client = self.cluster.connect(timeout_s=timeout_s)
        inbox = self.inbox = queue.SimpleQueue()
        client.subscribe_topic(topic_of(self.name), lambda event: inbox.put(("report", event[1])))
        client.subscribe_topic(TOPIC, lambda event: inbox.put(("cluster", event[1])))
        self.watch = Watch(client=client, run=self.name)
        self.watch.look()
        return self.watch

    def _disconnect(self) -> None:
        if self.watch is None:
            return
        client, self.watch = self.watch.client, None
        with contextlib.suppress(OSError, TimeoutError):  # nothing is lost with it
            if client.status == "running":
                for topic in (topic_of(self.name), TOPIC):
                    client.unsubscribe_topic(topic)
            client.close(timeout=_FETCH_S)

    def _submit(self, watch: Watch) -> None:
        while self.waiting and len(self.flights) < watch.room:
            self._begin(self.waiting.popleft(), watch=watch, is_alone=False)
        if self.suspects and watch.room and not self.flights:
            self._begin(self.suspects.popleft(), watch=watch, is_alone=True)

    def _begin(self, task: Task, *, watch: Watch, is_alone: bool) -> None:
        self.submitted += 1
        number = self.submitted
        sealed = Sealed(function=self.function, task=task, receipts=self.receipts, run=self.name)
        future = watch.client.submit(
            do_sealed, sealed, key=("floodem", self.name, task.key, number), pure=False, retries=0
        )
        self.flights[number] = _Flight(task=task, future=future, is_alone=is_alone)
        self._wait_for(number)

    def _wait_for(self, number: int) -> None:
        inbox = self.inbox
        self.flights[number].future.add_done_callback(lambda _: inbox.put(("ended", number)))

    def _hear(self, watch: Watch) -> Iterator[Event]:
        """Take one message, and all that wait behind it."""
        timeout = _ASKED_EVERY_S
        while True:
            try:
                kind, told = self.inbox.get(timeout=timeout)
            except queue.Empty:
                break
            timeout = 0
            if kind == "ended":
                yield from self._land(told, watch=watch)
            elif kind == "report":
                yield Reported(key=told["key"], values=json.loads(told["values"]))
            else:
                watch.hear(told)
        yield from watch.changes()

    def _land(self, number: int, *, watch: Watch) -> Iterator[Event]:
        """Say what became of a task whose future has ended."""
        from distributed.scheduler import KilledWorker

        flight = self.flights.pop(number)
        task, future = flight.task, flight.future
        if future.cancelled():  # nobody does that, but a client that lost its scheduler
            watch.is_lost = True
            self.waiting.append(task)
            return
        try:
            text = future.result(timeout=_FETCH_S)
        except KilledWorker as error:
            yield from self._count_death(flight, error.allowed_failures + 1)
            return
        except Exception as error:  # noqa: BLE001 - what Dask says of a task goes to that task
            if future.status == "error":
                yield Failed.of(task.key, error)
            else:  # its worker was lost before the result was fetched: Dask has it done again
                self.flights[number] = flight
                self._wait_for(number)
            return
        event = unseal(task.key, text)
        if not isinstance(event, Left):
            yield event
            return
        self.waiting.append(task)
        if event.worker is not None:
            watch.leaving.setdefault(event.worker, self.submitted)

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

    def _wait_for_scheduler(self) -> Iterator[Event]:
        """Connect again, and give again what has no receipt.

        A scheduler forgets everything when it ends: receipts decide.
        """
        what = self.cluster.what
        begun = [flight.task for flight in self.flights.values()]
        self.flights.clear()
        self._disconnect()
        if not self.cluster.may_return:
            raise ResourceError(f"{what} has ended: run the same command again to go on")
        minutes = f"{RETURN_DEADLINE_S / 60:g} minutes"
        deadline = time.monotonic() + RETURN_DEADLINE_S
        told = {"note": f"{what} is lost: waiting for it for {minutes}", "workers": 0}
        yield Reported(key="", values=told)
        pause_s = _ASKED_EVERY_S
        while self.watch is None:
            if self.should_stop():
                return
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ResourceError(
                    f"{what} did not come back within {minutes}: start it and run the same command "
                    "again, which does only what is not done"
                )
            try:
                self._connect(timeout_s=min(pause_s, left_s))
            except ResourceError:
                time.sleep(min(_ASKED_EVERY_S, left_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        yield self.watch.note(f"{what} is back with {counted(self.watch.workers, 'worker')}")
        for task in begun:
            result = self.receipts.read(task.key)
            if result is None:
                self.waiting.append(task)
            else:
                yield Done(key=task.key, result=result)
