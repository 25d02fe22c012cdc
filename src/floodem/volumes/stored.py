"""What the formats share: a volume on a disk that is closed or discarded once.

A subclass brings the reading and writing of boxes; what stands here is the order
of finishing, letting go and putting into place, and how refusals become sentences.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from floodem.errors import FloodemError, StorageError
from floodem.files import storage_error
from floodem.geometry import Box, Zyx
from floodem.volumes.declared import DEFAULT_CHUNKS, fit_chunks
from floodem.volumes.description import Description
from floodem.volumes.registry import OpenRequest
from floodem.volumes.staging import Staged
from floodem.volumes.volume import Volume, read_only

_NOTHING_KNOWN = Description()


class StoredVolume(Volume):
    """A volume whose closing and discarding happen once, and in the right order.

    Subclasses give `_release`, which lets go of files, and may give `_finish`,
    which writes what is still missing.
    """

    def __init__(
        self,
        *,
        uri: str,
        shape: Zyx,
        dtype: np.dtype[Any],
        chunks: Zyx | None = None,
        description: Description = _NOTHING_KNOWN,
        notices: tuple[str, ...] = (),
        writable: bool = False,
        staged: Staged | None = None,
    ) -> None:
        self.uri = uri
        self.box = Box.from_shape(shape, start=description.offset)
        self.dtype = dtype
        self.voxel_size = description.voxel_size
        self.kind = description.kind
        self.notices = notices
        self.chunks = fit_chunks(chunks or DEFAULT_CHUNKS, shape=shape)
        self._writable = writable
        self._staged = staged
        self._is_closed = False

    def close(self) -> None:
        """Finish writing and put the volume into place; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            try:
                self._finish()
            finally:
                self._release()
        except BaseException:
            if self._staged:
                self._staged.discard()
            raise
        if self._staged:
            self._staged.commit()

    def discard(self) -> None:
        """Let go of the file; a volume that was being created disappears."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._release()
        except OSError:
            # What was being written is thrown away, so that it could not be
            # written to the end does not matter.
            if self._staged is None:
                raise
        finally:
            if self._staged:
                self._staged.discard()

    def _finish(self) -> None: ...

    def _release(self) -> None: ...

    def _require_writable(self) -> None:
        if not self._writable:
            raise read_only(self.uri)


def refuse_writing(request: OpenRequest) -> None:
    """Refuse to open a volume writable whose format is written only as a whole.

    Raises
    ------
    StorageError
        When `OpenRequest.writable` is set.
    """
    if request.writable:
        raise StorageError(
            f"{request.location.uri} cannot be changed in place: create a new volume, or convert "
            "it to a chunked format"
        )


@contextlib.contextmanager
def refusals(action: str, uri: str) -> Iterator[None]:
    """Turn what the file system refuses in the body into one sentence.

    Raises
    ------
    StorageError
        For every operating system error.
    """
    try:
        yield
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error(action, uri, error) from error
