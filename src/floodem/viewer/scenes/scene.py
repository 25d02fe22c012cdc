"""A scene on disk: a folder in, what it shows out.

OUT/index.html                where a browser begins
OUT/scene.json                title, layers and the viewer's state; written last
OUT/README.txt                how to open it, and what is in it
OUT/NAME/                     an image or segmentation, precomputed with its coarser levels
OUT/NAME/mesh/                meshes of a segmentation
OUT/NAME/skeletons/           its skeletons
OUT/NAME/segment_properties/  names and sizes of its objects
OUT/v/scene/                  the viewer that a browser loads

Everything is named relative to OUT: the folder may be moved, copied and served
from any address.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import UsageError, VolumeFormatError, VolumeNotFoundError
from floodem.viewer.layers import Kind
from floodem.viewer.scenes.checking import (
    PRECOMPUTED,
    check_info,
    check_state,
    read_json,
    require_inside,
)

SCENE_VERSION = 1
SCENE_FILE = "scene.json"
VERSION_KEY = "floodem_scene"
CLIENT = "v/scene"
"""The viewer takes the folder behind ``v`` for its token, and wants to lie there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A complete scene.

    Attributes
    ----------
    folder
        Where it lies.
    title
        What stands on the page.
    layers
        Kind of each volume by name; the name is also that of its folder.
    state
        What the viewer shows, as Neuroglancer's JSON with sources relative to the folder.
    has_client
        Whether a browser needs nothing but a web server to open it.
    summary
        What else scene.json says: numbers of objects, scores.
    """

    folder: Path
    title: str
    layers: Mapping[str, Kind]
    state: Mapping[str, Any]
    has_client: bool
    summary: Mapping[str, Any]

    def state_at(self, address: str) -> dict[str, Any]:
        """Return the state with absolute sources.

        Parameters
        ----------
        address
            Where the folder is served: ``http://127.0.0.1:8080/f/TOKEN``.
        """
        state = copy.deepcopy(dict(self.state))
        for layer in state["layers"]:
            layer["source"] = _absolute(layer["source"], address.rstrip("/"))
        return state


def open_scene(folder: str | Path) -> Scene:
    """Open a scene that `make_scene` made, checking that it stays within its folder.

    Raises
    ------
    VolumeNotFoundError
        When there is no scene.
    VolumeFormatError
        When it is of another version, damaged or incomplete.
    UnsafeFileError
        When something in it leads out of the folder.
    StorageError
        When the file system refuses.
    """
    folder = Path(folder)
    path = folder / SCENE_FILE
    if not path.is_file():
        raise VolumeNotFoundError(
            f"{folder} holds no {SCENE_FILE}: it is no scene, or its making was stopped (the same "
            "floodem scene command goes on)"
        )
    values = read_json(path)
    if values.get(VERSION_KEY) != SCENE_VERSION:
        raise VolumeFormatError(
            f"{path} is of version {values.get(VERSION_KEY)!r}, this floodem reads {SCENE_VERSION}"
            ": make the scene again, or take the floodem that made it"
        )
    state, title = values.get("state"), values.get("title")
    sources = check_state(state, where=str(path))
    assert isinstance(state, dict)
    infos = {
        source: check_info(require_inside(folder, source, where=str(path))) for source in sources
    }
    return Scene(
        folder=folder,
        title=title if isinstance(title, str) else folder.name,
        layers={name: _kind(info) for name, info in infos.items()},
        state=state,
        has_client=(folder / CLIENT / "index.html").is_file(),
        summary={key: value for key, value in values.items() if key not in _KNOWN},
    )


_KNOWN = (VERSION_KEY, "title", "state")


def is_scene(folder: str | Path) -> bool:
    """Tell whether a folder is a scene, be it damaged."""
    return (Path(folder) / SCENE_FILE).is_file()


def _kind(info: Mapping[str, Any]) -> Kind:
    return Kind.SEGMENTATION if info.get("type") == "segmentation" else Kind.IMAGE


def _absolute(source: Any, address: str) -> Any:
    if isinstance(source, list):
        return [_absolute(one, address) for one in source]
    if isinstance(source, dict):
        return source | {"url": _absolute(source["url"], address)}
    if not source.startswith(PRECOMPUTED):
        return source
    if "://" not in address:
        raise UsageError(f"{address!r} is no web address: give http://HOST:PORT/PATH")
    return f"{PRECOMPUTED}{address}/{source.removeprefix(PRECOMPUTED)}"
