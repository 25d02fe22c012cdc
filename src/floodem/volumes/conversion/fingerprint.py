"""Whether a source is still the same: an open volume in, a few comparable values out.

Local files are known by size and time of change, remote chunked stores by their
metadata, everything else by what it declares. A resumed conversion compares them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.location import Location, parse_location
from floodem.volumes.servers.transport import open_store
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Volume

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info")
"""What holds the description of a chunked store."""

_OURS = (".floodem", ".partial", ".converting", ".replaced")
"""Endings of what floodem puts beside volumes, perhaps into a folder that holds the source."""


def fingerprint(volume: Volume, *, most_files: int | None = None) -> dict[str, Any]:
    """Return what tells a volume from a changed one, as plain values.

    Parameters
    ----------
    most_files
        A local folder with more is known by its metadata alone, as a remote one; None
        looks at all.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    declared: dict[str, Any] = (
        {"recipe": volume.recipe} if isinstance(volume, DerivedVolume) else {}
    )
    declared |= {
        "box": str(volume.box),
        "dtype": volume.dtype.name,
        "voxel_size": None if volume.voxel_size is None else list(volume.voxel_size.zyx_nm),
    }
    try:
        location = parse_location(volume.uri)
    except FloodemError:
        return declared
    if location.is_remote:
        return declared | _remote(location)
    path = stored_path(location)
    with refusals("look at", volume.uri):
        if path.is_file():
            return declared | _file(path)
        if path.is_dir():
            return declared | _folder(path, most_files=most_files)
    return declared


def stored_path(location: Location) -> Path:
    """Return the local file or folder that holds the voxels of an address."""
    inner = location.local / (location.dataset or "").strip("/")
    return inner if inner.is_dir() else location.local


def _file(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}


def _folder(path: Path, *, most_files: int | None) -> dict[str, Any]:
    """Return a digest of the names, sizes and times of all files below a folder."""
    digest = hashlib.sha256()
    count = 0
    for name, stat in _walk(path, ""):
        if count == most_files:
            return {"metadata": _metadata(str(path), "")}
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="replace"))
        count += 1
    return {"files": count, "digest": digest.hexdigest()}


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.endswith(_OURS):
            continue
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/")
        else:
            yield name, entry.stat()


def _remote(location: Location) -> dict[str, Any]:
    if Path(location.path).suffix and location.format in {"hdf5", "tiff"}:
        return {}
    prefix = f"{location.dataset.strip('/')}/" if location.dataset else ""
    return {"metadata": _metadata(location.path, prefix)}


def _metadata(address: str, prefix: str) -> str:
    store = open_store(address)
    digest = hashlib.sha256()
    for name in _METADATA:
        digest.update(store.read(f"{prefix}{name}") or b"")
    return digest.hexdigest()
