"""``partition``: labels at one address in, partitions at another out, and what they count.

An HDF5 dataset gets the attributes of the historic program, ``bounding_boxes`` and
``partition_counts``. Beside a volume of any other format the same numbers stand in
``DST.floodem/partitions.json``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from floodem.errors import UsageError, VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.labels.partitions import EXCLUDED
from floodem.progress import ProgressListener
from floodem.training.coordinates.partitioning import (
    ChosenObjects,
    PartitionedLabels,
    Partitioning,
)
from floodem.volumes.access import create_volume, open_volume
from floodem.volumes.conversion.record import record_address
from floodem.volumes.declared import OFFSET_KEY
from floodem.volumes.hdf5.attributes import read_attributes, write_attributes
from floodem.volumes.location import Location, parse_location, require_format
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

BOUNDING_BOXES = "bounding_boxes"
PARTITION_COUNTS = "partition_counts"
RECORD_FILE = "partitions.json"

_PARTITION_VALUES = EXCLUDED + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionResult:
    """What was written.

    Attributes
    ----------
    uri
        Where the partitions are.
    box
        Where they lie in the labels' frame.
    counts
        Voxels of each partition that occurs, ascending, over the box less the radius:
        0 is background, 255 excluded.
    objects
        Which objects were sorted.
    bounding_boxes_xyz
        As the historic program writes them: (start, size) in voxels of the array, x, y, z.
    """

    uri: str
    box: Box
    counts: dict[int, int]
    objects: ChosenObjects
    bounding_boxes_xyz: Int64[np.ndarray, "boxes 2 3"]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "uri": self.uri,
            "box_zyx": str(self.box),
            "objects": self.objects.all_objects,
            "sorted_objects": len(self.objects.ids),
            "unused_ids": list(self.objects.unused_ids),
            PARTITION_COUNTS: {str(value): count for value, count in self.counts.items()},
            f"{BOUNDING_BOXES}_xyz": self.bounding_boxes_xyz.tolist(),
        }


def partition(
    labels: str | Path,
    destination: str | Path,
    *,
    by: Partitioning,
    box: Box | None = None,
    overwrite: bool = False,
    allow_external: bool = False,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> PartitionResult:
    """Sort the voxels of labels by how much of their surroundings is the same object.

    Parameters
    ----------
    labels, destination
        Addresses of volumes.
    by
        Thresholds, radius, smallest size, and what is left out.
    box
        The part of the labels to sort, in their frame (z, y, x); what lies outside is
        not looked at, and the partitions lie where the box does.
    overwrite
        Replace what is at the destination, once the partitions are complete.
    allow_external
        Follow HDF5 links that leave the file of the labels.
    threads
        By default one for each core.
    progress
        Called after each block, in voxels.

    Raises
    ------
    FloodemError
        As `open_volume`, `create_volume` and `PartitionedLabels`; whatever was at the
        destination is then still there.
    """
    location = parse_location(destination)
    stores_fill = "fill" in require_format(location).options
    with open_volume(labels, allow_external=allow_external) as source:
        _require_apart(parse_location(labels), location)
        part = source.box if box is None else box
        boxes = _shrunk_boxes(source, part, radius=by.radius)
        with create_volume(
            destination,
            shape=part.shape,
            dtype=np.uint8,
            voxel_size=source.voxel_size,
            offset=part.start,
            fill=EXCLUDED if stores_fill else 0,
            overwrite=overwrite,
        ) as made:
            partitioned = PartitionedLabels(
                source, by=by, box=part, chunks=made.chunks, threads=threads, progress=progress
            )
            counts = _write(partitioned, made)
            result = PartitionResult(
                uri=location.uri,
                box=part,
                counts=counts,
                objects=partitioned.objects,
                bounding_boxes_xyz=boxes,
            )
            if stores_fill:
                _set_attributes(made, result)
            # Windows puts no file into the place of one that is open, and it may be the same.
            source.close()
    if not stores_fill:
        text = json.dumps(result.to_json(), indent=1) + "\n"
        open_store(record_address(location)).write(RECORD_FILE, text.encode())
    return result


def _write(partitioned: PartitionedLabels, made: Volume) -> dict[int, int]:
    """Write all blocks; return how many voxels of each partition are in the valid region."""
    counts = np.zeros(_PARTITION_VALUES, np.int64)
    for place, partitions in partitioned.blocks():
        seen = place.intersection(partitioned.valid)
        if seen is not None:
            # Section by section: counting widens each value to 8 bytes.
            for section in partitions[seen.slices(origin=place.start)]:
                counts += np.bincount(section.reshape(-1), minlength=_PARTITION_VALUES)
        made.write(place.translate(_between(partitioned.box, made.box)), partitions)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _between(part: Box, made: Box) -> Zyx:
    """Return what to add to a position to find it in a volume that may keep no offset."""
    z, y, x = (there - here for here, there in zip(part.start, made.start, strict=True))
    return (z, y, x)


def _set_attributes(made: Volume, result: PartitionResult) -> None:
    values = {
        BOUNDING_BOXES: result.bounding_boxes_xyz,
        PARTITION_COUNTS: np.array([list(result.counts), list(result.counts.values())], np.int64),
    }
    # The historic file has these attributes and no others; no offset is an offset of 0.
    nothing = {} if any(result.box.start) else {OFFSET_KEY: None}
    write_attributes(made, {**values, **nothing})


def _require_apart(labels: Location, destination: Location) -> None:
    same = (
        not labels.is_remote
        and not destination.is_remote
        and (os.path.realpath(labels.local) == os.path.realpath(destination.local))
    )
    is_same_file = same or labels.path == destination.path
    if is_same_file and destination.dataset in {None, labels.dataset}:
        raise UsageError(
            f"{destination.uri} holds the labels, and partitions would replace them: choose "
            "another destination"
        )


def _shrunk_boxes(labels: Volume, part: Box, *, radius: Zyx) -> Int64[np.ndarray, "boxes 2 3"]:
    """Return the bounding boxes that labels carry, or theirs, less the radius at each face.

    They count from the first voxel of the array, x, y, z, and so does what comes out; what
    is too small vanishes.
    """
    carried = read_attributes(labels, prefix=BOUNDING_BOXES)
    found = [_checked_boxes(values, name=name, uri=labels.uri) for name, values in carried.items()]
    given = np.concatenate([np.zeros((0, 2, 3), np.int64), *found])
    if not len(given):
        given = np.array([[(0, 0, 0), labels.shape[::-1]]], np.int64)
    starts, stops = given[:, 0], given[:, 0] + given[:, 1]
    if part != labels.box:
        first = np.subtract(part.start, labels.offset)[::-1]
        starts = np.maximum(starts - first, 0)
        stops = np.minimum(stops - first, part.shape[::-1])
    starts, stops = starts + radius[::-1], stops - radius[::-1]
    is_left = np.all(stops > starts, axis=1)
    return np.stack([starts, stops - starts], axis=1)[is_left]


def _checked_boxes(
    values: np.ndarray[Any, np.dtype[Any]], *, name: str, uri: str
) -> Int64[np.ndarray, "boxes 2 3"]:
    if values.dtype.kind not in "ui" or values.shape[1:] != (2, 3):
        raise VolumeFormatError(
            f"attribute {name!r} of {uri} holds {values.dtype} of shape {values.shape}, and "
            "bounding boxes are whole numbers, a pair of start and size (x,y,z) for each: correct "
            "or remove it"
        )
    return values.astype(np.int64)
