"""Blocks out of volumes, in threads: for copies, and for comparing them with their receipts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from floodem.errors import FloodemError
from floodem.geometry import Box, Zyx
from floodem.volumes.conversion.block_plan import blocks_at_once
from floodem.volumes.conversion.receipts import Receipt, checksum
from floodem.volumes.parallel import in_order
from floodem.volumes.volume import Array, Volume


class Reader:
    """Reads a volume from several threads, each box as fast as its format allows.

    Parameters
    ----------
    volume
        What is read; it stays open.
    serves_threads
        Whether it may be asked by several threads at once.
    threads
        How many sections are decoded at once where it is kept by section.
    """

    def __init__(self, volume: Volume, *, serves_threads: bool, threads: int) -> None:
        self.volume = volume
        self._lock = None if serves_threads else threading.Lock()
        is_by_section = volume.chunks[1:] == volume.shape[1:]
        self._pool = (
            ThreadPoolExecutor(threads)
            if serves_threads and is_by_section and threads > 1
            else None
        )

    def read(self, box: Box) -> Array:
        """Return the voxels of a box."""
        if self._lock is not None:
            with self._lock:
                return self.volume.read(box)
        layers = self.volume.chunks[0]
        if self._pool is None or box.shape[0] <= layers:
            return self.volume.read(box)
        found = np.empty(box.shape, self.volume.dtype)

        def fill(part: Box) -> None:
            found[part.slices(origin=box.start)] = self.volume.read(part)

        first = self.volume.offset[0]
        starts = range(box.start[0] - (box.start[0] - first) % layers, box.stop[0], layers)
        (_, y0, x0), (_, y1, x1) = box.start, box.stop
        parts = (
            Box((max(z, box.start[0]), y0, x0), (min(z + layers, box.stop[0]), y1, x1))
            for z in starts
        )
        for _ in self._pool.map(fill, parts):
            pass
        return found

    def close(self) -> None:
        """End the threads; the volume stays open."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def compared(
    reader: Reader, receipts: Iterable[Receipt], *, moved: Zyx, threads: int
) -> Iterator[tuple[Receipt, bool]]:
    """Read the blocks of one level and tell of each whether its bytes bear the receipt out.

    Parameters
    ----------
    moved
        What is added to a receipt's position to find its voxels in the volume.
    """

    def check(receipt: Receipt) -> tuple[Receipt, bool]:
        try:
            array = reader.read(receipt.box.translate(moved))
        except FloodemError:
            return receipt, False
        return receipt, checksum(array) == receipt.crc32c

    ordered = sorted(receipts, key=lambda receipt: receipt.key)
    if not ordered:
        return
    volume = reader.volume
    at_once = blocks_at_once(
        max((receipt.box for receipt in ordered), key=lambda box: box.size).shape,
        itemsize=volume.dtype.itemsize,
        threads=threads,
        uri=volume.uri,
    )
    yield from in_order(check, ordered, threads=at_once, ahead=2 * at_once)
