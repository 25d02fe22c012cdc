"""Index files: numpy archives (.npz) that hold nothing but numbers and are never unpickled.

description.npy  uint8, JSON in UTF-8: format, version, page shape, margin, volumes
segments.npy     int64, one row for each segment (`SEGMENT_COLUMNS`)
words.npy        uint32, all runs, stored uncompressed so that they are read where they lie
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from floodem.errors import FloodemError, VolumeFormatError, VolumeNotFoundError
from floodem.files import replacing, require_free_disk, storage_error
from floodem.geometry import Box, Zyx
from floodem.training.coordinates.index import SEGMENT_COLUMNS, CoordinateIndex, IndexedVolume
from floodem.training.coordinates.pages import PAGE_SHAPE
from floodem.volumes.staging import require_no_destination

FORMAT = "floodem coordinates"
VERSION = 1

_MEMBERS = {"description": ("|u1", 1), "segments": ("<i8", 2), "words": ("<u4", 1)}
"""Type and number of axes of each array."""

_LOCAL_HEADER_BYTES = 30
_LOCAL_NAME_LENGTHS = slice(26, 30)
_SLACK_BYTES = 2**20
_WORDS_AT_ONCE = 2**22

Array = np.ndarray[Any, np.dtype[Any]]


def save_index(index: CoordinateIndex, path: Path, *, overwrite: bool = False) -> None:
    """Write an index in one piece, a few megabytes at a time.

    Raises
    ------
    DestinationExistsError
        When something is there and `overwrite` is not set.
    StorageError, ResourceError
        When the file system refuses, or the disk is too full.
    """
    if not overwrite:
        require_no_destination(path, uri=str(path))
    require_free_disk(
        path,
        needed_bytes=index.words.nbytes + index.segments.nbytes + _SLACK_BYTES,
        purpose="the index",
    )
    description = {
        "format": FORMAT,
        "version": VERSION,
        "page_shape_zyx": list(PAGE_SHAPE),
        "segment_columns": list(SEGMENT_COLUMNS),
        "margin_zyx": list(index.margin),
        "volumes": [
            {
                "name": volume.name,
                "start_zyx": list(volume.box.start),
                "stop_zyx": list(volume.box.stop),
                "weight": volume.weight,
            }
            for volume in index.volumes
        ],
    }
    text = np.frombuffer(json.dumps(description).encode(), np.uint8)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        _write_member(archive, "description", array=text)
        _write_member(archive, "segments", array=index.segments)
        _write_member(archive, "words", array=index.words)


def load_index(path: Path) -> CoordinateIndex:
    """Open an index; its runs stay in the file until they are needed.

    Raises
    ------
    VolumeNotFoundError
        When there is no file.
    VolumeFormatError
        When it is no index, a damaged one, or one of a later version.
    StorageError
        When the file system refuses.
    """
    if not path.is_file():
        raise VolumeNotFoundError(
            f"no coordinates at {path}: make them with `floodem sample`, or check the address"
        )
    with _reading(path):
        description = json.loads(_map_member(path, "description").tobytes())
        if description.get("format") != FORMAT:
            raise ValueError("it is not marked as one")
        if description["version"] > VERSION:
            raise VolumeFormatError(
                f"{path} holds coordinates of version {description['version']}, and this floodem "
                f"reads up to {VERSION}: install a newer one"
            )
        if tuple(description["page_shape_zyx"]) != PAGE_SHAPE:
            raise ValueError("its pages have another shape")
        return CoordinateIndex(
            volumes=tuple(_volume(entry) for entry in description["volumes"]),
            margin=_zyx(description["margin_zyx"]),
            segments=np.asarray(_map_member(path, "segments")).reshape(-1, len(SEGMENT_COLUMNS)),
            words=_map_member(path, "words"),
            source=str(path),
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("read", path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise VolumeFormatError(
            f"{path} is not an index of coordinates, or a damaged one ({error}): make it with "
            "`floodem sample`"
        ) from error


def _volume(entry: dict[str, Any]) -> IndexedVolume:
    weight = float(entry["weight"])
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"weight {weight} is not positive")
    box = Box(_zyx(entry["start_zyx"]), _zyx(entry["stop_zyx"]))
    return IndexedVolume(name=str(entry["name"]), box=box, weight=weight)


def _zyx(values: list[int]) -> Zyx:
    z, y, x = (int(value) for value in values)
    return (z, y, x)


def _write_member(archive: zipfile.ZipFile, name: str, *, array: Array) -> None:
    dtype, _ = _MEMBERS[name]
    header = {"descr": dtype, "fortran_order": False, "shape": array.shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy_format.write_array_header_1_0(member, header)
        for first in range(0, len(array), _WORDS_AT_ONCE):
            part = array[first : first + _WORDS_AT_ONCE]
            member.write(np.ascontiguousarray(part, dtype=dtype).tobytes())


def _map_member(path: Path, name: str) -> Array:
    """Return an array where it lies in the archive."""
    with open(path, "rb") as handle:
        with zipfile.ZipFile(handle) as archive:
            member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        handle.seek(member.header_offset)
        lengths = handle.read(_LOCAL_HEADER_BYTES)[_LOCAL_NAME_LENGTHS]
        names = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        handle.seek(names, os.SEEK_CUR)
        begins = handle.tell()
        shape = _array_shape(handle, name)
        size = math.prod(shape) * np.dtype(_MEMBERS[name][0]).itemsize
        if handle.tell() - begins + size != member.file_size:
            raise ValueError(f"{name} has another length than it says")
        dtype = np.dtype(_MEMBERS[name][0])
        if size == 0:
            return np.zeros(shape, dtype)
        mapped: Array = np.memmap(handle, dtype, "r", offset=handle.tell(), shape=shape)
        return mapped


def _array_shape(handle: IO[bytes], name: str) -> tuple[int, ...]:
    if npy_format.read_magic(handle) != (1, 0):
        raise ValueError(f"{name} is an array of another version")
    shape, fortran_order, dtype = npy_format.read_array_header_1_0(handle)
    wanted, axes = _MEMBERS[name]
    if fortran_order or dtype != np.dtype(wanted) or len(shape) != axes:
        raise ValueError(f"{name} is an array of another kind")
    return tuple(shape)
