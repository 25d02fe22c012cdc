"""Results of the older programs: subvolumes, probabilities, checkpoints, counters."""

from floodem.legacy.results.admitted import OriginInfo
from floodem.legacy.results.paths import (
    SubvolumeFile,
    corner_of,
    existing_path,
    find_subvolumes,
    subvolume_path,
)
from floodem.legacy.results.pickling import dump_origins
from floodem.legacy.results.subvolume import Subvolume, read_subvolume, write_subvolume
from floodem.legacy.results.unpickling import load_restricted

__all__ = [
    "OriginInfo",
    "Subvolume",
    "SubvolumeFile",
    "corner_of",
    "dump_origins",
    "existing_path",
    "find_subvolumes",
    "load_restricted",
    "read_subvolume",
    "subvolume_path",
    "write_subvolume",
]
