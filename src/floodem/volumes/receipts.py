"""What proves that a block is written: checksums in, lines of a journal out, and back.

A receipt is written after its block's data. One line holds one receipt::

    1 0 0:64,0:64,0:128 1c291ca3 1c291ca38a9136aa 9be4c1f3

the version, the level, the box (z,y,x, in the level's own frame), the CRC-32C of
the block's bytes (C order, native type), those of its chunks (eight digits each,
in C order; ``-`` where the block is one chunk), and the CRC-32C of the line
itself. A line whose own checksum is wrong, such as the last one of a killed
process, counts as not written. A later line about the same block replaces an
earlier one; ``revoked`` in place of the checksum takes the block back.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from floodem.errors import GeometryError, RunConflictError
from floodem.files import storage_error
from floodem.geometry import Box, Zyx, tiles
from floodem.volumes.packages import require_package
from floodem.volumes.transport import LocalStore, Store
from floodem.volumes.volume import Array

RECEIPT_VERSION = 1
_REVOKED = "revoked"
_NO_CELLS = "-"
_CRC_BYTES = 4
_CRC_DIGITS = 2 * _CRC_BYTES
_REMOTE_AT_ONCE = 16
"""Small remote objects are read and removed this many at a time: they are all latency."""

Key = tuple[int, Zyx]
"""Level and first voxel of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is known about a written block.

    Attributes
    ----------
    level, box
        Which block: level of the pyramid (0: the finest), voxels in that level's frame.
    crc32c
        Of its bytes in C order and native byte order; None takes the block back.
    cells
        The same of each of its chunks in C order, four bytes each (big-endian);
        empty where the block is one chunk.
    """

    level: int
    box: Box
    crc32c: int | None
    cells: bytes = b""

    @property
    def key(self) -> Key:
        """What a block is found by."""
        return (self.level, self.box.start)

    def cells_in(self, chunks: Zyx) -> list[tuple[Box, int]]:
        """Return the block's chunks with the CRC-32C of each; nothing where it is one chunk."""
        boxes = cell_boxes(self.box, chunks)
        sums = [
            int.from_bytes(self.cells[at : at + _CRC_BYTES], "big")
            for at in range(0, len(self.cells), _CRC_BYTES)
        ]
        return list(zip(boxes, sums, strict=True)) if len(sums) == len(boxes) else []

    def line(self) -> str:
        """Return the receipt as a line of a journal."""
        crc = _REVOKED if self.crc32c is None else f"{self.crc32c:0{_CRC_DIGITS}x}"
        cells = self.cells.hex() or _NO_CELLS
        text = f"{RECEIPT_VERSION} {self.level} {self.box} {crc} {cells}"
        return f"{text} {crc32c(text.encode()):0{_CRC_DIGITS}x}\n"


def crc32c(data: Any) -> int:
    """Return the CRC-32C (Castagnoli) of bytes or of a C-ordered array's bytes.

    Raises
    ------
    DependencyError
        When google-crc32c is not installed.
    """
    library = require_package(
        "google_crc32c", purpose="checking what is written", install="google-crc32c"
    )
    value: int = library.value(data)
    return value


def checksum(array: Array) -> int:
    """Return the CRC-32C of an array's bytes in C order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return crc32c(flat.view(np.uint8))


def cell_boxes(box: Box, chunks: Zyx) -> list[Box]:
    """Cut a block that begins at a chunk's face into its chunks, in C order."""
    return [tile.core for tile in tiles(box, core=chunks)]


def receipt_for(array: Array, *, level: int, box: Box, chunks: Zyx) -> Receipt:
    """Compute the receipt of a block from its voxels."""
    cells = cell_boxes(box, chunks)
    sums = b""
    if len(cells) > 1:
        sums = b"".join(
            checksum(array[cell.slices(origin=box.start)]).to_bytes(_CRC_BYTES, "big")
            for cell in cells
        )
    return Receipt(level=level, box=box, crc32c=checksum(array), cells=sums)


def read_line(line: str) -> Receipt | None:
    """Read a line of a journal; None where it is damaged or of another version."""
    text, _, own = line.rpartition(" ")
    try:
        if int(own, 16) != crc32c(text.encode()):
            return None
        version, level, box, crc, cells = text.split(" ")
        if int(version) != RECEIPT_VERSION:
            return None
        return Receipt(
            level=int(level),
            box=Box.parse(box),
            crc32c=None if crc == _REVOKED else int(crc, 16),
            cells=b"" if cells == _NO_CELLS else bytes.fromhex(cells),
        )
    except (ValueError, GeometryError):
        return None


def read_lines(data: bytes) -> dict[Key, Receipt]:
    """Read a journal; damaged lines are left out."""
    receipts: dict[Key, Receipt] = {}
    for line in data.decode("ascii", errors="replace").splitlines():
        receipt = read_line(line)
        if receipt is None:
            continue
        if receipt.crc32c is None:
            receipts.pop(receipt.key, None)
        else:
            receipts[receipt.key] = receipt
    return receipts


def journal_text(receipts: Iterable[Receipt]) -> bytes:
    """Return receipts as one journal, ordered by level and place."""
    ordered = sorted(receipts, key=lambda receipt: receipt.key)
    return "".join(receipt.line() for receipt in ordered).encode("ascii")


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


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
