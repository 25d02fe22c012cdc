"""A volume that the viewer's server reads as well: its voxels, one reader at a time if need be."""

from __future__ import annotations

from floodem.geometry import Box
from floodem.viewer.serving.blocks import read_safely
from floodem.volumes.volume import Array, Volume


class SharedVolume(Volume):
    """Reads another volume by `read_safely`; closing this one leaves that open."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.uri, self.box, self.dtype = volume.uri, volume.box, volume.dtype
        self.voxel_size, self.chunks, self.kind = volume.voxel_size, volume.chunks, volume.kind

    def _read(self, box: Box) -> Array:
        return read_safely(self._volume, box)
