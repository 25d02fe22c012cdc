"""Folders of meshes and skeletons on a local disk: infos, objects, and links between them.

Encoded objects come in; files that Neuroglancer and CloudVolume read go out, each
whole or not at all. Shards are written by `floodem.shapes.precomputed.shards`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from floodem.errors import LabelError, OptionError, VolumeFormatError, VolumeNotFoundError
from floodem.files import replacing, storage_error, write_text
from floodem.shapes.meshes.mesh import Mesh
from floodem.shapes.precomputed.infos import Info, info_from_json
from floodem.shapes.precomputed.legacy import encode_legacy_fragment
from floodem.shapes.precomputed.multiresolution import EncodedMesh
from floodem.shapes.precomputed.shards import MAX_ID
from floodem.volumes.damage import damaged

INFO = "info"

MAX_INFO_BYTES = 16 * 2**20
"""An info is a page of text; the largest have many scales, none a million numbers."""


def write_info(folder: Path, info: Info) -> None:
    """Write the info of a folder of meshes or skeletons, whole or not at all.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    write_json(folder / INFO, info.to_json())


def read_info(folder: Path) -> Info:
    """Read the info of a folder of meshes or skeletons.

    Raises
    ------
    VolumeNotFoundError
        When the folder has no info.
    VolumeFormatError
        When it is damaged, or the info of something else.
    """
    path = folder / INFO
    return info_from_json(read_json(path, max_bytes=MAX_INFO_BYTES), uri=path)


def write_mesh(folder: Path, object_id: int, encoded: EncodedMesh) -> None:
    """Write a multi-resolution mesh as two files, ``ID`` and ``ID.index``.

    The manifest comes last: where it is, the fragments are.

    Raises
    ------
    LabelError
        When the id does not fit into 64 bits.
    StorageError
        When the file system refuses.
    """
    name = object_name(object_id)
    write_bytes(folder / name, encoded.fragments)
    write_bytes(folder / f"{name}.index", encoded.manifest)


def write_legacy_mesh(folder: Path, object_id: int, mesh: Mesh) -> None:
    """Write a single-resolution mesh as two files, ``ID`` and ``ID:0``.

    Raises
    ------
    LabelError
        When the id does not fit into 64 bits.
    OptionError
        On Windows, where no file name has a colon.
    StorageError
        When the file system refuses.
    """
    if sys.platform == "win32":
        raise OptionError(
            "the older mesh format names files ID:0, which Windows cannot: "
            "write multi-resolution meshes"
        )
    name = object_name(object_id)
    write_bytes(folder / name, encode_legacy_fragment(mesh))
    write_json(folder / f"{name}:0", {"fragments": [name]})


def object_name(object_id: int) -> str:
    """Return the name of an object's file.

    Raises
    ------
    LabelError
        When the id does not fit into 64 bits.
    """
    if not 0 <= object_id <= MAX_ID:
        raise LabelError(f"id {object_id} does not fit into 64 bits: relabel the segmentation")
    return str(int(object_id))


def link_to_segmentation(
    segmentation: Path,
    *,
    mesh: str | None = None,
    skeletons: str | None = None,
    segment_properties: str | None = None,
) -> None:
    """Say in a precomputed segmentation's info where its shapes are.

    What stands in the info otherwise is kept, in its order.

    Parameters
    ----------
    segmentation
        Folder of a precomputed volume of labels.
    mesh, skeletons, segment_properties
        Folders inside `segmentation`, relative to it, with ``/``. None: left as it is.

    Raises
    ------
    OptionError
        When a folder is not inside.
    VolumeNotFoundError
        When there is no info.
    VolumeFormatError
        When it is damaged, or not that of a precomputed segmentation.
    StorageError
        When the file system refuses.
    """
    links = {"mesh": mesh, "skeletons": skeletons, "segment_properties": segment_properties}
    wanted = {key: _inside(link) for key, link in links.items() if link is not None}
    path = segmentation / INFO
    info = read_json(path, max_bytes=MAX_INFO_BYTES)
    if not isinstance(info, dict) or info.get("type") != "segmentation" or "scales" not in info:
        raise VolumeFormatError(
            f"{path} is not the info of a precomputed segmentation: link shapes to a volume of "
            "labels (floodem convert writes one)"
        )
    if any(info.get(key) != link for key, link in wanted.items()):
        write_json(path, info | wanted)


def _inside(link: str) -> str:
    parts = PurePosixPath(link).parts
    if not parts or link.startswith("/") or ".." in parts or "\\" in link or ":" in link:
        raise OptionError(
            f"{link!r} is not a folder inside the segmentation: give a relative path such as mesh"
        )
    return "/".join(parts)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    write_text(path, json.dumps(values, allow_nan=False) + "\n")


def read_json(path: Path, *, max_bytes: int) -> Any:
    """Read a JSON file of at most `max_bytes`.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    VolumeFormatError
        When it is larger, or not JSON.
    StorageError
        When the file system refuses.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VolumeNotFoundError(f"{path} is not there: check the address") from error
    except OSError as error:
        raise storage_error("read", path, error) from error
    if len(data) > max_bytes:
        raise damaged(path, kind="JSON", reason=f"it has more than {max_bytes} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(path, kind="JSON", reason=error) from error
