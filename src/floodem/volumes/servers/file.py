"""A file on a server as Python's files are: an address in, bytes at a position out.

Only the blocks that are asked for are fetched, by range requests. HDF5, npz and
TIFF readers take it for a file.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from floodem.errors import StorageError, VolumeNotFoundError
from floodem.volumes.servers.addresses import (
    HTTP_SCHEMES,
    context_spec,
    kvstore_spec,
    split_address,
    tensorstore,
    without_secrets,
)
from floodem.volumes.servers.patience import insist, insist_all, remote_refusals
from floodem.volumes.servers.size import count_bytes, find_http_file

BLOCK_BYTES = 2**18
"""Small enough for random reads of one chunk, large enough for a file's scattered descriptions."""

CACHED_BLOCKS = 256
"""64 MiB of the file are kept."""

MAX_RUN_BLOCKS = 32
"""As many blocks are fetched by one request at most: 8 MiB."""


class RemoteFile(io.RawIOBase):
    """A file at an http(s), gs or s3 address, read by ranges, with the last blocks kept.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    StorageError
        When the server denies it, does not answer, or sends only whole files.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.name = without_secrets(address)
        self._address = address
        self._position = 0
        self._expected = -1
        self._ahead = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._generation: bytes | None = None
        with remote_refusals("open", address):
            if split_address(address)[0] in HTTP_SCHEMES:
                found_at, self._size = find_http_file(address)
                self._store = _open_store(found_at)
            else:
                self._store = _open_store(address)
                self._size = count_bytes(address, self._store)

    def readable(self) -> bool:
        """Return True: it can."""
        return True

    def seekable(self) -> bool:
        """Return True: it can."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a byte, also beyond the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the byte at which the next read begins."""
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer from the present position; return how much of it."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        with self._lock, remote_refusals("read", self._address):
            self._fill(view[:count], self._position)
        self._position += count
        return count

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Bring several ranges here at once (start and stop, in bytes), for reads to come.

        Only as many as are kept; the others are fetched when they are read.
        """
        wanted: dict[int, None] = {}
        for start, stop in ranges:
            last = min(stop, self._size) - 1
            wanted.update(dict.fromkeys(range(start // BLOCK_BYTES, last // BLOCK_BYTES + 1)))
            if len(wanted) > CACHED_BLOCKS // 2:
                break
        with self._lock, remote_refusals("read", self._address):
            self._fetch_blocks(sorted(set(list(wanted)[: CACHED_BLOCKS // 2]) - set(self._blocks)))
            self._forget()

    def _fill(self, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            # Piece by piece, so that what was fetched is not pushed out before it is copied.
            piece = view[done : done + CACHED_BLOCKS // 2 * BLOCK_BYTES]
            self._fill_piece(piece, start + done)
            done += len(piece)

    def _fill_piece(self, view: memoryview, start: int) -> None:
        stop = start + len(view)
        first, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        self._fetch(first, last, reads_on=start == self._expected)
        self._expected = stop
        for block in range(first, last + 1):
            at = block * BLOCK_BYTES
            data = self._blocks[block]
            self._blocks.move_to_end(block)
            low, high = max(start, at), min(stop, at + len(data))
            view[low - start : high - start] = data[low - at : high - at]
        self._forget()

    def _fetch(self, first: int, last: int, *, reads_on: bool) -> None:
        """Bring blocks here that are not, neighbours by one request.

        Who reads on where the last read ended gets twice as much in advance each time.
        """
        missing = [block for block in range(first, last + 1) if block not in self._blocks]
        if not reads_on:
            self._ahead = 0
        elif missing:
            self._ahead = min(max(1, 2 * self._ahead), MAX_RUN_BLOCKS)
        if missing:
            end = -(-self._size // BLOCK_BYTES)
            ahead = range(last + 1, min(last + 1 + self._ahead, end))
            missing += [block for block in ahead if block not in self._blocks]
        self._fetch_blocks(missing)

    def _forget(self) -> None:
        """Let go of what was used longest ago, once nobody waits for it."""
        while len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)

    def _fetch_blocks(self, missing: list[int]) -> None:
        ranges = [
            (run[0] * BLOCK_BYTES, min((run[-1] + 1) * BLOCK_BYTES, self._size))
            for run in _runs(missing)
        ]
        for (low, _), data in zip(ranges, self._read_ranges(ranges), strict=True):
            for at in range(0, len(data), BLOCK_BYTES):
                self._blocks[(low + at) // BLOCK_BYTES] = data[at : at + BLOCK_BYTES]

    def _read_ranges(self, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
        def start(low: int, high: int) -> Any:
            return lambda: self._store.read("", byte_range=slice(low, high))

        found = insist_all(
            [start(low, high) for low, high in ranges], address=self._address, action="read"
        )
        for result in found:
            if result.state != "value":
                raise VolumeNotFoundError(f"{self.name} is not there any more: try again")
            self._require_same(result.stamp.generation)
            yield result.value

    def _require_same(self, generation: bytes) -> None:
        if self._generation is None:
            self._generation = generation
        if generation != self._generation:
            raise StorageError(
                f"{self.name} was changed on the server while it was being read: open it again"
            )


def _open_store(address: str) -> Any:
    library = tensorstore()
    context = library.Context(context_spec())
    return insist(
        lambda: library.KvStore.open(kvstore_spec(address), context=context),
        address=address,
        action="open",
    )


def _runs(blocks: list[int]) -> list[list[int]]:
    """Group ascending numbers that follow one another, up to the longest run allowed."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][-1] + 1 and len(runs[-1]) < MAX_RUN_BLOCKS:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs
