"""Index files: what floodem.training.coordinates.archive keeps of an index.

description  page shape, margin, volumes
segments     int64, one row for each segment (`SEGMENT_COLUMNS`)
words        uint32, all runs
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from floodem.files import require_free_disk
from floodem.geometry import Box
from floodem.training.coordinates.archive import (
    ArchiveKind,
    map_member,
    read_description,
    reading,
    require_kind,
    write_archive,
    zyx,
)
from floodem.training.coordinates.index import SEGMENT_COLUMNS, CoordinateIndex, IndexedVolume
from floodem.training.coordinates.pages import PAGE_SHAPE
from floodem.volumes.staging import require_no_destination

KIND = ArchiveKind(
    name="floodem coordinates", version=1, members={"segments": ("<i8", 2), "words": ("<u4", 1)}
)

_SLACK_BYTES = 2**20


def save_index(index: CoordinateIndex, path: Path, *, overwrite: bool = False) -> None:
    """Write an index in one piece, a few megabytes at a time.

    Raises
    ------
    DestinationExistsError
        When something is there and `overwrite` is not set.
    StorageError, ResourceError
        When the file system refuses, or the disk is too full.
    """
    if not overwrite:
        require_no_destination(path, uri=str(path))
    require_free_disk(
        path,
        needed_bytes=index.words.nbytes + index.segments.nbytes + _SLACK_BYTES,
        purpose="the index",
    )
    description = {
        "page_shape_zyx": list(PAGE_SHAPE),
        "segment_columns": list(SEGMENT_COLUMNS),
        "margin_zyx": list(index.margin),
        "volumes": [
            {
                "name": volume.name,
                "start_zyx": list(volume.box.start),
                "stop_zyx": list(volume.box.stop),
                "weight": volume.weight,
            }
            for volume in index.volumes
        ],
    }
    arrays = {"segments": index.segments, "words": index.words}
    write_archive(path, KIND, description=description, arrays=arrays)


def load_index(path: Path) -> CoordinateIndex:
    """Open an index; its runs stay in the file until they are needed.

    Raises
    ------
    VolumeNotFoundError
        When there is no file.
    VolumeFormatError
        When it is no index, a damaged one, or one of a later version.
    StorageError
        When the file system refuses.
    """
    description = read_description(path)
    with reading(path):
        require_kind(description, KIND, path=path)
        if tuple(description["page_shape_zyx"]) != PAGE_SHAPE:
            raise ValueError("its pages have another shape")
        segments, words = (
            map_member(path, name, kind=KIND.members[name]) for name in ("segments", "words")
        )
        return CoordinateIndex(
            volumes=tuple(_volume(entry) for entry in description["volumes"]),
            margin=zyx(description["margin_zyx"]),
            segments=np.asarray(segments).reshape(-1, len(SEGMENT_COLUMNS)),
            words=words,
            source=str(path),
        )


def _volume(entry: Mapping[str, Any]) -> IndexedVolume:
    weight = float(entry["weight"])
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"weight {weight} is not positive")
    box = Box(zyx(entry["start_zyx"]), zyx(entry["stop_zyx"]))
    return IndexedVolume(name=str(entry["name"]), box=box, weight=weight)
