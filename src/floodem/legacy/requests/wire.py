"""Requests as results carry them: a message in, protobuf's bytes out, and back.

Fields go out in the order of their numbers, as the old programs wrote them. Fields that
the schema does not have, which requests of other versions may carry, are kept as they
were stored and go out again behind the known ones.

References
----------
Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.legacy.protobuf_wire import read_varint
from floodem.legacy.requests.message import Message, nearest_float32
from floodem.legacy.requests.schema import SCHEMAS, Field, Kind

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_LENGTHS = {_FIXED64: 8, _FIXED32: 4}
_WIRE_TYPES = {
    Kind.FLOAT: _FIXED32,
    Kind.DOUBLE: _FIXED64,
    Kind.STRING: _BYTES,
    Kind.MESSAGE: _BYTES,
}
_TYPE_BITS = 3
_LARGEST_FIELD_NUMBER = 2**29 - 1
_SIGN_BITS = {Kind.INT32: 32, Kind.INT64: 64}
_WORD = 2**64


def encode(message: Message) -> bytes:
    """Return the binary form of a message."""
    schema = SCHEMAS[message.name]
    parts: list[bytes] = []
    for number in sorted(schema.by_number):
        field = schema.by_number[number]
        if field.name not in message.values:
            continue
        value = message.values[field.name]
        for one in value if field.is_repeated else (value,):
            parts.append(_varint(number << _TYPE_BITS | _WIRE_TYPES.get(field.kind, _VARINT)))
            parts.append(_encoded(field, one))
    return b"".join((*parts, *message.unknown))


def decode(data: bytes, *, message: str) -> Message:
    """Read a message from its binary form.

    Parameters
    ----------
    message
        Its name, one of `SCHEMAS`.

    Raises
    ------
    VolumeFormatError
        When the data are cut short, damaged, or no such message.
    """
    try:
        return _decode(bytes(data), message)
    except ValueError as error:
        raise VolumeFormatError(
            f"{len(data)} bytes are no {message} ({error}): take them from an unharmed file"
        ) from error


def _varint(value: int) -> bytes:
    value %= _WORD  # negative numbers in two's complement
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _encoded(field: Field, value: Any) -> bytes:
    if field.kind is Kind.FLOAT:
        return struct.pack("<f", value)
    if field.kind is Kind.DOUBLE:
        return struct.pack("<d", value)
    if field.kind not in {Kind.STRING, Kind.MESSAGE}:
        return _varint(int(value))
    content = encode(value) if isinstance(value, Message) else value.encode()
    return _varint(len(content)) + content


def _decode(data: bytes, name: str) -> Message:
    """Read a message; those within it nest as deep as the schema does, whatever the data are."""
    schema = SCHEMAS[name]
    values: dict[str, Any] = {}
    parts: dict[str, list[bytes]] = {}
    unknown: list[bytes] = []
    for number, wire_type, content, raw in _stored_fields(data):
        field = schema.by_number.get(number)
        if field is None or not _fits(field, wire_type, content):
            unknown.append(raw)
            continue
        if field.group:
            for other in schema.by_number.values():
                if other.group == field.group and other is not field:
                    values.pop(other.name, None)
                    parts.pop(other.name, None)
        if field.kind is Kind.MESSAGE and not field.is_repeated:
            # Its parts one behind the other are the message they merge to.
            parts.setdefault(field.name, []).append(content)
            values[field.name] = None
        elif field.is_repeated:
            found = _repeated(field, wire_type, content)
            values.setdefault(field.name, []).extend(found)
        else:
            values[field.name] = _value(field, content)
    for part_name, contents in parts.items():
        field = schema.by_name[part_name]
        values[part_name] = _decode(b"".join(contents), field.message)
    kept = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return Message(name, {key: value for key, value in kept.items() if value != ()}, tuple(unknown))


def _stored_fields(data: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield number, wire type, content and all bytes of each field, in stored order."""
    position = 0
    while position < len(data):
        start = position
        key, position = read_varint(data, position)
        number, wire_type = key >> _TYPE_BITS, key & 7
        if not 0 < number <= _LARGEST_FIELD_NUMBER:
            raise ValueError(f"field number {number} at byte {start} is impossible")
        begin = position
        if wire_type == _VARINT:
            _, position = read_varint(data, position)
        elif wire_type == _BYTES:
            length, begin = read_varint(data, position)
            position = begin + length
        elif wire_type in _FIXED_LENGTHS:
            position += _FIXED_LENGTHS[wire_type]
        else:
            raise ValueError(f"field {number} has unknown wire type {wire_type}")
        if position > len(data):
            raise ValueError(f"field {number} is cut short")
        yield number, wire_type, data[begin:position], data[start:position]


def _fits(field: Field, wire_type: int, content: bytes) -> bool:
    """Tell whether stored data are a value of this field; else they are kept as unknown."""
    if field.choices and wire_type == _VARINT:
        return read_varint(content, 0)[0] in field.choices.values()
    own = _WIRE_TYPES.get(field.kind, _VARINT)
    return wire_type == own or (field.is_repeated and wire_type == _BYTES)


def _repeated(field: Field, wire_type: int, content: bytes) -> list[Any]:
    if field.kind is Kind.MESSAGE:
        return [_decode(content, field.message)]
    if wire_type != _BYTES or field.kind is Kind.STRING:
        return [_value(field, content)]
    packed: list[Any] = []  # newer writers store all numbers of a field in one
    position = 0
    while position < len(content):
        number, position = read_varint(content, position)
        packed.append(_integer(field, number))
    return packed


def _value(field: Field, content: bytes) -> Any:
    if field.kind is Kind.FLOAT:
        return nearest_float32(struct.unpack("<f", content)[0])
    if field.kind is Kind.DOUBLE:
        return struct.unpack("<d", content)[0]
    if field.kind is Kind.STRING:
        return content.decode()
    return _integer(field, read_varint(content, 0)[0])


def _integer(field: Field, stored: int) -> int | bool:
    if field.kind is Kind.BOOL:
        return stored != 0
    bits = _SIGN_BITS.get(field.kind)
    if bits is None:
        return stored % _WORD
    stored %= 1 << bits
    return stored - (1 << bits) if stored >= 1 << bits - 1 else stored
