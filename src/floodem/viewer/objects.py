"""Meshes of a small segmentation, made when a page asks for them: labels in, fragments out.

A segmentation that fits in memory needs no mesh files: the few objects that a page
shows are meshed one by one, each in its own box. Larger ones have their meshes made
beforehand (``floodem mesh``).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from floodem.geometry import VoxelSize, Zyx
from floodem.labels import compact
from floodem.volumes.volume import Array

Slices = tuple[slice, slice, slice]


class ObjectMeshes:
    """Meshes of labels in memory, closed at the volume's border.

    Parameters
    ----------
    labels
        Whole segmentation (z, y, x), unsigned.
    start
        Position of its first voxel.
    voxel_size
        In nanometres: what the meshes' positions are in.
    """

    def __init__(self, labels: Array, *, start: Zyx, voxel_size: VoxelSize) -> None:
        self._labels = labels
        self._start = start
        self._size = voxel_size
        self._boxes: Mapping[int, Slices] | None = None
        self._lock = threading.Lock()

    def fragment(self, label: int) -> bytes | None:
        """Return one object's mesh as a fragment of Neuroglancer's legacy format.

        Returns
        -------
        fragment
            None when no voxel has this label.

        Raises
        ------
        DependencyError
            When the packages for meshes are not installed.
        """
        from floodem.shapes.meshes.marching import object_meshes
        from floodem.shapes.precomputed import encode_legacy_fragment

        with self._lock:
            if self._boxes is None:
                self._boxes = _boxes(self._labels)
        found = self._boxes.get(label)
        if found is None:
            return None
        z, y, x = (at.start + first for at, first in zip(found, self._start, strict=True))
        only = np.where(self._labels[found] == label, np.uint32(1), np.uint32(0))
        made = object_meshes(only, voxel_size=self._size, start=(z, y, x), is_closed=True)
        return next((encode_legacy_fragment(mesh) for _, mesh in made), None)


def _boxes(labels: Array) -> dict[int, Slices]:
    """Return the box that each object fills, by its id."""
    from scipy import ndimage

    small, ids = compact(labels)
    found = ndimage.find_objects(small.astype(np.int32, copy=False))
    return {int(label): box for label, box in zip(ids, found, strict=True)}
