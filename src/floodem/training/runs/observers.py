"""What watches a run from the side: its record, pictures and validation.

In: rows of metrics and the weights of now. Out: files of the record, and whether
the validation score has stopped improving. Nothing here changes what is learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from floodem.counting import counted
from floodem.errors import ModelError
from floodem.geometry import VoxelSize
from floodem.network.model_file import Model
from floodem.training.configuration.options import TrainOptions
from floodem.training.record.pictures import Example
from floodem.training.record.record import Record
from floodem.training.runs.run_folder import TrainingFolder
from floodem.training.validation.background import Validator
from floodem.training.validation.held_out import HeldOut
from floodem.training.validation.score import ValidationScore

_POLL_SECONDS = 0.1


class Observers:
    """Record and validation of a run.

    Parameters
    ----------
    held_out
        What validations are of; None where there are none.
    resumed_at
        Step from which the run goes on; None at its beginning.
    mean_stddev
        Grey levels of the training.
    notice
        Called with what a user should know.

    Attributes
    ----------
    is_flat
        Whether the score has stopped improving and the user wants to end there.
    note
        The last score in words, for the progress bar.
    """

    def __init__(
        self,
        options: TrainOptions,
        folder: TrainingFolder,
        *,
        held_out: HeldOut | None,
        resumed_at: int | None,
        mean_stddev: tuple[float, float],
        voxel_size: VoxelSize | None,
        device: torch.device,
        notice: Callable[[str], None],
    ) -> None:
        self._options, self._folder, self._notice = options, folder, notice
        self._voxel_size = voxel_size
        self._record = Record(folder.path, resumed_at=resumed_at, held_out=held_out, notice=notice)
        mean, stddev = mean_stddev
        self._validator = Validator(
            options,
            held_out,
            image_mean=mean,
            image_stddev=stddev,
            device=device,
            on_failure=self._record.failed_validation,
        )
        self._validated_step = max((score.step for score in self._record.scores), default=None)
        self._pictured = time.monotonic()
        self._pictured_step = resumed_at or 0
        self._draws = True
        self._rate = ""
        self._score = ""
        self.is_flat = False

    @property
    def best(self) -> ValidationScore | None:
        """The score of the best model, earlier runs in this folder included."""
        return self._validator.best

    @property
    def verdict(self) -> str | None:
        """Whether the run still improves, in a sentence; None where nothing is validated."""
        if self._options.validation.image is None:
            return None
        return self._record.convergence().sentence

    @property
    def note(self) -> str:
        """What the progress bar says behind the loss."""
        return f"{self._rate}{self._score}"

    def steps(self, step: int, row: Mapping[str, float]) -> None:
        """Write down a row of metrics."""
        self._rate = f", {row['fields_per_s']:.3g} fields of view/s"
        self._record.steps(step, row)

    def look(
        self,
        *,
        step: int,
        hours: float,
        model: Callable[[], Model],
        picture: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Take a score that has come in, begin a validation or draw a picture, where due."""
        score = self._validator.poll()
        if score is not None:
            self._take(score)
        if self._validator.is_due() and self._validated_step != step:
            self._validate(model, step=step, hours=hours)
        minutes = (time.monotonic() - self._pictured) / 60
        if minutes >= self._options.picture_minutes and self._pictured_step != step:
            self._draw(step, picture)

    def finish(
        self,
        *,
        step: int,
        hours: float,
        model: Callable[[], Model],
        picture: Callable[[], Mapping[str, Tensor]],
        should_stop: Callable[[], bool],
    ) -> None:
        """Draw a last picture, wait for the validation under way, validate the last weights."""
        if self._pictured_step != step:
            self._draw(step, picture)
        if self._options.validation.image is None:
            return
        if self._validator.is_running or self._validated_step != step:
            self._notice("all steps are done; what is left is the validation of the last weights")
        self._wait(should_stop)
        if self._validated_step != step and not should_stop():
            self._validate(model, step=step, hours=hours)
            self._wait(should_stop)

    def close(self) -> None:
        """End what is under way and write the last report."""
        self._validator.stop()
        self._record.close()

    def _draw(self, step: int, picture: Callable[[], Mapping[str, Tensor]]) -> None:
        self._pictured, self._pictured_step = time.monotonic(), step
        if not self._draws:
            return
        try:
            self._record.picture(step, self._example(picture()))
        except ImportError as error:  # a bare machine still trains
            self._draws = False
            self._notice(f"no pictures of examples: {error}; install pillow")

    def _wait(self, should_stop: Callable[[], bool]) -> None:
        while self._validator.is_running and not should_stop():
            score = self._validator.poll()
            if score is not None:
                self._take(score)
            else:
                time.sleep(_POLL_SECONDS)

    def _validate(self, model: Callable[[], Model], *, step: int, hours: float) -> None:
        try:
            self._validator.start(model(), step=step, hours=hours)
        except ModelError as error:
            self._notice(f"no validation of step {step}: {error}")
        self._validated_step = step

    def _take(self, score: ValidationScore) -> None:
        self._record.validation(score)
        self._score = f", adapted Rand error {score.adapted_rand_error:.3f} at step {score.step}"
        self._folder.log(
            f"validation of step {score.step}: adapted Rand error {score.adapted_rand_error:.4f}, "
            f"VOI {score.voi_split_bits:.3f} + {score.voi_merge_bits:.3f} bits, fill "
            f"{score.fill:.1%}, {counted(score.segments, 'segment')}"
        )
        verdict = self._record.convergence()
        self._folder.log(verdict.sentence)
        self.is_flat = self._options.validation.stop_when_flat and verdict.should_stop

    def _example(self, seen: Mapping[str, Tensor]) -> Example:
        planes = {name: one.float().cpu() for name, one in seen.items()}
        return Example(
            image=planes["image"].numpy(),
            target=planes["targets"].numpy(),
            prediction=torch.sigmoid(planes["logits"]).numpy(),
            weight=planes["weights"].numpy(),
            voxel_size=self._voxel_size,
        )
