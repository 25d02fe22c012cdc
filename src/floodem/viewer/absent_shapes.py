"""Objects without a shape of their own: names that a folder lacks come in, empty shapes go out.

Not every object has a skeleton: small ones get none, and folders are often made of a few
objects only. The client takes a missing one for an error, and waits for it for ever
before it says that a picture is complete.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from floodem.files import storage_error
from floodem.shapes.precomputed import LegacyMeshInfo, MeshInfo, SkeletonInfo, read_info
from floodem.shapes.precomputed.manifest import Manifest, ManifestLevel

AbsentFile = Callable[[str], bytes | None]
"""Gives what a file that is not there would hold, None where it should not be there."""

_ID = r"\d{1,20}"

_MOST_FILES = 200_000
"""Listed within a second."""

NO_SKELETON = bytes(8)
"""Of no points and no edges (Neuroglancer's precomputed format, "Skeletons")."""


def _no_mesh() -> bytes:
    """Return a manifest of one level with one cell, which is empty."""
    level = ManifestLevel(
        scale_nm=1.0, cells_xyz=np.zeros((1, 3), np.uint32), sizes=np.zeros(1, np.uint32)
    )
    return Manifest(
        cell_edges_xyz_nm=(1.0, 1.0, 1.0), grid_origin_xyz_nm=(0.0, 0.0, 0.0), levels=(level,)
    ).to_bytes()


def empty_shapes(folder: Path) -> AbsentFile | None:
    """Return what gives an empty shape for every id that a folder of shapes lacks.

    Returns
    -------
    absent
        None where shapes share files, so that nobody asks for those of single ids.

    Raises
    ------
    VolumeFormatError, VolumeNotFoundError
        When the folder's info is damaged or missing.
    """
    info = read_info(folder)
    pattern, content = _of_single_ids(info)
    if pattern is None:
        return None
    return lambda name: content if re.fullmatch(pattern, name, re.ASCII) else None


def empty_shapes_below(root: Path) -> AbsentFile:
    """Return the same for the volumes in a folder, by the paths ``VOLUME/SHAPES/NAME``.

    Raises
    ------
    VolumeFormatError
        When the info of a folder of shapes is damaged.
    """
    found = {
        f"{volume.name}/{kind}": empty_shapes(volume / kind)
        for volume in root.iterdir()
        for kind in ("mesh", "skeletons")
        if (volume / kind / "info").is_file()
    }

    def absent(path: str) -> bytes | None:
        folder, _, name = path.rpartition("/")
        give = found.get(folder)
        return None if give is None else give(name)

    return absent


def ids_with_mesh(folder: Path) -> frozenset[int] | None:
    """Return the ids that have a mesh in a folder, or None where that takes long to tell.

    Raises
    ------
    VolumeFormatError, VolumeNotFoundError
        When the folder's info is damaged or missing.
    StorageError
        When the folder cannot be listed.
    """
    pattern, _ = _of_single_ids(read_info(folder))
    if pattern is None:
        return None
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _MOST_FILES + 1)]
    except OSError as error:
        raise storage_error("list", folder, error) from error
    if len(names) > _MOST_FILES:
        return None
    found = (name for name in names if re.fullmatch(pattern, name, re.ASCII))
    return frozenset(int(re.split("[.:]", name)[0]) for name in found)


def _of_single_ids(
    info: MeshInfo | LegacyMeshInfo | SkeletonInfo,
) -> tuple[str | None, bytes]:
    if isinstance(info, LegacyMeshInfo):
        return f"{_ID}:0", json.dumps({"fragments": []}).encode()
    if info.sharding is not None:
        return None, b""
    if isinstance(info, SkeletonInfo):
        return _ID, NO_SKELETON
    return rf"{_ID}\.index", _no_mesh()
