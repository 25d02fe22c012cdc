"""The folder of an old training: what is there comes in, where training begins goes out.

train_dir/model.ckpt-STEP.safetensors   model files, as training goes on
train_dir/floodem-run/                  the run itself: checkpoints, metrics, log
train_dir/train_coords.npz              the centres, as a list
train_dir/model.ckpt-STEP.index, .data-...   what the old program left there
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from floodem.errors import UsageError

RUN_FOLDER = "floodem-run"
CENTRES = "train_coords.npz"

_MODEL = re.compile(r"model\.ckpt-(\d{1,18})\.(safetensors|index)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where the weights come from that training begins with.

    Attributes
    ----------
    init
        The model file; None: random weights.
    bundle
        Prefix of the TensorFlow checkpoint that `init` is made from first; None: it is there.
    steps
        How many it has behind it; steps count on from there.
    goes_on
        Whether there is a run of floodem that goes on.
    """

    init: Path | None = None
    bundle: Path | None = None
    steps: int = 0
    goes_on: bool = False

    @property
    def sentence(self) -> str | None:
        """What the user should know of it; None: it is as expected."""
        if self.goes_on or self.init is None:
            return None
        if self.bundle is not None:
            return (
                f"training goes on from the weights of {self.bundle}, which TensorFlow wrote; "
                f"steps count on from {self.steps:,}, and the state of its optimiser is not taken "
                "over"
            )
        return (
            f"training goes on from the weights of {self.init} alone, as its run is not there; "
            f"steps count on from {self.steps:,}"
        )


def find_start(train_dir: Path, *, overwrite: bool) -> Start:
    """Return where a training in this folder begins.

    Parameters
    ----------
    overwrite
        Begin from random weights, whatever is there.
    """
    from floodem.training.runs.run_folder import TrainingFolder

    if overwrite:
        return Start()
    folder = TrainingFolder(train_dir / RUN_FOLDER)
    if folder.has_run():
        init = folder.configuration().get("network", {}).get("init")
        match = None if init is None else _MODEL.fullmatch(Path(init).name)
        steps = int(match[1]) if match else 0
        return Start(init=None if init is None else Path(init), steps=steps, goes_on=True)
    if not train_dir.is_dir():
        return Start()
    found = [(int(match[1]), match[2]) for match in map(_matched, train_dir.iterdir()) if match]
    if not found:
        return Start()
    steps, kind = max(found)  # of equal steps the model file
    prefix = train_dir / f"model.ckpt-{steps}"
    return Start(
        init=model_path(train_dir, step=steps),
        bundle=prefix if kind == "index" else None,
        steps=steps,
    )


def model_path(train_dir: Path, *, step: int) -> Path:
    """Return the model file of a step."""
    return train_dir / f"model.ckpt-{step}.safetensors"


def steps_left(max_steps: int, start: Start) -> int:
    """Return the steps that are to be done from the start on.

    Raises
    ------
    UsageError
        When there are none.
    """
    if start.init is None or max_steps > start.steps:
        return max_steps - start.steps
    raise UsageError(
        f"{start.bundle or start.init} has {start.steps:,} steps behind it, and --max_steps is "
        f"{max_steps:,}: give --max_steps above {start.steps:,} to go on from these weights, or "
        "another --train_dir to begin from random ones"
    )


def _matched(path: Path) -> re.Match[str] | None:
    return _MODEL.fullmatch(path.name)
