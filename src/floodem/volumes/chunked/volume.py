"""One level of a chunked store as a volume: an open tensorstore in, boxes (z, y, x) in and out.

Chunks are written whole or not at all, so that several processes may fill one
store at once, each its own chunks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.errors import FloodemError, LabelError
from floodem.geometry import Box, tiles
from floodem.volumes.chunked.access import sentence
from floodem.volumes.chunked.stored_chunks import missing_chunks
from floodem.volumes.servers.patience import insist_all
from floodem.volumes.stored import StoredVolume
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    import tensorstore


class ChunkedVolume(StoredVolume):
    """A view (z, y, x) of an open tensorstore.

    Parameters
    ----------
    view
        Its domain begins at the volume's offset.
    open_levels
        Opens the whole pyramid around this volume when it is first asked for;
        None where there is no pyramid.
    owns_levels
        Whether they close with this volume.
    is_remote
        Whether requests go to a server, which takes patience (see `patience`).
    """

    def __init__(
        self,
        view: tensorstore.TensorStore,
        *,
        open_levels: Callable[[Volume], tuple[Volume, ...]] | None = None,
        owns_levels: bool = True,
        is_remote: bool = False,
        **facts: Any,
    ) -> None:
        super().__init__(**facts)
        self._view = view
        self._open_levels = open_levels
        self._owns_levels = owns_levels
        self._is_remote = is_remote
        self._levels: tuple[Volume, ...] | None = None

    @property
    def levels(self) -> tuple[Volume, ...]:
        """The levels of the pyramid, finest first; they close with the volume that was opened."""
        if self._levels is None:
            self._levels = self._open_levels(self) if self._open_levels else (self,)
        return self._levels

    def missing(self, box: Box | None = None, *, most: int = 1) -> list[Box]:
        """Return the chunks (as they are written alone, cut at `box`) that are not stored.

        Background that was left out is missing as well, unless it was written with
        `stores_background` (see `open_volume`).

        Parameters
        ----------
        most
            How many to name at most.

        Raises
        ------
        VolumeFormatError
            When it cannot be told (sharded precomputed volumes).
        StorageError
            When the file system or the server refuses.
        """
        box = self.box if box is None else box
        self._require_inside(box)
        found = missing_chunks(
            self._view, box, chunks=self.chunks, uri=self.uri, is_remote=self._is_remote
        )
        try:
            return list(itertools.islice(found, most))
        except FloodemError:
            raise
        except (ValueError, OSError) as error:
            raise sentence("look at", self.uri, error) from error

    def _read(self, box: Box) -> Array:
        if self._is_remote:
            return self._read_remote(box)
        try:
            found = self._view[box.slices()].read(order="C").result()
        except (ValueError, OSError) as error:
            raise sentence("read", self.uri, error) from error
        return np.ascontiguousarray(found, dtype=self.dtype)

    def _read_remote(self, box: Box) -> Array:
        """Read chunk by chunk, many at a time: what fails is asked for again alone."""
        whole = np.empty(box.shape, self.dtype)
        pieces = list(self._pieces(box))
        try:
            found = insist_all(
                (partial(self._begin_read, piece) for piece in pieces),
                address=self.uri,
                action="read",
            )
            for piece, array in zip(pieces, found, strict=True):
                whole[piece.slices(origin=box.start)] = array
        except FloodemError:
            raise
        except (ValueError, OSError) as error:
            raise sentence("read", self.uri, error) from error
        return whole

    def _begin_read(self, box: Box) -> tensorstore.Future[Array]:
        return self._view[box.slices()].read(order="C")

    def _write_remote(self, box: Box, array: Array) -> None:
        def begin(piece: Box) -> tensorstore.WriteFutures:
            return self._view[piece.slices()].write(array[piece.slices(origin=box.start)])

        try:
            starts = (partial(begin, piece) for piece in self._pieces(box))
            for _ in insist_all(starts, address=self.uri, action="write"):
                pass
        except FloodemError:
            raise
        except (ValueError, OSError) as error:
            raise sentence("write", self.uri, error) from error

    def _write(self, box: Box, array: Array) -> None:
        self._require_writable()
        if self._view.dtype.numpy_dtype == np.dtype(bool):
            array = _as_bool(array, uri=self.uri)
        if self._is_remote:
            self._write_remote(box, array)
            return
        futures = [
            self._view[piece.slices()].write(array[piece.slices(origin=box.start)])
            for piece in self._pieces(box)
        ]
        try:
            for future in futures:
                future.result()
        except (ValueError, OSError) as error:
            raise sentence("write", self.uri, error) from error
        finally:
            # A failed or interrupted write must not go on behind the back of `discard`.
            for future in futures:
                future.exception()

    def _pieces(self, box: Box) -> Iterator[Box]:
        """Cut a box at the chunks' faces: one write each, so that all can be waited for.

        One write of many chunks fails with the first of them, and the others go on.
        """
        z, y, x = (
            start - (start - origin) % chunk
            for start, origin, chunk in zip(box.start, self.offset, self.chunks, strict=True)
        )
        for tile in tiles(Box((z, y, x), box.stop), core=self.chunks):
            piece = tile.core.intersection(box)
            if piece is not None:
                yield piece

    def _release(self) -> None:
        # A late write would bring a discarded folder back.
        self._writable = False
        for level in (self._levels or ()) if self._owns_levels else ():
            if level is not self:
                level.close()


def _as_bool(array: Array, *, uri: str) -> Array:
    if array.size and array.max() > 1:
        raise LabelError(f"{uri} holds 0 and 1 only, not {array.max()}: choose another volume")
    return array.astype(bool)
