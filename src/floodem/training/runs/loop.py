"""The steps of a run, one after the other, until there is a reason to end.

In: a learner that is ready, and what watches it (record, validation, whoever may
ask to stop). Out: checkpoints, model files and rows of metrics in the folder of the
run, and the reason for its end. In a run of several processes all do the same
steps; the first one writes and decides, and its wishes travel with the gradients.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from floodem.errors import ModelError, StoppedError
from floodem.network.model_file import Model, ModelDescription, save_model
from floodem.progress import Progress, ProgressListener
from floodem.training.configuration.options import TrainOptions
from floodem.training.examples.metrics import shares
from floodem.training.learning.step import Learner, StepResult
from floodem.training.runs.checkpoints import Checkpoint, checkpoint_paths, save_checkpoint, stored
from floodem.training.runs.observers import Observers
from floodem.training.runs.run_folder import TrainingFolder
from floodem.training.runs.start import to_model

MOST_SKIPPED = 100
"""Steps in a row without finite gradients after which training has gone astray."""

REPORT_SECONDS = 0.2
_LEAST_SECONDS = 1e-9
"""No time between two rows is shorter, so that shares can be divided by it."""

_RANDOM, _RANDOM_CARD = "random", "random-card"


class End(enum.StrEnum):
    """Why a run ended."""

    STEPS = "max_steps reached"
    HOURS = "max_hours reached"
    FLAT = "the validation score has stopped improving"


@dataclass(slots=True)
class Window:
    """What happened since the last row of metrics; it survives in checkpoints."""

    steps: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, result: StepResult) -> None:
        """Count a step."""
        self.steps += 1
        self.loss += result.loss
        if math.isfinite(result.gradient_norm):
            self.gradient_norm += result.gradient_norm

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "steps": self.steps,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "counts": dict(self.counts),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Window:
        """Rebuild what `to_json` made."""
        return cls(**{**values, "counts": Counter(values["counts"])})


class Loop:
    """Trains from where the learner is.

    Parameters
    ----------
    description
        Of the model files.
    observers
        Record and validation; None in processes that do not write.
    saved
        Called after each checkpoint, in the process that writes, with the step and the model
        file of the newest weights.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        options: TrainOptions,
        folder: TrainingFolder,
        description: ModelDescription,
        observers: Observers | None,
        progress: ProgressListener | None,
        should_stop: Callable[[], bool],
        saved: Callable[[int, Path], None] | None = None,
    ) -> None:
        self._learner, self._options, self._folder = learner, options, folder
        self._world = learner.world
        self._description = description
        self._observers = observers
        self._progress, self._should_stop, self._tell_saved = progress, should_stop, saved
        self._window = Window()
        self._hours_before = 0.0
        self._examples = 0.0
        self._began = self._saved = self._logged = self._reported = time.monotonic()
        self._fields = 0
        self.saved_step: int | None = None

    @property
    def hours(self) -> float:
        """Training time, that of earlier runs in this folder included."""
        return self._hours_before + (time.monotonic() - self._began) / 3600

    def run(self) -> End:
        """Train, and save at the end.

        Raises
        ------
        StoppedError
            When someone asked to stop; the state is saved.
        ModelError
            When the loss is no finite number any more.
        ResourceError, StorageError
            When something could not be written; the last checkpoint stays.
        """
        end = End.STEPS
        result: StepResult | None = None
        self._tell()
        self._observe()  # the weights that fine-tuning begins with are validated untouched
        while self._learner.step_number < self._options.max_steps:
            result = self._learner.step(self._wishes())
            self._require_finite(result)
            self._window.add(result)
            self._fields += self._options.batch_size * self._options.accumulate * self._world.size
            if self._learner.step_number % self._options.log_steps == 0:
                self._log(result)
            stops, ends_by_time, ends_flat, saves = (wish > 0 for wish in result.messages)
            if stops:
                self.save()
                raise StoppedError(
                    f"stopped at step {self._learner.step_number}, which is saved in "
                    f"{self._folder.path}: run the same command again to go on"
                )
            if ends_by_time or ends_flat:
                end = End.HOURS if ends_by_time else End.FLAT
                break
            if saves:
                self.save()
            self._look_after(result)
        if result is not None and self._window.steps:  # since the last row
            self._log(result)
        if self.saved_step != self._learner.step_number:
            self.save()
        return end

    def save(self) -> None:
        """Write a checkpoint and the model file of the newest weights; all processes call it."""
        self._collect()
        window = dataclasses.replace(self._window, counts=self._counts_of_all())
        tensors, facts = self._learner.state()
        own = {name: stored(one) for name, one in self._learner.in_flight.state().items()}
        own[_RANDOM] = torch.get_rng_state()
        if self._learner.device.type == "cuda":
            own[_RANDOM_CARD] = torch.cuda.get_rng_state(self._learner.device)
        everyones = self._world.gather(serialise_safetensors(own))
        self._saved = time.monotonic()
        self.saved_step = self._learner.step_number
        if not self._world.writes:
            return
        for rank, data in enumerate(everyones):
            tensors |= {f"process/{rank}/{name}": x for name, x in parse_safetensors(data).items()}
        facts |= {
            "hours": self.hours,
            "examples": self._examples,
            "window": window.to_json(),
        }
        try:
            model = self.model()
        except ModelError as error:
            raise self._astray(str(error)) from error
        save_checkpoint(
            self._folder.checkpoints,
            Checkpoint(tensors=tensors, facts=facts),
            keep=self._options.keep_checkpoints,
        )
        save_model(model, self._folder.latest, overwrite=True)
        if self._tell_saved is not None:
            self._tell_saved(self._learner.step_number, self._folder.latest)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where another run was.

        Raises
        ------
        ModelError
            When the checkpoint does not fit this run.
        """
        self._learner.restore(checkpoint.tensors, checkpoint.facts)
        prefix = f"process/{self._world.rank}/"
        own: dict[str, Tensor] = {
            name.removeprefix(prefix): one
            for name, one in checkpoint.tensors.items()
            if name.startswith(prefix)
        }
        try:
            self._learner.in_flight.restore(own)
            torch.set_rng_state(own[_RANDOM])
            if _RANDOM_CARD in own and self._learner.device.type == "cuda":
                torch.cuda.set_rng_state(own[_RANDOM_CARD], self._learner.device)
            self._hours_before = float(checkpoint.facts["hours"])
            self._examples = float(checkpoint.facts["examples"])
            if self._world.writes:  # it has the counts of all processes
                self._window = Window.from_json(checkpoint.facts["window"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"the checkpoint does not fit this run ({error}): give the options of its beginning"
            ) from error
        self._learner.in_flight.metrics.take()  # what the slots counted before they were filled
        self.saved_step = self._learner.step_number

    def model(self) -> Model:
        """Return the weights of now as a model.

        Raises
        ------
        ModelError
            When a weight is no finite number.
        """
        facts = {
            **self._description.training,
            "step": self._learner.step_number,
            "hours": self.hours,
            "fields_of_view": self._learner.step_number
            * (self._options.batch_size * self._options.accumulate * self._world.size),
        }
        description = dataclasses.replace(self._description, training=facts)
        return to_model(description, self._learner.weights())

    def _wishes(self) -> list[float]:
        """Return what this process wants done after the next step: stop, end, end, save."""
        stops = self._should_stop()
        if self._observers is None:
            return [float(stops), 0.0, 0.0, 0.0]
        limit = self._options.max_hours
        minutes = (time.monotonic() - self._saved) / 60
        return [
            float(stops),
            float(limit is not None and self.hours >= limit),
            float(self._observers.is_flat),
            float(minutes >= self._options.checkpoint_minutes),
        ]

    def _require_finite(self, result: StepResult) -> None:
        """Refuse to train on after the loss has gone astray; float16 may overflow now and then."""
        is_lost = not math.isfinite(result.loss) and self._learner.scale is None
        if not is_lost and self._learner.skipped_in_a_row < MOST_SKIPPED:
            return
        what = (
            f"the loss is {result.loss} at step {self._learner.step_number}"
            if is_lost
            else f"the last {MOST_SKIPPED} gradients up to step {self._learner.step_number} were "
            "no finite numbers"
        )
        raise self._astray(what)

    def _astray(self, what: str) -> ModelError:
        """Return the sentence for weights that are lost, and how to go on."""
        paths: list[Path] = checkpoint_paths(self._folder.checkpoints)
        last = (
            f"the last good weights are in {self._folder.latest} ({paths[0].name})"
            if paths
            else "nothing was saved yet"
        )
        return ModelError(
            f"training has gone astray: {what}; {last}; take a smaller optimiser.learning_rate, "
            "and begin a new run, from these weights with --network.init or afresh"
        )

    def _collect(self) -> None:
        """Take the counts of the examples into the window."""
        self._window.counts.update(self._learner.in_flight.metrics.take())

    def _counts_of_all(self) -> Counter[str]:
        """Return the counts of the windows of all processes, which all call it."""
        names = sorted(self._window.counts)
        numbers = torch.tensor([self._window.counts[name] for name in names], dtype=torch.float64)
        return Counter(dict(zip(names, self._world.add(numbers).tolist(), strict=True)))

    def _log(self, result: StepResult) -> None:
        """Write a row of metrics; all processes call it at the same steps."""
        self._collect()
        counts = self._counts_of_all()
        window, self._window = self._window, Window()
        parts = self._learner.clock.take()
        now = time.monotonic()
        wall, self._logged = max(now - self._logged, _LEAST_SECONDS), now
        fields, self._fields = self._fields, 0
        self._examples += counts.get("examples", 0.0)
        if self._observers is None:
            return
        known = {f"{part}_share": seconds / wall for part, seconds in parts.items()}
        row = {
            "loss": window.loss / window.steps,
            "learning_rate": result.rate,
            "gradient_norm": window.gradient_norm / window.steps,
            "hours": self.hours,
            "fields_per_s": fields / wall,
            "examples_seen": self._examples,
            "skipped": float(self._learner.skipped),
            **known,
            "rest_share": max(0.0, 1 - sum(known.values())),
            **shares(counts),
        }
        self._observers.steps(self._learner.step_number, row)

    def _look_after(self, result: StepResult) -> None:
        """Let validation, pictures and the progress bar have their turn."""
        if self._observers is None:
            return
        self._observe()
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._tell(f"loss {result.loss:.4f}{self._observers.note}")

    def _observe(self) -> None:
        """Begin a validation or draw a picture, where due."""
        if self._observers is not None:
            self._observers.look(
                step=self._learner.step_number,
                hours=self.hours,
                model=self.model,
                picture=self._learner.in_flight.pictured,
            )

    def _tell(self, note: str = "") -> None:
        """Say how far the run is; the pace counts from the first time."""
        if self._progress is not None:
            self._progress(
                Progress(
                    stage="training",
                    done=self._learner.step_number,
                    total=self._options.max_steps,
                    unit="steps",
                    note=note,
                )
            )
