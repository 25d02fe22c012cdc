"""GLB, glTF in one binary file: triangles in, one mesh in one scene out.

Format: Khronos glTF 2.0 specification, "GLB File Format Specification".
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from floodem.errors import GeometryError
from floodem.shapes.files.triangles import Triangles, in_parts

_MAGIC = 0x46546C67
_VERSION = 2
_JSON_CHUNK = 0x4E4F534A
_BINARY_CHUNK = 0x004E4942
_MAX_BYTES = 2**32 - 1
_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8

# Codes of the glTF 2.0 specification, as in OpenGL.
_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_TRIANGLES = 4


def write(file: IO[bytes], triangles: Triangles) -> None:
    """Write the description, then positions and indices.

    Raises
    ------
    GeometryError
        When the file would be larger than the format counts (4 GiB).
    """
    described = json.dumps(_description(triangles), separators=(",", ":")).encode("ascii")
    described += b" " * (-len(described) % 4)
    binary_bytes = _binary_bytes(triangles)
    total = _HEADER_BYTES + 2 * _CHUNK_HEADER_BYTES + len(described) + binary_bytes
    if total > _MAX_BYTES:
        raise GeometryError(
            f"{len(triangles.faces)} triangles take more than the 4 GiB of a GLB file: "
            "mesh a coarser level"
        )
    file.write(np.array([_MAGIC, _VERSION, total], "<u4").tobytes())
    file.write(np.array([len(described), _JSON_CHUNK], "<u4").tobytes())
    file.write(described)
    file.write(np.array([binary_bytes, _BINARY_CHUNK], "<u4").tobytes())
    for part in in_parts(triangles.vertices_xyz):
        file.write(part.astype("<f4").tobytes())
    for part in in_parts(triangles.faces):
        file.write(part.astype("<u4").tobytes())


def _binary_bytes(triangles: Triangles) -> int:
    return 12 * (len(triangles.vertices_xyz) + len(triangles.faces))


def _description(triangles: Triangles) -> dict[str, Any]:
    vertices_xyz, faces = triangles.vertices_xyz, triangles.faces
    vertex_bytes = 12 * len(vertices_xyz)
    return {
        "asset": {"version": "2.0", "generator": "floodem", "extras": {"unit": triangles.unit}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": triangles.name}],
        "meshes": [
            {
                "name": triangles.name,
                "primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": _TRIANGLES}],
            }
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": len(vertices_xyz),
                "type": "VEC3",
                "min": [float(value) for value in vertices_xyz.min(axis=0)],
                "max": [float(value) for value in vertices_xyz.max(axis=0)],
            },
            {
                "bufferView": 1,
                "componentType": _UNSIGNED_INT,
                "count": faces.size,
                "type": "SCALAR",
            },
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": vertex_bytes, "target": _ARRAY_BUFFER},
            {
                "buffer": 0,
                "byteOffset": vertex_bytes,
                "byteLength": 12 * len(faces),
                "target": _ELEMENT_ARRAY_BUFFER,
            },
        ],
        "buffers": [{"byteLength": _binary_bytes(triangles)}],
    }
