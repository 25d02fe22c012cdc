"""What the list of objects says: measures, names and scores in, segment properties out."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from floodem.errors import OptionError, VolumeFormatError
from floodem.files import storage_error
from floodem.viewer.scenes.checking import MOST_BYTES
from floodem.viewer.scenes.scores import ObjectScores

VOXELS = "voxels"
VOLUME = "volume_um3"
SURFACE = "surface_um2"
MERGE_BITS = "merge_bits"
SPLIT_BITS = "split_bits"

_UM2, _UM3 = 1e-6, 1e-9  # of a square and a cubic nanometre

_HEADER = ("id", "name")


def read_names(path: Path) -> dict[int, str]:
    """Read a table of names: CSV with the columns ``id`` and ``name``.

    Raises
    ------
    OptionError
        When there is no such file, or it is too large.
    VolumeFormatError
        When a line is no id and name, or an id stands twice.
    """
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise OptionError(f"{path} is no table of names: give a CSV file with id,name")
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.reader(lines))
    except OSError as error:
        raise storage_error("read", path, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise VolumeFormatError(f"{path} is no CSV text ({error}): save it as UTF-8") from error
    names: dict[int, str] = {}
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and tuple(c.lower() for c in cells) == _HEADER):
            continue
        if len(cells) != 2 or not (cells[0].isascii() and cells[0].isdecimal()):
            raise VolumeFormatError(
                f"{path}, line {number}: {','.join(row)!r} is no id and name: write 17,left arbor"
            )
        label = int(cells[0])
        if label in names:
            raise VolumeFormatError(f"{path}, line {number}: id {label} stands there twice")
        names[label] = cells[1]
    return names


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """How large objects are, by ascending id.

    Attributes
    ----------
    ids
        Never 0.
    voxels
        How many each has.
    surface_nm2
        As `floodem.shapes.measures` estimates it.
    """

    ids: UInt64[np.ndarray, "objects"]
    voxels: Int64[np.ndarray, "objects"]
    surface_nm2: Float64[np.ndarray, "objects"]

    def select(self, rows: Bool[np.ndarray, "objects"]) -> Sizes:
        """Return some of the rows."""
        return Sizes(self.ids[rows], self.voxels[rows], self.surface_nm2[rows])


def property_columns(
    objects: Sizes,
    *,
    voxel_nm3: float,
    names: Mapping[int, str],
    scores: ObjectScores | None,
) -> dict[str, Any]:
    """Return labels, descriptions and numbers for `write_segment_properties`.

    Parameters
    ----------
    objects
        What is listed.
    voxel_nm3
        Of one voxel.
    names
        What some are called; the others by their id.
    scores
        Of the segmentation.
    """
    plain = objects.ids.tolist()
    numbers: dict[str, Any] = {
        VOXELS: objects.voxels,
        VOLUME: objects.voxels * (voxel_nm3 * _UM3),
        SURFACE: objects.surface_nm2 * _UM2,
    }
    columns: dict[str, Any] = {
        "labels": [names.get(label, str(label)) for label in plain],
        "numbers": numbers,
    }
    if scores is not None:
        for key, bits in ((MERGE_BITS, scores.merge_bits), (SPLIT_BITS, scores.split_bits)):
            numbers[key] = np.array([bits.get(label, 0.0) for label in plain], np.float32)
        columns["descriptions"] = [scores.notes.get(label, "") for label in plain]
    return columns
