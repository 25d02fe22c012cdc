"""Segments of a checkpoint as labels: its -1, which marks rejected seeds, becomes background."""

from __future__ import annotations

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import Box
from floodem.volumes.description import Description
from floodem.volumes.stored import StoredVolume
from floodem.volumes.volume import Array, Kind, Volume


class WithoutMarks(StoredVolume):
    """The segmentation (uint32) of an open checkpoint, which is closed with this one.

    Raises
    ------
    VolumeFormatError
        When it holds other numbers than an older program's checkpoint does.
    """

    def __init__(self, inner: Volume) -> None:
        if inner.dtype != np.int32:
            inner.close()
            raise VolumeFormatError(
                f"{inner.uri} holds {inner.dtype} as its segmentation: a checkpoint of the older "
                "program has int32"
            )
        self._inner = inner
        super().__init__(
            uri=inner.uri,
            shape=inner.shape,
            dtype=np.dtype(np.uint32),
            chunks=inner.chunks,
            description=Description(offset=inner.offset, kind=Kind.LABELS),
        )

    def _read(self, box: Box) -> Array:
        return np.maximum(self._inner.read(box), 0).astype(np.uint32)

    def _release(self) -> None:
        self._inner.close()
