"""The bytes of a TFRecord file: an address comes in, its contents go out, a chunk at a time.

Whether a file is compressed is told by its content, not by its name. Compressed ones
may have several gzip members, as files that were joined have, and zeros behind them.
Files lie on a disk or at an http(s), gs or s3 address.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from floodem.errors import FloodemError
from floodem.files import storage_error
from floodem.volumes.servers.transport import open_file

CHUNK_BYTES = 2**22
"""About as much as comes out at once; the memory that reading takes is a few times this."""

GZIP_BEGIN = b"\x1f\x8b\x08"
"""A record that began so would be longer than any record may be (framing.LONGEST_RECORD)."""

_READ_BYTES = 2**20
_GZIP_WINDOW = 31
"""Of zlib: the largest window, within a gzip frame."""


class DamagedStreamError(ValueError):
    """Compressed bytes that are not what was compressed; the reader says where it was."""


def contents(address: str) -> Iterator[bytes]:
    """Yield the uncompressed contents of a file, in chunks of any size.

    Raises
    ------
    StorageError, VolumeNotFoundError
        When there is no such file, or the system or the server refuses.
    DamagedStreamError
        When the compressed bytes are damaged or cut short.
    """
    blocks = _blocks(address)
    first = next(blocks, b"")
    rest = _following(first, blocks)
    yield from _ahead(_unzipped(rest)) if first.startswith(GZIP_BEGIN) else rest


def _blocks(address: str) -> Iterator[bytes]:
    try:
        with open_file(address) as file:
            while block := file.read(_READ_BYTES):
                yield block
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("read", address, error) from error


def _ahead(chunks: Generator[bytes, None, None]) -> Iterator[bytes]:
    """Let the next chunk be made by another thread while somebody looks at the last one."""
    with contextlib.closing(chunks), ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def _following(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _unzipped(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    members = 0
    member = zlib.decompressobj(_GZIP_WINDOW)
    is_inside = False
    for block in blocks:
        waiting = block
        while waiting or is_inside:
            if not is_inside:
                waiting = waiting.lstrip(b"\0") if members else waiting
                if not waiting:
                    break
                is_inside = True
            try:
                out = member.decompress(waiting, CHUNK_BYTES)
            except zlib.error as error:
                raise DamagedStreamError(f"its compressed bytes are damaged ({error})") from error
            if out:
                yield out
            if member.eof:
                waiting, members = member.unused_data, members + 1
                member, is_inside = zlib.decompressobj(_GZIP_WINDOW), False
                continue
            waiting = member.unconsumed_tail
            if not waiting and len(out) < CHUNK_BYTES:
                break
    if is_inside:
        raise DamagedStreamError("its compressed bytes end early")
