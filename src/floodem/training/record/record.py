"""The record of a run, kept up to date while it goes on.

In: numbers of steps, pictures of examples, rows of validation. Out, in the folder
of the run: ``metrics.jsonl`` and ``validation.jsonl`` (one JSON object a line),
``pictures/``, ``report.html``, and TensorBoard events where that is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.files import write_text
from floodem.training.record.events import MISSING, Events, is_installed
from floodem.training.record.history import STEP, History
from floodem.training.record.lines import append_line, keep_lines, read_lines
from floodem.training.record.pictures import Example, picture_path, save_picture, saved_pictures
from floodem.training.record.report import PICTURES, report_page
from floodem.training.validation.choice import ValidationFailure, best_score
from floodem.training.validation.convergence import Convergence, judge
from floodem.training.validation.held_out import HeldOut
from floodem.training.validation.job import outcome_from_dict
from floodem.training.validation.score import ValidationScore

METRICS, VALIDATION, REPORT = "metrics.jsonl", "validation.jsonl", "report.html"

REPORT_SECONDS = 180.0
"""Between two versions of the report, unless there is a new validation."""

PICTURES_KEPT = 24


class Record:
    """Everything that is written down about a run.

    Parameters
    ----------
    folder
        Of the run; it is there.
    resumed_at
        Step from which the run goes on; numbers and pictures of later steps, which
        it will make again, are removed. None: nothing of an earlier run stays. Validations of later
        steps stay when a run goes on: they were true of the weights they belong to.
    held_out
        What validations are of; None where there are none.
    notice
        Called with what a user should know.

    Raises
    ------
    StorageError, VolumeFormatError
        When what an earlier run left cannot be read, or nothing can be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resumed_at: int | None,
        held_out: HeldOut | None = None,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._folder = folder
        self._held_out = held_out
        self._notice = notice
        goes_on, after = resumed_at is not None, -1 if resumed_at is None else resumed_at
        self._history = History(
            keep_lines(folder / METRICS, where=lambda row: step_of(row, folder / METRICS) <= after)
        )
        rows = keep_lines(folder / VALIDATION, where=lambda row: goes_on)
        self._rows = [outcome_from_dict(row) for row in rows]
        for step, path in saved_pictures(folder / PICTURES):
            if step > after:
                path.unlink()
        self._events: Events | None = None
        if is_installed():
            self._events = Events(folder, purge_after=resumed_at)
        elif resumed_at is None:  # once for each run
            notice(MISSING)
        self._reported = time.monotonic()

    @property
    def scores(self) -> list[ValidationScore]:
        """All validations that have a score, oldest weights first."""
        scores = [row for row in self._rows if isinstance(row, ValidationScore)]
        return sorted(scores, key=lambda score: (score.hours, score.step))

    @property
    def best(self) -> ValidationScore | None:
        """The best of them."""
        return best_score(self.scores)

    def convergence(self) -> Convergence:
        """Say whether the run is still improving, and what more time would bring."""
        hours, losses = self._history.column("hours"), self._history.column("loss")
        return judge(
            self.scores,
            losses=list(zip(hours.tolist(), losses.tolist(), strict=True)),
            one_segment_error=None if self._held_out is None else self._held_out.one_segment_error,
        )

    def steps(self, step: int, values: Mapping[str, float]) -> None:
        """Write down the numbers of one step: loss, learning_rate, hours and so on.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        append_line(self._folder / METRICS, {STEP: step, **values})
        self._history.add(step, values)
        if self._events is not None:
            self._events.steps(step, values)
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            self.write_report()

    def picture(self, step: int, example: Example) -> None:
        """Keep a picture of an example; where that fails, a notice says so."""
        folder = self._folder / PICTURES
        try:
            save_picture(example, picture_path(folder, step))
            for _, old in saved_pictures(folder)[:-PICTURES_KEPT]:
                old.unlink()
        except OSError as error:
            self._notice(f"pictures of step {step} are not as they should be: {error}")
        if self._events is not None:
            self._events.picture(step, example)

    def validation(self, score: ValidationScore) -> None:
        """Write down a validation.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        self._add(score)
        if self._events is not None:
            self._events.validation(score)

    def failed_validation(self, failure: ValidationFailure) -> None:
        """Write down a validation without a score, and say so.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        self._notice(f"the validation of step {failure.step} has no score: {failure.reason}")
        self._add(failure)

    def write_report(self, *, is_running: bool = True) -> None:
        """Write ``report.html`` as things are now; where that fails, a notice says so."""
        self._reported = time.monotonic()
        try:
            page = report_page(
                self._folder,
                history=self._history,
                rows=self._rows,
                convergence=self.convergence(),
                held_out=self._held_out,
                is_running=is_running,
            )
            write_text(self._folder / REPORT, page)
        except OSError as error:
            self._notice(f"the report is not up to date: {error}")

    def close(self) -> None:
        """Write the last report and let go of the files."""
        self.write_report(is_running=False)
        if self._events is not None:
            self._events.close()

    def _add(self, row: ValidationScore | ValidationFailure) -> None:
        append_line(self._folder / VALIDATION, row.to_dict())
        self._rows.append(row)
        self.write_report()


def step_of(row: Mapping[str, Any], path: Path) -> int:
    """Return the step of a row of numbers.

    Raises
    ------
    VolumeFormatError
        When it has none.
    """
    step = row.get(STEP)
    if not isinstance(step, int):
        raise VolumeFormatError(f"a line of {path} has step {step!r}: the file is damaged, move it")
    return step


def read_metrics(folder: Path) -> History:
    """Return the numbers of a run's steps.

    Raises
    ------
    StorageError, VolumeFormatError
        When the file cannot be read, or is damaged.
    """
    rows = read_lines(folder / METRICS)
    for row in rows:
        step_of(row, folder / METRICS)
    return History(rows)


def read_validations(folder: Path) -> list[ValidationScore | ValidationFailure]:
    """Return the rows of a run's validation curve, in the order they were made.

    Raises
    ------
    StorageError, VolumeFormatError
        When the file cannot be read, or is damaged.
    """
    return [outcome_from_dict(row) for row in read_lines(folder / VALIDATION)]
