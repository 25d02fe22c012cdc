"""OBJ, the text format that every 3-D program reads: triangles in, lines out.

Format: Wavefront Object Files, appendix B1 of the Advanced Visualizer manual.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from floodem.shapes.files.triangles import Triangles, in_parts


def write(file: IO[bytes], triangles: Triangles) -> None:
    """Write vertices with nine digits, which give back each 32-bit number, then faces."""
    header = f"# written by floodem, lengths in {triangles.unit}, axes x y z\no {triangles.name}\n"
    file.write(header.encode("ascii"))
    # One format string for many rows is several times faster than one for each.
    for part in in_parts(triangles.vertices_xyz):
        file.write(("v %.9g %.9g %.9g\n" * len(part) % tuple(part.ravel().tolist())).encode())
    for part in in_parts(triangles.faces):
        from_one = part.astype(np.int64) + 1
        file.write(("f %d %d %d\n" * len(part) % tuple(from_one.ravel().tolist())).encode())
