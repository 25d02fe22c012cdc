"""Whether a scene's files may be believed: JSON text in, checked plain values out.

A scene may come from anywhere. Nothing in it may lead out of its folder: sources
are names below it, no address stands anywhere else, and sizes are bounded before
anything is parsed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import UnsafeFileError, VolumeFormatError
from floodem.files import storage_error

MOST_BYTES = 64 * 2**20
"""Of scene.json and of an info: names and annotations, no voxels."""

PRECOMPUTED = "precomputed://"
LOCAL_SOURCES = frozenset({"local://annotations", "local://equivalences"})
"""Sources that are in the state itself."""

_MOST_LAYERS = 1000
_DEEPEST = 64
_RELATIVE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_TEXTS = frozenset({"title", "name", "description"})
"""Keys of what is only shown, and may hold any letters."""

_INFO_FOLDERS = ("mesh", "skeletons", "segment_properties")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises
    ------
    VolumeFormatError
        When it is no JSON object.
    UnsafeFileError
        When it is absurdly large.
    StorageError
        When the file system refuses.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UnsafeFileError(f"{path} is larger than any description of a scene: not opened")
        values = json.loads(path.read_bytes())
    except UnsafeFileError:
        raise
    except OSError as error:
        raise storage_error("read", path, error) from error
    except (ValueError, RecursionError) as error:
        raise VolumeFormatError(
            f"{path} is no JSON text: check the path, or write it again"
        ) from error
    if not isinstance(values, dict):
        raise VolumeFormatError(f"{path} holds no JSON object: check the path, or write it again")
    return values


def require_relative(text: object, *, where: str) -> str:
    """Return the name of something below a folder.

    Raises
    ------
    UnsafeFileError
        When it is no relative path of plain names: with ``..``, a drive, a scheme or a link
        target it would lead elsewhere.
    """
    if not isinstance(text, str) or _RELATIVE.fullmatch(text) is None or ".." in text:
        raise UnsafeFileError(
            f"{where} names {_short(text)}, which is no folder below the scene: not opened"
        )
    return text


def require_inside(folder: Path, relative: str, *, where: str) -> Path:
    """Return the folder of that name, which must be there, not reached through a link outside.

    Raises
    ------
    UnsafeFileError
        When a link leads out of `folder`.
    VolumeFormatError
        When it is missing.
    """
    path = folder / relative
    if not path.is_dir():
        raise VolumeFormatError(f"{where} names {relative}, which is not there: make it again")
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise UnsafeFileError(f"{path} is a link that leaves the scene: not opened")
    return path


def check_state(state: object, *, where: str) -> list[str]:
    """Check a viewer's state with relative sources; return these, without ``precomputed://``.

    Raises
    ------
    VolumeFormatError
        When it has no layers with names, types and sources.
    UnsafeFileError
        When it points anywhere but below the scene.
    """
    layers = state.get("layers") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise VolumeFormatError(f"{where} holds no state with layers: make the scene again")
    sources: list[str] = []
    for layer in layers:
        if not (
            isinstance(layer, dict)
            and isinstance(layer.get("name"), str)
            and isinstance(layer.get("type"), str)
        ):
            raise VolumeFormatError(f"{where} holds a layer without name or type: make it again")
        for url in source_urls(layer.get("source"), where=where):
            if url in LOCAL_SOURCES:
                continue
            if not url.startswith(PRECOMPUTED):
                raise UnsafeFileError(
                    f"{where} names the source {_short(url)}, which is not in it: not opened"
                )
            sources.append(require_relative(url.removeprefix(PRECOMPUTED), where=where))
    rest = {key: value for key, value in state.items() if key != "layers"}
    others = [{key: value for key, value in layer.items() if key != "source"} for layer in layers]
    _require_no_addresses([rest, *others], where=where)
    return sources


def source_urls(source: object, *, where: str) -> Iterator[str]:
    """Yield the addresses of a layer's source: a text, an object with a url, or several."""
    for one in source if isinstance(source, list) else [source]:
        url = one.get("url") if isinstance(one, dict) else one
        if not isinstance(url, str):
            raise VolumeFormatError(f"{where} holds a layer without a source: make it again")
        yield url


def check_info(folder: Path) -> dict[str, Any]:
    """Check what a volume of a scene says about itself: scales and shapes below it.

    Raises
    ------
    VolumeFormatError, UnsafeFileError
        As for `check_state`.
    """
    path = folder / "info"
    info = read_json(path)
    scales = info.get("scales")
    if not isinstance(scales, list) or not all(isinstance(scale, dict) for scale in scales):
        raise VolumeFormatError(f"{path} lists no scales: make the scene again")
    for scale in scales:
        require_relative(scale.get("key"), where=str(path))
    for key in _INFO_FOLDERS:
        if key in info:
            name = require_relative(info[key], where=str(path))
            require_inside(folder, name, where=str(path))
    return info


def _require_no_addresses(value: object, *, where: str, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise UnsafeFileError(f"{where} is nested deeper than any state: not opened")
    if isinstance(value, str) and "://" in value:
        raise UnsafeFileError(f"{where} holds the address {_short(value)}: not opened")
    if isinstance(value, list):
        for one in value:
            _require_no_addresses(one, where=where, depth=depth + 1)
    if isinstance(value, Mapping):
        for key, one in value.items():
            if not (key in _TEXTS and isinstance(one, str)):
                _require_no_addresses(one, where=where, depth=depth + 1)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
