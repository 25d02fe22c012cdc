"""PLY, binary and little-endian: triangles in, one file out.

Format: Turk, "The PLY Polygon File Format", 1994.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from floodem.errors import GeometryError
from floodem.shapes.files.triangles import Triangles, in_parts

_MAX_VERTICES = 2**31 - 1
"""Faces are written as signed numbers: some programs read no others."""

_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def write(file: IO[bytes], triangles: Triangles) -> None:
    """Write a header, the vertices and the faces.

    Raises
    ------
    GeometryError
        When there are more vertices than the format counts.
    """
    if len(triangles.vertices_xyz) > _MAX_VERTICES:
        raise GeometryError(
            f"{len(triangles.vertices_xyz)} vertices are more than a PLY file counts: "
            "mesh a coarser level"
        )
    header = (
        "ply\n"
        "format binary_little_endian 1.0\n"
        f"comment written by floodem, lengths in {triangles.unit}\n"
        f"comment object {triangles.name}\n"
        f"element vertex {len(triangles.vertices_xyz)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(triangles.faces)}\n"
        "property list uchar int vertex_indices\n"
        "end_header\n"
    )
    file.write(header.encode("ascii"))
    for part in in_parts(triangles.vertices_xyz):
        file.write(part.astype("<f4").tobytes())
    for part in in_parts(triangles.faces):
        rows = np.empty(len(part), _FACE)
        rows["count"], rows["corners"] = 3, part
        file.write(rows.tobytes())
