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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import GeometryError
from floodem.geometry import Box, Zyx, tiles
from floodem.volumes.packages import require_package
from floodem.volumes.volume import Array

RECEIPT_VERSION = 1
_REVOKED = "revoked"
_NO_CELLS = "-"
_CRC_BYTES = 4
_CRC_DIGITS = 2 * _CRC_BYTES

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
