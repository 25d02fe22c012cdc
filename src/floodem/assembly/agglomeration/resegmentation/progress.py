"""How far the scoring of decision points is: reports of tasks in, one line of progress out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from floodem.assembly.agglomeration.resegmentation.groups import POINTS_PER_TASK
from floodem.progress import Progress, ProgressListener


class ScoreProgress:
    """Adds up finished tasks and those that are at work.

    Parameters
    ----------
    points
        How many there are in all.
    listener
        Told whenever something is known.
    """

    def __init__(self, points: int, listener: ProgressListener) -> None:
        self._points = points
        self._listener = listener
        self._tasks = self._finished = 0
        self._at_work: dict[str, tuple[int, int]] = {}
        self._calls = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def done(self, finished: int, total: int) -> None:
        """Note how many of the tasks are finished."""
        with self._lock:
            self._finished, self._tasks = finished, total
            self._tell()

    def reported(self, key: str, values: Mapping[str, Any]) -> None:
        """Note how far one task is."""
        with self._lock:
            if key:  # else it is about the crew
                self._at_work[key] = (int(values.get("points", 0)), int(values.get("calls", 0)))
            self._tell()

    def ended(self, key: str) -> None:
        """Note that a task is no longer at work."""
        with self._lock:
            self._calls += self._at_work.pop(key, (0, 0))[1]

    def _tell(self) -> None:
        # The last task may have fewer; a shard counts its own alone.
        total = min(self._tasks * POINTS_PER_TASK, self._points)
        done = self._finished * POINTS_PER_TASK + sum(n for n, _ in self._at_work.values())
        calls = self._calls + sum(calls for _, calls in self._at_work.values())
        seconds = max(time.monotonic() - self._began, 1e-9)
        self._listener(
            Progress(
                stage="scoring decision points",
                done=min(done, total),
                total=total,
                unit="points",
                note=f"{calls / seconds:.1f} network calls/s",
            )
        )
