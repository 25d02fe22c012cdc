"""What a run of ours recorded, as the older programs keep it.

In: the folder ``DST.floodem`` of a finished run. Out: origins and overlaps counted from
the corner of its block and counters by their old names, ready for `write_subvolume`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import RunConflictError
from floodem.files import storage_error
from floodem.flooding.run_folder import ORIGINS, OVERLAPS, RunFolder
from floodem.geometry import Zyx
from floodem.legacy.results.admitted import OriginInfo
from floodem.legacy.results.counters import old_counters


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """The record of a block, in the terms of the older programs.

    Attributes
    ----------
    origins
        By segment; ``start_zyx`` counts from the block's corner.
    overlaps
        By segment: earlier segments whose voxels its flood wanted, and how many.
    counters
        By their old names.
    """

    origins: dict[int, OriginInfo]
    overlaps: dict[int, dict[int, int]]
    counters: dict[str, int]


def results_of_run(folder: Path, *, corner: Zyx) -> RunResults:
    """Read the record of a finished run.

    Parameters
    ----------
    folder
        ``DST.floodem``.
    corner
        First voxel of the block, z, y, x; the record has positions in the volume.

    Raises
    ------
    RunConflictError
        When the run is not finished, or its record damaged.
    StorageError
        When it cannot be read.
    """
    run = RunFolder(folder, destination=str(folder)).read_run()
    try:
        origins = {
            int(segment): OriginInfo(
                _relative(record["start_zyx"], corner), record["iters"], float(record["seconds"])
            )
            for segment, record in _read(folder / ORIGINS)["origins"].items()
        }
        overlaps = {
            int(segment): {int(other): int(count) for other, count in counts.items()}
            for segment, counts in _read(folder / OVERLAPS)["overlaps"].items()
        }
        counters = old_counters(run["summary"]["counters"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunConflictError(
            f"{folder} is not the record of a finished run ({type(error).__name__}: {error}): "
            "repeat the command that began it"
        ) from error
    return RunResults(origins=origins, overlaps=overlaps, counters=counters)


def _relative(start: Any, corner: Zyx) -> Zyx:
    z, y, x = (int(a) - b for a, b in zip(start, corner, strict=True))
    return (z, y, x)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error("read", path, error) from error
