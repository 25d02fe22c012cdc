"""STL, binary: triangles in, one file out, each triangle with its own corners and normal.

Format: 3D Systems, StereoLithography Interface Specification, 1988, as every
program reads it: 80 bytes of text, a count, 50 bytes for each triangle.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from floodem.errors import GeometryError
from floodem.shapes.files.triangles import Triangles, in_parts

_HEADER_BYTES = 80
_MAX_FACES = 2**32 - 1
_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write(file: IO[bytes], triangles: Triangles) -> None:
    """Write a header and the triangles; a triangle without an area has no normal (0, 0, 0).

    Raises
    ------
    GeometryError
        When there are more triangles than the format counts.
    """
    if len(triangles.faces) > _MAX_FACES:
        raise GeometryError(
            f"{len(triangles.faces)} triangles are more than an STL file counts: "
            "mesh a coarser level"
        )
    # A binary file must not begin with "solid", by which text files are known.
    header = f"floodem {triangles.name} {triangles.unit}".encode("ascii")
    file.write(header[:_HEADER_BYTES].ljust(_HEADER_BYTES))
    file.write(np.array([len(triangles.faces)], "<u4").tobytes())
    for part in in_parts(triangles.faces):
        corners = triangles.vertices_xyz[part.astype(np.intp)]
        a, b, c = (corners[:, number].astype(np.float64) for number in range(3))
        normals = np.cross(b - a, c - a)
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        rows = np.zeros(len(part), _RECORD)
        rows["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
        rows["corners"] = corners
        file.write(rows.tobytes())
