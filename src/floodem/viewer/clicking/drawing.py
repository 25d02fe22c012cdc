"""What a flood and the kept ones look like now: masks and labels in, voxels and meshes out.

Both are asked for by the server's threads while the flood goes on in another: what is shown
is handed over as a whole and never changed afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from floodem.flooding.kept import KeptFloods
from floodem.flooding.sampling import sampled_parts, sampled_shape
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.shapes.meshes.mesh import Mesh
from floodem.volumes.volume import Array

PENDING = 1
"""The id under which what is not decided yet is shown, in a layer of its own."""

FINE_VOXELS = 2**20
"""Masks up to about 100 x 100 x 100 are meshed as they are, larger ones at half the resolution
and so on: while marching cubes work, nothing else of Python does."""

_REMEMBERED_MESHES = 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a flood has filled at one moment.

    Attributes
    ----------
    box
        Where the mask lies.
    mask
        True in the object.
    """

    box: Box
    mask: Bool[np.ndarray, "z y x"]


class Growing:
    """The flood that is not decided yet; one mask at a time, or none.

    Parameters
    ----------
    voxel_size
        For its mesh.
    layer
        Name of the layer that shows it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, voxel_size: VoxelSize, *, layer: str) -> None:
        self._voxel_size = voxel_size
        self._layer = layer
        self._number = 0
        self._now: Snapshot | None = None
        self._was_read = threading.Event()

    @property
    def now(self) -> Snapshot | None:
        """What is shown."""
        return self._now

    def show(self, snapshot: Snapshot | None) -> None:
        """Show this from now on; what comes after nothing is another flood."""
        if self._now is None and snapshot is not None:
            self._number += 1
        self._now = snapshot
        self._was_read.clear()

    def wait_until_read(self, within_s: float) -> bool:
        """Wait until a page has asked for voxels of what is shown; tell whether one has."""
        return self._was_read.wait(within_s)

    def read(self, box: Box, *, step: Zyx) -> Array:
        """Return `PENDING` in the object and 0 elsewhere, every `step`-th voxel."""
        labels = np.zeros(sampled_shape(box, step), self.dtype)
        now = self._now
        parts = None if now is None else sampled_parts(box, now.box, step=step)
        if now is not None and parts is not None:
            there, here = parts
            labels[there] = now.mask[here] * self.dtype.type(PENDING)
            self._was_read.set()
        return labels

    def mesh(self, label: int) -> Mesh | None:
        """Return its surface."""
        now = self._now
        if now is None or label != PENDING:
            return None
        return mesh_of(now.mask, start=now.box.start, voxel_size=self._voxel_size)

    def notes(self) -> Mapping[str, Any]:
        """Return which flood this is: the page selects each once, so that its mesh shows."""
        return {
            "floodem": {"layer": self._layer, "segments": [str(PENDING)], "number": self._number}
        }


class KeptObjects:
    """The kept floods.

    Parameters
    ----------
    kept
        Open as long as this is shown.
    voxel_size
        For the meshes.
    layer
        Name of the layer that shows them.
    """

    dtype = np.dtype(np.uint64)

    def __init__(self, kept: KeptFloods, voxel_size: VoxelSize, *, layer: str) -> None:
        self._kept = kept
        self._voxel_size = voxel_size
        self._layer = layer
        self._meshes: dict[tuple[str, ...], Mesh | None] = {}
        self._lock = threading.Lock()

    def read(self, box: Box, *, step: Zyx) -> Array:
        """Return the ids."""
        return self._kept.read(box, step=step)

    def mesh(self, label: int) -> Mesh | None:
        """Return the surface of an object."""
        # The digests of what was written under an id say whether it has changed.
        key = tuple(one.bits_sha256 for one in self._kept.floods if one.label == label)
        if not key:
            return None
        with self._lock:
            if key not in self._meshes:
                self._meshes[key] = self._make_mesh(label)
                while len(self._meshes) > _REMEMBERED_MESHES:
                    del self._meshes[next(iter(self._meshes))]
            return self._meshes[key]

    def notes(self) -> Mapping[str, Any]:
        """Return which objects there are, for the page to select them: their meshes show then."""
        ids = [str(label) for label in self._kept.labels]
        return {"floodem": {"layer": self._layer, "segments": ids}}

    def _make_mesh(self, label: int) -> Mesh | None:
        box = self._kept.box_of(label)
        step = coarse_step(box.shape)
        mask = self._kept.read(box, step=step) == label
        return _mesh(mask, start=box.start, step=step, voxel_size=self._voxel_size)


def coarse_step(shape: Zyx) -> Zyx:
    """Return how many voxels of a box go into one of its mesh, on each axis."""
    every = 1
    while (shape[0] // every) * (shape[1] // every) * (shape[2] // every) > FINE_VOXELS:
        every *= 2
    return (every, every, every)


def mesh_of(mask: Bool[np.ndarray, "z y x"], *, start: Zyx, voxel_size: VoxelSize) -> Mesh | None:
    """Return the closed surface of a mask whose first voxel lies at `start`, or None if empty.

    Parts of a voxel count where a large mask is meshed coarsely, so that thin ones stay whole.
    """
    step = coarse_step((mask.shape[0], mask.shape[1], mask.shape[2]))
    return _mesh(_any_of(mask, step[0]), start=start, step=step, voxel_size=voxel_size)


def _any_of(mask: Bool[np.ndarray, "z y x"], every: int) -> Bool[np.ndarray, "z2 y2 x2"]:
    """Tell of each cube of voxels whether one of them is in the mask."""
    if every == 1:
        return mask
    padded = np.pad(mask, [(0, -edge % every) for edge in mask.shape])
    z, y, x = (edge // every for edge in padded.shape)
    cubes = padded.reshape(z, every, y, every, x, every)
    return np.asarray(cubes.any(axis=(1, 3, 5)))


def _mesh(
    mask: Shaped[np.ndarray, "z y x"], *, start: Zyx, step: Zyx, voxel_size: VoxelSize
) -> Mesh | None:
    from floodem.shapes.meshes.marching import object_meshes

    edges = [edge * every for edge, every in zip(voxel_size.zyx_nm, step, strict=True)]
    labels = mask.astype(np.uint8)
    found = dict(object_meshes(labels, voxel_size=VoxelSize(*edges), is_closed=True))
    if not found:
        return None
    mesh = found[1]
    moved = mesh.vertices_zyx_nm + np.array(start) * np.array(voxel_size.zyx_nm)
    return Mesh(moved.astype(np.float32), mesh.faces)
