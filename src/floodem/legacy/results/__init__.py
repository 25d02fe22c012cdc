"""Results of the older programs: subvolumes, probabilities, checkpoints, counters.

The names below are loaded when they are first used: the volume layer looks into this
package (floodem.legacy.results.formats) whenever it opens a volume.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floodem.legacy.results.admitted import OriginInfo
    from floodem.legacy.results.counters import read_counters, write_counters
    from floodem.legacy.results.cpoint import Checkpoint, read_cpoint, write_cpoint
    from floodem.legacy.results.from_run import RunResults, results_of_run
    from floodem.legacy.results.opening import OpenedResults, open_results
    from floodem.legacy.results.paths import (
        SubvolumeFile,
        corner_of,
        existing_path,
        find_subvolumes,
        subvolume_path,
    )
    from floodem.legacy.results.pickling import dump_origins
    from floodem.legacy.results.probabilities import read_probabilities, write_probabilities
    from floodem.legacy.results.subvolume import Subvolume, read_subvolume, write_subvolume
    from floodem.legacy.results.unpickling import load_restricted

_HOMES = {
    "Checkpoint": "cpoint",
    "OpenedResults": "opening",
    "OriginInfo": "admitted",
    "RunResults": "from_run",
    "Subvolume": "subvolume",
    "SubvolumeFile": "paths",
    "corner_of": "paths",
    "dump_origins": "pickling",
    "existing_path": "paths",
    "find_subvolumes": "paths",
    "load_restricted": "unpickling",
    "open_results": "opening",
    "read_counters": "counters",
    "read_cpoint": "cpoint",
    "read_probabilities": "probabilities",
    "read_subvolume": "subvolume",
    "results_of_run": "from_run",
    "subvolume_path": "paths",
    "write_counters": "counters",
    "write_cpoint": "cpoint",
    "write_probabilities": "probabilities",
    "write_subvolume": "subvolume",
}

__all__ = [
    "Checkpoint",
    "OpenedResults",
    "OriginInfo",
    "RunResults",
    "Subvolume",
    "SubvolumeFile",
    "corner_of",
    "dump_origins",
    "existing_path",
    "find_subvolumes",
    "load_restricted",
    "open_results",
    "read_counters",
    "read_cpoint",
    "read_probabilities",
    "read_subvolume",
    "results_of_run",
    "subvolume_path",
    "write_counters",
    "write_cpoint",
    "write_probabilities",
    "write_subvolume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
