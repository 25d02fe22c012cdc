"""A first project file: addresses of an image and of what belongs to it in, a commented text out.

What the image says and what `floodem doctor` proposes is filled in, each with its reason;
everything else stands there as a comment, with its default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError, OptionError
from floodem.files import making_folders, write_new
from floodem.network.named import named_model
from floodem.project.pipeline.addresses import looks_like_path, resolved
from floodem.project.pipeline.agglomerating import AgglomerateTable
from floodem.project.pipeline.configuration import FORMAT_VERSION
from floodem.project.pipeline.tables import (
    ClusterTable,
    EvaluateTable,
    ImageTable,
    MeshTable,
    ProjectTable,
    SceneTable,
    SegmentTable,
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
# Scores of what a network has learned from say little: hold some of it out.
max_steps = 1000000
"""


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
    reasons: list[str] = []
    values = _found(image, truth=truth, reasons=reasons)
    tables = [
        _HEAD.format(name=path.name, version=FORMAT_VERSION),
        _table("project", ProjectTable, {}),
        _table("image", ImageTable, {"source": _from(path, image), **values}),
    ]
    if truth is not None:
        tables.append(f"[labels]\nsource = {json.dumps(_from(path, truth))}\n")
    tables += _network(path, truth=truth, model=model, reasons=reasons)
    has_network = model is not None or truth is not None
    proposed = _proposed(image, model=model, reasons=reasons)
    tables += [
        _table("segment", SegmentTable, proposed, is_off=not has_network),
        _table("agglomerate", AgglomerateTable, {}, is_off=True),
        _table("evaluate", EvaluateTable, {}, is_off=truth is None or not has_network),
        _table("mesh", MeshTable, {}, is_off=not has_network),
        _table("scene", SceneTable, {}, is_off=not has_network),
        _table("cluster", ClusterTable, {}, is_off=True),
    ]
    with making_folders(path.parent):
        if not write_new(path, "\n".join(tables).encode()):
            raise OptionError(f"{path} is there already: remove it, or give another name")
    return WrittenProject(path=path, reasons=tuple(reasons))


def _found(image: str, *, truth: str | None, reasons: list[str]) -> dict[str, Any]:
    """Return what is missing in the image's file and must be said in the project's."""
    with open_volume(image) as volume:
        stated = volume.voxel_size
    if truth is not None:
        with open_volume(truth) as volume:
            stated = stated or volume.voxel_size
            if volume.dtype.kind not in "ui":
                raise OptionError(f"{truth} holds {volume.dtype}, not labels: give true labels")
    if stated is None:
        reasons.append(
            f"{image} does not state its voxel size: write voxel_size = [z, y, x] (nm) below "
            "[image], since meshes and thresholds need it"
        )
    return {}


def _network(
    path: Path, *, truth: str | None, model: str | None, reasons: list[str]
) -> Iterator[str]:
    if model is None:
        if truth is not None:
            yield _TRAINED
            return
        yield '# [model]\n# name = "fib25"   # or file = "model.safetensors"\n'
        reasons.append(
            "there is no network yet: fill in [model], or add [labels] and [train], then take "
            "the signs off the tables behind it"
        )
        return
    if looks_like_path(model) or Path(model).is_file():
        yield f"[model]\nfile = {json.dumps(_from(path, model))}\n"
        return
    if named_model(model) is None:
        raise OptionError(f"no network is called {model!r} here: `floodem models` lists them")
    yield f"[model]\nname = {json.dumps(model)}\n"


def _proposed(image: str, *, model: str | None, reasons: list[str]) -> dict[str, Any]:
    """Return what the doctor proposes for the segmentation, where it can."""
    try:
        from floodem.project.doctor import examine
    except ImportError:
        return {}
    known = {one.name for one in fields(SegmentTable)}
    try:
        found = examine(image, model=model)
    except FloodemError as error:
        reasons.append(f"nothing is proposed: {error}")
        return {}
    proposed = {}
    for one in found.proposals:
        name = str(one.option).removeprefix("--").replace("-", "_")
        if name in known and name not in ("dtype", "device"):
            proposed[name] = to_plain(one.value)
            reasons.append(f"segment.{name} = {_toml(proposed[name])}: {one.reason}")
    return proposed


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


def _table(name: str, cls: type, values: Mapping[str, Any], *, is_off: bool = False) -> str:
    """Write a table: what is said, then every other key as a comment with its default."""
    lines = [f"[{name}]"]
    lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
    for one in fields(cls):
        if key_of(one) in values:
            continue
        default = None if one.default is MISSING else to_plain(one.default)
        said = one.metadata.get("help", "")
        shown = "" if default is None else f" = {_toml(default)}"
        lines.append(f"# {key_of(one)}{shown}    # {said}" if shown else f"# {key_of(one)}: {said}")
    return "".join(f"# {line}\n" if is_off else f"{line}\n" for line in lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return str(value)
