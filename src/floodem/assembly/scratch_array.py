"""Long arrays of numbers that need not fit in memory: a length in, an array in a file out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from floodem.files import require_free_disk, storage_error

IN_MEMORY_BYTES = 2**28
"""Arrays up to this size stay in memory."""

_CHUNK = 2**22
"""Values written at once to a new file."""

Values = np.ndarray[Any, np.dtype[Any]]


@contextlib.contextmanager
def scratch_array(
    path: Path,
    count: int,
    *,
    dtype: np.dtype[Any],
    counts_up: bool = False,
) -> Iterator[Values]:
    """Give an array of zeros, or of 0, 1, 2 and so on, for as long as the body runs.

    Parameters
    ----------
    path
        Where its file lies while it is needed, if it is too large for memory. One that a
        killed process left there is replaced.
    count
        Its length.
    dtype
        Type of a value.
    counts_up
        Begin with 0, 1, 2 and so on instead of zeros.

    Raises
    ------
    ResourceError
        When the disk is too small.
    StorageError
        When the file system refuses.
    """
    size = count * dtype.itemsize
    if size <= IN_MEMORY_BYTES:
        yield np.arange(count, dtype=dtype) if counts_up else np.zeros(count, dtype)
        return
    require_free_disk(path, needed_bytes=size, purpose="joining blocks")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # Written out, because a disk that fills up behind a mapped file kills the process.
        with open(path, "wb") as file:
            for start in range(0, count, _CHUNK):
                stop = min(start + _CHUNK, count)
                part = (
                    np.arange(start, stop, dtype=dtype)
                    if counts_up
                    else np.zeros(stop - start, dtype)
                )
                file.write(part.data)
        mapped = np.memmap(path, dtype=dtype, mode="r+", shape=(count,))
    except OSError as error:
        raise storage_error("write", path, error) from error
    try:
        yield mapped
    finally:
        del mapped
        # Windows keeps a file that somebody still has mapped; the next one replaces it.
        with contextlib.suppress(OSError):
            path.unlink()
