"""Bytes under names, wherever they are: local folders and http, gs and s3 addresses alike.

An address comes in; a `Store` that reads and writes whole small objects goes
out. Volumes keep their voxels by other means; this is for what stands around
them (receipts, records, lists of shards).
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from floodem.errors import FloodemError
from floodem.files import replacing, storage_error
from floodem.volumes.remote import is_remote
from floodem.volumes.remote_file import RemoteFile

_BUFFER_BYTES = 2**16


def open_file(path: str) -> IO[bytes]:
    """Open a file to be read, on a disk or at an http(s), gs or s3 address.

    A remote file is seekable as well; only those parts of it are fetched that are read.

    Raises
    ------
    VolumeNotFoundError
        When there is no such remote file.
    StorageError
        When the system or the server refuses.
    """
    if is_remote(path):
        return io.BufferedReader(RemoteFile(path), buffer_size=_BUFFER_BYTES)
    try:
        return open(path, "rb")
    except OSError as error:
        raise storage_error("read", path, error) from error


class Store(ABC):
    """A folder of objects; names may contain ``/`` and never begin with it."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return an object, or None where there is none."""

    @abstractmethod
    def write(self, name: str, data: bytes, *, only_new: bool = False) -> bool:
        """Write an object in one piece.

        Returns
        -------
        bool
            False when `only_new` is set and there is one already, which stays.
        """

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """List the names that begin with `prefix`, sorted."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""


class LocalStore(Store):
    """A folder on a disk; it is made at the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("read", self.folder / name, error) from error

    def write(self, name: str, data: bytes, *, only_new: bool = False) -> bool:
        """Write a file under another name, sync and rename it."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if only_new and path.exists():
                return False
            with replacing(path) as partial:
                partial.write_bytes(data)
        except FloodemError:
            raise
        except OSError as error:
            raise storage_error("write", path, error) from error
        return True

    def names(self, prefix: str = "") -> list[str]:
        """List the files below the folder, hidden ones (unfinished) left out."""
        if not self.folder.is_dir():
            return []
        found = [
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        ]
        return sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove a file."""
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("remove", self.folder / name, error) from error
