"""Bytes under names, wherever they are: local folders and http, gs and s3 addresses alike.

An address comes in; a `Store` that reads and writes whole small objects goes
out. Volumes keep their voxels by other means; this is for what stands around
them (receipts, records, lists of shards).
"""

from __future__ import annotations

import glob
import io
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO, Any

from floodem.errors import FloodemError, StorageError
from floodem.files import replacing, storage_error, write_new
from floodem.volumes.servers.addresses import (
    HTTP_SCHEMES,
    context_spec,
    is_remote,
    kvstore_spec,
    split_address,
    tensorstore,
    without_secrets,
)
from floodem.volumes.servers.file import RemoteFile
from floodem.volumes.servers.patience import insist, insist_all, remote_refusals

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


def fetch_ahead(file: IO[bytes], ranges: Iterable[tuple[int, int]]) -> None:
    """Fetch several ranges (start and stop, in bytes) of a remote file at once.

    Nothing happens where the file lies on a disk.
    """
    raw = getattr(file, "raw", None)
    if isinstance(raw, RemoteFile):
        raw.fetch_ahead(ranges)


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
            False when `only_new` is set and there is one already, which stays. Of several
            that write at once one gets True; on a server all those that write the same
            bytes may, so what is to tell writers apart must say who writes.
        """

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """List the names that begin with `prefix`, sorted."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""

    @abstractmethod
    def delete_below(self, prefix: str) -> None:
        """Remove all objects whose names begin with `prefix`."""


class LocalStore(Store):
    """A folder on a disk; it is made at the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error("read", self.folder / name, error) from error

    def write(self, name: str, data: bytes, *, only_new: bool = False) -> bool:
        """Write a file under another name, sync and rename it."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if only_new:
                return not path.exists() and write_new(path, data)
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

    def delete_below(self, prefix: str) -> None:
        """Remove files, hidden ones too, and the folders that hold nothing else."""
        folder, _, first = prefix.rpartition("/")
        try:
            for path in (self.folder / folder).glob(f"{glob.escape(first)}*"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            if folder and not first and (self.folder / folder).is_dir():
                (self.folder / folder).rmdir()
        except OSError as error:
            raise storage_error("remove", self.folder / prefix, error) from error


class RemoteStore(Store):
    """A folder on a server; an http server only gives."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._is_http = split_address(address)[0] in HTTP_SCHEMES
        library = tensorstore()
        self._range = library.KvStore.KeyRange
        spec = kvstore_spec(address, is_folder=True)
        self._store = self._insist(
            "open", lambda: library.KvStore.open(spec, context=library.Context(context_spec()))
        )

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or None where there is none."""
        found = self._insist("read", lambda: self._store.read(name))
        return bytes(found.value) if found.state == "value" else None

    def write(self, name: str, data: bytes, *, only_new: bool = False) -> bool:
        """Write an object, which servers do in one piece."""
        self._require_changeable()
        with remote_refusals("write", self.address):
            return write_object(
                self._store, name, data, only_new=only_new, address=self._address_of(name)
            )

    def names(self, prefix: str = "") -> list[str]:
        """List the objects whose names begin with `prefix`."""
        if self._is_http:
            raise StorageError(
                f"{without_secrets(self.address)} cannot be listed, as http has no lists: "
                "name what you want, or use its gs:// or s3:// address"
            )
        first = prefix.encode()
        # The first name that no longer begins so; UTF-8 has no byte 255.
        end = first[:-1] + bytes([first[-1] + 1]) if first else b""
        found = self._insist("list", lambda: self._store.list(self._range(first, end)))
        return sorted(name.decode("utf-8", errors="surrogateescape") for name in found)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._require_changeable()
        self._insist("remove", lambda: self._store.write(name, None))

    def delete_below(self, prefix: str) -> None:
        """Remove objects, many at a time."""
        self._require_changeable()
        removals = (partial(self._store.write, name, None) for name in self.names(prefix))
        with remote_refusals("remove", self.address):
            for _ in insist_all(removals, address=self.address, action="remove"):
                pass

    def read_stamped(self, name: str) -> tuple[bytes | None, bytes]:
        """Return an object's bytes, or None, and the stamp of this very writing of it."""
        found = self._insist("read", lambda: self._store.read(name))
        return (bytes(found.value) if found.state == "value" else None), found.stamp.generation

    def write_if(self, name: str, data: bytes | None, *, stamp: bytes) -> bytes | None:
        """Replace an object, or remove it (None), if nobody has since it had this stamp.

        Returns
        -------
        bytes or None
            Its new stamp; None when the stamp is another by now. That may be our own
            writing, whose answer was lost, so what is written must say who writes.
        """
        self._require_changeable()
        done = self._insist("write", lambda: self._store.write(name, data, if_equal=stamp))
        return done.generation or None

    def _insist(self, action: str, start: Any) -> Any:
        with remote_refusals(action, self.address):
            return insist(start, address=self.address, action=action)

    def _address_of(self, name: str) -> str:
        return f"{without_secrets(self.address).rstrip('/')}/{name}"

    def _require_changeable(self) -> None:
        if self._is_http:
            raise StorageError(
                f"{without_secrets(self.address)} cannot be written, because http addresses are "
                "for reading only: write to a local folder, gs:// or s3://"
            )


def write_object(store: Any, name: str, data: bytes, *, only_new: bool, address: str) -> bool:
    """Write an object through an open tensorstore.KvStore, with patience.

    Returns
    -------
    bool
        False when `only_new` is set and there is another one already, which stays.

    Raises
    ------
    StorageError, ValueError, OSError
        As `patience.insist`.
    """
    if not only_new:
        insist(lambda: store.write(name, data), address=address, action="write")
        return True
    there = insist(lambda: store.read(name), address=address, action="read")
    if there.state == "value":
        return False
    written = insist(
        lambda: store.write(name, data, if_equal=there.stamp.generation),
        address=address,
        action="write",
    )
    if written.generation:
        return True
    # Sent twice, because the first answer was lost, a request finds its own object.
    found = insist(lambda: store.read(name), address=address, action="read")
    return bool(found.state == "value" and found.value == data)


def open_store(address: str | Path) -> Store:
    """Open a folder, on a disk or at an http(s), gs or s3 address, as a store of objects.

    Raises
    ------
    StorageError
        When the server refuses.
    """
    text = str(address)
    return RemoteStore(text) if is_remote(text) else LocalStore(Path(text))
