"""The frames of a TFRecord file: chunks of bytes come in, whole records in a buffer go out.

    length (8 bytes) | its checksum (4) | message | its checksum (4) | length | ...

A length is believed when its checksum is right and it is no more than `LONGEST_RECORD`.
Checksums of messages are checked where messages are read (floodem.legacy.records.reading).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from floodem.errors import VolumeFormatError
from floodem.legacy.records.stream import CHUNK_BYTES, DamagedStreamError
from floodem.legacy.records.template import (
    CRC_BYTES,
    HEAD_BYTES,
    LENGTH_BYTES,
    WORD_BYTES,
    masked_crc,
)
from floodem.volumes.servers.addresses import without_secrets

LONGEST_RECORD = 2**16
"""Bytes of a message. Coordinates take about a hundred; other TFRecords hold whole images."""

_PADDING = bytes(WORD_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """Whole records that lie in one buffer.

    Attributes
    ----------
    data
        The records, and some bytes more, so that rows may be padded to whole words.
    starts, sizes
        Where in the buffer each begins, and its bytes, head and checksum included.
    first
        Number of the first one in its file, from 0.
    offset
        Where in the contents of the file the buffer begins.
    source
        Address of the file.
    """

    data: bytes
    starts: Int64[np.ndarray, "records"]
    sizes: Int64[np.ndarray, "records"]
    first: int
    offset: int
    source: str

    def refused(self, number: int, what: str) -> VolumeFormatError:
        """Return what to raise about record `number` of these."""
        at = self.offset + int(self.starts[number])
        return refused(self.source, record=self.first + number, byte=at, what=what)


def refused(source: str, *, record: int, byte: int, what: str) -> VolumeFormatError:
    """Return what to raise about a record: which, where it begins, what is wrong."""
    shown = without_secrets(source)
    if not record and not byte:
        return VolumeFormatError(
            f"{shown} is no TFRecord file of coordinates, or a damaged one (record 0 at byte 0: "
            f"{what}): check the address, or copy it again"
        )
    return VolumeFormatError(
        f"record {record:,} of {shown}, at byte {byte:,} of its contents, {what}: copy or make "
        "the file again"
    )


def frames(chunks: Iterable[bytes], *, source: str) -> Iterator[Frames]:
    """Yield the records of a file in order, as many at once as lie in some megabytes.

    Parameters
    ----------
    chunks
        Uncompressed contents (`floodem.legacy.records.stream.contents`).
    source
        Address of the file.

    Raises
    ------
    VolumeFormatError
        When it is damaged, cut short or no TFRecord file; the message names the record and
        the byte where it begins.
    """
    heads: dict[bytes, int] = {}
    left, offset, count = b"", 0, 0
    gathered = _gathered(chunks)
    while True:
        try:
            chunk = next(gathered, None)
        except DamagedStreamError as error:
            what = f"cannot be read, {error}"
            raise refused(source, record=count, byte=offset, what=what) from error
        if chunk is None:
            break
        data = b"".join((left, chunk, _PADDING))
        starts, at = _starts(data, heads, source=source, first=count, offset=offset)
        if starts:
            bounds = np.array([*starts, at], np.int64)
            yield Frames(
                data=data,
                starts=bounds[:-1],
                sizes=np.diff(bounds),
                first=count,
                offset=offset,
                source=source,
            )
        left = data[at : -len(_PADDING)]
        offset, count = offset + at, count + len(starts)
    if left:
        raise refused(source, record=count, byte=offset, what="is cut short: the file ends in it")


def _starts(
    data: bytes, heads: dict[bytes, int], *, source: str, first: int, offset: int
) -> tuple[list[int], int]:
    """Return where each whole record in a buffer begins, and where the last one ends.

    `heads` maps heads that were checked to the sizes of their records: few lengths occur.
    """
    starts: list[int] = []
    at, end = 0, len(data) - len(_PADDING)
    while True:
        head = data[at : at + HEAD_BYTES]
        size = heads.get(head)
        if size is None:
            if at + HEAD_BYTES > end:
                break
            try:
                size = heads[head] = _checked_size(head)
            except ValueError as error:
                raise refused(
                    source, record=first + len(starts), byte=offset + at, what=str(error)
                ) from None
        if at + size > end:
            break
        starts.append(at)
        at += size
    return starts, at


def _checked_size(head: bytes) -> int:
    """Return the size of a record from its head."""
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if masked_crc(head[:LENGTH_BYTES]) != int.from_bytes(head[LENGTH_BYTES:], "little"):
        raise ValueError("has a length that does not fit its checksum")
    if length > LONGEST_RECORD:
        raise ValueError(
            f"has {length:,} bytes, more than the {LONGEST_RECORD:,} of any coordinates"
        )
    return HEAD_BYTES + length + CRC_BYTES


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put small chunks together, so that each batch of records is worth its pains."""
    waiting: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            waiting.append(chunk)
            size += len(chunk)
            if size >= CHUNK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
    except DamagedStreamError:
        # What came before the damage is good.
        yield b"".join(waiting)
        raise
    yield b"".join(waiting)
