"""Validation beside training: current weights go out to a process of their own, scores come back.

The process gets a model file and a job file in ``RUN/validation`` and answers with
an outcome file there. It shares nothing else with training, is killed when
training stops, and ends by itself when training dies. Whatever goes wrong in it
becomes a `ValidationFailure`; training goes on.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from floodem.errors import FloodemError
from floodem.files import making_folders, remove_partial_files, replacing, storage_error
from floodem.network.model_file import Model, save_model
from floodem.training.configuration.options import TrainOptions
from floodem.training.validation.choice import ValidationFailure, best_score
from floodem.training.validation.held_out import HeldOut
from floodem.training.validation.job import (
    ValidationJob,
    read_outcome,
    remove_result,
    write_outcome,
)
from floodem.training.validation.score import ValidationScore

FOLDER = "validation"
BEST_MODEL = "best.safetensors"
LOG = "log.txt"
_BEGUN = "begun"
_MODULE = "floodem.training.validation.worker"
_STEM, _RESULT = "step-{:08d}", ".h5"
_OUTCOME, _SCORE = ".outcome.json", ".score.json"
"""What a process has answered, and what training has taken note of."""

_SHOWN_LETTERS = 300
"""Of the last line that a process wrote before it died."""


class Validator:
    """Floods held-out data with the weights of now, one flood at a time.

    Parameters
    ----------
    options
        Of the whole run.
    held_out
        What is flooded; where it is None, nothing is ever due.
    image_mean, image_stddev
        Grey levels of the training, for held-out images that have none of their own.
    device
        Where training computes.
    on_failure
        Called with each validation that has no score.

    Raises
    ------
    FloodemError
        When the folder of the run cannot be written.

    Notes
    -----
    Of the results in ``RUN/validation`` the best and the latest are kept, with their
    model files; the best model is copied to ``RUN/best.safetensors`` as soon as its
    score is known.
    """

    def __init__(
        self,
        options: TrainOptions,
        held_out: HeldOut | None,
        *,
        image_mean: float,
        image_stddev: float,
        device: torch.device,
        on_failure: Callable[[ValidationFailure], None] = lambda failure: None,
    ) -> None:
        self._held_out = held_out
        self._options = options.validation
        self._network = options.network.name
        self._run = options.folder
        self._folder = options.folder / FOLDER
        wanted = options.validation
        self._mean = image_mean if wanted.image_mean is None else wanted.image_mean
        self._stddev = image_stddev if wanted.image_stddev is None else wanted.image_stddev
        self._device = str(device) if wanted.device == "same" else wanted.device
        self._on_failure = on_failure
        self._process: subprocess.Popen[bytes] | None = None
        self._job: ValidationJob | None = None
        self._began = 0.0
        self._scores: list[ValidationScore] = []
        self._due_at = 0.0
        if self._held_out is not None:
            self._look_at_folder(at_once=options.network.init is not None)

    @property
    def best(self) -> ValidationScore | None:
        """The best score so far, earlier runs in this folder included."""
        return best_score(self._scores)

    @property
    def is_running(self) -> bool:
        """Whether a flood is under way, or its answer not yet taken by `poll`."""
        return self._job is not None

    def is_due(self) -> bool:
        """Tell whether `start` should be called now."""
        return (
            self._held_out is not None and not self.is_running and time.monotonic() >= self._due_at
        )

    def start(self, model: Model, *, step: int, hours: float) -> None:
        """Begin to flood with these weights; returns at once.

        Parameters
        ----------
        step, hours
            Step of the weights, and training time up to there.
        """
        assert self._held_out is not None
        assert not self.is_running
        stem = self._folder / _STEM.format(step)
        self._job = ValidationJob(
            step=step,
            hours=hours,
            network=self._network,
            model=str(stem.with_suffix(".safetensors")),
            image=self._held_out.image,
            labels=self._held_out.labels,
            box=str(self._held_out.box),
            image_mean=self._mean,
            image_stddev=self._stddev,
            segmentation=str(stem.with_suffix(_RESULT)),
            outcome=str(stem.with_suffix(_OUTCOME)),
            device=self._device,
            threads=self._options.threads,
            min_segment_size=self._options.min_segment_size,
            border=list(self._held_out.border),
            max_calls=self._options.max_calls,
        )
        self._began = time.monotonic()
        self._due_at = self._began + 60 * self._options.every_minutes
        try:
            with making_folders(self._folder):
                Path(self._job.outcome).unlink(missing_ok=True)
                save_model(model, Path(self._job.model), overwrite=True)
                path = stem.with_suffix(".job.json")
                self._job.save(path)
            self._process = self._launch(path)
        except (FloodemError, OSError) as error:
            self._give_up(f"it could not be started: {error}")

    def poll(self) -> ValidationScore | None:
        """Return the score of a flood that has ended since the last call, or None.

        One that failed goes to `on_failure` instead.
        """
        if self._job is None or (self._process is not None and self._process.poll() is None):
            return None
        return self._take()

    def stop(self) -> None:
        """Kill the flood that is under way, if any; the next run begins another one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()
        self._job = None

    def _look_at_folder(self, *, at_once: bool) -> None:
        """Find out what earlier runs left, and when the next flood is due.

        The time between two floods is counted over all runs of the folder, so that a
        run that is often interrupted is validated as well.
        """
        begun = self._folder / _BEGUN
        every = 60 * self._options.every_minutes
        waited = 0.0
        try:
            with making_folders(self._folder):
                if begun.exists():
                    waited = max(0.0, time.time() - begun.stat().st_mtime)
                else:
                    begun.touch()
                    waited = every if at_once else 0.0
        except OSError as error:
            raise storage_error("write", begun, error) from error
        remove_partial_files(self._folder)
        self._due_at = time.monotonic() + max(0.0, every - waited)
        for path in sorted(self._folder.glob(f"step-*{_SCORE}")):
            with contextlib.suppress(FloodemError):  # a damaged one counts as none
                found = read_outcome(path)
                if isinstance(found, ValidationScore):
                    self._scores.append(found)
        self._prune()

    def _launch(self, path: Path) -> subprocess.Popen[bytes]:
        threads = str(self._options.threads)
        environment = {
            **os.environ,
            # What this process can import, that one can: networks of other packages.
            "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NEW_PROCESS_GROUP
        with open(self._folder / LOG, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                creationflags=flags,
            )

    def _take(self) -> ValidationScore | None:
        assert self._job is not None
        job, code = self._job, None if self._process is None else self._process.returncode
        self._close()
        try:
            outcome = read_outcome(Path(job.outcome))
        except FloodemError as error:
            outcome = self._failure(job, str(error))
        if outcome is None:
            outcome = self._failure(job, self._died(code))
        self._job = None
        with contextlib.suppress(OSError):
            (self._folder / _BEGUN).touch()
        if isinstance(outcome, ValidationFailure):
            self._prune()
            self._on_failure(outcome)
            return None
        self._scores.append(outcome)
        try:
            self._keep(job, outcome)
        except (FloodemError, OSError) as error:
            self._on_failure(self._failure(job, f"its result could not be kept: {error}"))
        self._prune()
        return outcome

    def _keep(self, job: ValidationJob, score: ValidationScore) -> None:
        """Copy the model file of a score that no earlier one reaches; then the score counts."""
        if self.best is score:
            with replacing(self._run / BEST_MODEL) as partial:
                partial.write_bytes(Path(job.model).read_bytes())
        outcome = Path(job.outcome)
        os.replace(outcome, outcome.with_name(outcome.name.replace(_OUTCOME, _SCORE)))

    def _prune(self) -> None:
        """Remove all files but those of the best, of the latest and of the running flood."""
        kept = {score.step for score in (self.best, *self._scores[-1:]) if score is not None}
        if self._job is not None:
            kept.add(self._job.step)
        stems = {_STEM.format(step) for step in kept}
        for path in sorted(self._folder.glob("step-*")):
            stem = path.name.partition(".")[0]
            if stem in stems:
                continue
            with contextlib.suppress(FloodemError, OSError):  # open in a viewer: another time
                if path.is_file() and path.suffix != _RESULT:
                    path.unlink()
                else:
                    remove_result(self._folder / f"{stem}{_RESULT}")

    def _give_up(self, reason: str) -> None:
        """Note why there is no process; `poll` tells."""
        assert self._job is not None
        failure = self._failure(self._job, reason)
        with contextlib.suppress(FloodemError):  # without an outcome `poll` finds another sentence
            write_outcome(self._job, failure)

    def _failure(self, job: ValidationJob, reason: str) -> ValidationFailure:
        seconds = time.monotonic() - self._began
        return ValidationFailure(step=job.step, hours=job.hours, reason=reason, seconds=seconds)

    def _died(self, code: int | None) -> str:
        if code is None:
            return "its process could not be started, nor could that be written down"
        lines: list[str] = []
        with contextlib.suppress(OSError):
            text = (self._folder / LOG).read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if line.strip()]
        last = f"; its last words: {lines[-1][:_SHOWN_LETTERS]}" if lines else ""
        killed = ", perhaps killed for want of memory" if code < 0 else ""
        return f"its process ended with code {code} and no score{killed}{last}"

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process = None
