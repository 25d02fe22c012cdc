"""A first project file: addresses of an image and of what belongs to it in, a commented text out.

What the image says and what `floodem doctor` proposes is filled in, each with its reason;
everything else stands there as a comment, with its default.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError, OptionError
from floodem.files import making_folders, write_new
from floodem.network.named import named_model
from floodem.progress import ProgressListener
from floodem.project.pipeline.addresses import looks_like_path, resolved
from floodem.project.pipeline.configuration import FORMAT_VERSION
from floodem.project.pipeline.flood_tables import AgglomerateTable, SegmentTable
from floodem.project.pipeline.tables import (
    ClusterTable,
    EvaluateTable,
    ImageTable,
    MeshTable,
    ProjectTable,
    SceneTable,
)
from floodem.training.configuration.tables import key_of, to_plain
from floodem.volumes import open_volume
from floodem.volumes.servers.addresses import is_remote

_HEAD = """\
# A floodem project: `floodem run {name}` makes all of it, and again what has become stale.
# Triples are z, y, x; lengths are nanometres; relative paths begin at this file's folder.
# A table that is missing is a stage that is not run. docs/projects.md explains.
version = {version}
"""
_TRAINED = """\
[train]
# As in `floodem train`: its keys and tables below this one (train.network, train.optimiser ...),
# or a file of them: file = "train.toml". Without volumes it learns from [image] and [labels].
# What a network has learned from tells little of its worth: hold some of it out.
max_steps = 1000000
"""
_NO_MODEL = """\
# [model]
# name = "fib25"    # or file = "model.safetensors"
"""
_WIDTH = 98
_VOXEL_SIZE = "voxel size"
"""What the doctor calls this finding."""

Proposals = dict[str, tuple[Any, str]]
"""Value and reason by dotted key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenProject:
    """A project file that was written, and sentences about what is in it."""

    path: Path
    reasons: tuple[str, ...] = ()


def write_project(
    path: Path | str,
    *,
    image: str,
    truth: str | None = None,
    model: str | None = None,
    progress: ProgressListener | None = None,
) -> WrittenProject:
    """Write a project file for an image.

    Parameters
    ----------
    path
        The file to write; there must be none.
    image, truth
        Addresses, relative ones from the present folder.
    model
        A model file, or the name of a network; None: it will be trained from `truth`.
    progress
        Told how far the look at the data is.

    Raises
    ------
    OptionError
        When a file is there already.
    FloodemError
        When image or truth cannot be opened, or there is no such model.
    """
    path = Path(path).absolute()
    if path.exists():
        raise OptionError(f"{path} is there already: remove it, or give another name")
    notes: list[str] = []
    _look(image, truth, notes)
    has_network = model is not None or truth is not None
    proposed = _proposed(image, truth=truth, model=model, notes=notes, progress=progress)
    source = (_from(path, image), "")
    tables = [
        _HEAD.format(name=path.name, version=FORMAT_VERSION),
        _table("project", ProjectTable, {}),
        _table("image", ImageTable, {"source": source}),
    ]
    if proposed.get("image.clahe", (False, ""))[0]:
        reason = _comment(proposed["image.clahe"][1])
        # A network that is there was trained on images as they are, or as its authors made them.
        sign = "" if model is None else "# "
        tables.append(f"{reason}{sign}[image.clahe]\n")
    if truth is not None:
        tables.append(f"[labels]\nsource = {_toml(_from(path, truth))}\n")
    tables.append(_network(path, proposed, truth=truth, model=model, notes=notes))
    for name, cls, is_off in (
        ("segment", SegmentTable, not has_network),
        ("agglomerate", AgglomerateTable, not has_network),
        ("evaluate", EvaluateTable, truth is None),
        ("mesh", MeshTable, not has_network),
        ("scene", SceneTable, not has_network),
        ("cluster", ClusterTable, True),
    ):
        tables.append(_table(name, cls, _below(proposed, name), is_off=is_off))
    with making_folders(path.parent):
        if not write_new(path, "\n".join(tables).encode()):
            raise OptionError(f"{path} is there already: remove it, or give another name")
    return WrittenProject(path=path, reasons=tuple(notes))


def _look(image: str, truth: str | None, notes: list[str]) -> None:
    """Open what the project is about, and note what its files do not say."""
    with open_volume(image) as volume:
        stated = volume.voxel_size
    if truth is not None:
        with open_volume(truth) as volume:
            if volume.dtype.kind not in "ui":
                raise OptionError(f"{truth} holds {volume.dtype}, not labels: give true labels")
    if stated is None:
        notes.append(
            f"{image} does not state its voxel size: write voxel_size = [z, y, x] (nm) below "
            "[image] (and [labels]), since meshes and agglomeration need it"
        )


def _network(
    path: Path, proposed: Proposals, *, truth: str | None, model: str | None, notes: list[str]
) -> str:
    if model is None:
        if truth is None:
            notes.append(
                "there is no network yet: fill in [model], or add [labels] and [train], then take "
                "the signs off the tables behind it"
            )
            return _NO_MODEL
        return "\n".join([_TRAINED, *_training_tables(proposed)])
    if looks_like_path(model) or Path(model).is_file():
        return f"[model]\nfile = {_toml(_from(path, model))}\n"
    if named_model(model) is None:
        raise OptionError(f"no network is called {model!r} here: `floodem models` lists them")
    return f"[model]\nname = {_toml(model)}\n"


def _training_tables(proposed: Proposals) -> Iterator[str]:
    for table in ("network", "sampling"):
        keys = _below(proposed, f"train.{table}")
        if keys:
            lines = [f"{_comment(why)}{key} = {_toml(one)}\n" for key, (one, why) in keys.items()]
            yield f"[train.{table}]\n{''.join(lines)}"


def _proposed(
    image: str,
    *,
    truth: str | None,
    model: str | None,
    notes: list[str],
    progress: ProgressListener | None,
) -> Proposals:
    """Return what the doctor proposes, and note what it warns of."""
    from floodem.project.doctor import Level, examine

    try:
        found = examine(image, labels=truth, model=model, machine=False, progress=progress)
    except FloodemError as error:
        notes.append(f"nothing is proposed: {error}")
        return {}
    notes += [
        f"{one.what}: {one.says}" + (f"; {one.advice}" if one.advice else "")
        for one in found.by_gravity()
        # A size that no file states is told of the image alone, by `_look`.
        if one.level in (Level.WARNING, Level.PROBLEM)
        and not (one.what == _VOXEL_SIZE and one.value is None)
    ]
    return {one.option: (one.value, one.reason) for one in found.proposals}


def _below(proposed: Proposals, table: str) -> Proposals:
    """Return the proposals of one table, by their keys there."""
    keys = {name.removeprefix(f"{table}."): one for name, one in proposed.items()}
    return {
        key: one for key, one in keys.items() if "." not in key and f"{table}.{key}" in proposed
    }


def _from(path: Path, address: str) -> str:
    """Return an address as it is written in a project file: relative where that is short."""
    if "://" in address and (is_remote(address) or is_remote(address.partition("://")[2])):
        return address
    prefix, sign, rest = address.partition("://")
    bare = rest if sign else address
    whole = resolved(bare, base=Path.cwd())
    try:
        near = os.path.relpath(whole, path.parent)
    except ValueError:  # on another drive
        near = whole
    shown = whole if near.startswith(os.path.join("..", "..")) else near
    return (f"{prefix}://" if sign else "") + shown.replace(os.sep, "/")


def _table(name: str, cls: type, proposed: Proposals, *, is_off: bool = False) -> str:
    """Write a table: what is proposed with its reason, and other keys as comments."""
    text = f"[{name}]\n"
    for one in fields(cls):
        key = key_of(one)
        default = None if one.default is MISSING else to_plain(one.default)
        value, reason = proposed.get(key, (default, ""))
        is_said = key in proposed and value != default
        said = reason if is_said else str(one.metadata.get("help", ""))
        shown = f"{key} = {_toml(value)}" if value is not None else f"{key} is left out"
        text += f"{_comment(said)}{'' if is_said else '# '}{shown}\n"
    lines = text.splitlines()
    return "".join(f"# {line}\n" if is_off else f"{line}\n" for line in lines)


def _comment(text: str) -> str:
    if not text:
        return ""
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name} = {_toml(one)}" for name, one in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return str(value)
