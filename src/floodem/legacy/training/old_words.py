"""Sentences of a training in the words of the old program: floodem's come in, its flags go out.

Training speaks of its own options (``optimiser.learning_rate``, ``--run``), of its run folder,
and counts steps from its own first one. Who typed the old flags reads of those, and of steps
as the model files count them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from floodem.errors import FloodemError
from floodem.legacy.training.start import RUN_FOLDER

_PHRASES: Mapping[str, str] = {
    "begin a new run, from these weights with --network.init or afresh": (
        "begin in another --train_dir, afresh or from copies of model files"
    ),
    "give a smaller batch_size, and a larger accumulate in return": "give a smaller --batch_size",
    "choose another folder with --run": "choose another --train_dir",
    "choose another destination": "choose another --train_dir",
}
_MAY_CHANGE = re.compile(r"only [a-z_., ]+ may change")
_THESE_MAY_CHANGE = "only --max_steps, --device, --summary_rate_secs and --voxel_size may change"

_FLAGS: Mapping[str, str] = {
    "volume.voxel_size": "--voxel_size=z,y,x",
    "volume.image_mean": "--image_mean",
    "volume.image_stddev": "--image_stddev",
    "volume.image": "--data_volumes",
    "volume.labels": "--label_volumes",
    "volume.name": "--data_volumes NAME",
    "network.arguments.depth": "--model_args depth",
    "network.arguments.features": "--model_args features",
    "network.fov": "--model_args fov_size (here z,y,x)",
    "network.deltas": "--model_args deltas (here z,y,x)",
    "movement.policy": "--fov_policy",
    "movement.moves": "--fov_moves",
    "movement.shuffle": "--shuffle_moves",
    "movement.threshold": "--threshold",
    "movement.pad": "--seed_pad",
    "augmentation.reflectable_axes": "--reflectable_axes",
    "augmentation.permutable_axes": "--permutable_axes",
    "optimiser.name": "--optimizer",
    "optimiser.learning_rate": "--learning_rate",
    "optimiser.momentum": "--momentum",
    "optimiser.rmsprop_decay": "--rmsprop_decay",
    "optimiser.beta1": "--adam_beta1",
    "optimiser.beta2": "--adam_beta2",
    "optimiser.epsilon": "--epsilon",
    "sampling.coordinates": "--train_coords",
    "batch_size": "--batch_size",
    "max_steps": "--max_steps",
    "picture_minutes": "--summary_rate_secs (here in minutes)",
}
"""By floodem's option: the old flag that says it."""

_DOTTED = "|".join(
    re.escape(name).replace(r"\.", r"(?:\[\d+\])?\.").replace("_", "[_-]") for name in _FLAGS
)
_OPTION = re.compile(rf"(?<![\w./\\-])(?:--)?({_DOTTED})(?![\w.-]*\w)")
_STEPS = re.compile(r"(\bstep |max_steps is |raise max_steps above |has all its )(\d[\d,]*)")


def in_old_words(sentence: str, *, train_dir: Path, steps: int) -> str:
    """Return a sentence of a training as the old program's user may understand it.

    Parameters
    ----------
    steps
        How many the weights had behind them that the training began with.
    """
    if steps:
        sentence = _STEPS.sub(lambda found: _counted_on(found, steps), sentence)
    run = train_dir / RUN_FOLDER
    for called in (f"training run {run}", f"run {run}"):
        sentence = sentence.replace(f"{called} ", f"--train_dir {train_dir} ")
    for ours, theirs in _PHRASES.items():
        sentence = sentence.replace(ours, theirs)
    sentence = _MAY_CHANGE.sub(_THESE_MAY_CHANGE, sentence)
    return _OPTION.sub(_flag, sentence)


@contextmanager
def speaking_old_words(*, train_dir: Path, steps: int) -> Iterator[None]:
    """Put errors of the body into the words of the old program; see `in_old_words`."""
    try:
        yield
    except FloodemError as error:
        said = str(error)
        sentence = in_old_words(said, train_dir=train_dir, steps=steps)
        if sentence == said:
            raise
        raise type(error)(sentence) from error


def _counted_on(found: re.Match[str], steps: int) -> str:
    return f"{found[1]}{int(found[2].replace(',', '')) + steps:,}"


def _flag(found: re.Match[str]) -> str:
    name = re.sub(r"\[\d+\]", "", found[1]).replace("-", "_")
    return _FLAGS[name]
