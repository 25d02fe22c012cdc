"""New volumes whose voxels lie in C order behind a header: TIFF pages, NIfTI, MRC.

A request and a way to write an empty file come in; a volume whose boxes may be
written in any order, and by several threads, goes out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from floodem.errors import RunConflictError
from floodem.files import PARTIAL_SUFFIX
from floodem.geometry import Box
from floodem.volumes.arrays.rawfile import RawArrayFile
from floodem.volumes.registry import CreateRequest
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume, refusals
from floodem.volumes.volume import Array, Volume

_COMPARED_BYTES = 2**20


class NewRawVolume(StoredVolume):
    """A file in the making: boxes are written where they belong."""

    def __init__(
        self, raw: RawArrayFile, finish: Callable[[Path], None] | None, **facts: Any
    ) -> None:
        super().__init__(**facts)
        self._raw = raw
        self._finish_file = finish

    def _local(self, box: Box) -> Box:
        z, y, x = self.offset
        return box.translate((-z, -y, -x))

    def _read(self, box: Box) -> Array:
        return self._raw.read(self._local(box))

    def _write(self, box: Box, array: Array) -> None:
        self._raw.write(self._local(box), array)

    def _finish(self) -> None:
        if self._finish_file is not None:
            self._raw.close()
            assert self._staged is not None
            with refusals("write", self.uri):
                self._finish_file(self._staged.path)

    def _release(self) -> None:
        self._raw.close()


def create_raw(
    request: CreateRequest,
    *,
    write_empty: Callable[[Path], int],
    finish: Callable[[Path], None] | None = None,
) -> Volume:
    """Create a volume in one file.

    Parameters
    ----------
    request
        What `create_volume` was asked.
    write_empty
        Writes a file with headers and zeros, and returns where the voxels begin.
    finish
        Turns the complete file into what the format wants, under the same name.

    Raises
    ------
    RunConflictError
        When another volume grows in the work place.
    StorageError
        When the file system refuses.
    """
    location = request.location
    staged = Staged(
        location.local,
        uri=location.uri,
        overwrite=request.overwrite,
        folder=False,
        work=request.work,
    )
    try:
        with refusals("write", location.uri):
            start = _begin(staged, write_empty)
            handle = open(staged.path, "rb+")  # noqa: SIM115 - closed by the volume
    except BaseException:
        staged.discard()
        raise
    raw = RawArrayFile(
        handle, start=start, shape=request.shape, dtype=request.dtype, uri=location.uri
    )
    return NewRawVolume(
        raw,
        finish,
        uri=location.uri,
        shape=request.shape,
        dtype=request.dtype,
        chunks=(1, *request.shape[1:]),
        description=request.description,
        writable=True,
        staged=staged,
    )


def _begin(staged: Staged, write_empty: Callable[[Path], int]) -> int:
    """Put an empty file into place, unless one made like it grows there already."""
    fresh = staged.path.with_name(f"{staged.path.name}.new{PARTIAL_SUFFIX}")
    try:
        start = write_empty(fresh)
        if not staged.path.stat().st_size:
            os.replace(fresh, staged.path)
        elif not _begin_alike(fresh, staged.path, length=start):
            raise RunConflictError(
                f"{staged.path} holds another volume in the making than {staged.uri}: "
                "finish that one, or remove it"
            )
    finally:
        fresh.unlink(missing_ok=True)
    return start


def _begin_alike(first: Path, second: Path, *, length: int) -> bool:
    if first.stat().st_size != second.stat().st_size:
        return False
    with open(first, "rb") as one, open(second, "rb") as other:
        return one.read(min(length, _COMPARED_BYTES)) == other.read(min(length, _COMPARED_BYTES))
