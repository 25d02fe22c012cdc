"""Which format a mesh file has, and in which unit: a mesh and a path in, a file out.

All formats get positions ordered x, y, z and triangles that run counter-clockwise
seen from outside. `floodem.shapes.precomputed` writes folders for Neuroglancer instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

import numpy as np

from floodem.errors import GeometryError, OptionError
from floodem.files import replacing
from floodem.shapes.files import glb, obj, ply, stl
from floodem.shapes.files.triangles import Triangles
from floodem.shapes.meshes.mesh import Mesh

Unit = Literal["nm", "um", "mm"]

UNITS: dict[Unit, float] = {"nm": 1.0, "um": 1e-3, "mm": 1e-6}
"""What a nanometre is in each unit."""

FORMATS: dict[str, Callable[[IO[bytes], Triangles], None]] = {
    "obj": obj.write,
    "ply": ply.write,
    "stl": stl.write,
    "glb": glb.write,
}
"""Writers by the ending of the file's name."""

_LONGEST_NAME = 60
"""The header of an STL file has 80 bytes."""


def mesh_file_name(object_id: int, file_format: str) -> str:
    """Return the file name of an object: ``7.obj``.

    Raises
    ------
    OptionError
        When there is no such format.
    """
    return f"{int(object_id)}.{_known(file_format)}"


def write_mesh_file(path: Path, mesh: Mesh, *, unit: Unit = "nm", name: str | None = None) -> None:
    """Write a mesh as one file, whole or not at all.

    Parameters
    ----------
    path
        Its ending says the format: ``.obj``, ``.ply``, ``.stl`` or ``.glb``. PLY and STL
        are binary, little-endian.
    mesh
        Its triangles are written a part at a time.
    unit
        ``nm``, ``um`` or ``mm``. None of the formats but GLB has a unit of its own; the
        others name it in a comment. Programs take the numbers of a GLB file for metres, as
        its standard says: the object is shown the same, only the size it is said to
        have is wrong.
    name
        The object's name inside the file; that of the file when it is None.

    Raises
    ------
    OptionError
        When there is no such format or unit, or the name is not printable ASCII.
    GeometryError
        When there is no triangle, a vertex has no place, or the file cannot hold so many.
    StorageError
        When the file system refuses.
    """
    file_format = _known(path.suffix.removeprefix("."))
    if unit not in UNITS:
        raise OptionError(f"{unit!r} is not a unit of mesh files: use {', '.join(UNITS)}")
    name = path.stem if name is None else name
    if not (0 < len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable()):
        raise OptionError(
            f"{name[:80]!r} cannot be an object's name in a mesh file: give 1 to {_LONGEST_NAME} "
            "printable ASCII characters"
        )
    if mesh.is_empty:
        raise GeometryError(f"{path} would have no triangle: there is nothing to write")
    if not np.isfinite(mesh.vertices_zyx_nm).all():
        raise GeometryError("a mesh has vertices that are no places: mesh the object again")
    vertices_xyz, faces = mesh.as_xyz()
    scaled = (vertices_xyz.astype(np.float64) * UNITS[unit]).astype(np.float32)
    triangles = Triangles(vertices_xyz=scaled, faces=faces, name=name, unit=unit)
    with replacing(path) as partial, open(partial, "wb") as file:
        FORMATS[file_format](file, triangles)


def _known(file_format: str) -> str:
    found = file_format.lower()
    if found not in FORMATS:
        close = difflib.get_close_matches(found, FORMATS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use {', '.join(FORMATS)}"
        raise OptionError(f"{file_format!r} is not a format of mesh files: {hint}")
    return found
