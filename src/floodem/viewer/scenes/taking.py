"""Meshes or skeletons that are there already: a folder of precomputed in, a checked copy out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from floodem.errors import (
    FloodemError,
    OptionError,
    StoppedError,
    UnsafeFileError,
    VolumeFormatError,
)
from floodem.files import replacing, require_free_disk, storage_error
from floodem.progress import Progress, ProgressListener
from floodem.shapes.precomputed import read_info, write_info
from floodem.viewer.object_folders import Shape, find_shapes

What = Literal["meshes", "skeletons"]

_SHAPES: Mapping[What, Shape] = {"meshes": Shape.MESH, "skeletons": Shape.SKELETON}

_INFO = "info"
_OF_AN_OBJECT = re.compile(r"([0-9]{1,20})(\.index|:[A-Za-z0-9_.:-]{1,100})?")
_SHARD = re.compile(r"[0-9a-f]{1,16}\.shard")


def shapes_folder(given: Path, what: What) -> Path:
    """Return the folder that holds meshes or skeletons: the given one, or one that it names.

    Raises
    ------
    OptionError
        When it holds no such shapes.
    FloodemError
        What `find_shapes` and `read_info` refuse.
    """
    found = [one.path for one in find_shapes(given) if one.shape is _SHAPES[what]]
    if not found:
        raise OptionError(f"{given} holds no {what}: give another folder, or make")
    read_info(found[0])
    return found[0]


def shapes_identity(folder: Path) -> dict[str, Any]:
    """Return what tells this folder from another, or from itself after a change."""
    try:
        info = (folder / _INFO).stat()
        return {
            "folder": str(folder.absolute()),
            "info_bytes": info.st_size,
            "changed_ns": [info.st_mtime_ns, folder.stat().st_mtime_ns],
        }
    except OSError as error:
        raise storage_error("look at", folder, error) from error


def take_shapes(
    folder: Path,
    target: Path,
    *,
    only_ids: Collection[int] | None,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
) -> dict[str, int]:
    """Copy meshes or skeletons, going on with what is copied already.

    Parameters
    ----------
    folder
        As `shapes_folder` returned it; nothing in it is a link.
    target
        Made where it is missing.
    only_ids
        Objects to copy; what is packed into shards is copied as a whole.
    progress, should_stop
        Called and asked for every file.

    Returns
    -------
    dict
        How many ``files`` and ``bytes``.

    Raises
    ------
    UnsafeFileError
        When a link is among the files.
    VolumeFormatError
        When nothing is there to copy.
    StoppedError, StorageError, ResourceError
        When it was told to stop, or the file system refuses.
    """
    found = sorted(_files(folder, only_ids))
    total = sum(size for _, size in found)
    if not found:
        raise VolumeFormatError(f"{folder} holds no shapes of the objects asked for: make them")
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Lists of properties stay behind: a scene has its own.
        write_info(target, replace(read_info(folder), segment_properties=None))
        done = 0
        for name, size in found:
            if should_stop():
                raise StoppedError("stopped: run the same command again to go on")
            copy = target / name
            if not (copy.is_file() and copy.stat().st_size == size):
                require_free_disk(target, needed_bytes=size, purpose=f"copying {folder}")
                with replacing(copy) as partial:
                    shutil.copyfile(folder / name, partial)
            done += size
            if progress is not None:
                progress(Progress(stage="copy", done=done, total=total, unit="bytes"))
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("copy", folder, error) from error
    return {"files": len(found), "bytes": total}


def _files(folder: Path, only_ids: Collection[int] | None) -> Iterator[tuple[str, int]]:
    """Yield names and sizes of all files but the info."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_wanted(entry.name, only_ids):
                    continue
                if not entry.is_file(follow_symlinks=False):
                    raise UnsafeFileError(
                        f"{entry.path} is a link or a folder among shapes: not copied; give a "
                        "folder of plain files"
                    )
                yield entry.name, entry.stat().st_size
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("look at", folder, error) from error


def _is_wanted(name: str, only_ids: Collection[int] | None) -> bool:
    if _SHARD.fullmatch(name):
        return True
    match = _OF_AN_OBJECT.fullmatch(name)
    return match is not None and (only_ids is None or int(match[1]) in only_ids)
