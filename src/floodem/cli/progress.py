"""Long work made visible: `Progress` reports come in, a bar or a line a minute goes out.

On a terminal a bar with rate and remaining time, elsewhere (a log, a job) one
line a minute, both on stderr so that results on stdout stay clean. Work that
ends within two seconds shows nothing.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

from floodem.progress import Progress, ProgressListener

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

QUIET_S = 2.0
LINE_EVERY_S = 60.0
FORESEES_AFTER_S = 20.0
"""Before that a stage's pace says little about its end."""

_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a stage goes: units a second, and seconds to its end; None when unknown."""

    rate: float | None
    left_s: float | None

    def __str__(self) -> str:
        words = [] if self.rate is None else [f"{short(self.rate)}/s"]
        if self.left_s is not None:
            words.append(f"{duration(self.left_s)} left")
        return ", ".join(words)


class Stage:
    """One stage's beginning, from which its pace follows.

    Work that a resumed run finds done does not count as fast work.
    """

    def __init__(self, first: Progress, *, now: float) -> None:
        self.name = first.stage
        self._first = first.done
        self._began = now

    def pace(self, report: Progress, *, now: float) -> Pace:
        """Return the mean pace since the stage's first report."""
        elapsed, done = now - self._began, report.done - self._first
        if elapsed <= 0 or done <= 0:
            return Pace(None, None)
        rate = done / elapsed
        if elapsed < FORESEES_AFTER_S:
            return Pace(rate, None)
        return Pace(rate, None if report.total is None else (report.total - report.done) / rate)


class Display(Protocol):
    """Something that shows reports and can be taken away."""

    def show(self, report: Progress, pace: Pace) -> None:
        """Show one report."""

    def close(self) -> None:
        """Leave the screen as others expect it."""


class Lines:
    """One line a minute, for logs."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._printed: float | None = None

    def show(self, report: Progress, pace: Pace) -> None:
        """Print the report, unless the last one is less than a minute old."""
        now = self._clock()
        if self._printed is not None and now - self._printed < LINE_EVERY_S:
            return
        self._printed = now
        of = "" if report.total is None else f" of {short(report.total)}"
        percent = f" ({report.done / report.total:.1%})" if report.total else ""
        parts = [f"{short(report.done)}{of} {report.unit}{percent}", str(pace), report.note]
        line = f"{report.stage}: {'; '.join(part for part in parts if part)}"
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: lines stay."""


class Bar:
    """A bar for each stage, for terminals."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        # rich draws its bar in ASCII where the console's encoding is not a Unicode one.
        self._bars: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=stream),
        )
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def show(self, report: Progress, pace: Pace) -> None:
        """Draw the report's stage, and finish the stages before it."""
        if report.stage not in self._tasks:
            self._tasks[report.stage] = self._bars.add_task(
                report.stage, total=report.total, pace="", note=""
            )
        self._bars.update(
            self._tasks[report.stage],
            completed=report.done,
            total=report.total,
            pace=str(pace),
            note=report.note,
        )

    def close(self) -> None:
        """Draw a last time and give the cursor back."""
        self._bars.stop()


@contextlib.contextmanager
def progress_bar(
    *,
    stream: TextIO | None = None,
    is_terminal: bool | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ProgressListener]:
    """Give a listener that shows what it is told while the body runs.

    Parameters
    ----------
    stream
        Where to write; stderr when not given.
    is_terminal
        Whether to draw a bar; asked of the stream when not given.
    clock
        Seconds, increasing.
    """
    stream = sys.stderr if stream is None else stream
    is_terminal = stream.isatty() if is_terminal is None else is_terminal
    began = clock()
    lock = threading.Lock()
    stages: dict[str, Stage] = {}
    display: Display | None = None

    def listen(report: Progress) -> None:
        nonlocal display
        with lock:
            now = clock()
            stage = stages.setdefault(report.stage, Stage(report, now=now))
            if now - began < QUIET_S:
                return
            if display is None:
                display = Bar(stream) if is_terminal else Lines(stream, clock)
            display.show(report, stage.pace(report, now=now))

    try:
        yield listen
    finally:
        if display is not None:
            display.close()


def short(number: float) -> str:
    """Write a count with three digits and a scale: 1.23 M."""
    for scale, letter in _SCALES:
        if number >= scale:
            return f"{number / scale:.3g} {letter}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """Write a time span in its two largest units: 2 d 07 h, 1 h 05 min, 3 min 20 s, 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
