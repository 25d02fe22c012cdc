"""Coordinates from a file, whatever kind they are: an index, or a list of centres."""

from __future__ import annotations

from pathlib import Path

from floodem.training.coordinates import centre_list
from floodem.training.coordinates.archive import read_description
from floodem.training.coordinates.centre_list import CentreList
from floodem.training.coordinates.index import CoordinateIndex

Coordinates = CoordinateIndex | CentreList
"""What examples are drawn from."""


def load_coordinates(path: str | Path) -> Coordinates:
    """Open the index or the list of centres at a path.

    Raises
    ------
    VolumeNotFoundError
        When there is no file.
    VolumeFormatError
        When it is neither, a damaged one, or one of a later version.
    StorageError
        When the file system refuses.
    """
    kind = read_description(Path(path)).get("format")
    if kind == centre_list.KIND.name:
        return CentreList.load(path)
    return CoordinateIndex.load(path)
