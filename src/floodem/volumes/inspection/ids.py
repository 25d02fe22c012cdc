"""Which labels are in a volume: a label volume in, how many ids and how large they are out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from floodem.geometry import Box, tiles
from floodem.labels import require_labels, sizes
from floodem.labels.runs import Counts, Ids
from floodem.progress import Progress, ProgressListener
from floodem.volumes.grey.reading import grey_blocks, grey_reader
from floodem.volumes.parallel import in_order, usable_threads
from floodem.volumes.volume import Array, Volume

_MERGED_AT = 2**20
"""Ids are merged when so many have come in, so that what waits stays small."""

_BYTES_BESIDE = 16
"""What counting takes for each voxel in the worst case: a start and a length for each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdCounts:
    """The ids of a label volume, background (0) left out.

    Attributes
    ----------
    number
        How many different ids.
    smallest, largest
        None where all is background.
    largest_object, largest_object_voxels
        The id with most voxels (the smallest of several), and how many these are.
    background, voxels
        How many voxels are 0, and how many there are.
    """

    number: int
    smallest: int | None
    largest: int | None
    largest_object: int | None
    largest_object_voxels: int
    background: int
    voxels: int

    @property
    def background_fraction(self) -> float:
        """Share of the voxels that are 0."""
        return self.background / self.voxels


def count_ids(
    volume: Volume, *, threads: int | None = None, progress: ProgressListener | None = None
) -> IdCounts:
    """Count the ids of a label volume block by block.

    Memory holds a few blocks, and 16 bytes for each id.

    Raises
    ------
    LabelError
        When a value is negative or not an integer.
    """
    return _summary(*id_sizes(volume, threads=threads, progress=progress))


def id_sizes(
    volume: Volume,
    *,
    box: Box | None = None,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> tuple[Ids, Counts]:
    """Return the ids in a box of a label volume (default: all), ascending, and their voxels.

    Memory holds a few blocks, and 16 bytes for each id. Background (0) is an id here.

    Raises
    ------
    LabelError
        When a value is negative or not an integer.
    """
    part = volume.box if box is None else box
    require_labels(np.zeros(0, volume.dtype), what=volume.uri)
    workers = usable_threads(threads)
    core, held = grey_blocks(
        volume,
        part.shape,
        chunks=volume.chunks,
        voxel_bytes=volume.dtype.itemsize + _BYTES_BESIDE,
        wanted=workers + 1,
    )
    report = progress or (lambda _: None)
    ids, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    waiting: list[tuple[Ids, Counts]] = []
    done = 0

    def count(block: tuple[Box, Array]) -> tuple[Box, tuple[Ids, Counts]]:
        require_labels(block[1], what=volume.uri)
        return block[0], sizes(block[1])

    report(Progress(stage="ids", done=0, total=part.size, unit="voxels"))
    with grey_reader(volume, threads=workers) as reader:

        def blocks() -> Iterator[tuple[Box, Array]]:
            for tile in tiles(part, core=core):
                yield tile.core, reader.read(tile.core)

        for place, found in in_order(count, blocks(), threads=workers, ahead=held):
            waiting.append(found)
            if sum(len(some) for some, _ in waiting) > max(_MERGED_AT, len(ids)):
                ids, counts = _merged([(ids, counts), *waiting])
                waiting.clear()
            done += place.size
            report(Progress(stage="ids", done=done, total=part.size, unit="voxels"))
    return _merged([(ids, counts), *waiting])


def _merged(tables: list[tuple[Ids, Counts]]) -> tuple[Ids, Counts]:
    """Add up the counts of equal ids."""
    ids, inverse = np.unique(np.concatenate([some for some, _ in tables]), return_inverse=True)
    counts = np.zeros(len(ids), np.int64)
    np.add.at(counts, inverse, np.concatenate([some for _, some in tables]))
    return ids, counts


def _summary(ids: Ids, counts: Counts) -> IdCounts:
    is_object = ids != 0
    objects, voxels = ids[is_object], counts[is_object]
    most = int(np.argmax(voxels)) if objects.size else None
    return IdCounts(
        number=len(objects),
        smallest=int(objects[0]) if objects.size else None,
        largest=int(objects[-1]) if objects.size else None,
        largest_object=None if most is None else int(objects[most]),
        largest_object_voxels=0 if most is None else int(voxels[most]),
        background=int(counts[~is_object].sum()),
        voxels=int(counts.sum()),
    )
