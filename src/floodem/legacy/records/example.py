"""One record of coordinates by its bytes: a tf.train.Example in, numbers and where they lie out.

Both schemas are known: ``center`` and ``label_volume_name``, or ``coord`` and ``volname``
with ``label``, ``segment_id`` and ``radius``. Whatever else is in a record is left alone.

References
----------
Protocol Buffers documentation, "Encoding". TensorFlow, ``core/example/feature.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from floodem.legacy.protobuf_wire import read_varint
from floodem.legacy.records.template import Slot

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_LENGTH = {_FIXED64: 8, _FIXED32: 4}

_FEATURES, _ENTRY, _KEY, _VALUE, _LIST = 1, 1, 1, 2, 1
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3

_COORDINATES = 3
_HISTORIC, _NEWER = (b"center", b"label_volume_name"), (b"coord", b"volname")
_LABEL, _SEGMENT_ID, _RADIUS = b"label", b"segment_id", b"radius"
_SHOWN_FEATURES = 5

INTEGER_FIELDS = ("x", "y", "z", "label", "segment_id")
"""What the integers of a record are, in the order in which `Coordinates` counts them."""

RADIUS = len(INTEGER_FIELDS)
"""The number of the only float among the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinates:
    """What one record says.

    Attributes
    ----------
    volume
        Name of the volume.
    is_newer
        Whether it is of the newer schema.
    integers
        Values by `INTEGER_FIELDS`; 0 where the record does not say.
    radius
        The float of the newer schema; 0 where the record does not say.
    slots, fields
        Where in the record's bytes its numbers lie, and which field each is.
    """

    volume: str
    is_newer: bool
    integers: tuple[int, int, int, int, int]
    radius: float
    slots: tuple[Slot, ...]
    fields: tuple[int, ...]


@dataclass(slots=True)
class _Feature:
    """The values of one feature; the slots are of its numbers."""

    kind: int
    texts: list[bytes]
    numbers: list[int | float]
    slots: list[Slot]


def read_coordinates(message: bytes) -> Coordinates:
    """Return what a message says.

    Raises
    ------
    ValueError
        When it is no Example, or one without coordinates.
    """
    features = dict(_features(message))
    names = next((names for names in (_NEWER, _HISTORIC) if set(names) <= features.keys()), None)
    if names is None:
        shown = [key.decode(errors="replace") for key in sorted(features)[:_SHOWN_FEATURES]]
        raise ValueError(f"has no coordinates among its features {shown}")
    centre = _wanted(features, names[0], kind=_INT64_LIST, count=_COORDINATES)
    found = {number: (centre.numbers[number], centre.slots[number]) for number in range(3)}
    is_newer = names is _NEWER
    if is_newer:
        for number, key in enumerate((_LABEL, _SEGMENT_ID, _RADIUS), start=_COORDINATES):
            if key in features:
                kind = _FLOAT_LIST if number == RADIUS else _INT64_LIST
                one = _wanted(features, key, kind=kind, count=1)
                found[number] = (one.numbers[0], one.slots[0])
    x, y, z, label, segment_id = (
        int(found[number][0]) if number in found else 0 for number in range(RADIUS)
    )
    return Coordinates(
        volume=_volume(features, names[1]),
        is_newer=is_newer,
        integers=(x, y, z, label, segment_id),
        radius=float(found[RADIUS][0]) if RADIUS in found else 0.0,
        slots=tuple(slot for _, slot in found.values()),
        fields=tuple(found),
    )


def _wanted(features: dict[bytes, _Feature], key: bytes, *, kind: int, count: int) -> _Feature:
    feature = features[key]
    if feature.kind != kind or len(feature.numbers) != count:
        what = "integers" if kind == _INT64_LIST else "floats"
        raise ValueError(
            f"has a {key.decode()} of {len(feature.numbers)} numbers; expected {count} {what}"
        )
    return feature


def _volume(features: dict[bytes, _Feature], key: bytes) -> str:
    texts = features[key].texts
    if len(texts) != 1:
        raise ValueError(f"has a {key.decode()} of {len(texts)} texts; expected one")
    try:
        return texts[0].decode()
    except UnicodeDecodeError:
        raise ValueError(f"has a {key.decode()} that is no text") from None


def _features(message: bytes) -> Iterator[tuple[bytes, _Feature]]:
    for begin, end in _parts(message, 0, len(message), number=_FEATURES):
        for entry in _parts(message, begin, end, number=_ENTRY):
            keys = [message[a:b] for a, b in _parts(message, *entry, number=_KEY)]
            feature = _Feature(0, [], [], [])
            for value in _parts(message, *entry, number=_VALUE):
                _read_feature(message, *value, into=feature)
            yield (keys[-1] if keys else b""), feature


def _read_feature(message: bytes, begin: int, end: int, *, into: _Feature) -> None:
    for kind, wire, first, last in _fields(message, begin, end):
        if wire != _BYTES or kind not in (_BYTES_LIST, _FLOAT_LIST, _INT64_LIST):
            continue
        if into.kind not in (0, kind):  # one of them only: the last counts
            into.texts, into.numbers, into.slots = [], [], []
        into.kind = kind
        for number, wire_of_value, a, b in _fields(message, first, last):
            if number == _LIST:
                _read_values(message, a, b, wire=wire_of_value, into=into)


def _read_values(message: bytes, begin: int, end: int, *, wire: int, into: _Feature) -> None:
    """Read values of a list: a text, a number alone, or numbers packed behind one another."""
    if into.kind == _BYTES_LIST and wire == _BYTES:
        into.texts.append(message[begin:end])
    elif into.kind == _INT64_LIST and wire in (_VARINT, _BYTES):
        at = begin
        while at < end:
            value, after = read_varint(message, at)
            if after > end or value >= 2**64:
                raise ValueError("holds a number that is cut short or too large")
            into.numbers.append(value - 2**64 if value >= 2**63 else value)
            into.slots.append(Slot(at=at, length=after - at))
            at = after
    elif into.kind == _FLOAT_LIST and wire in (_FIXED32, _BYTES):
        size = _FIXED_LENGTH[_FIXED32]
        if (end - begin) % size:
            raise ValueError("holds a float that is cut short")
        for at in range(begin, end, size):
            into.numbers.append(struct.unpack_from("<f", message, at)[0])
            into.slots.append(Slot(at=at, length=size, is_float=True))
    else:
        raise ValueError("holds a list of values of another kind")


def _parts(message: bytes, begin: int, end: int, *, number: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each message within a message that has this field number."""
    for found, wire, first, last in _fields(message, begin, end):
        if found == number and wire == _BYTES:
            yield first, last


def _fields(message: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, begin and end of the value of each field of a message."""
    at = begin
    while at < end:
        key, at = read_varint(message, at)
        wire, length = key & 7, 0
        if wire == _VARINT:
            length = read_varint(message, at)[1] - at
        elif wire == _BYTES:
            length, at = read_varint(message, at)
        elif wire in _FIXED_LENGTH:
            length = _FIXED_LENGTH[wire]
        else:
            raise ValueError(f"holds a field of unknown wire type {wire}")
        if at + length > end:
            raise ValueError("holds a field that is cut short")
        yield key >> 3, wire, at, at + length
        at += length
