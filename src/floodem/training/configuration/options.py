"""What a training run is made of: every key of its configuration, with its default.

A configuration is a tree of frozen dataclasses, one for each table of the TOML
file (floodem.training.configuration.making reads and writes it). The text of each key is
its help on the command line and its line in the documentation. Triples are z, y, x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.configuration.tables import to_plain

FORMAT_VERSION = 1

DEFAULT_THRESHOLDS = (0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the reference's documentation."""


def key(default: Any, text: str) -> Any:
    """Return a field with a default and the sentence that explains it."""
    return field(default=default, metadata={"help": text})


def _choice(name: str, value: str, *, of: tuple[str, ...]) -> None:
    if value not in of:
        raise OptionError(f"{name} {value!r} is not one of {', '.join(of)}")


def _within(name: str, value: float, *, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        bound = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise OptionError(f"{name} {value!r} is not {bound}")


def _probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise OptionError(f"{name} {value!r} is not a probability between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Which network is trained. Table ``network``."""

    name: str = key("conv_stack", "Registered network, or package:factory.")
    arguments: Mapping[str, int | float | str | bool] = field(
        default_factory=lambda: {"depth": 9, "features": 32},
        metadata={"help": "Arguments of the network."},
    )
    fov: Zyx = key((17, 33, 33), "Field of view in voxels, odd on every axis.")
    deltas: Zyx = key((4, 8, 8), "Step of the field of view in voxels.")
    init: str | None = key(None, "Model file whose weights training starts from (fine-tuning).")


UNNAMED = "volume"
"""The name of the only volume of a run that gives it none."""


def volume_called(name: str) -> str:
    """Return how messages call a volume of this name."""
    return "the volume" if name == UNNAMED else f"volume {name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions:
    """One labelled volume to learn from. Repeated table ``volume``."""

    name: str = key(UNNAMED, "How coordinates and messages call it.")
    image: str = key("", "Address of the image.")
    labels: str = key("", "Address of the labels; 0 is background, or unknown (see unlabelled).")
    box: Box | None = key(None, "Train only on this part; the rest may be held out.")
    loss_mask: str | None = key(None, "Address of a mask; where it is 0 the loss does not count.")
    unlabelled: str = key("background", "What label 0 means: background or unknown.")
    image_mean: float | None = key(
        None, "Grey levels are (v - mean) / stddev; measured if left out."
    )
    image_stddev: float | None = key(None, "See image_mean.")
    voxel_size: VoxelSize | None = key(
        None, "z,y,x in nm, where the files do not say; for the model file."
    )
    weight: float = key(1.0, "How often examples come from here, relative to other volumes.")

    def __post_init__(self) -> None:
        _choice("volume.unlabelled", self.unlabelled, of=("background", "unknown"))
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise OptionError(f"volume.weight {self.weight!r} is not positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Where examples are centred. Table ``sampling``."""

    coordinates: str | None = key(
        None,
        "Index or list of centres written by `floodem sample`; made from the labels if left out.",
    )
    sampler: str = key(
        "balanced",
        "How centres are drawn: balanced, uniform, listed (a list in its order), or "
        "package:factory.",
    )
    thresholds: tuple[float, ...] = key(
        DEFAULT_THRESHOLDS, "Active fractions between partitions, ascending."
    )
    lom_radius: Zyx = key((12, 24, 24), "Half of the box in which the active fraction is counted.")
    min_size: int = key(10_000, "Objects with fewer voxels are never the centre of an example.")
    margin: Zyx | None = key(None, "Voxels kept free at each face; default: what a patch needs.")
    background: bool = key(False, "Also centre examples on background (their target is empty).")
    out_of_volume: str = key(
        "refuse", "Patches that leave the volume: refuse, or pad (not counted in the loss)."
    )

    def __post_init__(self) -> None:
        _choice("sampling.out_of_volume", self.out_of_volume, of=("refuse", "pad"))
        _within("sampling.min_size", self.min_size, low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovementOptions:
    """How the field of view moves while an example is learned. Table ``movement``."""

    policy: str = key("fixed", "fixed, fixed_window or max_pred_moves.")
    moves: int = key(1, "How many steps deep the field of view moves away from the centre.")
    shuffle: str = key(
        "run", "Order of fixed moves: run (shuffled once), distance (nearer first), or none."
    )
    threshold: float = key(0.9, "Probability from which the field of view moves on.")
    pad: float = key(0.05, "Probability of untouched voxels.")
    init: float = key(0.95, "Probability written at the centre of an example.")
    window: int = key(8, "fixed_window: voxels around the step that are looked at.")

    def __post_init__(self) -> None:
        _choice("movement.policy", self.policy, of=("fixed", "fixed_window", "max_pred_moves"))
        _choice("movement.shuffle", self.shuffle, of=("run", "distance", "none"))
        _within("movement.moves", self.moves, low=0)
        for name in ("threshold", "pad", "init"):
            _probability(f"movement.{name}", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserOptions:
    """How weights follow the loss. Table ``optimiser``."""

    name: str = key("sgd", "sgd, momentum, adam, adamw, rmsprop or adagrad.")
    learning_rate: float = key(0.001, "Step size, after warm-up.")
    schedule: str = key("constant", "constant, cosine, linear or exponential.")
    warmup_steps: int = key(0, "Steps over which the learning rate rises from 0.")
    decay_steps: int | None = key(None, "Length of the schedule; default: max_steps.")
    final_fraction: float = key(0.01, "Where the schedule ends, relative to learning_rate.")
    momentum: float = key(0.9, "Of momentum and rmsprop.")
    beta1: float = key(0.9, "Of adam and adamw.")
    beta2: float = key(0.999, "Of adam and adamw.")
    rmsprop_decay: float = key(0.9, "Of rmsprop.")
    epsilon: float = key(1e-8, "Of adam, adamw, rmsprop and adagrad.")
    weight_decay: float = key(0.0, "Of adamw.")
    clip: str = key("element", "How gradients are clipped: element, norm or none.")
    clip_value: float = key(0.7, "Largest gradient of an element, or its norm.")
    average: float = key(0.0, "Decay of the moving average of the weights; 0: none.")
    loss: str = key("sigmoid_cross_entropy", "Registered loss, or package:factory.")

    def __post_init__(self) -> None:
        _choice(
            "optimiser.name",
            self.name,
            of=("sgd", "momentum", "adam", "adamw", "rmsprop", "adagrad"),
        )
        _choice(
            "optimiser.schedule", self.schedule, of=("constant", "cosine", "linear", "exponential")
        )
        _choice("optimiser.clip", self.clip, of=("element", "norm", "none"))
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise OptionError(f"optimiser.learning_rate {self.learning_rate!r} is not positive")
        for name in ("warmup_steps", "momentum", "rmsprop_decay", "weight_decay"):
            _within(f"optimiser.{name}", getattr(self, name), low=0)
        if self.decay_steps is not None:
            _within("optimiser.decay_steps", self.decay_steps, low=1)
        for name in ("final_fraction", "clip_value", "epsilon"):
            if not getattr(self, name) > 0:
                raise OptionError(f"optimiser.{name} {getattr(self, name)!r} is not positive")
        for name in ("average", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"optimiser.{name} {getattr(self, name)!r} is not 0 to below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationOptions:
    """Held-out data that the current weights segment now and then. Table ``validation``."""

    image: str | None = key(None, "Address of the image; no validation if left out.")
    labels: str | None = key(None, "Address of its true labels.")
    box: Box | None = key(None, "Part to segment; it must not overlap what is trained on.")
    image_mean: float | None = key(None, "As in volume.")
    image_stddev: float | None = key(None, "As in volume.")
    every_minutes: float = key(30.0, "Time between the starts of two validations.")
    min_segment_size: int = key(1000, "Smaller segments are dropped.")
    border: Zyx | None = key(
        None,
        "Voxels at each face that are not scored; default: half of the field of view, where no "
        "flood begins.",
    )
    max_calls: int | None = key(None, "Network calls at most for one segment.")
    device: str = key("same", "same as training, cpu or cuda:N.")
    threads: int = key(1, "Threads of the validating process on a CPU.")
    stop_when_flat: bool = key(False, "End training once the score has stopped improving.")
    allow_overlap: bool = key(False, "Let the box overlap what is trained on; scores flatter then.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Everything about one training run; the top of the configuration."""

    run: str = key("training-run", "Folder of the run.")
    network: NetworkOptions = field(default_factory=NetworkOptions)
    volumes: tuple[VolumeOptions, ...] = field(default=(), metadata={"key": "volume"})
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    movement: MovementOptions = field(default_factory=MovementOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    seed: int = key(0, "Of everything random.")
    licence: str = key("", "Of the weights, for the model file.")
    source: str | None = key(
        None, "Where the training data come from, for the model file; default: their addresses."
    )
    batch_size: int = key(4, "Examples in flight; each step sees one field of view of each.")
    accumulate: int = key(1, "Batches that make one step of the optimiser.")
    max_steps: int = key(1_000_000, "Steps of the optimiser.")
    max_hours: float | None = key(None, "End after this time, all runs of the folder together.")
    checkpoint_minutes: float = key(5.0, "Time between two checkpoints.")
    keep_checkpoints: int = key(3, "How many checkpoints stay.")
    device: str = key("auto", "auto, cpu, cuda or cuda:N.")
    dtype: str = key("float32", "float32; bfloat16 or float16 by autocast; float64 on a CPU.")
    compile: bool = key(False, "Compile the network (torch.compile).")
    threads: int | None = key(
        None,
        "Threads on a CPU; default: one for each core, but for the validation.threads that a "
        "validation beside it takes, where at least two are left.",
    )
    log_steps: int = key(50, "Steps between two lines of metrics.")
    picture_minutes: float = key(10.0, "Time between two pictures of examples.")

    def __post_init__(self) -> None:
        _within("seed", self.seed, low=0, high=2**63 - 1)
        for name in ("batch_size", "accumulate", "max_steps", "keep_checkpoints", "log_steps"):
            _within(name, getattr(self, name), low=1)
        for name in ("max_hours", "checkpoint_minutes", "picture_minutes"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), low=0)
        if self.threads is not None:
            _within("threads", self.threads, low=1)
        _choice("dtype", self.dtype, of=("float32", "bfloat16", "float16", "float64"))
        names = [volume.name for volume in self.volumes]
        if len(set(names)) < len(names):
            raise OptionError(f"volumes {names} need different names")

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.run)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return {"version": FORMAT_VERSION, **plain}
