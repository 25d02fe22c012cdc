"""TensorFlow V2 checkpoints ("bundles") without TensorFlow.

In: ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``. Out: arrays by name.
The index is a LevelDB table whose values are BundleEntry messages; every block
and every tensor carries a masked CRC-32C, and each one is checked.

References
----------
LevelDB, doc/table_format.md; TensorFlow, core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import ModelError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.legacy.protobuf_wire import read_message, read_varint

_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_CRC_MASK_DELTA = 0xA282EAD8
_LITTLE_ENDIAN = 0
_NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    9: np.dtype("<i8"),
    19: np.dtype("<f2"),
}
_BUNDLE_FILE = re.compile(r"(?P<prefix>.+)\.(index|meta|data-\d{5}-of-\d{5})")


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def _masked_crc(data: bytes) -> int:
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


def _read_block(table: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER_BYTES > len(table):
        raise ValueError("a block lies outside the file")
    compression, crc = struct.unpack_from("<BI", table, end)
    if _masked_crc(table[offset : end + 1]) != crc:
        raise ValueError(f"the block at byte {offset} has a wrong checksum")
    if compression:
        raise ValueError(f"the block at byte {offset} is compressed (type {compression})")
    return table[offset:end]


def _read_handle(data: bytes, position: int = 0) -> tuple[tuple[int, int], int]:
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block_items(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        length, position = read_varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _table_items(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(table) < _FOOTER_BYTES:
        raise ValueError("the file is shorter than a table's footer")
    footer = table[-_FOOTER_BYTES:]
    if struct.unpack_from("<Q", footer, _FOOTER_BYTES - 8)[0] != _TABLE_MAGIC:
        raise ValueError("the table's closing mark is missing")
    _, position = _read_handle(footer)
    index_handle, _ = _read_handle(footer, position)
    for _, value in _block_items(_read_block(table, index_handle)):
        handle, _ = _read_handle(value)
        yield from _block_items(_read_block(table, handle))


def _message(data: bytes) -> dict[int, Any]:
    """Return the last value of every field; repeated fields are read by their own code."""
    return dict(read_message(data))


def _parse_entry(data: bytes) -> _Entry:
    fields = _message(data)
    if 7 in fields:
        raise ValueError("partitioned variables are not supported")
    shape = tuple(
        _message(dimension).get(1, 0)
        for number, dimension in read_message(fields.get(2, b""))
        if number == 2 and isinstance(dimension, bytes)
    )
    return _Entry(
        fields.get(1, 0),
        shape,
        fields.get(3, 0),
        fields.get(4, 0),
        fields.get(5, 0),
        fields.get(6, 0),
    )


def bundle_prefix(path: Path) -> Path:
    """Return the bundle's prefix from the prefix itself or any of its files."""
    match = _BUNDLE_FILE.fullmatch(path.name)
    return path.with_name(match["prefix"]) if match else path


def bundle_files(path: Path) -> list[Path]:
    """Return the files of a bundle that are there, from its prefix or any of them."""
    prefix = bundle_prefix(path)
    names = (one for one in prefix.parent.glob("*") if _BUNDLE_FILE.fullmatch(one.name))
    return sorted(one for one in names if bundle_prefix(one) == prefix)


def _require_prefix(prefix: Path) -> None:
    """Refuse a folder; its checkpoints are named instead."""
    if not prefix.is_dir() or (prefix.name and prefix.with_name(prefix.name + ".index").exists()):
        return
    inside = sorted(str(one.with_suffix("")) for one in prefix.glob("*.index"))
    listed = f": give {' or '.join(inside)}" if inside else " and holds no checkpoint: check it"
    raise VolumeNotFoundError(f"{prefix} is a folder{listed}")


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise VolumeNotFoundError(
            f"no file {path}: a TensorFlow checkpoint needs its .index and .data files side by "
            "side; give the prefix, for example model.ckpt-27465036"
        ) from None
    except OSError as error:
        raise storage_error("read", path, error) from error


def _tensor(entry: _Entry, shard: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    dtype = _NUMPY_TYPES.get(entry.dtype)
    if dtype is None:
        raise ValueError(f"it has TensorFlow type number {entry.dtype}, which is not supported")
    if math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise ValueError(f"{entry.size} bytes do not fill shape {entry.shape} of {dtype}")
    data = shard[entry.offset : entry.offset + entry.size]
    if len(data) != entry.size:
        raise ValueError("the data file is cut short")
    if _masked_crc(data) != entry.crc:
        raise ValueError("its checksum is wrong")
    return np.frombuffer(data, dtype).reshape(entry.shape)


def read_bundle(path: Path | str) -> Mapping[str, np.ndarray[Any, np.dtype[Any]]]:
    """Read every variable of a checkpoint, checking every CRC.

    Parameters
    ----------
    path
        The prefix (``model.ckpt-100``) or any file of the bundle.

    Raises
    ------
    VolumeNotFoundError
        When a file of the bundle is missing.
    ModelError
        When a file is damaged, cut short or holds something unsupported.
    """
    prefix = bundle_prefix(Path(path))
    _require_prefix(prefix)
    index_path = prefix.with_name(prefix.name + ".index")
    try:
        items = {key.decode(): value for key, value in _table_items(_read_file(index_path))}
        header = _message(items.pop("", b""))
        entries = {name: _parse_entry(value) for name, value in items.items()}
    except (ValueError, struct.error, AttributeError, TypeError) as error:
        raise ModelError(
            f"{index_path} is damaged or no checkpoint index: {error}; copy it again"
        ) from error
    if header.get(2, _LITTLE_ENDIAN) != _LITTLE_ENDIAN:
        raise ModelError(
            f"{index_path} was written on a big-endian machine, which is not supported: convert it "
            "there"
        )
    shard_count = header.get(1, 1)
    shards: dict[int, bytes] = {}
    variables = {}
    for name, entry in entries.items():
        if entry.shard not in shards:
            file_name = f"{prefix.name}.data-{entry.shard:05d}-of-{shard_count:05d}"
            shards[entry.shard] = _read_file(prefix.with_name(file_name))
        try:
            variables[name] = _tensor(entry, shards[entry.shard])
        except ValueError as error:
            raise ModelError(
                f"variable {name} of {prefix} is damaged: {error}; copy the checkpoint again"
            ) from error
    return variables
