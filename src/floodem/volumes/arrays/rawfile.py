"""Files whose voxels lie in C order behind a header: boxes in, bytes at their place.

Plain reads and writes instead of a memory map: a full disk then ends in an
error, not in the death of the process. Several threads may share one file.
"""

from __future__ import annotations

import itertools
import math
import threading
from typing import IO, Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.volumes.servers.transport import fetch_ahead
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


class RangedArray:
    """An array of any number of axes in a file on a server: an index in, its voxels out.

    It is indexed by numbers and slices with start and stop, one for each axis.
    """

    def __init__(
        self,
        handle: IO[bytes],
        *,
        start: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        uri: str,
    ) -> None:
        self._handle = handle
        self._start = start
        self._shape = shape
        self._dtype = dtype
        self._uri = uri
        self._lock = threading.Lock()

    def __getitem__(self, index: tuple[int | slice, ...]) -> Array:
        box = [
            range(at.start, at.stop) if isinstance(at, slice) else range(at, at + 1) for at in index
        ]
        # Trailing axes that are taken wholly lie together, and so does what is taken of one more.
        joined = len(box)
        while joined > 1 and len(box[joined - 1]) == self._shape[joined - 1]:
            joined -= 1
        outer, inner = box[: joined - 1], box[joined - 1]
        size = self._dtype.itemsize
        steps = [size * math.prod(self._shape[axis + 1 :]) for axis in range(len(box))]
        length = len(inner) * steps[joined - 1]
        positions = [
            self._start
            + sum(at * step for at, step in zip((*corner, inner.start), steps, strict=False))
            for corner in itertools.product(*outer)
        ]
        found = np.empty((len(positions), length // size), self._dtype)
        with refusals("read", self._uri), self._lock:
            fetch_ahead(self._handle, ((at, at + length) for at in positions))
            for run, position in zip(found, positions, strict=True):
                self._handle.seek(position)
                data = self._handle.read(length)
                if len(data) != length:
                    raise VolumeFormatError(f"{self._uri} is cut short: copy it again")
                run[...] = np.frombuffer(data, self._dtype)
        whole = found.reshape([len(taken) for taken in box])
        return whole[tuple(slice(None) if isinstance(at, slice) else 0 for at in index)]

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()
