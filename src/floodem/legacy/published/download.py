"""One published file from its server to a disk: bounded, resumable, verified, in one piece.

In: what the catalogue knows of a file, and an address. Out: the file under its name,
and its SHA-256. What has arrived lies beside it as ``NAME.part`` until it is whole and
verified; ``NAME.part.json`` says of which version on the server it is the beginning, so
that a later call goes on with the same one.

References
----------
Fielding et al. 2022, RFC 9110 (HTTP), sections 13.1.5 (If-Range) and 14 (ranges).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from floodem.errors import (
    FloodemError,
    StoppedError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.files import require_free_disk, storage_error, sync_folder
from floodem.legacy.published.catalogue import CONTENTS, PublishedFile
from floodem.volumes.servers.addresses import stall_s, without_secrets
from floodem.volumes.servers.patience import AccessDeniedError, insist, remote_refusals
from floodem.volumes.servers.size import http_request, in_curls_words

PARTIAL_SUFFIX = ".part"
CHUNK_BYTES = 2**16
MOST_REDIRECTS = 5

MOST_FRUITLESS = 5
"""Connections in a row that may break without a byte that was not here before."""

_FIRST_DELAY_S = 0.25
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_DENIED = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS,
)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18})")
_LENGTH = re.compile(r"\d{1,18}")
_LONGEST_STATE = 2**14
_OTHER_WAY = "if your network does not let you there, give a copy of it with --mirror"


def download(
    file: PublishedFile,
    path: Path,
    *,
    address: str,
    received: Callable[[int], None],
    verified: Callable[[str, int], None],
    should_stop: Callable[[], bool],
) -> str:
    """Bring a file here, or the rest of it, and return its SHA-256.

    Parameters
    ----------
    file
        Its size and digest, as far as they are known.
    path
        Where it goes; what is there is replaced, in the end.
    address
        http(s); redirections from https to http are refused.
    received
        Called with the number of bytes that are here, now and then.
    verified
        Called with digest and size just before the file gets its name.
    should_stop
        Asked after every 64 kB.

    Raises
    ------
    StoppedError
        When `should_stop` said so; what has arrived is kept.
    VolumeNotFoundError
        When the server has no such file.
    VolumeFormatError
        When it is not the published file: too long, of another kind, another digest.
    StorageError, ResourceError
        When the server denies it or does not answer, or the disk is full.
    """
    transfer = _Download(file, path, address=address)
    digest = transfer.run(received, should_stop)
    transfer.finish(lambda size: verified(digest, size))
    return digest


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    try:
        with open(path, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise storage_error("read", path, error) from error


class _Download:
    def __init__(self, file: PublishedFile, path: Path, *, address: str) -> None:
        self._file = file
        self._path = path
        self._address = address
        self._name = without_secrets(address)
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._state = path.with_name(path.name + PARTIAL_SUFFIX + ".json")
        self._etag: str | None = None
        self._total: int | None = None
        self._was_resumed = False

    def run(self, received: Callable[[int], None], should_stop: Callable[[], bool]) -> str:
        try:
            for _ in range(2):
                self._receive(received, should_stop)
                digest = sha256_of(self._partial)
                problem = self._problem(digest)
                if problem is None:
                    return digest
                self._forget()
                if not self._was_resumed:
                    break
                # Parts of two versions may have been put together: once more, from the beginning.
        except FloodemError:
            raise
        except OSError as error:
            raise storage_error("write", self._partial, error) from error
        raise VolumeFormatError(
            f"{self._name} {problem}, so it is not the published file and was thrown away: look at "
            "that address in a browser (some networks answer with a page of their own), or "
            f"{_OTHER_WAY}"
        )

    def _receive(self, received: Callable[[int], None], should_stop: Callable[[], bool]) -> None:
        """Fill the partial file until it is as long as the server says."""
        self._was_resumed = False
        position = furthest = self._kept()
        fruitless = 0
        while True:
            with contextlib.closing(self._ask(position)) as answer:
                start = self._placed(answer, position)
                if start is not None:
                    received(start)
                    is_whole, position = self._copy(answer, start, (received, should_stop))
                    if is_whole:
                        return
            if start is None or not self._can_resume():
                position = 0
            fruitless = 0 if position > furthest else fruitless + 1
            furthest = max(furthest, position)
            if fruitless > MOST_FRUITLESS:
                raise StorageError(
                    f"cannot fetch {self._name}: the connection breaks again and again; run the "
                    f"same command again later to go on, or {_OTHER_WAY}"
                )
            time.sleep(_FIRST_DELAY_S * 2**fruitless)

    def _ask(self, position: int) -> Any:
        """Ask for the file from a position on, with patience."""
        headers = {"Range": f"bytes={position}-"} if position else {}
        if position and self._etag is not None:
            headers["If-Range"] = self._etag
        with remote_refusals("fetch", self._address):
            return insist(
                lambda: _Opening(self._address, headers), address=self._address, action="fetch"
            )

    def _placed(self, answer: Any, position: int) -> int | None:
        """Return where in the file the answer begins, or None where it fits to nothing here."""
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise StorageError(
                f"{self._name} comes compressed by its server, so that it cannot be checked: "
                "fetch it from another --mirror"
            )
        stated = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        etag = _strong(answer.headers.get("ETag"))
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._total = int(stated[2]) if stated is not None else None
            return position if self._total == position else None
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            is_same = etag == self._etag or self._etag is None or etag is None
            if stated is None or stated[1] is None or int(stated[1]) != position or not is_same:
                return None
            self._total = int(stated[2])
            self._was_resumed = True
        else:
            length = answer.headers.get("Content-Length", "")
            position, self._total = 0, int(length) if _LENGTH.fullmatch(length) else None
        self._require_expected(position)
        self._etag = etag or self._etag
        self._keep_state()
        return position

    def _require_expected(self, position: int) -> None:
        """Refuse a file of another size than the published one, and one without room here."""
        total, size, most = self._total, self._file.size, self._file.at_most_bytes
        if total is None:
            return
        if total > most or size not in (None, total):
            raise VolumeFormatError(
                f"{self._name} is {total} bytes long, and the published file "
                f"{'at most ' if size is None else ''}{most}: look at that address in a browser "
                f"(some networks answer with a page of their own), or {_OTHER_WAY}"
            )
        require_free_disk(
            self._path, needed_bytes=total - position, purpose=f"fetching {self._path.name}"
        )

    def _copy(
        self,
        answer: Any,
        position: int,
        listeners: tuple[Callable[[int], None], Callable[[], bool]],
    ) -> tuple[bool, int]:
        """Append what comes; return whether the file is whole, and how much of it is here."""
        received, should_stop = listeners
        if position > 0 and position == self._total:
            return True, position
        with open(self._partial, "r+b" if position else "wb") as partial:
            partial.truncate(position)
            partial.seek(position)
            while True:
                try:
                    chunk = answer.read1(CHUNK_BYTES)  # what is there, also before a stall
                except (OSError, HTTPException):
                    return False, position
                if not chunk:
                    return self._total in (None, position), position
                position += len(chunk)
                if position > self._file.at_most_bytes:
                    partial.truncate(0)
                    raise VolumeFormatError(
                        f"{self._name} is longer than the published file, "
                        f"{self._file.at_most_bytes} bytes at most: look at that address in a "
                        f"browser, or {_OTHER_WAY}"
                    )
                partial.write(chunk)
                received(position)
                if should_stop():
                    raise StoppedError(
                        "stopped; what has arrived is kept: run the same command again to go on"
                    )

    def _problem(self, digest: str) -> str | None:
        """Say what is wrong with the bytes that arrived, or None."""
        file = self._file
        size = self._partial.stat().st_size
        if file.size is not None and size != file.size:
            return f"gave {size} bytes instead of {file.size}"
        with open(self._partial, "rb") as content:
            begin = content.read(len(CONTENTS[file.content]))
        if begin != CONTENTS[file.content]:
            return f"does not begin as {file.content} files do"
        if file.sha256 is not None and digest != file.sha256:
            return f"has the SHA-256 {digest} instead of {file.sha256}"
        return None

    def finish(self, verified: Callable[[int], None]) -> None:
        """Give the verified file its name."""
        try:
            with open(self._partial, "rb+") as written:
                os.fsync(written.fileno())
                size = written.seek(0, os.SEEK_END)
            verified(size)
            os.replace(self._partial, self._path)
            self._state.unlink(missing_ok=True)
            sync_folder(self._path.parent)
        except FloodemError:
            raise
        except OSError as error:
            raise storage_error("write", self._path, error) from error

    def _kept(self) -> int:
        """Return how many bytes of an earlier call can be gone on from."""
        try:
            size = self._partial.stat().st_size
        except FileNotFoundError:
            return 0
        state = _read_state(self._state)
        self._etag = _strong(state.get("etag")) if state.get("address") == self._address else None
        return size if size <= self._file.at_most_bytes and self._can_resume() else 0

    def _can_resume(self) -> bool:
        """Tell whether two parts of the file are known, or will show, to belong together."""
        return self._etag is not None or self._file.sha256 is not None

    def _keep_state(self) -> None:
        text = json.dumps({"address": self._address, "etag": self._etag})
        self._state.write_text(text, encoding="utf-8")

    def _forget(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        self._etag = self._total = None


class _Opening:
    """A request that was sent; `insist` waits for the answer's head and tries again."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._name = without_secrets(address)
        self._request = http_request(address, headers=headers)

    def cancel(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Any:
        limit = stall_s() if timeout is None else min(timeout, stall_s())
        try:
            return urllib.request.build_opener(_Redirects).open(self._request, timeout=limit)
        except FloodemError:
            raise
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return error
            error.close()
            raise self._refusal(error.code) from None
        except (OSError, HTTPException) as error:
            raise OSError(in_curls_words(error)) from error

    def _refusal(self, code: int) -> OSError:
        if code in _GONE:
            return VolumeNotFoundError(
                f"{self._name} is not there any more (HTTP {code}): look for a newer floodem, or "
                f"{_OTHER_WAY}"
            )
        if code in _DENIED:
            return AccessDeniedError(
                f"cannot fetch {self._name}: access is denied (HTTP {code}); {_OTHER_WAY}"
            )
        if code // 100 == 3:
            return StorageError(
                f"cannot fetch {self._name}: it is sent on more than {MOST_REDIRECTS} times, or "
                f"nowhere (HTTP {code}); {_OTHER_WAY}"
            )
        return OSError(f"[HTTP code {code}]")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirections, and none that gives up encryption."""

    max_redirections = MOST_REDIRECTS

    def redirect_request(  # noqa: PLR0917 - urllib's
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = (url.partition(":")[0].lower() for url in (req.full_url, newurl))
        if new != "https" and (old, new) != ("http", "http"):
            if fp is not None:
                fp.close()
            raise StorageError(
                f"{without_secrets(req.full_url)} leads to {without_secrets(newurl)}, which is no "
                f"https address: it was not followed; {_OTHER_WAY}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _strong(etag: object) -> str | None:
    """Return an entity tag that stands for the very same bytes, or None."""
    is_strong = isinstance(etag, str) and re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag)
    return str(etag) if is_strong else None


def _read_state(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as content:
            state = json.loads(content.read(_LONGEST_STATE))
    except (OSError, RecursionError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
