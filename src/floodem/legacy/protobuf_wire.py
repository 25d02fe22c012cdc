"""Reading the protobuf wire format without its schema compiler.

A message is a run of (field number, value) pairs; a value is an integer
(varint, fixed32, fixed64) or bytes (strings, nested messages).

References
----------
Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_LENGTH = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the integer that begins at `position`, and where it ends.

    Raises
    ------
    ValueError
        When the data end within it or it is longer than 64 bits.
    """
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if position + count >= len(data):
            break
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise ValueError(f"variable-length integer at byte {position} does not end")


def read_message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of one message in the order they are stored.

    Raises
    ------
    ValueError
        When the data are cut short or hold an unknown wire type.
    """
    position = 0
    while position < len(data):
        key, position = read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = read_varint(data, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = read_varint(data, position)
        elif wire_type in _FIXED_LENGTH:
            length = _FIXED_LENGTH[wire_type]
        else:
            raise ValueError(f"field {number} has unknown wire type {wire_type}")
        chunk = data[position : position + length]
        if len(chunk) != length:
            raise ValueError(f"field {number} is cut short")
        position += length
        yield number, chunk if wire_type == _BYTES else int.from_bytes(chunk, "little")
