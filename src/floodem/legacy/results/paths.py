"""Where the older programs keep results: a folder and a corner in, a path out, and back.

``FOLDER/X/Y/seg-X_Y_Z.npz`` is what they write; an older flat layout is
``FOLDER/seg-X_Y_Z.npz``. The corner of a subvolume is in its name and nowhere else.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from floodem.errors import VolumeFormatError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.geometry import FARTHEST_POSITION, Zyx

SEGMENTATION, PROBABILITY, CHECKPOINT = ".npz", ".prob", ".cpoint"
"""What a subvolume's files end in."""

FILE_NAME = re.compile(r"seg-(-?[0-9]{1,16})_(-?[0-9]{1,16})_(-?[0-9]{1,16})\.(npz|prob|cpoint)")
_NUMBER = re.compile(r"-?[0-9]{1,16}")

_DEEPEST_FOLDER, _MOST_FOLDERS = 5, 1000
"""How far a message looks for results below a folder that has none itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubvolumeFile:
    """A subvolume's segmentation on disk.

    Attributes
    ----------
    path
        Its npz file.
    corner
        Its first voxel, z, y, x.
    hidden
        A second file of the same corner, in the flat layout, which no reader takes.
    """

    path: Path
    corner: Zyx
    hidden: Path | None = None


def subvolume_path(
    folder: Path, corner: Zyx, *, suffix: str = SEGMENTATION, flat: bool = False
) -> Path:
    """Return where a subvolume's file belongs.

    Parameters
    ----------
    folder
        The output folder of the run.
    corner
        First voxel of the subvolume, z, y, x; the name has x, y, z.
    suffix
        ``.npz``, ``.prob`` or ``.cpoint``.
    flat
        The older layout, without folders for x and y.
    """
    z, y, x = corner
    name = f"seg-{x}_{y}_{z}{suffix}"
    return folder / name if flat else folder / str(x) / str(y) / name


def existing_path(folder: Path, corner: Zyx, *, suffix: str = SEGMENTATION) -> Path | None:
    """Return a subvolume's file in either layout, the one with folders first, or None."""
    for flat in (False, True):
        path = subvolume_path(folder, corner, suffix=suffix, flat=flat)
        if path.is_file():
            return path
    return None


def corner_of(path: Path) -> Zyx | None:
    """Return the corner (z, y, x) that a file's name tells, or None when it tells none."""
    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        return None
    x, y, z = (int(number) for number in match.groups()[:3])
    return None if max(abs(z), abs(y), abs(x)) > FARTHEST_POSITION else (z, y, x)


def find_subvolumes(folder: Path) -> list[SubvolumeFile]:
    """Return the segmentations in a folder of results, in either layout, sorted by z, y, x.

    Where both layouts hold the same corner, the one with folders counts, as for the
    older programs.

    Raises
    ------
    VolumeNotFoundError
        When there is no such folder, or no result in it.
    VolumeFormatError
        When a file's name and the folders it lies in tell different corners.
    StorageError
        When the folder cannot be listed.
    """
    if not folder.is_dir():
        raise VolumeNotFoundError(
            f"{folder} is no folder: give the folder that the older program wrote its results to"
        )
    try:
        flat = _by_corner(folder.glob("seg-*.npz"))
        nested = _nested(folder, beside=bool(flat))
    except OSError as error:
        raise storage_error("look at", folder, error) from error
    if not flat and not nested:
        below = _nearest_below(folder)
        remedy = (
            "give the folder that the older program wrote its results to"
            if below is None
            else f"{below} holds some, give that"
        )
        raise VolumeNotFoundError(
            f"{folder} holds no seg-X_Y_Z.npz, neither itself nor in folders X/Y: {remedy}"
        )
    return [
        SubvolumeFile(
            path=nested.get(corner) or flat[corner],
            corner=corner,
            hidden=flat.get(corner) if corner in nested else None,
        )
        for corner in sorted({*flat, *nested})
    ]


def _nearest_below(folder: Path) -> Path | None:
    """Return the nearest folder below that holds results, looking into a few folders only."""
    waiting, looked_into = deque([(folder, 0)]), 0
    while waiting and looked_into < _MOST_FOLDERS:
        one, depth = waiting.popleft()
        looked_into += 1
        try:
            if depth and any(corner_of(path) is not None for path in one.glob("seg-*.npz")):
                return _root_of(one)
            if depth < _DEEPEST_FOLDER:
                below = sorted(path for path in one.iterdir() if _is_own_folder(path))
                waiting.extend((path, depth + 1) for path in below)
        except OSError as error:
            raise storage_error("look at", one, error) from error
    return None


def _root_of(holding: Path) -> Path:
    """Return the folder of results of a folder that holds files: itself, or two up."""
    for path in holding.glob("seg-*.npz"):
        corner = corner_of(path)
        if corner is not None:
            _, y, x = corner
            if (holding.parent.name, holding.name) == (str(x), str(y)):
                return holding.parent.parent
    return holding


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _by_corner(paths: Iterable[Path]) -> dict[Zyx, Path]:
    found: dict[Zyx, Path] = {}
    for path in paths:
        corner = corner_of(path)
        if corner is not None and path.is_file():
            found[corner] = path
    return found


def _nested(folder: Path, *, beside: bool) -> dict[Zyx, Path]:
    """Return the results in folders X/Y; `beside` tells whether there are others, without."""
    found = _by_corner(folder.glob("*/*/seg-*.npz"))
    if not beside and not any(_is_placed_by_number(path) for path in found.values()):
        return {}  # whole folders of results lie below
    for (z, y, x), path in found.items():
        if (path.parent.parent.name, path.parent.name) != (str(x), str(y)):
            raise VolumeFormatError(
                f"{path} is named as the subvolume at {z},{y},{x} (z,y,x), whose place is "
                f"{subvolume_path(folder, (z, y, x))}: move it there"
            )
    return found


def _is_placed_by_number(path: Path) -> bool:
    return any(_NUMBER.fullmatch(one.name) for one in (path.parent, path.parent.parent))
