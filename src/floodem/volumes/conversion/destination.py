"""Where a copy grows and where it goes: a parsed destination in, paths and what is possible out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from floodem.errors import DestinationExistsError, FloodemError, UsageError
from floodem.geometry import Box, Zyx
from floodem.volumes.chunked.layouts import LAYOUTS, Folder, Layout
from floodem.volumes.chunked.layouts.folder import local_folder
from floodem.volumes.location import Location, require_format
from floodem.volumes.volume import Volume

WORK_SUFFIX = ".converting"

_THREADED_READERS = frozenset({"hdf5", "jpeg", "tiff"})
"""Formats that are no chunked stores and unpack in many threads, locking what these share."""


def is_resumable(location: Location) -> bool:
    """Tell whether a volume is kept in chunks or sections, each of them written alone.

    Such volumes serve several threads at once, and what is written of them stays.
    """
    record = require_format(location)
    if location.is_remote:
        return "work" in record.options and record.remote == "write"
    is_one_file = not record.holds_datasets and location.path.lower().endswith(record.extensions)
    return "work" in record.options and not (is_one_file and record.extensions)


def serves_threads(location: Location) -> bool:
    """Tell whether several threads may read a volume at once."""
    return require_format(location).name in _THREADED_READERS or is_resumable(location)


def is_by_section(location: Location) -> bool:
    """Tell whether a resumable volume is kept as one file for each section."""
    record = require_format(location)
    return bool(record.extensions) and not record.holds_datasets


def final_place(location: Location) -> Path:
    """Return the file or folder of a local copy, links followed."""
    inner = (location.dataset or "").strip("/")
    is_folder = inner and "work" in require_format(location).options
    return Path(os.path.realpath(location.local / inner if is_folder else location.local))


def require_place(location: Location) -> None:
    """Refuse a local destination that no volume can have, whatever it is made of.

    Raises
    ------
    UsageError
        When it has no name, or a file's name that ends like a folder's.
    DestinationExistsError
        When it lies among the chunks of another volume.
    """
    if location.is_remote:
        return
    final = final_place(location)
    if not final.name:
        raise UsageError(
            f"{location.uri!r} names no file or folder that could be made: give a path like "
            "out.zarr"
        )
    if location.path.endswith(("/", os.sep)) and final.is_file():
        raise UsageError(
            f"{location.uri!r} ends like a folder, and a file is there: leave out the last "
            f"{location.path[-1]!r}, or choose another destination"
        )
    for above in final.parents:
        folder = local_folder(above)
        for layout in LAYOUTS.values():
            if _is_volume(folder, layout):
                raise DestinationExistsError(
                    f"{location.uri} would lie inside the {layout.name} volume {above} and become "
                    "part of it: choose a destination outside"
                )


def _is_volume(folder: Folder, layout: Layout) -> bool:
    # A damaged file of that name, far above perhaps, may be anybody's.
    if folder.json(layout.metadata) is None:
        return False
    try:
        return layout.is_array(folder) or layout.pyramid(folder, uri=folder.path) is not None
    except (FloodemError, OSError):
        return False


def work_place(location: Location) -> Path:
    """Return where a local copy grows: beside its place, under a hidden name."""
    path = final_place(location)
    return path.with_name(f".{path.name}{WORK_SUFFIX}")


def is_in_place(values: dict[str, Any], location: Location) -> bool:
    """Tell whether a copy that is complete, by its record, has taken its place.

    A folder is known by its number in the file system, which a rename does not change.
    What is written as a whole has no place before: there it is in place if something
    is, unless it was to replace something.
    """
    if location.is_remote:
        return True
    final = final_place(location)
    made = values["made"]
    if is_resumable(location):
        return final.exists() and final.stat().st_ino == made.get("inode")
    return final.exists() and not made["replaces"]


def moved_by(volume: Volume, box: Box, *, location: Location) -> Zyx:
    """Return what to add to positions in `box`, as it was written, to find them in the volume.

    Zero, unless the format keeps no offset.
    """
    if require_format(location).keeps_position:
        return (0, 0, 0)
    z, y, x = (there - here for there, here in zip(volume.offset, box.start, strict=True))
    return (z, y, x)
