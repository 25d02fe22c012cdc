"""An array in memory as a volume: what a notebook shows."""

from __future__ import annotations

import numpy as np

from floodem.errors import GeometryError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Array, Volume

_EDGE = 64  # voxels that are cheap to copy, and what the viewer asks for


class ArrayVolume(Volume):
    """A numpy array (z, y, x), looked at where it is; it may be a memory map of any size.

    Parameters
    ----------
    array
        Booleans become 8-bit numbers.
    voxel_size
        In nanometres, or None.

    Raises
    ------
    GeometryError
        When the array has not three axes, or no voxels.
    """

    def __init__(
        self, array: Array, *, voxel_size: VoxelSize | None = None, offset: Zyx = (0, 0, 0)
    ) -> None:
        if array.ndim != 3 or array.size == 0:
            raise GeometryError(
                f"an array of shape {array.shape} is no volume: give one with axes z, y, x"
            )
        self._array = array.view(np.uint8) if array.dtype == bool else array
        self.uri = "array"
        z, y, x = (int(edge) for edge in array.shape)
        self.box = Box.from_shape((z, y, x), start=offset)
        self.dtype = self._array.dtype.newbyteorder("=")
        self.voxel_size = voxel_size
        self.chunks = (min(z, _EDGE), min(y, _EDGE), min(x, _EDGE))

    def _read(self, box: Box) -> Array:
        return self._array[box.slices(origin=self.offset)].astype(self.dtype, order="C")

    def _write(self, box: Box, array: Array) -> None:
        self._array[box.slices(origin=self.offset)] = array
