"""Receipts while a conversion goes on: added one by one, found again by the next run.

On a disk they are lines of one file; stores that cannot append keep one small
object for each block.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from floodem.errors import RunConflictError
from floodem.files import storage_error
from floodem.volumes.conversion.receipts import Key, Receipt, read_lines
from floodem.volumes.servers.transport import LocalStore, Store

_REMOTE_AT_ONCE = 16
"""Small remote objects are read and removed this many at a time: they are all latency."""


class Journal(ABC):
    """The receipts of a conversion under way; several threads may add to it."""

    @abstractmethod
    def read(self) -> dict[Key, Receipt]:
        """Return the receipts that are there."""

    @abstractmethod
    def add(self, receipt: Receipt) -> None:
        """Add a receipt; to be called when the block's data are complete."""

    @abstractmethod
    def revoke(self, receipt: Receipt) -> None:
        """Take a receipt back, because the block is not as it says."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all receipts."""

    def close(self) -> None:
        """Let go of the file."""


class LocalJournal(Journal):
    """A text file on a disk to which lines are appended.

    Lines are handed to the system at once, so that they outlive the process. They
    are not forced to the disk: a receipt that a power failure loses costs one
    block, and data that it loses were forced there before their receipt was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def read(self) -> dict[Key, Receipt]:
        """Return the receipts that are there."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise storage_error("read", self.path, error) from error
        return read_lines(data)

    def add(self, receipt: Receipt) -> None:
        """Add a receipt; to be called when the block's data are complete."""
        line = receipt.line().encode("ascii")
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._open(), line) :]
            except OSError as error:
                raise storage_error("write", self.path, error) from error

    def revoke(self, receipt: Receipt) -> None:
        """Take a receipt back, because the block is not as it says."""
        self.add(Receipt(level=receipt.level, box=receipt.box, crc32c=None))

    def clear(self) -> None:
        """Forget all receipts."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error("clear", self.path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            binary = getattr(os, "O_BINARY", 0)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | binary
            self._descriptor = os.open(self.path, flags, 0o666)
            # What a killed process left of a line must not swallow the next one.
            if self.path.stat().st_size and not self._ends_with_a_line():
                os.write(self._descriptor, b"\n")
        return self._descriptor

    def _ends_with_a_line(self) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


class ObjectJournal(Journal):
    """One small object for each block, for stores that cannot append."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def _name(self, receipt: Receipt) -> str:
        ranges = str(receipt.box).replace(":", "_").replace(",", ".")
        return f"{self._prefix}{receipt.level}.{ranges}"

    def read(self) -> dict[Key, Receipt]:
        """Return the receipts that are there."""
        with ThreadPoolExecutor(_REMOTE_AT_ONCE) as pool:
            found = list(pool.map(self._store.read, self._store.names(self._prefix)))
        return read_lines(b"".join(data for data in found if data is not None))

    def add(self, receipt: Receipt) -> None:
        """Add a receipt; to be called when the block's data are complete."""
        name, data = self._name(receipt), receipt.line().encode("ascii")
        if not self._store.write(name, data, only_new=True) and self._store.read(name) != data:
            raise RunConflictError(
                f"another process has written block {receipt.box} of level {receipt.level} "
                "otherwise: stop it, and begin again with --overwrite"
            )

    def revoke(self, receipt: Receipt) -> None:
        """Take a receipt back, because the block is not as it says."""
        self._store.delete(self._name(receipt))

    def clear(self) -> None:
        """Forget all receipts."""
        with ThreadPoolExecutor(_REMOTE_AT_ONCE) as pool:
            list(pool.map(self._store.delete, self._store.names(self._prefix)))


def open_journal(store: Store, *, file: str, folder: str) -> Journal:
    """Return the journal of a store: one file on a disk, one object a block elsewhere."""
    if isinstance(store, LocalStore):
        return LocalJournal(store.folder / file)
    return ObjectJournal(store, folder)
