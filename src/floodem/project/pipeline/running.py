"""A project run: a project file in, all its results out, and what became of each stage.

For each stage in order: what decides its result is compared with the record of its last
run; a fresh one is left alone, a stale one is made or gone on with. A stage whose new
result has the contents of the old one makes nothing stale behind it.

What is killed anywhere goes on with the same call::

    record "begun"  ->  the stage's own work, with receipts of its own  ->  record "done"
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from floodem.cluster import keeping_cluster
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    RunConflictError,
    StoppedError,
    TasksFailedError,
)
from floodem.files import exclusive, making_folders, remove_partial_files, storage_error
from floodem.progress import Progress, ProgressListener
from floodem.project.pipeline.choice import Choice
from floodem.project.pipeline.configuration import Project, read_project
from floodem.project.pipeline.contents import content_digest
from floodem.project.pipeline.digests import seen
from floodem.project.pipeline.graph import stages_of
from floodem.project.pipeline.judging import (
    Reason,
    changed_outputs,
    differences,
    parts_of,
    reasons_of,
    stage_digest,
    waits_for,
)
from floodem.project.pipeline.records import (
    BEGUN,
    CLEARING,
    DONE,
    StageRecord,
    StageRecords,
    record_of,
)
from floodem.project.pipeline.stage import Stage, Work

STAGES_FOLDER = "stages"
_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What became of one stage.

    Attributes
    ----------
    name
        Of the stage.
    state
        ``fresh`` (nothing to do), ``done`` (made now), ``skipped`` (not asked for),
        ``stale`` (would be made), ``waits`` (an earlier stage decides).
    reasons
        Why it was stale; or why it is skipped.
    seconds
        Of the run that made it.
    numbers
        What it came to, by name.
    places
        Its results.
    """

    name: str
    state: str
    reasons: tuple[Reason, ...] = ()
    seconds: float | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    places: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "stage": self.name,
            "state": self.state,
            "reasons": [one.to_json() for one in self.reasons],
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "numbers": dict(self.numbers),
            "results": [str(one) for one in self.places],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectResult:
    """What a run of a project came to.

    Attributes
    ----------
    path, folder
        The project file and where its results are.
    stages
        All of them, in order.
    """

    path: Path
    folder: Path
    stages: tuple[StageResult, ...]

    def stage(self, name: str) -> StageResult:
        """Return one stage's result by its name."""
        return next(one for one in self.stages if one.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "format": "floodem project",
            "version": 1,
            "project": str(self.path),
            "folder": str(self.folder),
            "stages": [one.to_json() for one in self.stages],
        }


def run_project(
    config: Path | str,
    *,
    choice: Choice | None = None,
    dry_run: bool = False,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ProjectResult:
    """Make what is stale of a project, or go on with a run that was stopped or killed.

    Parameters
    ----------
    config
        The project file, see docs/projects.md.
    choice
        Which stages are looked at; by default all.
    dry_run
        Make nothing; tell what is stale and why.
    progress, notice
        Told of each stage's progress, its name in front, and with sentences to read.
    should_stop
        Asked now and then; on True what is begun is saved and `StoppedError` raised.

    Raises
    ------
    OptionError
        When the project file is wrong: all mistakes together.
    VolumeNotFoundError
        When what it names is not there, and nothing else is wrong with it.
    RunConflictError
        When another process runs this project.
    DestinationExistsError
        When something lies where a result belongs that no run of this project made.
    StoppedError
        When `should_stop` said so; the same call goes on.
    FloodemError
        When a stage fails; the message names it and its line in the file.
    """
    project = read_project(config, look=True)
    choice = Choice() if choice is None else choice
    run = _Run(project, choice, progress=progress, notice=notice, should_stop=should_stop)
    choice.require_active({one.name: one.skipped for one in run.stages})
    if dry_run:
        return run.planned()
    folder = project.folder / STAGES_FOLDER
    with (
        making_folders(folder),
        exclusive(folder / _LOCK, what=f"project {project.folder}"),
        contextlib.ExitStack() as cluster,
    ):
        remove_partial_files(folder)
        remove_partial_files(project.folder)
        return run.made(cluster)


class _Run:
    def __init__(
        self,
        project: Project,
        choice: Choice,
        *,
        progress: ProgressListener | None,
        notice: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.stages = stages_of(project)
        self._project = project
        self._choice = choice
        self._progress = progress
        self._notice = notice
        self._should_stop = should_stop
        self._records = StageRecords(project.folder / STAGES_FOLDER)
        self._made: dict[str, str] = {}
        self._stale: list[str] = []

    def planned(self) -> ProjectResult:
        """Return what would be made."""
        return self._result([self._judged(stage)[0] for stage in self.stages])

    def made(self, cluster: contextlib.ExitStack) -> ProjectResult:
        """Make what is stale; a cluster is opened with the first such stage."""
        results: list[StageResult] = []
        is_open = False
        for stage in self.stages:
            result, parts = self._judged(stage)
            if result.state == "stale":
                if self._should_stop():
                    raise StoppedError(
                        f"stopped before {stage.name}; run the same command again to go on"
                    )
                assert parts is not None
                with self._naming(stage):
                    if not is_open:
                        cluster.enter_context(keeping_cluster(self._project.crew))
                        is_open = True
                    result = self._make(stage, parts, result.reasons)
                self._stale.remove(stage.name)
            results.append(result)
        return self._result(results)

    def _result(self, results: list[StageResult]) -> ProjectResult:
        return ProjectResult(
            path=self._project.path, folder=self._project.folder, stages=tuple(results)
        )

    def _judged(self, stage: Stage) -> tuple[StageResult, dict[str, Any] | None]:
        """Return whether a stage is fresh, and what would decide its result."""
        if stage.skipped:
            why = Reason(what=stage.name, said=stage.skipped)
            return StageResult(name=stage.name, state="skipped", reasons=(why,)), None
        is_asked = self._choice.asks(stage.name)
        with self._naming(stage):
            record = self._records.read(stage.name)
            waits = waits_for(stage, self._stale)
            if waits or any(name not in self._made for name in stage.needs):
                return self._waiting(stage, record, waits, is_asked=is_asked), None
            parts = parts_of(stage, self._made)
            record = self._counting(stage, record, parts)
            reasons = reasons_of(stage, record, parts=parts, folder=self._project.folder)
        if self._choice.forces(stage.name):
            reasons.append(Reason(what=stage.name, said="asked for with --force"))
        if not reasons:
            assert record is not None
            self._made[stage.name] = stage_digest(stage, record)
            return self._told(stage, record, state="fresh"), parts
        if record is not None and record.state == DONE and not is_asked:
            # What later stages are made from, when this one is left as it is.
            if not changed_outputs(stage, record, self._project.folder):
                self._made[stage.name] = stage_digest(stage, record)
        elif is_asked:
            self._stale.append(stage.name)
        state = "stale" if is_asked else "left stale"
        return self._told(stage, record, state=state, reasons=reasons), parts

    def _waiting(
        self,
        stage: Stage,
        record: StageRecord | None,
        waits: list[Reason],
        *,
        is_asked: bool,
    ) -> StageResult:
        missing = [name for name in stage.needs if name not in self._made]
        if not waits and is_asked:
            raise OptionError(
                f"{stage.name} is made from {missing[0]}, whose result is not there: run without "
                "--only and --from, or with an earlier stage"
            )
        if is_asked:
            self._stale.append(stage.name)
        return self._told(stage, record, state="waits" if is_asked else "left stale", reasons=waits)

    def _counting(
        self, stage: Stage, record: StageRecord | None, parts: Mapping[str, Any]
    ) -> StageRecord | None:
        """Return the record that counts: the one before, where the user went back to it."""
        if record is None or record.state != BEGUN or record.previous is None:
            return record
        earlier = record_of(record.previous, stage=stage.name)
        if earlier is None or differences(earlier.parts, parts):
            return record
        is_whole = not changed_outputs(stage, earlier, self._project.folder)
        return earlier if is_whole else record

    def _told(
        self,
        stage: Stage,
        record: StageRecord | None,
        *,
        state: str,
        reasons: list[Reason] | tuple[Reason, ...] = (),
    ) -> StageResult:
        folder = self._project.folder
        is_done = record is not None and record.state == DONE
        return StageResult(
            name=stage.name,
            state=state,
            reasons=tuple(reasons),
            seconds=record.seconds if record is not None and is_done else None,
            numbers=record.numbers if record is not None and is_done else {},
            places=tuple(folder / one.name for one in stage.outputs),
        )

    def _make(
        self, stage: Stage, parts: dict[str, Any], reasons: tuple[Reason, ...]
    ) -> StageResult:
        folder, began = self._project.folder, time.perf_counter()
        record = self._records.read(stage.name)
        if record is None:
            self._refuse_foreign(stage)
        record = self._cleared(stage, record, parts)
        goes_on = record is None or not differences(record.parts, parts)
        is_longer = record is not None and stage.goes_on(record.parts, parts)
        begun = StageRecord(stage=stage.name, state=BEGUN, parts=parts, previous=_finished(record))
        self._records.write(begun)
        try:
            numbers = self._done(
                stage, overwrite=not (goes_on or is_longer), is_ours=record is not None
            )
        except StoppedError:
            raise
        except FloodemError:
            if record is None and not any((folder / one.name).exists() for one in stage.outputs):
                self._records.forget(stage.name)
            raise
        outputs = {}
        for output in stage.outputs:
            path = folder / output.name
            mark = seen(path)
            digest = content_digest(path, output.kind, should_stop=self._should_stop)
            outputs[output.name] = {"seen": mark, "digest": digest}
        done = replace(
            begun,
            state=DONE,
            outputs=outputs,
            numbers=numbers,
            previous=None,
            seconds=time.perf_counter() - began,
        )
        self._records.write(done)
        self._made[stage.name] = stage_digest(stage, done)
        return self._told(stage, done, state="done", reasons=reasons)

    def _refuse_foreign(self, stage: Stage) -> None:
        for name in (*(one.name for one in stage.outputs), *stage.traces):
            path = self._project.folder / name
            if path.exists():
                raise DestinationExistsError(
                    f"{path} is there, and this project has not made it: move it away, or choose "
                    "another folder below [project]"
                )

    def _cleared(
        self, stage: Stage, record: StageRecord | None, parts: dict[str, Any]
    ) -> StageRecord | None:
        """Remove a stage's own results where they were edited, or are to be made again."""
        if record is None:
            return None
        folder = self._project.folder
        was_clearing = record.state == CLEARING
        is_edited = record.state == DONE and any(
            (folder / one.what).exists() for one in changed_outputs(stage, record, folder)
        )
        is_forced = record.state == DONE and self._choice.forces(stage.name)
        if not (was_clearing or is_edited or is_forced):
            return record
        cleared = StageRecord(stage=stage.name, state=CLEARING, parts=parts)
        self._records.write(cleared)
        for name in (*(one.name for one in stage.outputs), *stage.traces):
            _remove(folder / name)
            _remove(folder / f"{name}.floodem")
        return cleared

    def _done(self, stage: Stage, *, overwrite: bool, is_ours: bool) -> Mapping[str, Any]:
        """Run a stage's function; what is there of ours is gone on with, or replaced."""
        work = Work(
            project=self._project,
            overwrite=overwrite,
            crew=self._project.crew,
            progress=self._listener(stage),
            notice=lambda sentence: self._notice(f"{stage.name}: {sentence}"),
            should_stop=self._should_stop,
        )
        if overwrite:
            return stage.make(work)
        try:
            return stage.make(work)
        except (RunConflictError, DestinationExistsError):
            # A record of ours is older than what is there, so that all of it is ours.
            if not is_ours:
                raise
            return stage.make(replace(work, overwrite=True))

    def _listener(self, stage: Stage) -> ProgressListener | None:
        listen = self._progress
        if listen is None:
            return None
        return lambda report: listen(_named(report, stage.name))

    @contextlib.contextmanager
    def _naming(self, stage: Stage) -> Iterator[None]:
        """Let errors of the body begin with the stage and its place in the project file."""
        try:
            yield
        except FloodemError as error:
            sentence = f"{stage.name} ({self._project.place(stage.table)}): {error}"
            if isinstance(error, TasksFailedError):
                raise TasksFailedError(sentence, failures=error.failures) from error
            raise type(error)(sentence) from error


def _finished(record: StageRecord | None) -> Mapping[str, Any] | None:
    """Return the last finished record as plain values."""
    if record is None or record.state == CLEARING:
        return None
    return record.to_json() if record.state == DONE else record.previous


def _named(report: Progress, stage: str) -> Progress:
    if report.stage == stage:
        return report
    return replace(report, stage=f"{stage}: {report.stage}")


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", path, error) from error
