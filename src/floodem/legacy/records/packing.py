"""TFRecords of coordinates, many at once: volumes' names and positions in, bytes out.

One record is a ``tf.train.Example``. The historic one has two features, ``center``
(int64 x, y, z) and ``label_volume_name`` (bytes); the newer one has ``coord`` (int64
x, y, z), ``volname`` (bytes), ``label`` and ``segment_id`` (int64) and ``radius``
(float). Records of one volume whose integers take equally many bytes are made from one
template (floodem.legacy.records.template).

References
----------
Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from floodem.legacy.records.template import (
    LONGEST_VARINT,
    RecordTemplate,
    Slot,
    masked_crc,
    varint_lengths,
)

__all__ = ["RecordWriter", "masked_crc", "varint"]

# Field numbers and wire types of tf.train.Example, Features, Feature and their lists, each a
# field number times 8 plus wire type 2 (length-delimited).
_EXAMPLE_FEATURES, _FEATURES_ENTRY, _ENTRY_KEY, _ENTRY_VALUE = 0x0A, 0x0A, 0x0A, 0x12
_FEATURE_BYTES_LIST, _FEATURE_FLOAT_LIST, _FEATURE_INT64_LIST, _LIST_VALUE = 0x0A, 0x12, 0x1A, 0x0A

_FLOAT_BYTES = 4
_COORDINATES = 3
_INTEGERS_OF_NEWER = 5

Array = np.ndarray[Any, np.dtype[Any]]


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
        self._templates: dict[tuple[int, ...], RecordTemplate] = {}

    def records(
        self,
        volumes: Int64[np.ndarray, "records"],
        centres_xyz: Int64[np.ndarray, "3 records"],
    ) -> Array:
        """Return the historic records of these centres, one after the other, as uint8.

        Parameters
        ----------
        volumes
            The volume of each centre, by its number among the names.
        centres_xyz
            x, y, z of each centre; negative numbers take ten bytes.
        """
        return self._made(volumes, list(centres_xyz.astype(np.uint64)), radii=None)

    def newer_records(
        self,
        volumes: Int64[np.ndarray, "records"],
        centres_xyz: Int64[np.ndarray, "3 records"],
        *,
        labels: Int64[np.ndarray, "records"],
        segment_ids: Int64[np.ndarray, "records"],
        radii: Float32[np.ndarray, "records"],
    ) -> Array:
        """Return records of the newer schema, one after the other, as uint8.

        Parameters
        ----------
        volumes, centres_xyz
            As of `records`.
        labels, segment_ids, radii
            What they say of each centre besides.
        """
        integers = [*centres_xyz, labels, segment_ids]
        return self._made(volumes, [one.astype(np.uint64) for one in integers], radii=radii)

    def _made(
        self,
        volumes: Int64[np.ndarray, "records"],
        integers: Sequence[Array],
        *,
        radii: Float32[np.ndarray, "records"] | None,
    ) -> Array:
        if not len(volumes):
            return np.zeros(0, np.uint8)
        kinds = volumes
        for numbers in integers:
            kinds = kinds * (LONGEST_VARINT + 1) + varint_lengths(numbers)
        found, kind_of_record = np.unique(kinds, return_inverse=True)
        templates = [self._template(int(kind), integers=len(integers)) for kind in found]
        sizes = np.array([template.size for template in templates], np.int64)
        ends = np.cumsum(sizes[kind_of_record])
        out = np.empty(int(ends[-1]), np.uint8)
        values = [*integers, *([] if radii is None else [radii])]
        for number, template in enumerate(templates):
            rows = np.flatnonzero(kind_of_record == number)
            # Overlapping items, one beginning at each byte: numpy then copies whole records.
            places: Array = np.ndarray(
                len(out) - template.size + 1, f"V{template.size}", buffer=out, strides=(1,)
            )
            made = template.fill([one[rows] for one in values])
            places[ends[rows] - template.size] = made.view(f"V{template.size}")[:, 0]
        return out

    def _template(self, kind: int, *, integers: int) -> RecordTemplate:
        lengths: list[int] = []
        for _ in range(integers):
            kind, length = divmod(kind, LONGEST_VARINT + 1)
            lengths.insert(0, length)
        key = (kind, *lengths)
        if key not in self._templates:
            make = _newer_example if integers == _INTEGERS_OF_NEWER else _historic_example
            self._templates[key] = RecordTemplate(*make(self._names[kind], lengths))
        return self._templates[key]


def _historic_example(name: bytes, lengths: Sequence[int]) -> tuple[bytes, list[Slot]]:
    return _example(
        [
            (b"center", _integers(lengths), list(lengths)),
            (b"label_volume_name", _text(name), []),
        ]
    )


def _newer_example(name: bytes, lengths: Sequence[int]) -> tuple[bytes, list[Slot]]:
    coordinates, (label, segment_id) = lengths[:_COORDINATES], lengths[_COORDINATES:]
    message, slots = _example(
        [
            (b"coord", _integers(coordinates), list(coordinates)),
            (b"label", _integers([label]), [label]),
            (b"segment_id", _integers([segment_id]), [segment_id]),
            (b"radius", _float(), [_FLOAT_BYTES]),
            (b"volname", _text(name), []),
        ]
    )
    radius = slots[_INTEGERS_OF_NEWER]
    slots[_INTEGERS_OF_NEWER] = Slot(at=radius.at, length=radius.length, is_float=True)
    return message, slots


def _example(features: Sequence[tuple[bytes, bytes, list[int]]]) -> tuple[bytes, list[Slot]]:
    """Return an Example of these features, and the slots that they end with.

    Each is its name, its value as a Feature, and the lengths of the slots at its end.
    """
    entries, ends = b"", []
    for key, value, _ in features:
        entries += _field(_FEATURES_ENTRY, _field(_ENTRY_KEY, key) + _field(_ENTRY_VALUE, value))
        ends.append(len(entries))
    message = _field(_EXAMPLE_FEATURES, entries)
    slots = []
    for (_, _, lengths), end in zip(features, ends, strict=True):
        at = len(message) - len(entries) + end - sum(lengths)
        for length in lengths:
            slots.append(Slot(at=at, length=length))
            at += length
    return message, slots


def _integers(lengths: Sequence[int]) -> bytes:
    """Return a Feature of integers, all 0, that take so many bytes."""
    return _field(_FEATURE_INT64_LIST, _field(_LIST_VALUE, bytes(sum(lengths))))


def _float() -> bytes:
    return _field(_FEATURE_FLOAT_LIST, _field(_LIST_VALUE, bytes(_FLOAT_BYTES)))


def _text(text: bytes) -> bytes:
    return _field(_FEATURE_BYTES_LIST, _field(_LIST_VALUE, text))


def _field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content
