"""Small tables as bytes and back: named columns of numbers in, a numpy archive out.

Stages of a run hand each other such tables. The same columns give the same bytes, and
nothing is allocated for a table that says it is larger than its bytes can unpack to.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.volumes.damage import reading
from floodem.volumes.declared import require_plausible_deflate

Column = np.ndarray[Any, np.dtype[Any]]

_VERSION = "version"
_SUFFIX = ".npy"

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(((?:\d+, ?)*\d*)\), \} *\n"
)
"""What numpy writes. Its own reader goes through `ast`, which fails now and then where several
threads read (https://github.com/python/cpython/issues/106905)."""


def pack_columns(columns: Mapping[str, Column], *, version: int) -> bytes:
    """Return a numpy archive of these columns and their version."""
    packed = io.BytesIO()
    arrays: dict[str, Any] = {
        _VERSION: np.int64(version),
        **{name: np.ascontiguousarray(column) for name, column in columns.items()},
    }
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def unpack_columns(
    packed: bytes | None, *, like: Mapping[str, Column], version: int, what: str, uri: str
) -> dict[str, Column]:
    """Return the columns of a table.

    Parameters
    ----------
    packed
        What `pack_columns` gave, or None where there was nothing to read.
    like
        For each column an array of its type, and of its shape but for the first axis,
        which is equally long in all.
    what, uri
        What it is, and where, for messages.

    Raises
    ------
    VolumeFormatError
        When it is missing, damaged, of another version, or has other columns.
    UnsafeFileError
        When it declares more than its bytes can hold.
    """
    if packed is None:
        raise _unusable("it is not there", what=what, uri=uri)
    wanted = {_VERSION: np.array(version, np.int64), **like}
    with reading(uri, kind=what), zipfile.ZipFile(io.BytesIO(packed)) as archive:
        if {name.removesuffix(_SUFFIX) for name in archive.namelist()} != set(wanted):
            raise _unusable("it has other columns", what=what, uri=uri)
        found = {}
        for name, array in wanted.items():
            with archive.open(name + _SUFFIX) as member:
                found[name] = _read_array(
                    member, dtype=array.dtype, stored_bytes=len(packed), uri=uri
                )
    told = found.pop(_VERSION)
    if told.shape != () or told != version:
        raise _unusable(f"it is not of version {version}", what=what, uri=uri)
    is_alike = all(
        column.ndim == like[name].ndim and column.shape[1:] == like[name].shape[1:]
        for name, column in found.items()
    )
    if not is_alike or len({len(column) for column in found.values()}) != 1:
        raise _unusable("its columns do not fit each other", what=what, uri=uri)
    return found


def _read_array(member: IO[bytes], *, dtype: np.dtype[Any], stored_bytes: int, uri: str) -> Column:
    head = member.read(len(_MAGIC) + 2)
    if not head.startswith(_MAGIC):
        raise ValueError("a column is no array")
    (length,) = struct.unpack("<H", head[len(_MAGIC) :])
    header = _HEADER.fullmatch(member.read(length).decode("latin-1"))
    if header is None or header[1] != dtype.str:
        raise ValueError(f"a column is not of {dtype}")
    shape = tuple(int(size) for size in header[2].split(",") if size.strip())
    size = math.prod(shape) * dtype.itemsize
    require_plausible_deflate(size, stored_bytes=stored_bytes, uri=uri)
    data = member.read(size + 1)
    if len(data) != size:
        raise ValueError("a column is not as long as it says")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _unusable(reason: str, *, what: str, uri: str) -> VolumeFormatError:
    return VolumeFormatError(
        f"{uri} cannot be used as {what}, because {reason}: begin again with --overwrite"
    )
