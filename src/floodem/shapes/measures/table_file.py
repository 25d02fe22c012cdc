"""Measures as a CSV file: columns in, a text file out, written some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from floodem.files import replacing
from floodem.shapes.measures.measure import Measures

COLUMNS = (
    "id",
    "voxels",
    "volume_nm3",
    "surface_nm2",
    "z0",
    "y0",
    "x0",
    "z1",
    "y1",
    "x1",
    "centroid_z",
    "centroid_y",
    "centroid_x",
)
"""Boxes are half-open, boxes and centroids in voxels of the volume's frame (see `Measures`)."""

LENGTH_COLUMN = "length_nm"
"""The last column, where lengths were asked for; empty for objects without a skeleton."""

_ROWS_AT_ONCE = 2**16


def csv_lines(measures: Measures) -> Iterator[str]:
    """Yield the text of the CSV: the header, then many rows at a time."""
    has_length = measures.length_nm is not None
    yield ",".join([*COLUMNS, *([LENGTH_COLUMN] if has_length else [])]) + "\n"
    for first in range(0, len(measures), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        columns = [
            measures.ids[rows].tolist(),
            measures.voxels[rows].tolist(),
            [f"{value:.10g}" for value in measures.volume_nm3[rows].tolist()],
            [f"{value:.6g}" for value in measures.surface_nm2[rows].tolist()],
            *measures.box_start[rows].T.tolist(),
            *measures.box_stop[rows].T.tolist(),
            *([f"{value:.2f}" for value in axis] for axis in measures.centroid[rows].T.tolist()),
        ]
        if measures.length_nm is not None:
            lengths = measures.length_nm[rows]
            columns.append(
                ["" if np.isnan(value) else f"{value:.1f}" for value in lengths.tolist()]
            )
        yield "".join(",".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


def write_csv(path: Path, measures: Measures) -> None:
    """Write measures as CSV, whole or not at all.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        write_rows(file, measures)


def write_rows(file: IO[str], measures: Measures) -> None:
    """Write measures as CSV into an open text file."""
    for text in csv_lines(measures):
        file.write(text)
