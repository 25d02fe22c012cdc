"""Files of coordinates as numpy archives (.npz) that hold nothing but numbers.

Arrays are stored uncompressed, so that they are used where they lie in the file, and
none is ever unpickled. The first one, ``description``, is a JSON text in UTF-8 that
says by ``format`` and ``version`` what the others are.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tokenize
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from floodem.errors import FloodemError, VolumeFormatError, VolumeNotFoundError
from floodem.files import replacing, storage_error
from floodem.geometry import Zyx
from floodem.volumes.damage import in_one_line

DESCRIPTION = "description"

_DESCRIPTION_TYPE = ("|u1", 1)
_LONGEST_DESCRIPTION = 2**24
_LOCAL_HEADER_BYTES = 30
_LOCAL_NAME_LENGTHS = slice(26, 30)
_ROWS_AT_ONCE = 2**22

_STUMBLES = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError),
    *(SyntaxError, EOFError, tokenize.TokenError, struct.error, zipfile.BadZipFile),
)
"""What zipfile, numpy and json raise for files with wrong bytes in them."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveKind:
    """One kind of such files.

    Attributes
    ----------
    name, version
        As the description says them.
    members
        Type and number of axes of each array beside the description, by name.
    """

    name: str
    version: int
    members: Mapping[str, tuple[str, int]]


def write_archive(
    path: Path, kind: ArchiveKind, *, description: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a file in one piece, a few megabytes at a time.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    about = {"format": kind.name, "version": kind.version, **description}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        _write_member(archive, DESCRIPTION, array=text, dtype=_DESCRIPTION_TYPE[0])
        for name, (dtype, _) in kind.members.items():
            _write_member(archive, name, array=arrays[name], dtype=dtype)


def read_description(path: Path) -> Mapping[str, Any]:
    """Return what a file says of itself.

    Raises
    ------
    VolumeNotFoundError
        When there is no file.
    VolumeFormatError
        When it is none of these files, or a damaged one.
    StorageError
        When the file system refuses.
    """
    if not path.is_file():
        raise VolumeNotFoundError(
            f"no coordinates at {path}: make them with `floodem sample`, or check the address"
        )
    with reading(path):
        text = map_member(path, DESCRIPTION, kind=_DESCRIPTION_TYPE)
        if len(text) > _LONGEST_DESCRIPTION:
            raise ValueError(f"its description has {len(text)} bytes")
        description = json.loads(text.tobytes())
        if not isinstance(description, dict):
            raise TypeError("its description is no table")
        return description


def require_kind(description: Mapping[str, Any], kind: ArchiveKind, *, path: Path) -> None:
    """Refuse a description of another kind, or of a later version.

    Raises
    ------
    VolumeFormatError
        When it is of a later version.
    ValueError
        When it is of another kind (`reading` makes a sentence of it).
    """
    if description.get("format") != kind.name:
        raise ValueError("it is not marked as one")
    if description["version"] > kind.version:
        raise VolumeFormatError(
            f"{path} holds coordinates of version {description['version']}, and this floodem "
            f"reads up to {kind.version}: install a newer one"
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in the body into one sentence.

    Raises
    ------
    VolumeFormatError
        When the file is damaged, or of another kind.
    StorageError
        When the file system refuses.
    """
    try:
        yield
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("read", path, error) from error
    except _STUMBLES as error:
        raise VolumeFormatError(
            f"{path} is not an index of coordinates, or a damaged one ({in_one_line(error)}): "
            "make it with `floodem sample`"
        ) from error


def map_member(path: Path, name: str, *, kind: tuple[str, int]) -> Array:
    """Return an array where it lies in the file.

    Parameters
    ----------
    kind
        Its type and number of axes.

    Raises
    ------
    ValueError, KeyError, zipfile.BadZipFile
        When it is not there or is not such an array.
    """
    dtype = np.dtype(kind[0])
    with open(path, "rb") as handle:
        with zipfile.ZipFile(handle) as archive:
            member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        if member.header_offset < 0:
            raise ValueError(f"{name} begins before the file")
        handle.seek(member.header_offset)
        lengths = handle.read(_LOCAL_HEADER_BYTES)[_LOCAL_NAME_LENGTHS]
        names = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        handle.seek(names, os.SEEK_CUR)
        begins = handle.tell()
        shape = _array_shape(handle, name, kind=kind)
        size = math.prod(shape) * dtype.itemsize
        if handle.tell() - begins + size != member.file_size:
            raise ValueError(f"{name} has another length than it says")
        if size == 0:
            return np.zeros(shape, dtype)
        mapped: Array = np.memmap(handle, dtype, "r", offset=handle.tell(), shape=shape)
        return mapped


def zyx(values: list[int]) -> Zyx:
    """Return three whole numbers of a description."""
    z, y, x = (int(value) for value in values)
    return (z, y, x)


def _write_member(archive: zipfile.ZipFile, name: str, *, array: Array, dtype: str) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": array.shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy_format.write_array_header_1_0(member, header)
        for first in range(0, len(array), _ROWS_AT_ONCE):
            part = array[first : first + _ROWS_AT_ONCE]
            member.write(np.ascontiguousarray(part, dtype=dtype).tobytes())


def _array_shape(handle: IO[bytes], name: str, *, kind: tuple[str, int]) -> tuple[int, ...]:
    if npy_format.read_magic(handle) != (1, 0):
        raise ValueError(f"{name} is an array of another version")
    shape, fortran_order, dtype = npy_format.read_array_header_1_0(handle)
    if fortran_order or dtype != np.dtype(kind[0]) or len(shape) != kind[1]:
        raise ValueError(f"{name} is an array of another kind")
    return tuple(shape)
