"""Single-resolution meshes, Neuroglancer's older format: a mesh in, bytes out, and back.

It is the format of meshes made on demand, and of programs that read no other.
Format: google/neuroglancer, src/datasource/precomputed/meshes.md, "Legacy".
"""

from __future__ import annotations

import numpy as np

from floodem.shapes.meshes.mesh import Mesh
from floodem.volumes.damage import damaged

_KIND = "a single-resolution mesh"


def encode_legacy_fragment(mesh: Mesh) -> bytes:
    """Return the number of vertices, positions x, y, z in nanometres, and triangles.

    An empty mesh gives four zero bytes, which shows nothing.
    """
    vertices_xyz_nm, faces = mesh.as_xyz()
    count = np.array([len(vertices_xyz_nm)], "<u4")
    return count.tobytes() + vertices_xyz_nm.astype("<f4").tobytes() + faces.astype("<u4").tobytes()


def decode_legacy_fragment(data: bytes, *, what: str) -> Mesh:
    """Undo `encode_legacy_fragment`.

    Parameters
    ----------
    data
        The whole fragment.
    what
        Its name in messages.

    Raises
    ------
    VolumeFormatError
        When the bytes are no such mesh.
    """
    count = int.from_bytes(data[:4], "little")
    positions_end = 4 + 12 * count
    if len(data) < max(positions_end, 4) or (len(data) - positions_end) % 12:
        raise damaged(what, kind=_KIND, reason=f"{len(data)} bytes for {count} vertices")
    vertices = np.frombuffer(data, "<f4", count=3 * count, offset=4).reshape(-1, 3)
    faces = np.frombuffer(data, "<u4", offset=positions_end).reshape(-1, 3)
    if not np.isfinite(vertices).all():
        raise damaged(what, kind=_KIND, reason="a vertex has no place")
    if len(faces) and int(faces.max()) >= count:
        raise damaged(what, kind=_KIND, reason=f"a triangle names vertex {faces.max()} of {count}")
    return Mesh.from_xyz(vertices.astype(np.float32), faces.astype(np.uint32))
