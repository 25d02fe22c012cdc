"""Files below a folder: a stranger's path comes in, part of a file or nothing goes out.

Whole files are sent piece by piece, whatever their size; ranges as in RFC 9110, 14. Nothing is
given that does not lie in the folder itself, after links were followed, and no hidden file.
"""

from __future__ import annotations

import gzip
import mimetypes
import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from floodem.errors import OptionError, StorageError
from floodem.viewer.serving.answers import (
    Answer,
    FilePart,
    Request,
    file_identity,
    is_known,
    not_found,
    shrunk,
    text_answer,
)

ZARR_METADATA = frozenset({".zarray", ".zattrs", ".zgroup", ".zmetadata"})
"""Names of zarr 2 that begin with a dot and are no secrets: a client reads them first."""

_THREADS = 4

_PACKED_BYTES = 16 * 2**20
"""Files up to this size are compressed in memory for the wire; larger ones go as they are."""

_PACKED_SUFFIX = ".gz"
"""Chunks that were stored compressed, as CloudVolume does: ``NAME.gz`` is sent for ``NAME``."""

_TYPES = {
    "": "application/octet-stream",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".md": "text/markdown",
    **dict.fromkeys([".zarray", ".zattrs", ".zgroup", ".zmetadata"], "application/json"),
}
"""What a system's table of types may lack or hold otherwise."""

_NOT_IN_NAMES = frozenset("/\\\x7f" + "".join(map(chr, range(32))))
"""Separators, and control characters with NUL among them."""

_RANGE = re.compile(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII)


class ServedFolder:
    """A source (see `floodem.viewer.serving.answers.Source`) that is a folder of files.

    Parameters
    ----------
    folder
        Links inside it are followed as long as they stay inside.
    is_public
        Whether pages of any origin may read it (CORS).
    headers
        Sent with every file besides its own.
    absent
        Gives what a file that is not there would hold, by its path, None where there is
        none.
    only
        Names in the folder that may be seen; None: all.

    Raises
    ------
    OptionError
        When there is no such folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        is_public: bool = False,
        headers: Mapping[str, str] | None = None,
        absent: Callable[[str], bytes | None] | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        if not folder.is_dir():
            raise OptionError(f"there is no folder {folder} to serve: check the path")
        self.is_public = is_public
        self._root = Path(os.path.realpath(folder))
        self._extra = dict(headers or {})
        self._absent = absent
        self._only = only
        self.executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="floodem-folder")

    def at_once(self, request: Request) -> Answer | None:
        """Refuse paths that no file of the folder can have."""
        return None if segments_of(request.path) is not None else not_found()

    def answer(self, request: Request) -> Answer:
        """Answer with a file, a part of it, or that there is none."""
        try:
            found = self.find(request.path)
            if found is not None and found.is_dir():
                return self._folder(request)
            if found is not None:
                return self._file(request, found)
            packed = self.find(request.path + _PACKED_SUFFIX)
            if packed is None or packed.is_dir():
                return self._not_there(request)
            return self._stored_packed(request, packed)
        except StorageError as error:
            return text_answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except OSError:
            return not_found()  # it went away, or may not be read

    def close(self) -> None:
        """Wait for what is being read."""
        self.executor.shutdown(wait=True, cancel_futures=True)

    def find(self, path: str) -> Path | None:
        """Return the file or folder that a path names, or None where nothing may be seen."""
        segments = segments_of(path)
        if segments is None:
            return None
        found = Path(os.path.realpath(self._root.joinpath(*segments)))
        if found != self._root and self._root not in found.parents:
            return None
        # A link may lead to what must not be seen by another name.
        names = found.relative_to(self._root).parts
        if not all(map(_may_be_seen, names)):
            return None
        if self._only is not None and (not names or names[0] not in self._only):
            return None
        try:
            mode = found.stat().st_mode
        except OSError:
            return None
        # Pipes and devices would wait for ever.
        is_file = stat.S_ISREG(mode) and not path.endswith("/")
        return found if is_file or stat.S_ISDIR(mode) else None

    def _not_there(self, request: Request) -> Answer:
        content = None if self._absent is None else self._absent(request.path)
        if content is None:
            return not_found()
        # A file of this name may come later.
        headers = self._extra | {"Content-Type": content_type(""), "Cache-Control": "no-cache"}
        return Answer(headers=headers, body=content)

    def _folder(self, request: Request) -> Answer:
        path = request.path.rstrip("/")
        index = self.find(f"{path}/index.html" if path else "index.html")
        if index is None or index.is_dir():
            return not_found()
        if request.path and not request.path.endswith("/"):
            place = f"{quote(path.rpartition('/')[2], safe='')}/"
            return text_answer(
                HTTPStatus.MOVED_PERMANENTLY, f"see {place}", headers={"Location": place}
            )
        return self._file(request, index)

    def _file(self, request: Request, path: Path) -> Answer:
        status = path.stat()
        headers = self._headers(path.name, status)
        if is_known(request, headers["ETag"]):
            return Answer(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        size = status.st_size
        asked = request.headers.get("range")
        if asked is not None and _is_current(request, headers):
            part = parse_range(asked, size=size)
            if part == ():
                headers = self._extra | {"Content-Range": f"bytes */{size}"}
                return text_answer(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    f"this has {size} bytes",
                    headers=headers,
                )
            if part:
                start, stop = part
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
                body = FilePart(path=path, start=start, stop=stop, identity=file_identity(status))
                return Answer(status=HTTPStatus.PARTIAL_CONTENT, headers=headers, body=body)
        if asked is None and size <= _PACKED_BYTES and request.takes_gzip:
            packed = shrunk(path.read_bytes())
            if packed is not None:
                return Answer(headers=headers | {"Content-Encoding": "gzip"}, body=packed)
        whole = FilePart(path=path, start=0, stop=size, identity=file_identity(status))
        return Answer(headers=headers, body=whole)

    def _stored_packed(self, request: Request, path: Path) -> Answer:
        """Answer with what is stored as gzip; ranges of it would be of the packed bytes."""
        status = path.stat()
        headers = self._headers(path.name.removesuffix(_PACKED_SUFFIX), status)
        headers["Accept-Ranges"] = "none"
        if is_known(request, headers["ETag"]):
            return Answer(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        whole = FilePart(path=path, start=0, stop=status.st_size, identity=file_identity(status))
        if request.takes_gzip:
            return Answer(headers=headers | {"Content-Encoding": "gzip"}, body=whole)
        return Answer(headers=headers, body=unpacked(path))

    def _headers(self, name: str, status: os.stat_result) -> dict[str, str]:
        inode, changed, size = file_identity(status)
        return {
            "Content-Type": content_type(name),
            # Weak: the same bytes, packed or not.
            "ETag": f'W/"{inode:x}-{changed:x}-{size:x}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Cache-Control": "no-cache",
            "Accept-Ranges": "bytes",
            "Vary": "Accept-Encoding",
        } | self._extra


def segments_of(path: str) -> list[str] | None:
    """Split a path (percent-encoding undone once) into names, or None where one is not allowed.

    Not allowed are ``..`` and ``.``, hidden names, empty ones except at the end,
    backslashes, control characters, and on Windows colons.

    Examples
    --------
    >>> segments_of("mesh/12:0"), segments_of("a/../b"), segments_of(".git/config")
    (['mesh', '12:0'], None, None)
    """
    names = path.split("/")
    if names[-1] == "":
        names.pop()
    return names if all(map(_may_be_seen, names)) else None


def _may_be_seen(name: str) -> bool:
    if name in ZARR_METADATA:
        return True
    is_plain = not set(name) & _NOT_IN_NAMES
    has_drive = sys.platform == "win32" and ":" in name
    return bool(name) and is_plain and not has_drive and not name.startswith(".")


def parse_range(header: str, *, size: int) -> tuple[int, int] | tuple[()] | None:
    """Read a Range header: start and stop in bytes, half-open.

    Parameters
    ----------
    size
        Of the whole file.

    Returns
    -------
    part
        None where the header is to be ignored, because it is malformed or asks for
        several parts (RFC 9110, 14.2 allows that); an empty tuple where no byte of it is there.

    Examples
    --------
    >>> parse_range("bytes=2-4", size=10), parse_range("bytes=-3", size=10)
    ((2, 5), (7, 10))
    >>> parse_range("bytes=10-", size=10), parse_range("bytes=4-2", size=10)
    ((), None)
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        return (size - length, size) if length else ()
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None
    return (start, min(last + 1, size)) if start < size else ()


def _is_current(request: Request, headers: Mapping[str, str]) -> bool:
    """Tell whether a range is asked of the file as it is now (If-Range, RFC 9110, 13.1.5)."""
    asked = request.headers.get("if-range")
    return asked is None or asked == headers["Last-Modified"]


def unpacked(path: Path) -> bytes:
    """Return what a gzip file holds.

    Raises
    ------
    StorageError
        When it is damaged, or holds more than `_PACKED_BYTES`.
    """
    try:
        with gzip.open(path) as handle:
            found = handle.read(_PACKED_BYTES + 1)
    except (EOFError, gzip.BadGzipFile) as error:
        raise StorageError(f"{path} is a damaged gzip file: restore it") from error
    if len(found) > _PACKED_BYTES:
        raise StorageError(f"{path} is too large to unpack: use a client that takes gzip")
    return found


def content_type(name: str) -> str:
    """Return the media type of a file by its name."""
    suffix = Path(name).suffix.lower() if not name.startswith(".") else name
    known = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or _TYPES[""]
    return f"{known}; charset=utf-8" if known.startswith("text/") else known
