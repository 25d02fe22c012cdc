"""A volume that is an array in memory and notes what is read, for tests of what is done with it."""

from __future__ import annotations

from floodem.volumes.in_memory import ArrayVolume as VolumeInMemory


class ArrayVolume(VolumeInMemory):
    """One chunk unless said otherwise; `reads` lists the boxes that were read."""

    def __init__(self, array, *, chunks=None, **facts):
        super().__init__(array, chunks=chunks or array.shape, **facts)
        self.reads = []

    def _read(self, box):
        self.reads.append(box)
        return super()._read(box)
