"""What is known of a cluster's workers: Dask's tidings come in, counts and sentences go out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from floodem.cluster.dask_worker import stop_run
from floodem.cluster.events import Reported
from floodem.counting import counted

ANSWER_S = 30.0
"""A scheduler that answers no question for so long hangs, and is as good as lost."""
COUNTED_EVERY_S = 5.0
_NOTED_EVERY_S = 1.0
_LONG_AGO = -3600.0

TOPIC = "all"
"""Dask's topic of what happens to workers."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """The workers behind one connection.

    Attributes
    ----------
    client
        The connection.
    run
        Name of the run, for those that are told to stop.
    threads
        How many tasks each worker holds at once, by its address.
    leaving
        Workers whose time is nearly over, and the number of the last task that may have
        begun there.
    is_lost
        The scheduler does not answer, or has forgotten what it was given.
    """

    client: Any
    run: str
    threads: dict[str, int] = field(default_factory=dict)
    leaving: dict[str, int] = field(default_factory=dict)
    is_lost: bool = False
    joined: int = 0
    lost: int = 0
    counted_s: float = _LONG_AGO
    noted_s: float = _LONG_AGO
    told_s: float = _LONG_AGO
    retired_s: float = _LONG_AGO

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self.threads)

    @property
    def room(self) -> int:
        """Tasks that keep all workers busy: one waits at each; none at those that leave."""
        return sum(more + 1 for worker, more in self.threads.items() if worker not in self.leaving)

    def look(self) -> None:
        """Count workers, now and then, as tidings of them may get lost with a connection."""
        if self.client.status != "running":
            self.is_lost = True
            return
        if time.monotonic() - self.counted_s < COUNTED_EVERY_S:
            return
        self.counted_s = time.monotonic()
        threads = self._ask(self.client.scheduler.ncores, workers=None)
        if threads is not None:
            self.threads = dict(threads)
            self.leaving = {one: mark for one, mark in self.leaving.items() if one in self.threads}

    def hear(self, told: Any) -> None:
        """Take what Dask tells about a worker."""
        action = told.get("action") if isinstance(told, dict) else None
        if action == "add-worker":
            self.joined += 1
        elif action == "remove-worker" and not told.get("expected"):
            self.lost += 1
        if action in {"add-worker", "remove-worker"}:
            self.counted_s = _LONG_AGO

    def changes(self) -> Iterator[Reported]:
        """Yield a note about who joined and who was lost, not more often than one reads."""
        if not (self.joined or self.lost) or time.monotonic() - self.noted_s < _NOTED_EVERY_S:
            return
        self.noted_s = time.monotonic()
        self.counted_s = _LONG_AGO
        self.look()
        parts = [f"{counted(self.joined, 'worker')} joined"] if self.joined else []
        if self.lost:
            parts.append(f"{counted(self.lost, 'worker')} lost, whose tasks are done again")
        self.joined = self.lost = 0
        yield self.note(f"{' and '.join(parts)}: {counted(self.workers, 'worker')} now")

    def note(self, sentence: str) -> Reported:
        """Return a report about the cluster itself."""
        return Reported(key="", values={"note": sentence, "workers": self.workers})

    def tell_stop(self, *, at_once: bool = False) -> None:
        """Let tasks hear that they are to stop; again and again, as workers may join."""
        if not at_once and time.monotonic() - self.told_s < COUNTED_EVERY_S:
            return
        self.told_s = time.monotonic()
        # what `client.run` does, which would wait for ever for a worker that hangs
        self._ask(self.client._run, stop_run, self.run, on_error="ignore")  # noqa: SLF001

    def retire(self, begun: Sequence[Any]) -> None:
        """Let workers go whose time is nearly over, once nothing that has begun is with them.

        Dask gives at once to others what is with a worker that it lets go, and two would
        work on the same task while the first one still saves its state.

        Parameters
        ----------
        begun
            Keys of the tasks that are with the cluster; the last part of each is its number.
        """
        if not self.leaving or time.monotonic() - self.retired_s < _NOTED_EVERY_S:
            return
        self.retired_s = time.monotonic()
        processing = self._ask(self.client.scheduler.processing, workers=list(self.leaving))
        for worker, keys in (processing or {}).items():
            if not any(key in begun and key[-1] <= self.leaving[worker] for key in keys):
                self._ask(self.client.scheduler.retire_workers, workers=[worker])
                self.counted_s = _LONG_AGO

    def _ask(self, question: Callable[..., Any], *words: Any, **more: Any) -> Any:
        """Return the scheduler's answer; None when it gives none, and is lost then."""
        with contextlib.suppress(OSError):  # the connection broke: the next look notices
            try:
                return self.client.sync(question, *words, callback_timeout=ANSWER_S, **more)
            except TimeoutError:
                self.is_lost = True
        return None
