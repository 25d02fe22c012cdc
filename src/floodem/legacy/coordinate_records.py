"""TFRecords of coordinates, many at once: volumes' names and positions in, bytes out.

One record is a ``tf.train.Example`` of two features, ``center`` (int64 x, y, z) and
``label_volume_name`` (bytes), framed by its length and checksums. Records of one
volume whose coordinates take equally many bytes differ in those bytes and the
checksum alone, so that they are copies of a template with a few columns filled in.

A CRC is linear over GF(2): the checksum of a record is the template's xor one table
entry for each byte that differs.

References
----------
Protocol Buffers documentation, "Encoding". TensorFlow, ``core/lib/io/record_writer.h``
(framing) and ``core/lib/hash/crc32c.h`` (masked checksums).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Int64, UInt8, UInt32, UInt64

_MASK_DELTA = 0xA282EAD8
_MASK_SHIFT = 15
_WORD_BITS = 32
_LONGEST_VARINT = 10
_LENGTH_BYTES = 8
_CRC_BYTES = 4

# Field numbers and wire types of tf.train.Example, Features, Feature and their lists, each a
# field number times 8 plus wire type 2 (length-delimited).
_EXAMPLE_FEATURES, _FEATURES_ENTRY, _ENTRY_KEY, _ENTRY_VALUE = 0x0A, 0x0A, 0x0A, 0x12
_FEATURE_BYTES_LIST, _FEATURE_INT64_LIST, _LIST_VALUE = 0x0A, 0x1A, 0x0A

Array = np.ndarray[Any, np.dtype[Any]]


def masked_crc(data: bytes) -> int:
    """Return the checksum that TFRecord files carry: CRC32C, rotated and shifted."""
    return int(_masked(np.array([google_crc32c.value(data)], np.uint32))[0])


def varint(value: int) -> bytes:
    """Return an integer from 0 to 2**64 - 1 in the variable-length form of protobuf."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


class RecordWriter:
    """Makes the records of some volumes.

    Parameters
    ----------
    names
        What coordinates call the volumes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [name.encode() for name in names]
        self._templates: dict[tuple[int, ...], _Template] = {}

    def records(
        self,
        volumes: Int64[np.ndarray, "records"],
        centres_xyz: Int64[np.ndarray, "3 records"],
    ) -> Array:
        """Return the records of these centres, one after the other, as uint8.

        Parameters
        ----------
        volumes
            The volume of each centre, by its number among the names.
        centres_xyz
            x, y, z of each centre; negative numbers take ten bytes.
        """
        unsigned = centres_xyz.astype(np.uint64)
        lengths = np.stack([_varint_lengths(one) for one in unsigned])
        base = _LONGEST_VARINT + 1
        kinds = ((volumes * base + lengths[0]) * base + lengths[1]) * base + lengths[2]
        found, kind_of_record = np.unique(kinds, return_inverse=True)
        templates = [self._template(int(kind)) for kind in found]
        sizes = np.array([template.size for template in templates], np.int64)
        ends = np.cumsum(sizes[kind_of_record])
        out = np.empty(int(ends[-1]), np.uint8)
        for number, template in enumerate(templates):
            rows = np.flatnonzero(kind_of_record == number)
            # Overlapping items, one beginning at each byte: numpy then copies whole records.
            places: Array = np.ndarray(
                len(out) - template.size + 1, f"V{template.size}", buffer=out, strides=(1,)
            )
            made = template.fill(unsigned[:, rows])
            places[ends[rows] - template.size] = made.view(f"V{template.size}")[:, 0]
        return out

    def _template(self, kind: int) -> _Template:
        base = _LONGEST_VARINT + 1
        volume, x, y, z = kind // base**3, kind // base**2 % base, kind // base % base, kind % base
        key = (volume, x, y, z)
        if key not in self._templates:
            self._templates[key] = _Template(self._names[volume], (x, y, z))
        return self._templates[key]


class _Template:
    """A record of one volume, for coordinates of certain lengths."""

    def __init__(self, name: bytes, lengths: tuple[int, int, int]) -> None:
        data, first = _example(name, coordinate_bytes=sum(lengths))
        frame = len(data).to_bytes(_LENGTH_BYTES, "little")
        head = frame + masked_crc(frame).to_bytes(_CRC_BYTES, "little")
        self._record = np.frombuffer(head + data + bytes(_CRC_BYTES), np.uint8)
        self.size = len(self._record)
        self._crc = np.uint32(google_crc32c.value(data))
        self._columns: list[tuple[int, int, bool, int, UInt32[np.ndarray, "256"]]] = []
        at = first
        for axis, length in enumerate(lengths):
            for byte in range(length):
                table = _crc_table(len(data), at)
                self._columns.append((axis, 7 * byte, byte < length - 1, len(head) + at, table))
                at += 1

    def fill(self, centres_xyz: UInt64[np.ndarray, "3 n"]) -> UInt8[np.ndarray, "n size"]:
        """Return the records of these centres."""
        records = np.empty((centres_xyz.shape[1], self.size), np.uint8)
        records[:] = self._record
        crc = np.full(len(records), self._crc)
        for axis, shift, goes_on, column, table in self._columns:
            values = (centres_xyz[axis] >> np.uint64(shift)).astype(np.uint8)
            values = values | np.uint8(0x80) if goes_on else values
            records[:, column] = values
            crc ^= table[values]
        stored = _masked(crc).astype("<u4")
        records[:, -_CRC_BYTES:] = stored.view(np.uint8).reshape(-1, _CRC_BYTES)
        return records


def _example(name: bytes, *, coordinate_bytes: int) -> tuple[bytes, int]:
    """Return an Example whose coordinates are zeros, and where these begin."""
    numbers = _field(_FEATURE_INT64_LIST, _field(_LIST_VALUE, bytes(coordinate_bytes)))
    names = _field(_FEATURE_BYTES_LIST, _field(_LIST_VALUE, name))
    centre = _field(_FEATURES_ENTRY, _entry(b"center", numbers))
    volume = _field(_FEATURES_ENTRY, _entry(b"label_volume_name", names))
    data = _field(_EXAMPLE_FEATURES, centre + volume)
    return data, len(data) - len(volume) - coordinate_bytes


def _entry(key: bytes, value: bytes) -> bytes:
    return _field(_ENTRY_KEY, key) + _field(_ENTRY_VALUE, value)


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def _varint_lengths(values: UInt64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    lengths = np.ones(len(values), np.int64)
    largest = int(values.max())
    for count in range(1, _LONGEST_VARINT):
        if largest < 1 << 7 * count:
            break
        lengths += values >= np.uint64(1 << 7 * count)
    return lengths


def _crc_table(length: int, at: int) -> UInt32[np.ndarray, "256"]:
    """Return what a byte at this place adds to the checksum of a message, for each value."""
    nothing = google_crc32c.value(bytes(length))
    behind = bytes(length - at - 1)
    return np.array(
        [
            google_crc32c.value(bytes(at) + bytes([value]) + behind) ^ nothing
            for value in range(256)
        ],
        np.uint32,
    )


def _masked(crc: UInt32[np.ndarray, "n"]) -> UInt32[np.ndarray, "n"]:
    rotated = (crc >> np.uint32(_MASK_SHIFT)) | (crc << np.uint32(_WORD_BITS - _MASK_SHIFT))
    return rotated + np.uint32(_MASK_DELTA)
