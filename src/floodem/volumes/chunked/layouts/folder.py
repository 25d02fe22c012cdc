"""Small metadata files of a store, local or remote: a path in, JSON objects out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError, UnsafeFileError
from floodem.volumes.servers.addresses import child_address, is_remote, parent_address

# A metadata file of a store is a few kilobytes; more is not read just to look.
_MAX_METADATA_BYTES = 16 * 2**20


class _TooLargeError(ValueError):
    """A file that is too large to be metadata."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a store.

    Attributes
    ----------
    path
        Where it is: an absolute local path or a remote address.
    read
        Gives the bytes at a path, or None where there is nothing.
    """

    path: str
    read: Callable[[str], bytes | None]

    def json(self, name: str) -> dict[str, Any] | None:
        """Read a small JSON object; nothing where there is no file, None where it is damaged."""
        try:
            found = self.read(self.child(name).path)
            parsed = {} if found is None else json.loads(found.decode("utf-8"))
        except FloodemError:
            raise
        except (OSError, ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None

    def has(self, name: str) -> bool:
        """Tell whether a file is there, be it damaged or closed to us."""
        try:
            return self.read(self.child(name).path) is not None
        except FloodemError:
            raise
        except (OSError, _TooLargeError):
            return True

    def looks_like_json(self, name: str) -> bool:
        """Tell whether a file begins as a JSON object does, or cannot be looked at."""
        try:
            return (self.read(self.child(name).path) or b"")[:1] == b"{"
        except _TooLargeError:
            return False
        except OSError:
            return True

    def is_damaged(self, name: str) -> bool:
        """Tell whether a file is there and no JSON object that can be read.

        A file that the system refuses to read is not damaged.
        """
        try:
            found = self.read(self.child(name).path)
        except _TooLargeError:
            return True
        except OSError:
            return False
        return found is not None and self.json(name) is None

    def child(self, inner: str) -> Folder:
        """Return a folder (or file) inside this one; ``""`` is the folder itself."""
        if is_remote(self.path):
            return Folder(child_address(self.path, inner), self.read)
        path = self.path.rstrip("/\\") + "/" + inner if inner else self.path
        return Folder(path, self.read)

    @property
    def parent(self) -> Folder | None:
        """The folder around this one, or None at the top."""
        if is_remote(self.path):
            above = parent_address(self.path)
            return None if above is None else Folder(above, self.read)
        path = Path(self.path)
        return None if path.parent == path else Folder(str(path.parent), self.read)

    def is_same(self, other: Folder) -> bool:
        """Tell whether two folders have the same path, slashes aside."""
        return _normal(self.path) == _normal(other.path)


def _normal(path: str) -> str:
    return path.replace("\\", "/").rstrip("/")


def _read_local(path: str) -> bytes | None:
    there = Path(path)
    if not there.is_file():
        return None
    if there.stat().st_size > _MAX_METADATA_BYTES:
        raise _TooLargeError(path)
    return there.read_bytes()


def local_folder(path: Path | str) -> Folder:
    """Return a folder on a disk."""
    return Folder(str(Path(path).absolute()), _read_local)


def require_inside(inner: Any, *, uri: str) -> str:
    """Return a path that metadata name, when it stays inside the store.

    Raises
    ------
    UnsafeFileError
        When it leads elsewhere.
    """
    parts = str(inner).replace("\\", "/").split("/")
    if not isinstance(inner, str) or ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise UnsafeFileError(
            f"{uri} names the array {inner!r}, which is not inside it: open that one itself, or "
            "correct the metadata"
        )
    return "/".join(part for part in parts if part not in ("", "."))
