"""A volume that is an array in memory, for tests of what is done with volumes."""

from __future__ import annotations

from floodem.geometry import Box
from floodem.volumes.volume import Volume


class ArrayVolume(Volume):
    """Reads and writes boxes of an array; `reads` lists the boxes that were read."""

    def __init__(self, array, *, offset=(0, 0, 0), chunks=None, voxel_size=None, kind=None):
        self.uri = "array"
        self.array = array
        self.box = Box.from_shape(array.shape, start=offset)
        self.dtype = array.dtype
        self.voxel_size = voxel_size
        self.chunks = chunks or array.shape
        self.kind = kind
        self.reads = []

    def _read(self, box):
        self.reads.append(box)
        return self.array[box.slices(origin=self.offset)].copy()

    def _write(self, box, array):
        self.array[box.slices(origin=self.offset)] = array
