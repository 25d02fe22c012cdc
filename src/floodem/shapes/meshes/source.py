"""Whether a segmentation is still the same: an open volume in, comparable values out.

As `floodem.volumes.conversion.fingerprint`, except that the folder of a precomputed
volume may hold meshes and skeletons, whose coming and going says nothing about it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError
from floodem.files import storage_error
from floodem.shapes.precomputed.folders import INFO, MAX_INFO_BYTES, read_json
from floodem.volumes.conversion.fingerprint import fingerprint, stored_path
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Volume


def source_identity(volume: Volume) -> dict[str, Any]:
    """Return what tells a segmentation from a changed one, as JSON values.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    scales = _scale_folders(volume)
    if scales is None:
        return fingerprint(volume)
    digest = hashlib.sha256()
    for folder in scales:
        try:
            for line in _listed(folder):
                digest.update(line)
        except OSError as error:
            raise storage_error("look at", folder, error) from error
    size = volume.voxel_size
    return {
        "box": str(volume.box),
        "dtype": volume.dtype.name,
        "voxel_size": None if size is None else list(size.zyx_nm),
        "scales": digest.hexdigest(),
    }


def _scale_folders(volume: Volume) -> list[Path] | None:
    """Return the folders with the voxels of a local precomputed volume; None for others."""
    try:
        location = parse_location(volume.uri)
        if location.is_remote:
            return None
        root = stored_path(location)
        values = read_json(root / INFO, max_bytes=MAX_INFO_BYTES)
        return [root / str(scale["key"]) for scale in values["scales"]]
    except (FloodemError, KeyError, TypeError):
        return None


def _listed(folder: Path) -> Iterator[bytes]:
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda one: one.name):
            stat = entry.stat()
            yield f"{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="replace")
