"""Small volumes that tests of the viewer show."""

from __future__ import annotations

import numpy as np

from floodem.geometry import Box
from floodem.volumes.volume import Volume

OFFSET = (5, 60, 700)


class MemoryVolume(Volume):
    """A volume that remembers which boxes were read."""

    def __init__(self, array, *, uri="memory", offset=OFFSET, voxel_size=None):
        self.array = np.asarray(array)
        self.uri = uri
        self.box = Box.from_shape(self.array.shape, start=offset)
        self.dtype = self.array.dtype
        self.voxel_size = voxel_size
        self.chunks = self.array.shape
        self.boxes_read = []

    def _read(self, box):
        self.boxes_read.append(box)
        return self.array[box.slices(origin=self.offset)].copy()


def noise(dtype, *, shape=(20, 30, 40)):
    return np.random.default_rng(0).integers(40, 210, shape).astype(dtype)


def two_objects(dtype, *, shape=(20, 30, 40)):
    labels = np.zeros(shape, dtype)
    labels[:, 4:20, 4:26] = 7
    labels[4:16, 22:28, 28:36] = 200
    return labels
