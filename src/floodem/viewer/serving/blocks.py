"""Voxels that were read are kept for a while: volumes in, the same volumes from memory out.

What a page shows is asked for in chunks of its own, many at once, and a stored block (a whole
section of a stack, say) lies behind many of them. Here each block is read once, by one thread,
and kept as long as there is room. Coarser levels are computed from finer ones in the same way.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

import numpy as np

from floodem.errors import FloodemError
from floodem.geometry import Box, Zyx, tiles
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.conversion.destination import serves_threads
from floodem.volumes.conversion.pyramid import downsample
from floodem.volumes.location import parse_location
from floodem.volumes.pyramid_geometry import finest_box, level_box, level_voxel_size
from floodem.volumes.volume import Array, Kind, Volume

CACHE_BYTES = 512 * 2**20
"""What all volumes of a site keep together. Four panels of 1000 x 1000 pixels touch chunks of
64 voxels' depth: 200 MB of an 8-bit image and its labels in 32 bit would take five times that,
but neighbouring chunks are asked for together, so that a good half of one screen is enough."""

Key = tuple[str, str, Hashable]
"""Whose it is, which part of that, and what of it."""

_locks: weakref.WeakKeyDictionary[Volume, threading.Lock] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def is_safe_for_threads(volume: Volume) -> bool:
    """Tell whether several threads may read a volume at once."""
    if isinstance(volume, (DerivedVolume, CoarserVolume)):
        return True
    try:
        return serves_threads(parse_location(volume.uri))
    except FloodemError:
        return False  # an open volume that is in no file


def share_lock(volume: Volume, *, with_volume: Volume) -> None:
    """Let a level of a pyramid be read only while no other level of it is."""
    with _guard:
        _locks[volume] = _locks.setdefault(with_volume, threading.Lock())


def read_safely(volume: Volume, box: Box) -> Array:
    """Read a box of a volume that other threads may be reading, one at a time where it must be.

    Raises
    ------
    FloodemError
        See `Volume.read`.
    """
    if is_safe_for_threads(volume):
        return volume.read(box)
    with _guard:
        lock = _locks.setdefault(volume, threading.Lock())
    with lock:
        return volume.read(box)


class Cache:
    """Things by key, the longest unused ones forgotten when they take more than `most_bytes`.

    What is asked for by several threads at once is made by the first of them.
    """

    def __init__(self, *, most_bytes: int = CACHE_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._pending: dict[Key, Future[Any]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Any], *, size: Callable[[Any], int]) -> Any:
        """Return what is kept under a key, made where it is not; `size` gives its bytes."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
            waiting = self._pending.get(key)
            if waiting is None:
                mine: Future[Any] = Future()
                self._pending[key] = mine
        if waiting is not None:
            return waiting.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            self._keep(key, made, size(made))
        mine.set_result(made)
        return made

    def is_being_made(self, key: Key) -> bool:
        """Tell whether another thread makes this now."""
        return key in self._pending

    def forget(self, owner: str) -> None:
        """Forget everything of one owner."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == owner]:
                self._bytes -= self._kept.pop(key)[1]

    @property
    def kept_bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def _keep(self, key: Key, made: Any, size: int) -> None:
        if size > self.most_bytes:
            return
        self._kept[key] = (made, size)
        self._bytes += size
        while self._bytes > self.most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1][1]


class BlockwiseVolume(Volume):
    """A volume read in whole blocks, which a cache keeps.

    Parameters
    ----------
    volume
        What is read; it stays open.
    block
        Shape of the blocks (z, y, x), which lie on a grid from the volume's offset.
    owner, part
        The first parts of the keys in the cache.
    """

    def __init__(self, volume: Volume, *, block: Zyx, cache: Cache, owner: str, part: str) -> None:
        self.uri = volume.uri
        self.box = volume.box
        self.dtype = volume.dtype
        self.voxel_size = volume.voxel_size
        self.chunks = block
        self.kind = volume.kind
        self._volume = volume
        self._cache = cache
        self._owner, self._part = owner, part

    def _read(self, box: Box) -> Array:
        z, y, x = (
            start - (start - first) % edge
            for start, first, edge in zip(box.start, self.offset, self.chunks, strict=True)
        )
        parts = [tile.core for tile in tiles(Box((z, y, x), box.stop), core=self.chunks)]
        if len(parts) == 1:
            start = parts[0].start
            return np.ascontiguousarray(self._block(start)[box.slices(origin=start)])
        found = np.empty(box.shape, self.dtype)

        def copy(part: Box) -> None:
            shared = part.intersection(box)
            assert shared is not None
            block = self._block(part.start)
            found[shared.slices(origin=box.start)] = block[shared.slices(origin=part.start)]

        # What another thread reads just now comes last: meanwhile this one reads others.
        put_off = []
        for part in parts:
            if self._cache.is_being_made((self._owner, self._part, part.start)):
                put_off.append(part)
            else:
                copy(part)
        for part in put_off:
            copy(part)
        return found

    def _block(self, start: Zyx) -> Array:
        def make() -> Array:
            whole = Box.from_shape(self.chunks, start=start).intersection(self.box)
            assert whole is not None
            made = read_safely(self._volume, whole)
            made.setflags(write=False)  # it is handed to many
            return made

        found: Array = self._cache.get(
            (self._owner, self._part, start), make, size=lambda made: int(made.nbytes)
        )
        return found


class CoarserVolume(Volume):
    """The next coarser level of a volume, computed where it is read.

    Parameters
    ----------
    finer
        The level before, safe to read from several threads.
    factors
        1 or 2 on each axis.
    kind
        Images get the mean, labels the most frequent value.
    """

    def __init__(self, finer: Volume, *, factors: Zyx, kind: Kind) -> None:
        self.uri = finer.uri
        self.box = level_box(finer.box, factors)
        self.dtype = finer.dtype
        self.voxel_size = level_voxel_size(finer.voxel_size, factors)
        self.kind = kind
        z, y, x = (min(edge, length) for edge, length in zip(finer.chunks, self.shape, strict=True))
        self.chunks = (z, y, x)
        self._finer = finer
        self._factors = factors
        self._downsampled_as = kind

    def _read(self, box: Box) -> Array:
        covered = finest_box(box, self._factors).intersection(self._finer.box)
        assert covered is not None
        return downsample(
            self._finer.read(covered),
            start=covered.start,
            factors=self._factors,
            kind=self._downsampled_as,
        )


def bytes_of(shape: Zyx, dtype: np.dtype[Any]) -> int:
    """Return what a block takes in memory."""
    return math.prod(shape) * dtype.itemsize
