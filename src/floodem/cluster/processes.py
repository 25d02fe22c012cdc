"""Tasks done in several processes of this machine, some of which may be killed.

Each worker has a pipe of its own, so that it is known which tasks it held when it died.
It is replaced, and those tasks are tried again, each alone in a worker, after all others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from floodem.cluster.crew import DEATHS_PER_TASK
from floodem.cluster.events import Event, Failed, Reported
from floodem.cluster.receipts import Receipts
from floodem.cluster.surroundings import worker_environment
from floodem.cluster.task import Task, TaskFunction
from floodem.cluster.worker import STOP, Broken, Orders, Ready, work
from floodem.counting import counted
from floodem.errors import ResourceError

_ASKED_EVERY_S = 0.5
"""How long a stop may go unheard while all workers compute."""

_END_WAITS_S = 10.0
"""A worker that has nothing to do and does not end by then (drivers may hang) is killed."""

_DYING_S = 0.5
"""How long a process may take from the end of its pipe to its own."""

_FALSE_STARTS = 3
"""So many workers in a row that end before they begin will not do better next time."""

_ENVIRONMENT = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Spawned processes.

    Attributes
    ----------
    workers
        How many.
    slots
        Tasks that each holds at once.
    deaths
        How often a task's worker may die before the task is given up.
    """

    workers: int
    slots: int = 1
    deaths: int = DEATHS_PER_TASK

    def run(
        self,
        function: TaskFunction,
        tasks: Iterable[Task],
        *,
        receipts: Receipts,
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        """Do tasks until there are none or it is told to stop."""
        orders = Orders(function=function, receipts=receipts)
        pool = _Pool(options=self, orders=orders, waiting=deque(tasks))
        try:
            pool.start()
            while True:
                if should_stop():
                    pool.stop()
                pool.hand_out()
                if pool.is_done():
                    break
                yield from pool.hear(timeout_s=_ASKED_EVERY_S)
            pool.end()
        finally:
            pool.kill()


@dataclass(slots=True, kw_only=True, eq=False)
class _Member:
    """A worker as its parent sees it.

    Attributes
    ----------
    held
        The tasks that it was given and has not answered, by their keys.
    is_ready
        It has begun.
    is_deaf
        It could not be written to, and will be found dead.
    """

    number: int
    process: BaseProcess
    connection: Connection[Any, Any]
    held: dict[str, Task] = field(default_factory=dict)
    is_ready: bool = False
    is_deaf: bool = False

    def send(self, message: Any) -> bool:
        try:
            self.connection.send(message)
        except OSError:
            self.is_deaf = True
        return not self.is_deaf


@dataclass(slots=True, kw_only=True, eq=False)
class _Pool:
    options: Processes
    orders: Orders
    waiting: deque[Task]
    suspects: deque[Task] = field(default_factory=deque)
    deaths: Counter[str] = field(default_factory=Counter)
    members: list[_Member] = field(default_factory=list)
    false_starts: int = 0
    is_stopping: bool = False

    def start(self) -> None:
        for number in range(self.options.workers):
            self._start_one(number)

    def _start_one(self, number: int) -> None:
        spawning = multiprocessing.get_context("spawn")
        ours, theirs = spawning.Pipe()
        process = spawning.Process(target=work, args=(theirs, number, self.options.slots))
        with _environment(worker_environment(number, workers=self.options.workers)):
            process.start()
        theirs.close()
        member = _Member(number=number, process=process, connection=ours)
        self.members.append(member)
        member.send(self.orders)

    def stop(self) -> None:
        """Begin nothing more, and tell the tasks."""
        if not self.is_stopping:
            self.is_stopping = True
            for member in self.members:
                member.send(STOP)

    def is_done(self) -> bool:
        has_more = not self.is_stopping and bool(self.waiting or self.suspects)
        return not has_more and not any(member.held for member in self.members)

    def hand_out(self) -> None:
        """Give tasks to those who hold fewest; suspects come last, and alone."""
        while not self.is_stopping and (self.waiting or self.suspects):
            free = [member for member in self.members if self._has_room(member)]
            if not free:
                return
            member = min(free, key=lambda member: len(member.held))
            if not self.waiting and member.held:
                return
            queue = self.waiting or self.suspects
            task = queue[0]
            if member.send(task):
                queue.popleft()
                member.held[task.key] = task

    def _has_room(self, member: _Member) -> bool:
        is_alone = any(key in self.deaths for key in member.held)
        is_there = member.is_ready and not member.is_deaf
        return is_there and not is_alone and len(member.held) < self.options.slots

    def hear(self, *, timeout_s: float) -> Iterator[Event]:
        """Wait for what the workers tell, and for their deaths."""
        ready = wait([member.connection for member in self.members], timeout=timeout_s)
        for member in list(self.members):
            # A process of a task's own may keep a dead worker's pipe open.
            is_dead = member.connection not in ready and not member.process.is_alive()
            has_ended = False
            if is_dead or member.connection in ready:
                has_ended = yield from self._read(member)
            if is_dead or has_ended:
                yield from self._bury(member)

    def _read(self, member: _Member) -> Generator[Event, None, bool]:
        """Yield all that a worker has told by now; return whether that was its end."""
        try:
            while member.connection.poll():
                message = member.connection.recv()
                if isinstance(message, Ready):
                    member.is_ready = True
                    self.false_starts = 0
                    continue
                if isinstance(message, Broken):
                    message.complain()
                if not isinstance(message, Reported):
                    member.held.pop(message.key, None)
                yield message
        except (EOFError, OSError):
            return True
        return False

    def _bury(self, member: _Member) -> Iterator[Event]:
        self.members.remove(member)
        _end(member)
        how = _how_it_ended(member.process.exitcode)
        if not member.is_ready:
            self._count_false_start(how)
        for key, task in member.held.items():
            self.deaths[key] += 1
            if self.deaths[key] < self.options.deaths:
                self.suspects.append(task)
            else:
                yield _given_up(key, self.deaths[key], member.process.exitcode)
        if not self.is_stopping:
            self._start_one(member.number)

    def _count_false_start(self, how: str) -> None:
        self.false_starts += 1
        if self.false_starts >= _FALSE_STARTS:
            raise ResourceError(
                f"worker processes end before they begin (last exit: {how}): read what they "
                "printed; a script that uses several workers needs `if __name__ == "
                "'__main__':` around what it does, and every worker needs memory"
            )

    def end(self) -> None:
        """Let idle workers end."""
        for member in self.members:
            member.send(None)
        deadline = time.monotonic() + _END_WAITS_S
        for member in self.members:
            member.process.join(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """End whatever still runs; what it did without a receipt is done again another time."""
        for member in self.members:
            member.process.kill()
        for member in self.members:
            _end(member)
        self.members.clear()


def _end(member: _Member) -> None:
    """End a process, if it has not ended, and forget its pipe."""
    member.connection.close()
    member.process.join(_DYING_S)  # where the pipe has ended, the process is about to
    member.process.kill()
    member.process.join()


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"


def _given_up(key: str, deaths: int, exit_code: int | None) -> Failed:
    was_killed = exit_code == -getattr(signal, "SIGKILL", 9)
    how = "was killed" if was_killed else "ended"
    why = ", most likely for its memory" if was_killed else ""
    return Failed(
        key=key,
        kind=ResourceError.__name__,
        message=(
            f"its worker {how} {counted(deaths, 'time')}{why} (last exit: "
            f"{_how_it_ended(exit_code)}): run the same command again with fewer workers"
        ),
    )


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a process that is started in the body."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
