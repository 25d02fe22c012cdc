"""What the older programs count, ``counters.txt``: a name and a number in each line.

Also which of their names our counters have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from floodem.errors import VolumeFormatError, VolumeNotFoundError
from floodem.files import making_folders, storage_error, write_text
from floodem.legacy.results.subvolume import require_free

COUNTERS_FILE = "counters.txt"
_LINE = re.compile(r"([^:\n]{1,200}): (-?[0-9]{1,20})")
_LARGEST_FILE = 2**20

OLD_NAMES = {
    "network_calls": "inference-calls",
    "floods": "segment_at-loop-calls",
    "seed_got_too_weak": "seed_got_too_weak",
    "skip_threshold": "skip_threshold",
    "skip_invalid_position": "skip_invalid_pos",
    "skip_restricted_position": "skip_restriced_pos",
    "voxels_segmented": "voxels-segmented",
    "voxels_overlapping": "voxels-overlapping",
}
"""Our counters and what the older programs call them, their spelling included."""

_SEEDS, _SEED_CALLS = "seeds", "seed-policy-calls"


def old_counters(counters: Mapping[str, int]) -> dict[str, int]:
    """Return counters of ours under the names of the older programs; others are left out.

    Those asked their seed policy once more than it had seeds.
    """
    found = {old: int(counters[ours]) for ours, old in OLD_NAMES.items() if ours in counters}
    if _SEEDS in counters:
        found[_SEED_CALLS] = int(counters[_SEEDS]) + 1
    return found


def our_counters(counters: Mapping[str, int | float]) -> dict[str, int]:
    """Return counters of the older programs under our names; others are left out."""
    return {ours: int(counters[old]) for ours, old in OLD_NAMES.items() if old in counters}


def read_counters(path: Path) -> dict[str, int]:
    """Read a ``counters.txt``.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    VolumeFormatError
        When a line is not ``name: number``.
    StorageError
        When it cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise VolumeFormatError(
                f"{path} has {path.stat().st_size} bytes: counters have a few thousand at most"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VolumeNotFoundError(f"there is no {path}: check the address") from None
    except UnicodeDecodeError:
        raise VolumeFormatError(f"{path} is no text: it is damaged or something else") from None
    except VolumeFormatError:
        raise
    except OSError as error:
        raise storage_error("read", path, error) from error
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise VolumeFormatError(
                f"{path} line {number} is not a name, a colon and a whole number: it is damaged"
            )
        found[match[1]] = int(match[2])
    return found


def write_counters(path: Path, *, counters: Mapping[str, int | float], overwrite: bool) -> None:
    """Write a ``counters.txt``, sorted by name, in one piece.

    Parameters
    ----------
    counters
        Real numbers are cut to whole ones, as the older programs do.
    overwrite
        Replace an existing file.

    Raises
    ------
    DestinationExistsError
        When there is a file and `overwrite` is not set.
    VolumeFormatError
        When a name could not be read back.
    StorageError
        When the file system refuses; what was there before is still there.
    """
    require_free(path, overwrite=overwrite)
    lines = [f"{name}: {int(value)}" for name, value in sorted(counters.items())]
    for line in lines:
        if not _LINE.fullmatch(line):
            raise VolumeFormatError(
                f"{line!r:.80} cannot be a line of counters: names have no colon and end of line"
            )
    with making_folders(path.parent):
        write_text(path, "".join(f"{line}\n" for line in lines))
