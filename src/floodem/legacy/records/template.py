"""Records that differ in a few bytes only: a message and its slots in, many records at once out.

A record is a message framed by its length and checksums. Records of one volume whose
numbers take equally many bytes are copies of one template with the bytes of those
numbers filled in. So they are written, and read, a column at a time.

A CRC is linear over GF(2): the checksum of a record is the template's xor one table
entry for each byte that differs.

References
----------
TensorFlow, ``core/lib/io/record_writer.h`` (framing) and ``core/lib/hash/crc32c.h``
(masked checksums).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Bool, UInt8, UInt32, UInt64

HEAD_BYTES = 12
"""Length (8, little-endian) and its checksum (4) before each message."""

CRC_BYTES = 4
"""The checksum behind it."""

LENGTH_BYTES = 8

WORD_BYTES = 8
"""Rows of records that are compared are padded to whole words of so many bytes."""

LONGEST_VARINT = 10

_CRC_TABLES = 1024
"""Tables that are kept, 1 kB each."""

_MASK_DELTA = 0xA282EAD8
_MASK_SHIFT = 15
_WORD_BITS = 32

_WHOLE, _GOES_ON, _LAST_OF_LONGEST, _ANY = 0xFF, 0x80, 0xFE, 0x00
"""Which bits of a byte are the template's: all; of a variable-length number only whether it goes
on, and where ten bytes are taken, all but the last bit of 64; of other slots none."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Bytes of a message that hold a number.

    Attributes
    ----------
    at
        The first, counted from the message's begin.
    length
        How many.
    is_float
        Whether they are a float32 (little-endian), not an integer of variable length.
    """

    at: int
    length: int
    is_float: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Byte:
    """One byte of a slot; `goes_on` is the bit that every record has there."""

    slot: int
    shift: int
    column: int
    goes_on: int
    is_float: bool
    base: int
    table: UInt32[np.ndarray, "256"]


class RecordTemplate:
    """Records that are alike but for the numbers in some slots.

    Parameters
    ----------
    message
        Of any of the records.
    slots
        Where its numbers are.

    Attributes
    ----------
    size
        Bytes of a record, head and checksum included.
    mask, wanted
        Which bits all records have in common, and these, in whole words of a padded row.
    """

    def __init__(self, message: bytes, slots: Sequence[Slot]) -> None:
        length = len(message).to_bytes(LENGTH_BYTES, "little")
        head = length + masked_crc(length).to_bytes(CRC_BYTES, "little")
        self._record = np.frombuffer(head + message + bytes(CRC_BYTES), np.uint8)
        self._slots = tuple(slots)
        self.size = len(self._record)
        self._crc = np.uint32(google_crc32c.value(message))
        self._bytes = [
            byte for number in range(len(slots)) for byte in self._slot_bytes(number, message)
        ]
        mask = np.full(padded(self.size), _ANY, np.uint8)
        mask[: self.size - CRC_BYTES] = _WHOLE
        for byte in self._bytes:
            is_last = byte.shift == 7 * (LONGEST_VARINT - 1) and not byte.is_float
            whole = _LAST_OF_LONGEST if is_last else _GOES_ON
            mask[byte.column] = _ANY if byte.is_float else whole
        wanted = np.zeros(len(mask), np.uint8)
        wanted[: self.size] = self._record
        for byte in self._bytes:
            wanted[byte.column] = byte.goes_on
        self.mask, self.wanted = mask.view(np.uint64), (wanted & mask).view(np.uint64)

    def fill(self, values: Sequence[Array]) -> UInt8[np.ndarray, "n size"]:
        """Return records of these values: one array for each slot, uint64 or float32."""
        records = np.empty((len(values[0]), self.size), np.uint8)
        records[:] = self._record
        crc = np.full(len(records), self._crc)
        for byte in self._bytes:
            value = values[byte.slot]
            if byte.is_float:
                value = value.astype("<f4").view("<u4").astype(np.uint64)
            column = (value >> np.uint64(byte.shift)).astype(np.uint8)
            if not byte.is_float:
                column = column | np.uint8(_GOES_ON) if byte.goes_on else column & np.uint8(0x7F)
            records[:, byte.column] = column
            crc ^= byte.table[column ^ np.uint8(byte.base)]
        stored = masked(crc).astype("<u4")
        records[:, -CRC_BYTES:] = stored.view(np.uint8).reshape(-1, CRC_BYTES)
        return records

    def fits(self, rows: UInt8[np.ndarray, "n padded"]) -> Bool[np.ndarray, "n"]:
        """Tell which rows are records of this template, checksums aside."""
        words = rows.view(np.uint64)
        differing = np.zeros(len(rows), np.uint64)
        for column, (mask, wanted) in enumerate(zip(self.mask, self.wanted, strict=True)):
            if mask:
                differing |= (words[:, column] & mask) ^ wanted
        fitting: Bool[np.ndarray, "n"] = differing == 0
        return fitting

    def is_whole(self, rows: UInt8[np.ndarray, "n padded"]) -> Bool[np.ndarray, "n"]:
        """Tell which rows, all of this template, carry the checksum of their message."""
        crc = np.full(len(rows), self._crc)
        for byte in self._bytes:
            crc ^= byte.table[rows[:, byte.column] ^ np.uint8(byte.base)]
        at = self.size - CRC_BYTES
        stored = np.ascontiguousarray(rows[:, at : at + CRC_BYTES]).view("<u4")[:, 0]
        whole: Bool[np.ndarray, "n"] = masked(crc) == stored
        return whole

    def values(self, rows: UInt8[np.ndarray, "n padded"]) -> list[Array]:
        """Return the numbers of rows of this template: int64 or float32 for each slot."""
        numbers = [np.zeros(len(rows), np.uint64) for _ in self._slots]
        for byte in self._bytes:
            bits = _WHOLE if byte.is_float else 0x7F
            part = (rows[:, byte.column] & np.uint8(bits)).astype(np.uint64)
            numbers[byte.slot] |= part << np.uint64(byte.shift)
        return [
            found.astype("<u4").view("<f4") if slot.is_float else found.view(np.int64)
            for slot, found in zip(self._slots, numbers, strict=True)
        ]

    def _slot_bytes(self, number: int, message: bytes) -> list[_Byte]:
        slot = self._slots[number]
        bits = 8 if slot.is_float else 7
        return [
            _Byte(
                slot=number,
                shift=bits * place,
                column=HEAD_BYTES + slot.at + place,
                goes_on=0 if slot.is_float or place == slot.length - 1 else _GOES_ON,
                is_float=slot.is_float,
                base=message[slot.at + place],
                table=_crc_table(len(message) - slot.at - place - 1),
            )
            for place in range(slot.length)
        ]


def padded(size: int) -> int:
    """Return the length of a row that holds a record of this size."""
    return -(-size // WORD_BYTES) * WORD_BYTES


def masked_crc(data: bytes) -> int:
    """Return the checksum that TFRecord files carry: CRC32C, rotated and shifted."""
    return int(masked(np.array([google_crc32c.value(data)], np.uint32))[0])


def masked(crc: UInt32[np.ndarray, "n"]) -> UInt32[np.ndarray, "n"]:
    """Return checksums as files carry them."""
    rotated = (crc >> np.uint32(_MASK_SHIFT)) | (crc << np.uint32(_WORD_BITS - _MASK_SHIFT))
    return rotated + np.uint32(_MASK_DELTA)


def varint_lengths(values: UInt64[np.ndarray, "n"]) -> Array:
    """Return how many bytes each number takes in the variable-length form."""
    lengths = np.ones(len(values), np.int64)
    largest = int(values.max(initial=0))
    for count in range(1, LONGEST_VARINT):
        if largest < 1 << 7 * count:
            break
        lengths += values >= np.uint64(1 << 7 * count)
    return lengths


@functools.lru_cache(maxsize=_CRC_TABLES)
def _crc_table(behind: int) -> UInt32[np.ndarray, "256"]:
    """Return what a byte with so many bytes behind it adds to a checksum, for each value."""
    rest = bytes(behind)
    nothing = google_crc32c.value(b"\0" + rest)
    table = np.zeros(256, np.uint32)
    for bit in range(8):
        one = np.uint32(google_crc32c.value(bytes([1 << bit]) + rest) ^ nothing)
        table[1 << bit : 2 << bit] = table[: 1 << bit] ^ one
    return table
