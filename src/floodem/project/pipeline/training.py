"""The stage that trains a network: image, labels and options in, one model file out.

The run lies in ``training`` in the project's folder; the weights that go on are copied to
``model.safetensors``, so that a longer run changes nothing until it has ended.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from floodem.files import replacing, storage_error
from floodem.project.pipeline.configuration import TRAIN, Project
from floodem.project.pipeline.digests import file_digest
from floodem.project.pipeline.preparing import (
    image_inputs,
    image_uri,
    truth_inputs,
    truth_uri,
    volume_mark,
)
from floodem.project.pipeline.stage import Output, Stage, Work
from floodem.project.pipeline.tables import BEST
from floodem.training.configuration.making import CHANGEABLE, flatten, make_options
from floodem.training.configuration.tables import to_plain
from floodem.volumes.source import VolumeSource

MODEL_NAME, RUN_NAME = "model.safetensors", "training"

_NOT_DECIDING = frozenset(
    {
        *("run", "checkpoint_minutes", "keep_checkpoints", "log_steps", "picture_minutes"),
        *("threads", "device", "compile", "validation.threads", "validation.device"),
    }
)
"""How and where a run is made, not what it learns."""

_LONGER = frozenset({"max_steps", "max_hours"})
"""A run that ended goes on when these grow, and begins again when they shrink."""

_VOLUMES = ("image", "labels", "loss_mask")
_ENTRY = re.compile(r"\[\d+\]", re.ASCII)


def train_stage(project: Project) -> Stage:
    """Return the stage that trains."""
    table = project.train
    if table is None:
        why = "a network is given" if project.model is not None else "no [train]"
        return Stage(name=TRAIN, table=TRAIN, skipped=why)
    needs, files = _inputs(project)
    options = {
        f"{TRAIN}.{name}": value
        for name, value in flatten(to_plain(table.options)).items()
        if _ENTRY.sub("", name) not in _NOT_DECIDING
    }
    return Stage(
        name=TRAIN,
        table=TRAIN,
        options=options | {f"{TRAIN}.use": table.use},
        files=files,
        needs=needs,
        outputs=(Output(name=MODEL_NAME, kind="model"),),
        traces=(RUN_NAME,),
        make=_train,
        goes_on=_goes_on,
    )


def _inputs(project: Project) -> tuple[tuple[str, ...], dict[str, Callable[[], Any]]]:
    assert project.train is not None
    options = project.train.options
    needs: tuple[str, ...] = ()
    files: dict[str, Callable[[], Any]] = {}
    if not options.volumes:
        needs, files = image_inputs(project)
        more, labels = truth_inputs(project)
        needs, files = (*needs, *more), files | labels
    named = [getattr(volume, name) for volume in options.volumes for name in _VOLUMES]
    for address in (*named, options.validation.image, options.validation.labels):
        if address:
            files[address] = volume_mark(VolumeSource(uri=project.resolved(address)))
    for file in (options.network.init, options.sampling.coordinates):
        if file is not None:
            files[file] = _file_mark(Path(project.resolved(file)))
    return needs, files


def _file_mark(path: Path) -> Callable[[], Any]:
    return lambda: file_digest(path)


def _goes_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether only such things differ as a run may change while it goes on."""
    for key in {*before, *now}:
        old, new = before.get(key), now.get(key)
        name = _ENTRY.sub("", key.removeprefix(f"{TRAIN}."))
        if old == new or name == "use":
            continue
        if name not in CHANGEABLE:
            return False
        if name in _LONGER and (old is None or (new is not None and new < old)):
            return False
    return True


def training_values(project: Project) -> dict[str, Any]:
    """Return the complete configuration of the run, with addresses that mean the same anywhere."""
    assert project.train is not None
    values = _resolved(dict(project.train.values), project)
    values["run"] = str(project.folder / RUN_NAME)
    if not values.get("volume"):
        values["volume"] = [{"image": image_uri(project), "labels": truth_uri(project)}]
    return values


def _resolved(values: dict[str, Any], project: Project) -> dict[str, Any]:
    found = dict(values)
    found["volume"] = [_with_places(one, _VOLUMES, project) for one in values.get("volume", ())]
    for table, names in (
        ("validation", ("image", "labels")),
        ("network", ("init",)),
        ("sampling", ("coordinates",)),
    ):
        if table in values:
            found[table] = _with_places(values[table], names, project)
    return found


def _with_places(
    table: Mapping[str, Any], names: tuple[str, ...], project: Project
) -> dict[str, Any]:
    places = {name: project.resolved(table[name]) for name in names if table.get(name)}
    return {**table, **places}


def _train(work: Work) -> Mapping[str, Any]:
    from floodem.training.runs.trainer import train

    project = work.project
    assert project.train is not None
    options = make_options(training_values(project), source=project.place(TRAIN))
    made = train(
        options,
        overwrite=work.overwrite,
        progress=work.progress,
        notice=work.notice,
        should_stop=work.should_stop,
    )
    is_best = project.train.use == BEST and made.best is not None
    chosen = made.best if is_best and made.best is not None else made.latest
    target = work.path(MODEL_NAME)
    try:
        with replacing(target) as partial:
            shutil.copyfile(chosen, partial)
    except OSError as error:
        raise storage_error("copy", chosen, error) from error
    numbers: dict[str, Any] = {"step": made.step}
    if made.best_score is not None:
        numbers["validation Rand"] = made.best_score.cost
    return numbers
