"""The file under a new HDF5 volume: HDF5's reads and writes in, a file on disk out.

HDF5 does not survive a full disk: what it cannot flush it tries again at
interpreter exit, and ends the process with a segmentation fault. So from the
first refused write on, this file keeps what it is given in memory and lets HDF5
finish in peace; the volume then reports the refusal and is thrown away.
"""

from __future__ import annotations

import io
import os
from pathlib import Path


class PatientFile(io.RawIOBase):
    """An existing file, open for reading and writing, that remembers the first error.

    Attributes
    ----------
    refusal
        What the file system refused first, or None.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.refusal: OSError | None = None
        self._file = open(path, "rb+", buffering=0)  # noqa: SIM115
        self._position = 0
        self._size = os.fstat(self._file.fileno()).st_size
        self._unwritten: list[tuple[int, bytes]] = []

    def readable(self) -> bool:
        """Return True: it can."""
        return True

    def writable(self) -> bool:
        """Return True: it can."""
        return True

    def seekable(self) -> bool:
        """Return True: it can."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a byte, also beyond the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the byte at which the next read or write begins."""
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill a buffer from the present position; return how much of it."""
        start = self._position
        view = memoryview(buffer).cast("B")
        self._file.seek(start)
        count = 0
        while count < len(view):
            got = self._file.readinto(view[count:])
            if not got:
                break
            count += got
        if self._unwritten:
            known = max(count, min(len(view), self._size - start))
            view[count:known] = bytes(known - count)
            count = known
        for position, data in self._unwritten:
            first, last = max(start, position), min(start + len(view), position + len(data))
            if first < last:
                view[first - start : last - start] = data[first - position : last - position]
        self._position += count
        return count

    def write(self, data: memoryview, /) -> int:  # type: ignore[override]
        """Take all of the data, on disk or in memory."""
        view = memoryview(data).cast("B")
        if self.refusal is None:
            try:
                self._write_all(view)
            except OSError as error:
                self.refusal = error
        if self.refusal is not None:
            self._unwritten.append((self._position, bytes(view)))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def _write_all(self, view: memoryview) -> None:
        self._file.seek(self._position)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:]) or 0

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length."""
        size = self._position if size is None else size
        if self.refusal is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.refusal = error
        self._size = size
        return size

    def close(self) -> None:
        """Let go of the file; what is only in memory is lost."""
        if not self.closed:
            self._file.close()
        super().close()
