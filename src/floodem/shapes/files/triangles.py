"""What the writers of mesh files take: positions and triangles ready to be written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped, UInt32

ROWS_AT_ONCE = 2**16
"""So many vertices or triangles are made ready at a time: a few megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Triangles:
    """A mesh in the axes and the unit of a file.

    Attributes
    ----------
    vertices_xyz
        Positions ordered x, y, z, in `unit`.
    faces
        Triangles, counter-clockwise seen from outside.
    name
        Printable ASCII.
    """

    vertices_xyz: Float32[np.ndarray, "vertices 3"]
    faces: UInt32[np.ndarray, "faces 3"]
    name: str
    unit: str


def in_parts(rows: Shaped[np.ndarray, "rows 3"]) -> Iterator[Shaped[np.ndarray, "part 3"]]:
    """Yield an array a part at a time."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]
