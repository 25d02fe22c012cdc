"""Training runs side by side: folders come in, what each reached and what it cost goes out.

Only the records of the runs are read. Runs are compared by their best validation,
and by the best that each had reached within the time that all of them had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import ModelError, OptionError, VolumeNotFoundError
from floodem.geometry import Zyx
from floodem.training.configuration.making import make_options
from floodem.training.configuration.options import NetworkOptions, TrainOptions
from floodem.training.record.record import read_metrics, read_validations
from floodem.training.runs.run_folder import TrainingFolder
from floodem.training.validation.choice import best_score
from floodem.training.validation.score import ValidationScore

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run.

    Attributes
    ----------
    folder
        As it was given.
    status
        How far it is, as its run.json says.
    step, hours, examples
        How long it has trained, and how many examples it has finished; None where it
        has written no numbers yet.
    fields_per_second
        Fields of view that went through the network in a second, of late.
    network, arguments, fov
        What is trained.
    flop_per_call
        Of one field of view forward, a multiplication and an addition counted as two;
        None where the network is not installed here.
    held_out
        What the scores are of: image, labels, and the box that is scored.
    objects, one_segment_error
        How many objects are scored, and the adapted Rand error of one segment over all
        of them; None for a run that has not written it down.
    best, latest
        Validations; None without any score.
    within_equal_time
        The best score of the time that all compared runs had; None without any.
    """

    folder: str
    status: str
    step: int | None
    hours: float | None
    examples: float | None
    fields_per_second: float | None
    network: str
    arguments: dict[str, Any]
    fov: Zyx
    flop_per_call: int | None
    held_out: str
    objects: int | None
    one_segment_error: float | None
    best: ValidationScore | None
    latest: ValidationScore | None
    within_equal_time: ValidationScore | None

    @property
    def examples_per_second(self) -> float | None:
        """Examples finished in a second of training, over the whole run."""
        if self.examples is None or not self.hours:
            return None
        return self.examples / (self.hours * 3600)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        scores = {
            name: None if score is None else score.to_dict()
            for name, score in (
                ("best", self.best),
                ("latest", self.latest),
                ("within_equal_time", self.within_equal_time),
            )
        }
        return {
            "run": self.folder,
            "status": self.status,
            "step": self.step,
            "hours": self.hours,
            "examples": self.examples,
            "examples_per_second": self.examples_per_second,
            "fields_per_second": self.fields_per_second,
            "network": self.network,
            "arguments": self.arguments,
            "fov_zyx": list(self.fov),
            "flop_per_call": self.flop_per_call,
            "held_out": self.held_out,
            "objects": self.objects,
            "one_segment_error": self.one_segment_error,
            **scores,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Attributes
    ----------
    runs
        The best score first; those without a score last.
    equal_hours
        The time that all runs with a score had; None without any.
    notices
        What makes the comparison less fair than it looks.
    """

    runs: tuple[RunSummary, ...]
    equal_hours: float | None
    notices: tuple[str, ...]

    def to_json(self) -> str:
        """Return everything as JSON text."""
        values = {
            "format": "floodem comparison",
            "version": FORMAT_VERSION,
            "equal_hours": self.equal_hours,
            "runs": [run.to_dict() for run in self.runs],
            "notices": list(self.notices),
        }
        return json.dumps(values, indent=2, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What is read of a run before runs are compared."""

    folder: str
    status: str
    options: TrainOptions
    held_out: dict[str, Any]
    last: dict[str, float | None]
    scores: list[ValidationScore]

    @property
    def hours(self) -> float | None:
        """Training time, as far as anything tells it."""
        known = [score.hours for score in self.scores]
        if self.last["hours"] is not None:
            known.append(self.last["hours"])
        return max(known, default=None)


def compare_runs(folders: Sequence[str | Path]) -> Comparison:
    """Put training runs side by side.

    Raises
    ------
    OptionError
        When there is no folder, or one is given twice.
    VolumeNotFoundError
        When a folder holds no training run.
    FloodemError
        When the record of a run is damaged.
    """
    if not folders:
        raise OptionError("there is nothing to compare: name folders of training runs")
    places = [Path(folder).resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise OptionError(f"run {folders[number]} is named twice: name each run once")
    records = [_read(folder) for folder in folders]
    hours = [r.hours for r in records if r.scores and r.hours is not None]
    equal = min(hours, default=None)
    runs = [_summary(record, equal_hours=equal) for record in records]
    return Comparison(
        runs=tuple(sorted(runs, key=_rank)), equal_hours=equal, notices=tuple(_notices(runs))
    )


def _rank(run: RunSummary) -> tuple[bool, float, float]:
    if run.best is None:
        return (True, 0.0, 0.0)
    return (False, run.best.cost, run.best.hours)


def _read(given: str | Path) -> _Record:
    folder = TrainingFolder(Path(given))
    if not folder.has_run():
        what = "holds no training run" if folder.path.is_dir() else "is no folder"
        raise VolumeNotFoundError(
            f"{given} {what}: give the folder of a run of `floodem train`, which holds run.json"
        )
    history = read_metrics(folder.path)
    names = ("hours", "examples_seen", "fields_per_s")
    last = {name: history.last(name) for name in names}
    steps = history.steps()
    last["step"] = float(steps[-1]) if len(steps) else None
    rows = read_validations(folder.path)
    about = folder.read_run()
    return _Record(
        folder=str(given),
        status=str(about.get("status", "unknown")),
        options=make_options(folder.configuration(), source=f"{given}/config.toml"),
        held_out=about.get("held_out") or {},
        last=last,
        scores=sorted(
            (row for row in rows if isinstance(row, ValidationScore)),
            key=lambda score: (score.hours, score.step),
        ),
    )


def _summary(record: _Record, *, equal_hours: float | None) -> RunSummary:
    network, wanted, last = record.options.network, record.options.validation, record.last
    in_time = [s for s in record.scores if equal_hours is not None and s.hours <= equal_hours]
    step = last["step"]
    return RunSummary(
        folder=record.folder,
        status=record.status,
        step=None if step is None else int(step),
        hours=record.hours,
        examples=last["examples_seen"],
        fields_per_second=last["fields_per_s"],
        network=network.name,
        arguments=dict(network.arguments),
        fov=network.fov,
        flop_per_call=flop_per_call(network),
        held_out=f"{wanted.image}, {wanted.labels}, "
        f"box {record.held_out.get('scored') or wanted.box or 'whole'}",
        objects=record.held_out.get("objects"),
        one_segment_error=record.held_out.get("one_segment_error"),
        best=best_score(record.scores),
        latest=record.scores[-1] if record.scores else None,
        within_equal_time=best_score(in_time),
    )


def _notices(runs: Sequence[RunSummary]) -> list[str]:
    notices = []
    scored = [run for run in runs if run.best is not None]
    if len({run.held_out for run in scored}) > 1:
        notices.append(
            "the runs were validated on different data, so that their scores do not compare: "
            + "; ".join(f"{run.folder} on {run.held_out}" for run in scored)
        )
    notices += [
        f"{run.folder} was never better than one segment over everything, which has an adapted "
        f"Rand error of {run.one_segment_error:.4f}"
        for run in scored
        if run.best is not None
        and run.one_segment_error is not None
        and run.best.cost >= run.one_segment_error
    ]
    notices += [f"{run.folder} has no validation score" for run in runs if run.best is None]
    return notices


def flop_per_call(network: NetworkOptions) -> int | None:
    """Count the operations of one field of view forward; None for a network not installed here.

    Nothing is computed: shapes alone go through the network.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from floodem.network.conv_stack import INPUT_CHANNELS
    from floodem.network.registry import build_network

    try:
        with torch.device("meta"):
            module = build_network(network.name, network.arguments)
    except ModelError:
        return None
    inputs_bczyx = torch.empty((1, INPUT_CHANNELS, *network.fov), device="meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(inputs_bczyx)
    return int(counter.get_total_flops())
