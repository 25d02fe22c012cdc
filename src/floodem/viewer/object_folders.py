"""Folders with objects' shapes: paths that a user gave in, the folders that the client reads out.

A folder may be one of meshes, skeletons or properties itself, hold such folders (as
``floodem mesh`` leaves them), or be a precomputed segmentation that names them.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from floodem.errors import (
    OptionError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.files import storage_error
from floodem.shapes.precomputed.folders import read_json

_One = TypeVar("_One")

_INFO = "info"
_MOST_BYTES = 64 * 2**20
"""Of a volume's info that is parsed: that of a large sharded volume has some thousand."""

_ENDS_BYTES = 64 * 2**10
"""Looked through at both ends of an info for its type: properties of a million objects are long."""

_TYPE = re.compile(rb'"@type"\s*:\s*"(neuroglancer_\w{1,40})"')


class Shape(enum.StrEnum):
    """What a folder says of objects, by the name of its usual place."""

    MESH = "mesh"
    SKELETON = "skeletons"
    PROPERTIES = "segment_properties"


_SHAPES = {
    "neuroglancer_multilod_draco": Shape.MESH,
    "neuroglancer_legacy_mesh": Shape.MESH,
    "neuroglancer_skeletons": Shape.SKELETON,
    "neuroglancer_segment_properties": Shape.PROPERTIES,
}
"""By the ``@type`` of an info (Neuroglancer's precomputed format)."""


@dataclass(frozen=True, slots=True)
class ShapeFolder:
    """A folder that the client reads as a source of its own."""

    path: Path
    shape: Shape


def find_shapes(folder: Path) -> list[ShapeFolder]:
    """Return what a folder given with ``--meshes`` or ``--skeletons`` holds.

    Raises
    ------
    VolumeNotFoundError
        When there is no such folder.
    VolumeFormatError
        When it holds neither meshes nor skeletons in Neuroglancer's format.
    UnsafeFileError
        When a folder that it names lies outside of it.
    """
    if not folder.is_dir():
        raise VolumeNotFoundError(f"there is no folder {folder}: check the path")
    found = _own(folder) or [
        one for shape in Shape for one in _own(folder / shape.value) if one.shape is shape
    ]
    if not found:
        found = shapes_of_volume(folder)
    if not any(one.shape is not Shape.PROPERTIES for one in found):
        raise VolumeFormatError(
            f"{folder} holds neither meshes nor skeletons that the viewer reads: make some with "
            "floodem mesh or floodem skeletonize"
        )
    return found


def shapes_of_volume(folder: Path) -> list[ShapeFolder]:
    """Return what a local precomputed segmentation names: meshes, skeletons, properties.

    Raises
    ------
    UnsafeFileError
        When one of them lies outside of the volume.
    VolumeFormatError
        When the volume's info is damaged.
    """
    if not (folder / _INFO).is_file():
        return []
    info = _read(folder / _INFO)
    found: list[ShapeFolder] = []
    for shape in Shape:
        name = info.get(shape.value)
        if isinstance(name, str) and name:
            found += [one for one in _own(_inside(folder, name)) if one.shape is shape]
    return found


def share_out(groups: Sequence[tuple[_One, ...]], *, among: int) -> list[tuple[_One, ...]]:
    """Give each of `among` segmentations its shapes: all to a single one, else a group to each.

    Raises
    ------
    OptionError
        When it cannot be told what belongs to what.
    """
    if among == 1:
        return [tuple(one for group in groups for one in group)]
    if len(groups) > among:
        raise OptionError(
            f"{len(groups)} folders of shapes are given for {among} segmentations: give one for "
            "each, in the same order"
        )
    return [*groups, *[()] * (among - len(groups))]


def _own(folder: Path) -> list[ShapeFolder]:
    """Return the folder itself where it is a source, and the properties that lie in it."""
    if not (folder / _INFO).is_file():
        return []
    shape = _SHAPES.get(_type_of(folder / _INFO))
    if shape is None:
        return []
    within = [] if shape is Shape.PROPERTIES else _own(folder / Shape.PROPERTIES.value)
    return [ShapeFolder(folder, shape), *within]


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise UnsafeFileError(
            f"{folder} names {name!r}, which lies outside of it: not opened; give that folder "
            "with --meshes if you trust it"
        )
    return path


def _type_of(path: Path) -> str:
    try:
        with open(path, "rb") as handle:
            ends = handle.read(_ENDS_BYTES)
            handle.seek(max(handle.tell(), path.stat().st_size - _ENDS_BYTES))
            ends += b"\n" + handle.read(_ENDS_BYTES)
    except OSError as error:
        raise storage_error("read", path, error) from error
    match = _TYPE.search(ends)
    return match[1].decode() if match else ""


def _read(path: Path) -> dict[str, Any]:
    values = read_json(path, max_bytes=_MOST_BYTES)
    return values if isinstance(values, dict) else {}
