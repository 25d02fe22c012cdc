"""What is asked of the server and what it says: plain values between HTTP and the data.

Whatever serves data is a `Source`. It knows nothing of sockets: floodem.viewer.serving.wire
hands it a `Request` and sends the `Answer`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from floodem.errors import StorageError

PIECE_BYTES = 256 * 2**10
"""Bodies are sent in such pieces, each when the one before it has left: what a slow reader
holds in memory is one of them."""

_GZIP_LEVEL = 1
"""Of zlib: 9 takes five times as long for a tenth less of label data."""

_PROBE_BYTES = 16 * 2**10
_WORTH_IT = 0.7
"""Only what a probe of the beginning shrinks to this share is compressed: noise of a microscope
shrinks to about 0.8, which costs more time than it saves on any network but the slowest."""

_SMALLEST = 256
"""Bytes below which compressing gains nothing that one packet does not carry anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a source.

    Attributes
    ----------
    path
        What follows the source's own address, percent-encoding undone, without the first slash.
    headers
        By lower-case name.
    """

    path: str
    headers: Mapping[str, str]

    @property
    def takes_gzip(self) -> bool:
        """Whether the client can unpack gzip."""
        return accepts(self.headers.get("accept-encoding", ""), "gzip")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Bytes of a file that is read piece by piece; opened anew for each, so that none stays open.

    Attributes
    ----------
    identity
        What `file_identity` said when the answer began.
    """

    path: Path
    start: int
    stop: int
    identity: tuple[int, int, int]

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, offset: int) -> bytes:
        """Return the piece that begins `offset` bytes after `start`.

        Raises
        ------
        StorageError
            When the file has changed since the answer began.
        OSError
            When the system refuses.
        """
        begin = self.start + offset
        with open(self.path, "rb", buffering=0) as handle:
            is_same = file_identity(os.fstat(handle.fileno())) == self.identity
            handle.seek(begin)
            wanted = min(PIECE_BYTES, self.stop - begin)
            piece = handle.read(wanted)
        if not is_same or not piece:
            raise StorageError(f"{self.path} was changed while it was sent: load the page again")
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a status, headers, and bytes or part of a file."""

    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""


class Source(Protocol):
    """Something that is served below an address of its own."""

    @property
    def executor(self) -> Executor:
        """Where `answer` runs, which may wait for disks and servers."""

    @property
    def is_public(self) -> bool:
        """Whether pages of any origin may read it (CORS)."""

    def at_once(self, request: Request) -> Answer | None:
        """Answer what needs no waiting, or None."""

    def answer(self, request: Request) -> Answer:
        """Answer the rest."""

    def close(self) -> None:
        """Wait for what is being answered and let go of threads."""


def text_answer(status: int, sentence: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a sentence as plain text, not to be kept."""
    plain = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return Answer(status=status, headers=plain | dict(headers or {}), body=f"{sentence}\n".encode())


def not_found() -> Answer:
    """Return what every address gets where there is nothing, or nothing that may be seen."""
    return text_answer(HTTPStatus.NOT_FOUND, "there is nothing at this address")


def file_identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return numbers that change when a file is replaced or rewritten."""
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def accepts(header: str, encoding: str) -> bool:
    """Tell whether an Accept-Encoding header allows an encoding (RFC 9110, 12.5.3).

    Examples
    --------
    >>> accepts("gzip, deflate, br", "gzip"), accepts("gzip;q=0", "gzip"), accepts("", "gzip")
    (True, False, False)
    """
    qualities = dict(_qualities(header))
    return qualities.get(encoding, qualities.get("*", 0.0)) > 0


def _qualities(header: str) -> Iterator[tuple[str, float]]:
    for part in header.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        yield name, quality


def is_known(request: Request, etag: str) -> bool:
    """Tell whether the client has this already (If-None-Match, RFC 9110, 13.1.2)."""
    asked = request.headers.get("if-none-match")
    if asked is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def shrunk(data: bytes) -> bytes | None:
    """Return data compressed for the wire, or None where that is not worth it."""
    if len(data) < _SMALLEST:
        return None
    probe = data[:_PROBE_BYTES]
    if len(gzip.compress(probe, _GZIP_LEVEL, mtime=0)) > _WORTH_IT * len(probe):
        return None
    return gzip.compress(data, _GZIP_LEVEL, mtime=0)
