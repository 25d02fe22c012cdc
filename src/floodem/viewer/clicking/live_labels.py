"""Labels that change while they are looked at: what is there now comes in, Neuroglancer's data out.

They are read and meshed anew whenever a page asks.
"""

from __future__ import annotations

import functools
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from floodem.errors import FloodemError
from floodem.flooding.sampling import sampled_shape
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.shapes.meshes.mesh import Mesh
from floodem.volumes.volume import Array

MOST_VOXELS_AT_ONCE = 2**24
"""Of a chunk; pages ask for 2**18."""

LARGEST_STEP = 2**20
"""From how far a page may look, in voxels a pixel."""

_QUICKLY = 1  # zlib's fastest level: labels shrink to a hundredth by any


class Labels(Protocol):
    """What is shown."""

    dtype: np.dtype[Any]

    def read(self, box: Box, *, step: Zyx) -> Array:
        """Return every `step`-th voxel of a box, z, y, x."""

    def mesh(self, label: int) -> Mesh | None:
        """Return the surface of an object, or None when it is not there."""

    def notes(self) -> Mapping[str, Any]:
        """Return what the page's own script is to be told (see ``page/clicking.js``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFrame:
    """Where labels lie in a picture.

    Attributes
    ----------
    box
        All voxels that there may be.
    voxel_size
        In nanometres, or in the picture's own unit.
    scales_xyz, unit
        The same as Neuroglancer's dimensions have it: the length of a voxel, and in what.
    """

    box: Box
    voxel_size: VoxelSize
    scales_xyz: tuple[float, float, float]
    unit: str


def live_labels(labels: Labels, frame: LiveFrame, *, in_planes: bool) -> Any:
    """Return a ``neuroglancer.LocalVolume`` that shows what `labels` has at each moment.

    Parameters
    ----------
    in_planes
        Whether to cut it into thin slabs along each panel, which is less to load where only
        the planes in view are looked at and all changes at once.
    """
    return _class()(labels, frame, in_planes=in_planes)


@functools.cache
def _class() -> Any:
    import neuroglancer
    from neuroglancer.local_volume import LocalVolume

    class LiveLabels(LocalVolume):  # type: ignore[misc]
        """Neuroglancer's volume in memory, without the memory."""

        def __init__(self, labels: Labels, frame: LiveFrame, *, in_planes: bool) -> None:
            super().__init__(
                _Shape(frame.box.shape[::-1], labels.dtype),
                dimensions=neuroglancer.CoordinateSpace(
                    names=["x", "y", "z"], units=frame.unit, scales=list(frame.scales_xyz)
                ),
                voxel_offset=frame.box.start[::-1],
                volume_type="segmentation",
                chunk_layout="flat" if in_planes else "isotropic",
                # Nothing is computed for the levels, so there may be as many as needed.
                max_downsampling=math.inf,
                max_downsampling_scales=math.inf,
            )
            self.labels, self.frame = labels, frame

        def info(self) -> dict[str, Any]:
            return {**super().info(), **self.labels.notes()}

        def get_encoded_subvolume(  # noqa: PLR0917 - theirs
            self, data_format: str, start: Any, end: Any, scale_key: str
        ) -> tuple[bytes, str]:
            box, step = _asked(self.frame.box, [start, end], scale_key=scale_key)
            try:
                return encode_npz(self.labels.read(box, step=step)), "application/octet-stream"
            except FloodemError as error:
                raise ValueError(str(error)) from error  # which the server can answer with

        def get_object_mesh(self, object_id: int) -> bytes:
            try:
                mesh = self.labels.mesh(object_id)
            except FloodemError as error:
                raise ValueError(str(error)) from error
            return encode_mesh(Mesh.empty() if mesh is None else mesh, self.frame)

    return LiveLabels


@dataclass(frozen=True, slots=True)
class _Shape:
    """What `LocalVolume` wants to know of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _asked(whole: Box, corners_xyz: Sequence[Sequence[int]], *, scale_key: str) -> tuple[Box, Zyx]:
    """Return which voxels a page asks for.

    Raises
    ------
    ValueError
        When there are none of these.
    """
    step = tuple(int(part) for part in scale_key.split(","))[::-1]
    low, high = (corner[::-1] for corner in corners_xyz)
    if not len(step) == len(low) == len(high) == 3:
        raise ValueError("three axes are expected")
    if not all(1 <= every <= LARGEST_STEP for every in step):
        raise ValueError(f"steps are within 1 to {LARGEST_STEP}")
    dz, dy, dx = step
    inside = sampled_shape(whole, (dz, dy, dx))
    if not all(0 <= int(a) < int(b) <= n for a, b, n in zip(low, high, inside, strict=True)):
        raise ValueError("the chunk is outside of the volume")
    if math.prod(int(b) - int(a) for a, b in zip(low, high, strict=True)) > MOST_VOXELS_AT_ONCE:
        raise ValueError(f"a chunk has at most {MOST_VOXELS_AT_ONCE} voxels")
    z, y, x = (at + int(a) * every for at, a, every in zip(whole.start, low, step, strict=True))
    sz, sy, sx = (
        min(stop, at + int(b) * every)
        for stop, at, b, every in zip(whole.stop, whole.start, high, step, strict=True)
    )
    return Box((z, y, x), (sz, sy, sx)), (dz, dy, dx)


def encode_npz(labels: Array) -> bytes:
    """Return labels (z, y, x) as the client's ``npz`` encoding: an .npy of x, y, z, deflated."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(labels).T, allow_pickle=False)
    return zlib.compress(file.getvalue(), _QUICKLY)


def encode_mesh(mesh: Mesh, frame: LiveFrame) -> bytes:
    """Return a mesh as the client reads it of a volume in memory.

    That is: the number of vertices, their places x, y, z from the volume's first corner on in
    the unit of its dimensions, three vertices for each triangle; all 32 bit, little-endian.
    """
    positions_nm, faces = mesh.as_xyz()
    edges_nm = np.array(frame.voxel_size.zyx_nm[::-1])
    voxels = positions_nm.astype(np.float64) / edges_nm - np.array(frame.box.start[::-1])
    places = (voxels * np.array(frame.scales_xyz)).astype("<f4")
    return b"".join(
        (len(places).to_bytes(4, "little"), places.tobytes(), faces.astype("<u4").tobytes())
    )
