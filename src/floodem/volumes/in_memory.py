"""An array in memory as a volume: what a notebook shows, what scores and tests compare."""

from __future__ import annotations

import numpy as np

from floodem.errors import GeometryError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Array, Kind, Volume

_EDGE = 64  # voxels that are cheap to copy, and what the viewer asks for


class ArrayVolume(Volume):
    """A numpy array (z, y, x), looked at where it is; it may be a memory map of any size.

    Parameters
    ----------
    array
        Booleans become 8-bit numbers.
    offset
        Position of its first voxel, z, y, x.
    voxel_size
        In nanometres, or None.
    chunks
        What is cheap to read at once, z, y, x; None: cubes of 64 voxels.
    kind
        What the values mean, if that is known.
    uri
        What messages call it.

    Raises
    ------
    GeometryError
        When the array has not three axes, or no voxels.
    """

    def __init__(
        self,
        array: Array,
        *,
        offset: Zyx = (0, 0, 0),
        voxel_size: VoxelSize | None = None,
        chunks: Zyx | None = None,
        kind: Kind | None = None,
        uri: str = "array",
    ) -> None:
        if array.ndim != 3 or array.size == 0:
            raise GeometryError(
                f"the {uri} has shape {array.shape}, which is no volume: give an array with axes "
                "z, y, x"
            )
        self.array = array.view(np.uint8) if array.dtype == bool else array
        self.uri = uri
        z, y, x = (int(edge) for edge in array.shape)
        self.box = Box.from_shape((z, y, x), start=offset)
        self.dtype = self.array.dtype.newbyteorder("=")
        self.voxel_size = voxel_size
        self.chunks = chunks or (min(z, _EDGE), min(y, _EDGE), min(x, _EDGE))
        self.kind = kind

    def _read(self, box: Box) -> Array:
        return self.array[box.slices(origin=self.offset)].astype(self.dtype, order="C")

    def _write(self, box: Box, array: Array) -> None:
        self.array[box.slices(origin=self.offset)] = array
