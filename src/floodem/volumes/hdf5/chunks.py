"""Deflated chunks of an HDF5 dataset, unpacked here: a box of indices in, its voxels out.

HDF5 unpacks one chunk at a time, under one lock, to whatever size it has. Here
stored chunks are fetched as they are, unpacked beside the lock, so that threads
share the work, and never to more than the chunk declares, so that a small file
cannot fill the memory. Only the usual pipeline is served (deflate, with or
without shuffle); other datasets are left to HDF5.
"""

from __future__ import annotations

import itertools
import threading
import zlib
from collections import OrderedDict
from typing import Any, Self

import h5py
import numpy as np

from floodem.volumes.volume import Array

Slices = tuple[slice, ...]

CACHED_BYTES = 2**23
"""Unpacked chunks are kept up to this size, as HDF5 does."""

_DEFLATED = (h5py.h5z.FILTER_DEFLATE,)
_SHUFFLED = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE)


class DeflatedChunks:
    """The stored chunks of one dataset."""

    def __init__(self, dataset: h5py.Dataset, filters: tuple[int, ...]) -> None:
        self._dataset = dataset
        self._filters = filters
        self._chunk_shape: tuple[int, ...] = dataset.chunks
        self._kept: OrderedDict[tuple[int, ...], Array] = OrderedDict()
        self._lock = threading.Lock()
        self._chunk_bytes = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> Self | None:
        """Return the chunks of a dataset, or None when they are stored in another way."""
        plan = dataset.id.get_create_plist()
        filters = tuple(plan.get_filter(at)[0] for at in range(plan.get_nfilters()))
        if (
            dataset.chunks is None
            or filters not in (_DEFLATED, _SHUFFLED)
            or dataset.dtype.kind not in "uifb"
        ):
            return None
        return cls(dataset, filters)

    def read(self, box: Slices) -> Array:
        """Return the voxels of a box of indices (start and stop on every stored axis).

        Raises
        ------
        ValueError, zlib.error
            When a chunk is damaged.
        """
        found = np.empty([part.stop - part.start for part in box], self._dataset.dtype)
        grids = [
            range(part.start - part.start % step, part.stop, step)
            for part, step in zip(box, self._chunk_shape, strict=True)
        ]
        for corner in itertools.product(*grids):
            within = [
                slice(max(part.start, at), min(part.stop, at + step))
                for part, at, step in zip(box, corner, self._chunk_shape, strict=True)
            ]
            target = tuple(
                slice(one.start - part.start, one.stop - part.start)
                for one, part in zip(within, box, strict=True)
            )
            chunk = self._chunk(corner)
            if chunk is None:
                # Never written, or out of reach: HDF5 gives background, or says why not.
                found[target] = self._dataset[tuple(within)]
                continue
            source = tuple(
                slice(one.start - at, one.stop - at) for one, at in zip(within, corner, strict=True)
            )
            found[target] = chunk[source]
        return found

    def _chunk(self, corner: tuple[int, ...]) -> Array | None:
        """Return one chunk, unpacked; None leaves it to HDF5."""
        with self._lock:
            if corner in self._kept:
                self._kept.move_to_end(corner)
                return self._kept[corner]
        chunk = self._unpack(corner)
        if chunk is not None and chunk.nbytes <= CACHED_BYTES:
            with self._lock:
                self._kept[corner] = chunk
                while len(self._kept) * chunk.nbytes > CACHED_BYTES:
                    self._kept.popitem(last=False)
        return chunk

    def _unpack(self, corner: tuple[int, ...]) -> Array | None:
        try:
            # Of a chunk that was never written HDF5 may call any length its own.
            if self._dataset.id.get_chunk_info_by_coord(corner).byte_offset is None:
                return None
            _, stored = self._dataset.id.read_direct_chunk(corner)
        except RuntimeError:
            return None
        try:
            data = self._inflate(stored)
        except zlib.error:
            # HDF5 stores what deflate would lengthen as it is, and h5py 3.16 does not tell.
            if len(stored) == self._chunk_bytes:
                return None
            raise
        return self._unshuffle(data).reshape(self._chunk_shape)

    def _inflate(self, stored: bytes) -> bytes:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(stored, self._chunk_bytes)
        # At the limit the end of the stream may still be in front of it; more data must not.
        is_more = unpacker.unconsumed_tail and unpacker.decompress(unpacker.unconsumed_tail, 1)
        if is_more or len(data) != self._chunk_bytes:
            raise ValueError(
                f"a chunk of {self._chunk_bytes} bytes unpacks to "
                + ("more" if is_more else f"{len(data)}")
            )
        return data

    def _unshuffle(self, data: bytes) -> np.ndarray[Any, np.dtype[Any]]:
        dtype = self._dataset.dtype
        if self._filters == _SHUFFLED and dtype.itemsize > 1:
            planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
            return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)
        return np.frombuffer(data, dtype)
