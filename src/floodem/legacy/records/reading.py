"""Coordinates out of TFRecord files: an address comes in, arrays go out, batch by batch.

    contents --> frames --> records of one template at once --> `CoordinateRecords`

Every checksum is checked. Records that no template fits yet are read byte by byte and
become templates; a file has few kinds of them, so that nearly all are read a column at a
time. Memory is bounded: a few megabytes of the file are looked at together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt64

from floodem.legacy.records.example import INTEGER_FIELDS, RADIUS, Coordinates, read_coordinates
from floodem.legacy.records.framing import Frames, frames
from floodem.legacy.records.stream import contents
from floodem.legacy.records.template import (
    CRC_BYTES,
    HEAD_BYTES,
    RecordTemplate,
    masked_crc,
    padded,
)

MOST_TEMPLATES = 2**10
"""Of one file; records beyond are read one by one."""

_WRONG_CHECKSUM = "does not fit its checksum"

_FEW_KINDS = 4
"""So many are tried one after the other."""

_MIXER = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, odd: the usual multiplier of hashes (Knuth, TAOCP 3, 6.4)."""

MOST_VOLUMES = 2**16
"""Different names in one file."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoordinateRecords:
    """Some records in the order of their file, all of one schema.

    Attributes
    ----------
    names
        The volumes met so far in the file.
    volumes
        The volume of each record, by its number among the names.
    centres_xyz
        x, y, z of each record, in voxels of its volume.
    labels, segment_ids, radii
        Of the newer schema, 0 where a record does not say; None: these are historic ones.
    """

    names: tuple[str, ...]
    volumes: Int64[np.ndarray, "n"]
    centres_xyz: Int64[np.ndarray, "n 3"]
    labels: Int64[np.ndarray, "n"] | None = None
    segment_ids: Int64[np.ndarray, "n"] | None = None
    radii: Float32[np.ndarray, "n"] | None = None

    def __len__(self) -> int:
        return len(self.volumes)


def read_records(address: str) -> Iterator[CoordinateRecords]:
    """Yield the coordinates of one TFRecord file, tens of thousands of records at once.

    Parameters
    ----------
    address
        Path or http(s), gs or s3 address, see `floodem.legacy.records.names.record_files`.

    Raises
    ------
    VolumeFormatError
        When a checksum is wrong, the file is cut short or holds something else than
        coordinates; the message names the record and its byte.
    VolumeNotFoundError, StorageError
        When there is no such file, or the system or the server refuses.
    """
    return RecordReader().read(address)


@dataclass(slots=True, kw_only=True)
class _Kind:
    """Records of one template: their volume and which field each slot is."""

    template: RecordTemplate
    volume: int
    is_newer: bool
    fields: tuple[int, ...]


class _Rows(NamedTuple):
    """Records of one size: where in the batch each stands, and its bytes, padded."""

    places: Int64[np.ndarray, "n"]
    bytes: UInt8[np.ndarray, "n padded"]

    def taken(self, which: Array) -> _Rows:
        return _Rows(self.places[which], self.bytes[which])

    def behind_first(self) -> _Rows:
        return _Rows(self.places[1:], self.bytes[1:])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """What is being read of a batch of records."""

    volumes: Int64[np.ndarray, "n"]
    integers: Int64[np.ndarray, "n 5"]
    radii: Float32[np.ndarray, "n"]
    is_newer: Bool[np.ndarray, "n"]


class RecordReader:
    """Reads files one after the other; what it learns from one it uses in the next."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._kinds: dict[int, list[_Kind]] = {}
        self._templates = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The volumes met so far in all files, in the order of their first records."""
        return tuple(self._names)

    def read(self, address: str) -> Iterator[CoordinateRecords]:
        """Yield the coordinates of one file, as `read_records` does.

        Raises
        ------
        FloodemError
            As `read_records`.
        """
        for some in frames(contents(address), source=address):
            yield from self._read_frames(some)

    def _read_frames(self, some: Frames) -> Iterator[CoordinateRecords]:
        count = len(some.starts)
        table = _Table(
            volumes=np.zeros(count, np.int64),
            integers=np.zeros((count, len(INTEGER_FIELDS)), np.int64),
            radii=np.zeros(count, np.float32),
            is_newer=np.zeros(count, np.bool_),
        )
        bad: dict[int, str] = {}
        for size in np.unique(some.sizes):
            places = np.flatnonzero(some.sizes == size)
            rows = _Rows(places, _gathered(some, places, size=int(size)))
            self._read_size(rows, table, size=int(size), bad=bad)
        if bad:
            first = min(bad)
            raise some.refused(first, bad[first])
        changes = np.flatnonzero(np.diff(table.is_newer)) + 1
        for begin, end in zip([0, *changes], [*changes, count], strict=True):
            yield _batch(table, slice(int(begin), int(end)), names=self.names)

    def _read_size(self, rows: _Rows, table: _Table, *, size: int, bad: dict[int, str]) -> None:
        """Read all records of one size: by the templates there are, then by new ones."""
        kinds = self._kinds.setdefault(size, [])
        rows = _take_known(kinds, rows, table, bad=bad)
        while len(rows.places):
            record, place = rows.bytes[0, :size].tobytes(), int(rows.places[0])
            try:
                found = _coordinates(record)
                volume = self._volume(found.volume)
            except ValueError as error:
                bad[place] = str(error)
                if isinstance(error, _TooManyVolumesError):
                    return
                rows = rows.behind_first()
                continue
            if self._templates < MOST_TEMPLATES:
                self._templates += 1
                kinds.append(_kind(record, found, volume=volume))
                rows = _take(kinds[-1], rows, table, bad=bad)
            else:
                _put(found, table, volume=volume, place=place)
                rows = rows.behind_first()

    def _volume(self, name: str) -> int:
        if name not in self._names and len(self._names) == MOST_VOLUMES:
            raise _TooManyVolumesError(
                f"names one volume more than the {MOST_VOLUMES:,} that a file may name"
            )
        return self._names.setdefault(name, len(self._names))


class _TooManyVolumesError(ValueError):
    """A file that names volumes without end."""


def _gathered(
    some: Frames, places: Int64[np.ndarray, "n"], *, size: int
) -> UInt8[np.ndarray, "n padded"]:
    """Return the records at some places, of one size, as rows of whole words."""
    width = padded(size)
    # Overlapping items, one beginning at each byte: numpy then copies whole records.
    items: Array = np.ndarray(
        len(some.data) - width + 1, f"V{width}", buffer=some.data, strides=(1,)
    )
    taken: Array = items[some.starts[places]]
    return taken.view(np.uint8).reshape(len(places), width)


def _kind(record: bytes, found: Coordinates, *, volume: int) -> _Kind:
    return _Kind(
        template=RecordTemplate(record[HEAD_BYTES:-CRC_BYTES], found.slots),
        volume=volume,
        is_newer=found.is_newer,
        fields=found.fields,
    )


def _coordinates(record: bytes) -> Coordinates:
    message = record[HEAD_BYTES:-CRC_BYTES]
    if masked_crc(message) != int.from_bytes(record[-CRC_BYTES:], "little"):
        raise ValueError(_WRONG_CHECKSUM)
    return read_coordinates(message)


def _take_known(
    kinds: Sequence[_Kind], rows: _Rows, table: _Table, *, bad: dict[int, str]
) -> _Rows:
    """Read the records of known kinds; returns the others.

    Each row is held against those kinds only whose bits it has where all kinds have some.
    """
    if len(kinds) <= _FEW_KINDS:
        for kind in kinds:
            rows = _take(kind, rows, table, bad=bad)
        return rows
    common = np.bitwise_and.reduce([kind.template.mask for kind in kinds])
    mixed = _mixed(np.array([kind.template.wanted for kind in kinds]), common)
    keys, key_of_kind = np.unique(mixed, return_inverse=True)
    of_rows = _mixed(rows.bytes.view(np.uint64), common)
    nearest = np.minimum(np.searchsorted(keys, of_rows), len(keys) - 1)
    nearest[keys[nearest] != of_rows] = len(keys)
    order = np.argsort(nearest.astype(np.uint16), kind="stable")
    bounds = np.searchsorted(nearest[order], np.arange(len(keys) + 2))
    left = []
    for key, (begin, end) in enumerate(itertools.pairwise(bounds)):
        mine = rows.taken(order[begin:end])
        for number in np.flatnonzero(key_of_kind == key).tolist():
            mine = _take(kinds[number], mine, table, bad=bad)
        left.append(mine)
    return _Rows(*(np.concatenate(parts) for parts in zip(*left, strict=True)))


def _mixed(rows: UInt64[np.ndarray, "n words"], mask: UInt64[np.ndarray, "words"]) -> Array:
    """Return one number for the bits of each row under a mask."""
    mixed = np.zeros(len(rows), np.uint64)
    for column, bits in enumerate(mask):
        mixed = (mixed ^ (rows[:, column] & bits)) * _MIXER
    return mixed


def _take(kind: _Kind, rows: _Rows, table: _Table, *, bad: dict[int, str]) -> _Rows:
    """Read the records of one kind; returns the others."""
    fits = kind.template.fits(rows.bytes)
    if not fits.any():
        return rows
    mine = rows if fits.all() else rows.taken(fits)
    at = mine.places
    for number in at[~kind.template.is_whole(mine.bytes)].tolist():
        bad[number] = _WRONG_CHECKSUM
    for field, values in zip(kind.fields, kind.template.values(mine.bytes), strict=True):
        if field == RADIUS:
            table.radii[at] = values
        else:
            table.integers[at, field] = values
    table.volumes[at] = kind.volume
    table.is_newer[at] = kind.is_newer
    return rows.taken(~fits)


def _put(found: Coordinates, table: _Table, *, volume: int, place: int) -> None:
    table.integers[place] = found.integers
    table.radii[place] = found.radius
    table.volumes[place] = volume
    table.is_newer[place] = found.is_newer


def _batch(table: _Table, part: slice, *, names: Sequence[str]) -> CoordinateRecords:
    integers = table.integers[part]
    is_newer = bool(table.is_newer[part][0])
    return CoordinateRecords(
        names=tuple(names),
        volumes=table.volumes[part],
        centres_xyz=integers[:, :3],
        labels=integers[:, 3] if is_newer else None,
        segment_ids=integers[:, 4] if is_newer else None,
        radii=table.radii[part] if is_newer else None,
    )
