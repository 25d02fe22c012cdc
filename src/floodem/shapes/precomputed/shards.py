"""Files of many objects: bytes by id go into a shard one after the other, and come out singly.

Format: neuroglancer_uint64_sharded_v1 (see `floodem.shapes.precomputed.sharding`).
One file::

    index of minishards | object | object | ... | index of minishard 0 | index of 1 | ...

Each shard is one file that one task can write, holding one object in memory at a time.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt64

from floodem.errors import LabelError, VolumeFormatError
from floodem.files import replacing, storage_error
from floodem.shapes.precomputed.sharding import Encoding, ShardingSpec
from floodem.volumes.damage import damaged

MAX_ID = 2**64 - 1

MAX_MINISHARD_INDEX_BYTES = 24 * 2**22
"""More than four million objects in one minishard: nobody wrote that on purpose."""

MAX_OBJECT_BYTES = 2**30
"""The largest packed object that is read; one skeleton or manifest is far smaller."""

_GZIP_LEVEL = 6
_ENTRY_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the data of an object lie: bytes of a file."""

    path: Path
    start: int
    size: int


class ShardWriter:
    """Takes the objects of one shard, by ascending id; see `writing_shard`."""

    def __init__(self, file: IO[bytes], *, number: int, spec: ShardingSpec) -> None:
        self._file = file
        self._number = number
        self._spec = spec
        self._ids, self._starts, self._sizes = array("Q"), array("Q"), array("Q")
        self._end = 0
        file.write(bytes(spec.index_bytes))

    def add(self, object_id: int, data: bytes, *, fragments: bytes = b"") -> None:
        """Append one object.

        Parameters
        ----------
        object_id
            Larger than those before, and one of this shard.
        data
            A skeleton, or the manifest of a multi-resolution mesh.
        fragments
            The fragments of that mesh: they stand right before the manifest, as they are.

        Raises
        ------
        LabelError
            When the id is not larger than the one before, or of another shard.
        """
        if not 0 <= object_id <= MAX_ID or (self._ids and object_id <= self._ids[-1]):
            raise LabelError(
                f"id {object_id} cannot follow {self._ids[-1] if self._ids else 'nothing'} in a "
                "shard: give ids of 64 bits in ascending order, each once"
            )
        shard = int(self._spec.shard_of(np.array([object_id], np.uint64))[0])
        if shard != self._number:
            raise LabelError(
                f"id {object_id} belongs to shard {shard} and not to {self._number}: "
                "spread ids with ShardingSpec.group_by_shard"
            )
        packed = _packed(data, self._spec.data_encoding)
        self._file.write(fragments)
        self._file.write(packed)
        self._ids.append(object_id)
        self._starts.append(self._end + len(fragments))
        self._sizes.append(len(packed))
        self._end += len(fragments) + len(packed)

    def finish(self) -> None:
        """Write the indices; nothing can be added after that."""
        ids, starts, sizes = (
            np.array(values, np.uint64) for values in (self._ids, self._starts, self._sizes)
        )
        minishards = self._spec.minishard_of(ids)
        index = np.zeros((1 << self._spec.minishard_bits, 2), "<u8")
        order = np.argsort(minishards, kind="stable")
        numbers, firsts = np.unique(minishards[order], return_index=True)
        bounds = [*firsts.tolist(), len(order)]
        for place, number in enumerate(numbers):
            rows = order[bounds[place] : bounds[place + 1]]
            table = _delta_coded(ids[rows], starts[rows], sizes[rows])
            packed = _packed(table.astype("<u8").tobytes(), self._spec.minishard_index_encoding)
            self._file.write(packed)
            index[int(number)] = (self._end, self._end + len(packed))
            self._end += len(packed)
        self._file.seek(0)
        self._file.write(index.tobytes())


@contextlib.contextmanager
def writing_shard(folder: Path, number: int, *, spec: ShardingSpec) -> Iterator[ShardWriter]:
    """Write one shard of a folder: the file is there when the body ends, whole, or not at all.

    The same objects make the same file to the last byte.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    path = folder / spec.file_name(number)
    with replacing(path) as partial, open(partial, "wb") as file:
        writer = ShardWriter(file, number=number, spec=spec)
        yield writer
        writer.finish()


class ShardReader:
    """Finds objects in the shards of a folder.

    The index of the minishard looked at last is kept. A damaged file is told by one
    `VolumeFormatError`; what it declares never makes the reader take more memory than
    `MAX_MINISHARD_INDEX_BYTES` and `max_object_bytes`.
    """

    def __init__(
        self, folder: Path, *, spec: ShardingSpec, max_object_bytes: int = MAX_OBJECT_BYTES
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._max_object_bytes = max_object_bytes
        self._kept: tuple[tuple[int, int], UInt64[np.ndarray, "3 ids"]] | None = None

    def read(self, object_id: int) -> bytes | None:
        """Return the data of an object, unpacked, or None when it has none.

        Raises
        ------
        VolumeFormatError
            When the shard is damaged.
        StorageError
            When the file system refuses.
        """
        place = self.find(object_id)
        if place is None:
            return None
        if place.size > self._max_object_bytes:
            raise _damaged(place.path, f"object {object_id} has {place.size} bytes")
        data = read_range(place.path, place.start, size=place.size)
        return _unpacked(
            data, self._spec.data_encoding, path=place.path, max_bytes=self._max_object_bytes
        )

    def find(self, object_id: int) -> Place | None:
        """Return where the (packed) data of an object lie, or None when it has none.

        Raises
        ------
        VolumeFormatError, StorageError
            As `read`.
        """
        if not 0 <= object_id <= MAX_ID:
            return None
        one = np.array([object_id], np.uint64)
        shard, minishard = int(self._spec.shard_of(one)[0]), int(self._spec.minishard_of(one)[0])
        if self._kept is None or self._kept[0] != (shard, minishard):
            self._kept = ((shard, minishard), self._minishard(shard, minishard))
        ids, starts, sizes = self._kept[1]
        row = int(np.searchsorted(ids, one[0]))
        if row == len(ids) or int(ids[row]) != object_id:
            return None
        return Place(path=self._path(shard), start=int(starts[row]), size=int(sizes[row]))

    def ids(self) -> Iterator[int]:
        """Yield the ids of all objects, shard by shard, ascending in each minishard.

        Raises
        ------
        VolumeFormatError, StorageError
            As `read`.
        """
        for shard in self._shards():
            index = read_range(self._path(shard), 0, size=self._spec.index_bytes)
            starts, ends = np.frombuffer(index, "<u8").reshape(-1, 2).T
            for minishard in np.flatnonzero(starts != ends).tolist():
                yield from self._minishard(shard, minishard)[0].tolist()

    def _path(self, shard: int) -> Path:
        return self._folder / self._spec.file_name(shard)

    def _shards(self) -> list[int]:
        """Return the numbers of the shards that are there."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise storage_error("look at", self._folder, error) from error
        found = (re.fullmatch(r"([0-9a-f]{1,16})\.shard", name) for name in names)
        numbers = sorted(int(match[1], 16) for match in found if match)
        return [number for number in numbers if self._spec.file_name(number) in names]

    def _minishard(self, shard: int, minishard: int) -> UInt64[np.ndarray, "3 ids"]:
        """Return ids, starts in the file and sizes of the objects of a minishard."""
        path = self._path(shard)
        none = np.zeros((3, 0), np.uint64)
        if not path.exists():
            return none
        bounds = np.frombuffer(read_range(path, 16 * minishard, size=16), "<u8")
        start, end = int(bounds[0]), int(bounds[1])
        if start == end:
            return none
        if not start < end <= start + MAX_MINISHARD_INDEX_BYTES:
            raise _damaged(path, f"the index of minishard {minishard} lies at {start} to {end}")
        packed = read_range(path, self._spec.index_bytes + start, size=end - start)
        data = _unpacked(
            packed,
            self._spec.minishard_index_encoding,
            path=path,
            max_bytes=MAX_MINISHARD_INDEX_BYTES,
        )
        if len(data) % _ENTRY_BYTES:
            raise _damaged(path, f"the index of minishard {minishard} has {len(data)} bytes")
        table = np.frombuffer(data, "<u8").reshape(3, -1).astype(np.uint64)
        return self._checked(table, (shard, minishard))

    def _checked(
        self, table: UInt64[np.ndarray, "3 ids"], where: tuple[int, int]
    ) -> UInt64[np.ndarray, "3 ids"]:
        """Undo the delta coding and refuse ids and places that cannot be."""
        deltas, gaps, sizes = table
        # Sums run modulo 2^64, as those of other readers do: only what comes out is checked.
        ids = np.cumsum(deltas, dtype=np.uint64)
        before = np.concatenate([np.zeros(1, np.uint64), sizes[:-1]])[: len(sizes)]
        starts = np.cumsum(gaps + before, dtype=np.uint64) + np.uint64(self._spec.index_bytes)
        path = self._path(where[0])
        length = np.uint64(path.stat().st_size)
        if (starts > length).any() or (sizes > length - np.minimum(starts, length)).any():
            raise _damaged(path, f"objects of minishard {where[1]} lie outside the file")
        is_ascending = bool((ids[1:] > ids[:-1]).all())
        is_here = bool(
            (self._spec.shard_of(ids) == np.uint64(where[0])).all()
            and (self._spec.minishard_of(ids) == np.uint64(where[1])).all()
        )
        if not (is_ascending and is_here):
            raise _damaged(path, f"ids of minishard {where[1]} are out of order or not its own")
        return np.stack([ids, starts, sizes])


def read_range(path: Path, start: int, *, size: int) -> bytes:
    """Return bytes of a file; they must all be there.

    Raises
    ------
    VolumeFormatError
        When the file is shorter.
    StorageError
        When the file system refuses.
    """
    try:
        with open(path, "rb") as file:
            length = file.seek(0, 2)
            if not 0 <= start <= start + size <= length:
                raise _damaged(path, f"bytes {start} to {start + size} lie outside its {length}")
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise storage_error("read", path, error) from error


def _delta_coded(
    ids: UInt64[np.ndarray, "ids"],
    starts: UInt64[np.ndarray, "ids"],
    sizes: UInt64[np.ndarray, "ids"],
) -> UInt64[np.ndarray, "3 ids"]:
    """Return differences of ids, gaps between objects, and sizes."""
    none = np.zeros(1, np.uint64)
    previous_ids = np.concatenate([none, ids[:-1]])
    previous_ends = np.concatenate([none, (starts + sizes)[:-1]])
    return np.stack([ids - previous_ids, starts - previous_ends, sizes])


def _packed(data: bytes, encoding: Encoding) -> bytes:
    # No time of day in the file, so that the same objects make the same file.
    return data if encoding == "raw" else gzip.compress(data, _GZIP_LEVEL, mtime=0)


def _unpacked(data: bytes, encoding: Encoding, *, path: Path, max_bytes: int) -> bytes:
    if encoding == "raw":
        return data
    unpacking = zlib.decompressobj(wbits=31)  # 31: gzip, with its header and checksum
    try:
        unpacked = unpacking.decompress(data, max_bytes)
    except zlib.error as error:
        raise _damaged(path, str(error)) from error
    if not unpacking.eof or unpacking.unused_data:
        raise _damaged(
            path, f"a gzip member is cut short or unpacks to more than {max_bytes} bytes"
        )
    return unpacked


def _damaged(path: Path, reason: str) -> VolumeFormatError:
    return damaged(path, kind="a shard of a Neuroglancer precomputed folder", reason=reason)
