"""What a client can open below a folder: a folder comes in, addresses to paste go out.

Names and a few small metadata files are looked at, no voxels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from floodem.errors import FloodemError
from floodem.viewer.serving.folders import segments_of
from floodem.volumes.chunked.layouts import LAYOUTS
from floodem.volumes.chunked.layouts.folder import Folder, local_folder

DEEPEST = 3
"""Folders below which nothing is looked for: DIR/experiment/volume/meshes."""

MOST_FOLDERS = 1000
"""A folder of chunks may hold millions of others."""

_SCHEMES = {"zarr": "zarr", "zarr3": "zarr3", "n5": "n5", "precomputed": "precomputed"}
"""Floodem's names of formats, and what Neuroglancer puts in front of an address."""

_NO_VOLUMES = {
    "neuroglancer_multilod_draco": "meshes",
    "neuroglancer_legacy_mesh": "meshes",
    "neuroglancer_skeletons": "skeletons",
    "neuroglancer_annotations_v1": "annotations",
}
"""``@type`` of precomputed folders that are no volumes; segment properties go with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A folder that a client can open.

    Attributes
    ----------
    path
        Below the folder that was looked through, with slashes; empty for that folder itself.
    scheme
        What the client puts in front of the address: ``precomputed``, ``zarr``, ``n5``.
    what
        "volume", "meshes", "skeletons" or "annotations".
    """

    path: str
    scheme: str
    what: str

    def address(self, base: str) -> str:
        """Return the line to paste, where the folder is served at `base`."""
        return f"{self.scheme}://{base}/{quote(self.path)}".rstrip("/")


def find_sources(folder: Path) -> list[Found]:
    """List what a client can open below a folder, in the order of names.

    At most `MOST_FOLDERS` folders are looked at, `DEEPEST` levels down; links are not followed,
    and what is found is not looked into.
    """
    return list(filter(None, (found for _, found in islice(_walk(folder, ""), MOST_FOLDERS))))


def _walk(folder: Path, path: str) -> Iterator[tuple[str, Found | None]]:
    found = look_at(folder, path=path)
    yield path, found
    if found is not None or path.count("/") + bool(path) >= DEEPEST:
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in islice(entries, MOST_FOLDERS)
                if entry.is_dir(follow_symlinks=False) and segments_of(entry.name)
            )
    except OSError:
        return
    for name in names:
        yield from _walk(folder / name, f"{path}/{name}" if path else name)


def look_at(folder: Path, *, path: str = "") -> Found | None:
    """Tell what a folder is to a client, or None where it is nothing that can be opened."""
    place = local_folder(folder)
    what = _NO_VOLUMES.get(str((place.json("info") or {}).get("@type")))
    if what is not None:
        return Found(path=path, scheme="precomputed", what=what)
    scheme = next((_SCHEMES[name] for name in LAYOUTS if _is_volume(place, name)), None)
    return None if scheme is None else Found(path=path, scheme=scheme, what="volume")


def _is_volume(place: Folder, name: str) -> bool:
    layout = LAYOUTS[name]
    try:
        return layout.is_array(place) or layout.pyramid(place, uri=place.path) is not None
    except (FloodemError, OSError):
        return False
