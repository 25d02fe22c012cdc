"""A file whose voxels lie in C order behind a header: boxes in, bytes at their place.

Plain reads and writes instead of a memory map: a full disk then ends in an
error, not in the death of the process. Several threads may share one file.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from floodem.geometry import Box, Zyx
from floodem.volumes.declared import size_in_bytes
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Array


class RawArrayFile:
    """An open file with an array (z, y, x) that begins at byte `start`."""

    def __init__(
        self, handle: IO[bytes], *, start: int, shape: Zyx, dtype: np.dtype[Any], uri: str
    ) -> None:
        self._handle = handle
        self._start = start
        self._shape = shape
        self._dtype = dtype
        self._uri = uri
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls, path: Path, *, header: bytes, shape: Zyx, dtype: np.dtype[Any], uri: str
    ) -> Self:
        """Make a file of zeros behind `header`."""
        handle = open(path, "wb+")  # noqa: SIM115 - closed by `close`
        try:
            handle.write(header)
            handle.truncate(len(header) + size_in_bytes(shape, dtype))
        except BaseException:
            handle.close()
            raise
        return cls(handle, start=len(header), shape=shape, dtype=dtype, uri=uri)

    def read(self, box: Box) -> Array:
        """Return the voxels of `box`, counted from the array's first voxel."""
        found = np.empty(box.shape, self._dtype)
        with refusals("read", self._uri), self._lock:
            for position, piece in self._pieces(box, found):
                self._handle.seek(position)
                piece[...] = np.frombuffer(
                    self._handle.read(piece.nbytes), dtype=self._dtype
                ).reshape(piece.shape)
        return found

    def write(self, box: Box, array: Array) -> None:
        """Store `array` at `box`, counted from the array's first voxel."""
        with refusals("write", self._uri), self._lock:
            for position, piece in self._pieces(box, array):
                self._handle.seek(position)
                self._handle.write(np.ascontiguousarray(piece).data)

    def close(self) -> None:
        """Write what is buffered and let go of the file."""
        with refusals("write", self._uri):
            self._handle.close()

    def _pieces(self, box: Box, array: Array) -> list[tuple[int, Array]]:
        """Cut a box into runs that lie together in the file: whole sections, or rows."""
        _, height, width = self._shape
        z0, y0, x0 = box.start
        if box.shape[1:] == (height, width):
            return [(self._position(z0, 0, 0), array)]
        if box.shape[2] == width:
            return [(self._position(z0 + z, y0, 0), array[z]) for z in range(box.shape[0])]
        return [
            (self._position(z0 + z, y0 + y, x0), array[z, y])
            for z in range(box.shape[0])
            for y in range(box.shape[1])
        ]

    def _position(self, z: int, y: int, x: int) -> int:
        _, height, width = self._shape
        return self._start + ((z * height + y) * width + x) * self._dtype.itemsize
