"""Train a flood-filling network, or go on with a run: options come in, model files go out.

Everything that can be refused is refused before the first step, and before
anything of an earlier run is touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import floodem
from floodem.counting import counted
from floodem.errors import (
    FloodemError,
    OptionError,
    ResourceError,
    StoppedError,
    VolumeNotFoundError,
)
from floodem.files import require_free_disk, storage_error
from floodem.geometry import UNKNOWN_VOXEL_SIZE
from floodem.network.device import choose_device
from floodem.network.model_file import ModelDescription
from floodem.progress import Progress, ProgressListener
from floodem.training.configuration.making import flatten
from floodem.training.configuration.options import TrainOptions
from floodem.training.configuration.tables import to_plain
from floodem.training.examples.preparation import find_coordinates, make_in_flight
from floodem.training.examples.sources import TrainingData, open_training_data
from floodem.training.learning.distributed import World, is_among_several, joined
from floodem.training.learning.precision import stored_dtype
from floodem.training.learning.step import Learner
from floodem.training.runs.checkpoints import Checkpoint, checkpoint_paths, load_newest
from floodem.training.runs.loop import End, Loop
from floodem.training.runs.observers import Observers
from floodem.training.runs.run_folder import TrainingFolder
from floodem.training.runs.start import describe, digest, first_network
from floodem.training.runs.voxel_sizes import voxel_size_notices
from floodem.training.validation.background import BEST_MODEL
from floodem.training.validation.held_out import HeldOut
from floodem.training.validation.refusals import require_held_out
from floodem.training.validation.score import ValidationScore
from floodem.volumes.parallel import usable_threads

CHECKPOINT_FACTOR = 4
"""A checkpoint over its weights, at most: weights, their average, two moments of Adam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a run has made.

    Attributes
    ----------
    folder
        The run.
    step, hours
        How far it is, earlier runs in this folder included.
    end
        Why it ended.
    latest, best
        Model files: newest weights, and best by validation (None without any score).
    best_score
        Of the best weights; None without any, and in processes that do not write.
    """

    folder: Path
    step: int
    hours: float
    end: End
    latest: Path
    best: Path | None
    best_score: ValidationScore | None


def train(
    options: TrainOptions,
    *,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
    saved: Callable[[int, Path], None] | None = None,
) -> Training:
    """Train a network, or go on with the run in ``options.run``.

    Parameters
    ----------
    options
        All of the run; see `floodem.training.configuration.making.make_options` for a
        configuration in TOML.
    overwrite
        Begin again where the folder holds a run.
    progress
        Told of the steps.
    notice
        Called with each sentence that a user may want to read; log.txt keeps them.
    should_stop
        Asked once a step; on True the state is saved and StoppedError raised.
    saved
        Called after each checkpoint, in the process that writes, with the step and the model
        file of the newest weights, which the next checkpoint replaces.

    Raises
    ------
    StoppedError
        When `should_stop` said so; the same call goes on from there.
    RunConflictError
        When the folder holds a run with other options or data, or another process
        trains in it.
    ModelError
        When the loss is no finite number any more.
    FloodemError
        When an option, the data or the disk will not do, in one sentence.
    """
    device, hint = _device(options.device)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(_threads(options, device, at_most=threads))
        with joined(device_type=device.type) as world, torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed + world.rank)
            trainer = _Trainer(
                options,
                device=device,
                world=world,
                progress=_stopping(progress if world.writes else None, should_stop),
                notice=notice,
                should_stop=should_stop,
                saved=saved,
            )
            if hint is not None:
                trainer.tell(hint)
            return trainer.run(overwrite=overwrite)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"the memory of {device} is not enough: give a smaller batch_size, and a larger "
            "accumulate in return"
        ) from error
    finally:
        torch.set_num_threads(threads)


class _Trainer:
    """One process of a run."""

    def __init__(
        self,
        options: TrainOptions,
        *,
        device: torch.device,
        world: World,
        progress: ProgressListener,
        notice: Callable[[str], None],
        should_stop: Callable[[], bool],
        saved: Callable[[int, Path], None] | None,
    ) -> None:
        self.options, self.device, self.world = options, device, world
        self.progress, self.notice, self.should_stop = progress, notice, should_stop
        self.saved = saved
        self.folder = TrainingFolder(options.folder)
        self._unlogged: list[str] | None = []
        self._held_out: HeldOut | None = None

    def tell(self, sentence: str) -> None:
        """Say something to the user, and to the log as soon as there is one."""
        if not self.world.writes:
            return
        self.notice(sentence)
        if self._unlogged is None:
            self._log(sentence)
        else:
            self._unlogged.append(sentence)

    def run(self, *, overwrite: bool) -> Training:
        """Prepare, train and finish."""
        with contextlib.ExitStack() as stack:
            with self.world.together():
                if self.world.writes:
                    stack.enter_context(self.folder.hold())
                    if self.folder.has_run() and not overwrite:
                        self.folder.require_same_options(self.options)
                    self._held_out = require_held_out(self.options)
            with self.world.together():
                learner, data = self._prepare(stack, overwrite=overwrite)
            identity, checkpoint = self._begin_or_go_on(
                data, overwrite=overwrite, network=learner.network
            )
            facts = {"data": digest(identity), "configuration": digest(self.options.to_dict())}
            description = describe(self.options, data, facts=facts)
            return self._train(learner, data, description=description, checkpoint=checkpoint)

    def _prepare(
        self, stack: contextlib.ExitStack, *, overwrite: bool
    ) -> tuple[Learner, TrainingData]:
        """Make all that learns, or refuse; touches nothing on disk."""
        dtype = stored_dtype(self.options.dtype, self.device)
        saved = [] if overwrite else checkpoint_paths(self.folder.checkpoints)
        goes_on = self.folder.has_run() and bool(saved)
        network = first_network(self.options, goes_on=goes_on)
        network = network.to(device=self.device, dtype=dtype)
        if self.device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True))
        data = stack.enter_context(
            open_training_data(
                self.options, device=self.device, dtype=dtype, progress=self.progress
            )
        )
        describe(self.options, data, facts={})  # refuses what no model file could say
        for sentence in voxel_size_notices(self.options, data, goes_on=goes_on):
            self.tell(sentence)
        in_flight = make_in_flight(
            self.options,
            data,
            index=find_coordinates(self.options, data, progress=self.progress, notice=self.tell),
            rank=self.world.rank,
            world=self.world.size,
            device=self.device,
            dtype=dtype,
        )
        stack.callback(in_flight.close)
        learner = Learner(
            network, in_flight, options=self.options, world=self.world, device=self.device
        )
        return learner, data

    def _begin_or_go_on(
        self, data: TrainingData, *, overwrite: bool, network: torch.nn.Module
    ) -> tuple[dict[str, Any], Checkpoint | None]:
        """Put the folder in order; returns what decides the result, and where to go on."""
        found = b""
        identity: dict[str, Any] = {}
        with self.world.together():
            if self.world.writes:
                identity = self._identity(data)
                goes_on = self.folder.has_run() and not overwrite
                size = sum(one.numel() * one.element_size() for one in network.parameters())
                require_free_disk(
                    self.folder.path,
                    needed_bytes=CHECKPOINT_FACTOR * size * (self.options.keep_checkpoints + 1),
                    purpose=f"training run {self.folder.path}",
                )
                if goes_on:
                    self.folder.require_same_identity(identity)
                    newest = load_newest(self.folder.checkpoints, notice=self.tell)
                    found = b"" if newest is None else newest.to_bytes()
                    self.folder.go_on(self.options)
                else:
                    self.folder.begin(self.options, self._about(identity, status="running"))
        self._begin_log()
        data_of_all = self.world.share(found)
        return identity, Checkpoint.from_bytes(data_of_all) if data_of_all else None

    def _train(
        self,
        learner: Learner,
        data: TrainingData,
        *,
        description: ModelDescription,
        checkpoint: Checkpoint | None,
    ) -> Training:
        """Run the loop with everything around it."""
        if data.voxel_size is None:
            self.tell(
                f"{data.first.image.uri} says no voxel size; the model file will say "
                f"{UNKNOWN_VOXEL_SIZE} nm: give --volume.voxel-size"
            )
        if self._held_out is not None:
            self.tell(self._held_out.sentence)
        with self._observing(data, checkpoint) as observers:
            loop = Loop(
                learner,
                options=self.options,
                folder=self.folder,
                description=description,
                observers=observers,
                progress=self.progress if self.world.writes else None,
                should_stop=self.should_stop,
                saved=self.saved,
            )
            self._set_out(loop, checkpoint)
            try:
                end = loop.run()
                if observers is not None:
                    observers.finish(
                        step=learner.step_number,
                        hours=loop.hours,
                        model=loop.model,
                        picture=learner.in_flight.pictured,
                        should_stop=self.should_stop,
                    )
                    if observers.verdict is not None:  # the log has it beside its score
                        self.notice(observers.verdict)
            except FloodemError as error:
                self._log(str(error))
                self._note("stopped" if isinstance(error, StoppedError) else "failed", loop)
                raise
            self._log(f"ends at step {learner.step_number}: {end}")
            self._note("done", loop)
        best = self.folder.path / BEST_MODEL
        return Training(
            folder=self.folder.path,
            step=learner.step_number,
            hours=loop.hours,
            end=end,
            latest=self.folder.latest,
            best=best if best.exists() else None,
            best_score=None if observers is None else observers.best,
        )

    def _set_out(self, loop: Loop, checkpoint: Checkpoint | None) -> None:
        """Go to where the run is."""
        if checkpoint is None:
            self._log("begins")
            return
        loop.restore(checkpoint)
        self._log(f"goes on from step {checkpoint.step}")
        most = self.options.max_steps
        if checkpoint.step > most:
            self.tell(
                f"run {self.folder.path} is at step {checkpoint.step:,} already, and max_steps is "
                f"{most:,}: raise max_steps above {checkpoint.step} to go on"
            )
        elif checkpoint.step == most:
            self.tell(
                f"run {self.folder.path} has all its {counted(most, 'step')}: raise max_steps to "
                "go on"
            )

    @contextlib.contextmanager
    def _observing(
        self, data: TrainingData, checkpoint: Checkpoint | None
    ) -> Iterator[Observers | None]:
        """Watch the run while the body goes on, in the process that writes."""
        if not self.world.writes:
            yield None
            return
        observers = Observers(
            self.options,
            self.folder,
            held_out=self._held_out,
            resumed_at=None if checkpoint is None else checkpoint.step,
            mean_stddev=data.mean_stddev,
            voxel_size=data.voxel_size,
            device=self.device,
            notice=self.tell,
        )
        try:
            yield observers
        finally:
            observers.close()

    def _identity(self, data: TrainingData) -> dict[str, Any]:
        """Return what decides the result besides the options."""
        coordinates = self.options.sampling.coordinates
        return {
            **{f"data of volume {name}": one for name, one in data.digests(self.progress).items()},
            "coordinates": None if coordinates is None else _file_digest(Path(coordinates)),
            "processes": self.world.size,
            # What a preset stands for may change from version to version.
            **flatten(to_plain(self.options.augmentation.resolved()), prefix="augmentation."),
        }

    def _about(self, identity: dict[str, Any], *, status: str) -> dict[str, Any]:
        """Return what run.json says."""
        return {
            "status": status,
            "identity": identity,
            "configuration": self.options.to_dict(),
            "held_out": None if self._held_out is None else self._held_out.to_dict(),
            "seed": self.options.seed,
            "device": str(self.device),
            "versions": {
                "floodem": floodem.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "system": platform.platform(),
            },
        }

    def _note(self, status: str, loop: Loop) -> None:
        """Write down how far the run is."""
        if self.world.writes:
            identity = self.folder.read_run()["identity"]
            about = self._about(identity, status=status)
            self.folder.write_run({**about, "step": loop.saved_step, "hours": loop.hours})

    def _log(self, text: str) -> None:
        if self.world.writes:
            self.folder.log(text)

    def _begin_log(self) -> None:
        """Log what was said before the folder was in order."""
        for sentence in self._unlogged or ():
            self._log(sentence)
        self._unlogged = None


def _device(name: str) -> tuple[torch.device, str | None]:
    """Return this process's device: with torchrun the card of its number on the machine."""
    chosen = choose_device(name)
    if chosen.device.type == "cuda" and is_among_several():
        if name not in {"auto", "cuda"}:
            raise OptionError(f"device {name} is one card for all processes: choose cuda")
        return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}").device, chosen.notice
    return chosen.device, chosen.notice


def _threads(options: TrainOptions, device: torch.device, *, at_most: int) -> int:
    """Return with how many threads to train, of `at_most` where the options do not say."""
    if options.threads is not None:
        return options.threads
    beside = options.validation
    is_shared = beside.image is not None and beside.device in ("same", "cpu")
    cores = usable_threads()
    if device.type != "cpu" or not is_shared or cores <= beside.threads + 1:
        return at_most
    return min(at_most, cores - beside.threads)


def _stopping(
    progress: ProgressListener | None, should_stop: Callable[[], bool]
) -> ProgressListener:
    """Let preparations be stopped as well, wherever they tell how far they are."""

    def listen(report: Progress) -> None:
        if report.stage != "training" and should_stop():
            raise StoppedError("stopped before the first step: run the same command again")
        if progress is not None:
            progress(report)

    return listen


def _file_digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise VolumeNotFoundError(
            f"no coordinates {path}: make them with `floodem sample`, or leave out "
            "sampling.coordinates"
        ) from None
    except OSError as error:
        raise storage_error("read", path, error) from error
