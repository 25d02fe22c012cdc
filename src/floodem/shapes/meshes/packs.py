"""Pieces of many objects in one file: bytes by id go in, and are found again by their place.

What one task has made for later tasks to read: unfinished meshes of a block,
encoded meshes of some objects. All numbers are little-endian::

    magic (8 bytes) | version, columns (uint32) | rows, start of the table (uint64)
    data of row 0 | data of row 1 | ...
    table: for each row id, start, size and `columns` numbers more (uint64)

Ids ascend. Files are read through memory maps, and every place is checked first.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8, UInt64

from floodem.errors import VolumeFormatError
from floodem.files import replacing, storage_error

_MAGIC = b"fldmpack"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")
_MOST_COLUMNS = 16
_WORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where bytes lie in a file."""

    path: Path
    start: int
    size: int

    def read(self) -> memoryview:
        """Return the bytes, mapped and not copied.

        Raises
        ------
        VolumeFormatError
            When they lie outside the file.
        StorageError
            When the file system refuses.
        """
        data = _mapped(self.path)
        if not 0 <= self.start <= self.start + self.size <= len(data):
            raise _damaged(self.path, f"bytes {self.start} + {self.size} lie outside it")
        return data[self.start : self.start + self.size].data


class PackWriter:
    """Takes pieces by ascending id; see `writing_pack`."""

    def __init__(self, file: IO[bytes], *, columns: int) -> None:
        self._file = file
        self._columns = columns
        self._rows: list[tuple[int, ...]] = []
        self._end = _HEADER.size
        file.write(bytes(_HEADER.size))

    def add(self, object_id: int, pieces: Sequence[bytes | memoryview], *numbers: int) -> None:
        """Append an object's bytes, and the numbers of its row."""
        assert len(numbers) == self._columns
        assert not self._rows or self._rows[-1][0] < object_id
        size = 0
        for piece in pieces:
            size += self._file.write(piece)
        self._rows.append((object_id, self._end, size, *numbers))
        self._end += size

    def finish(self) -> None:
        """Write table and header; nothing can be added after that."""
        table = np.array(self._rows, "<u8").reshape(len(self._rows), 3 + self._columns)
        self._file.write(table.tobytes())
        self._file.seek(0)
        self._file.write(_HEADER.pack(_MAGIC, _VERSION, self._columns, len(self._rows), self._end))


@contextlib.contextmanager
def writing_pack(path: Path, *, columns: int) -> Iterator[PackWriter]:
    """Write a pack: the file is there when the body ends, whole, or not at all.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with replacing(path) as partial, open(partial, "wb") as file:
        writer = PackWriter(file, columns=columns)
        yield writer
        writer.finish()


def read_table(path: Path, *, columns: int) -> UInt64[np.ndarray, "rows numbers"]:
    """Return the table of a pack: id, start, size and `columns` numbers for each row.

    Raises
    ------
    VolumeFormatError
        When the file is damaged or another kind of pack.
    StorageError
        When the file system refuses.
    """
    data = _mapped(path)
    if len(data) < _HEADER.size:
        raise _damaged(path, f"it has {len(data)} bytes")
    magic, version, found_columns, rows, start = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if (magic, version, found_columns) != (_MAGIC, _VERSION, columns) or columns > _MOST_COLUMNS:
        raise _damaged(path, "its header is of something else")
    if not _HEADER.size <= start <= len(data) or rows * (3 + columns) * _WORD != len(data) - start:
        raise _damaged(path, f"its table of {rows} rows at {start} does not end with it")
    table = data[start:].view("<u8").reshape(rows, 3 + columns).astype(np.uint64)
    starts, sizes = table[:, 1], table[:, 2]
    is_inside = (starts >= _HEADER.size) & (starts <= start) & (sizes <= start - starts)
    if not is_inside.all() or (table[1:, 0] <= table[:-1, 0]).any():
        raise _damaged(path, "its table names places outside of its data, or ids out of order")
    return table


def _mapped(path: Path) -> UInt8[np.ndarray, "bytes"]:
    try:
        if path.stat().st_size == 0:
            raise _damaged(path, "it is empty")
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise storage_error("read", path, error) from error


def _damaged(path: Path, reason: str) -> VolumeFormatError:
    return VolumeFormatError(
        f"{path} is not the working file that it should be: {reason}; "
        "begin again with --overwrite (overwrite=True)"
    )
