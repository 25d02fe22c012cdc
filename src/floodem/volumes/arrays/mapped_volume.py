"""Volumes whose voxels are one array of a library's or a file's making: NIfTI, MRC, DM.

An array in stored axes and an arrangement come in; boxes (z, y, x) go out. The
array is mapped, or made at the first read where it has to be unpacked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import Box
from floodem.volumes.axes import Arrangement
from floodem.volumes.declared import size_in_bytes
from floodem.volumes.stored import StoredVolume, refusals
from floodem.volumes.volume import Array


class MappedVolume(StoredVolume):
    """A volume that is read from an array in stored axes.

    Parameters
    ----------
    load
        Gives the array; called once, at the first read.
    arrangement
        Which of its axes is which.
    convert
        Makes the volume's values of stored ones, where they differ in more than type.
    """

    def __init__(
        self,
        load: Callable[[], Array],
        arrangement: Arrangement,
        *,
        convert: Callable[[Array], Array] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(shape=arrangement.shape, chunks=(1, *arrangement.shape[1:]), **facts)
        self._load = load
        self._arrangement = arrangement
        self._convert = convert
        self._stored: Array | None = None
        self._loading = threading.Lock()

    def _read(self, box: Box) -> Array:
        with self._loading:
            if self._stored is None:
                self._stored = self._load()
        index = self._arrangement.index(box.slices(origin=self.offset))
        found = self._arrangement.turn(self._stored[index])
        if self._convert is not None:
            found = self._convert(found)
        return np.array(found, dtype=self.dtype, order="C")

    def _release(self) -> None:
        self._stored = None
        # The loader may hold the file.
        self._load = _closed


def _closed() -> Array:
    raise AssertionError("read after close")


def map_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, start: int, uri: str
) -> Array:
    """Map an array in a file, which has to be as long as that.

    Raises
    ------
    VolumeFormatError
        When the file is shorter than it declares.
    """
    declared, held = start + size_in_bytes(shape, dtype), path.stat().st_size
    if declared > held:
        raise VolumeFormatError(
            f"{uri} declares {declared} bytes and holds {held}: the file is cut short; "
            "copy it again"
        )
    with refusals("read", uri):
        return np.memmap(path, dtype, mode="r", offset=start, shape=shape)
