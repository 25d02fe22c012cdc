"""Gzip files written by several threads: chunks of bytes in, one gzip member out.

Each chunk is compressed by itself and ends at a byte, so that any reader sees one
stream; that costs some bytes for each chunk, which should hold a megabyte or more.

References
----------
Deutsch 1996, RFC 1951 (deflate) and RFC 1952 (gzip).
"""

from __future__ import annotations

import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

LEVEL = 1
"""Of zlib. Level 6 makes coordinate records 4 % smaller and takes more than twice as long."""

_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255])
"""Deflate, no name, no time, fastest compression, unknown system."""

_LAST_BLOCK = b"\x03\x00"
_RAW_DEFLATE = -15
_MOST_MEMORY = 9

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class GzipStream:
    """Writes one gzip file; to be used in a ``with`` statement.

    Parameters
    ----------
    file
        Opened for writing bytes; it is not closed.
    pool
        Whose threads compress.
    ahead
        How many chunks may wait.
    """

    def __init__(self, file: IO[bytes], *, pool: ThreadPoolExecutor, ahead: int) -> None:
        self._file = file
        self._pool = pool
        self._ahead = ahead
        self._waiting: deque[Future[bytes]] = deque()
        self._crc = 0
        self._length = 0
        file.write(_HEADER)

    def write(self, chunk: Bytes) -> None:
        """Take bytes, which must not change any more."""
        self._waiting.append(self._pool.submit(_deflated, chunk))
        self._crc = zlib.crc32(chunk.data, self._crc)
        self._length += chunk.nbytes
        while len(self._waiting) > self._ahead:
            self._file.write(self._waiting.popleft().result())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            for future in self._waiting:
                future.cancel()
            return
        while self._waiting:
            self._file.write(self._waiting.popleft().result())
        self._file.write(_LAST_BLOCK)
        self._file.write(self._crc.to_bytes(4, "little"))
        self._file.write((self._length % 2**32).to_bytes(4, "little"))


def _deflated(chunk: Bytes) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _RAW_DEFLATE, _MOST_MEMORY)
    return compressor.compress(chunk.data) + compressor.flush(zlib.Z_SYNC_FLUSH)
