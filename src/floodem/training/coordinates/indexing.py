"""Partitions become an index: boxes of uint8 in, runs out, page by page and in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
from jaxtyping import Int64, UInt8, UInt32

from floodem.errors import LabelError, OptionError, VolumeFormatError
from floodem.geometry import Box, Zyx, tiles
from floodem.progress import Progress, ProgressListener
from floodem.training.configuration.options import SamplingOptions, volume_called
from floodem.training.coordinates.index import (
    BACKGROUND,
    SEGMENT_COLUMNS,
    CoordinateIndex,
    IndexedVolume,
)
from floodem.training.coordinates.pages import PAGE_SHAPE, pack_page, pages_in
from floodem.training.coordinates.partitioning import PartitionedLabels, Partitioning, box_less
from floodem.volumes.volume import Volume

_BLOCK_BYTES = 2**26
"""Partitions that are read at once, unless one page takes more."""


class IndexBuilder:
    """Gathers the partitions of volumes, box by box.

    Parameters
    ----------
    margin
        Voxels (z, y, x) at each face of each volume that are left out.
    background
        Whether background (partition 0) is kept.
    spill
        A file opened for reading and writing in which the runs wait; by default memory.
    """

    def __init__(
        self, *, margin: Zyx, background: bool = True, spill: IO[bytes] | None = None
    ) -> None:
        self._margin = margin
        self._background = background
        self._spill = spill
        self._volumes: list[IndexedVolume] = []
        self._segments: list[Int64[np.ndarray, "segments 5"]] = []
        self._words: list[UInt32[np.ndarray, "runs"]] = []
        self._runs = 0

    def begin(self, volume: IndexedVolume) -> None:
        """Begin with the next volume.

        Raises
        ------
        OptionError
            When another has its name.
        GeometryError
            When the margin leaves nothing of it.
        """
        if any(volume.name == other.name for other in self._volumes):
            raise OptionError(f"two volumes are called {volume.name!r}: give them different names")
        box_less(volume.box, self._margin, what="margin", of=volume_called(volume.name))
        self._volumes.append(volume)

    def add(self, box: Box, partitions: UInt8[np.ndarray, "z y x"]) -> None:
        """Take the partitions of a box of whole pages of the volume that was begun last."""
        volume = self._volumes[-1]
        free = box_less(volume.box, self._margin, what="margin", of=volume_called(volume.name))
        part = box.intersection(free)
        if part is None:
            return
        for number, page in pages_in(volume.box, part):
            seen = page.intersection(part)
            assert seen is not None
            (z, y, x), (z0, y0, x0) = seen.start, page.start
            rows, words = pack_page(
                partitions[seen.slices(origin=box.start)], start=(z - z0, y - y0, x - x0)
            )
            if not self._background and len(rows) and rows[0, 0] == BACKGROUND:
                rows, words = rows[1:], words[rows[0, 1] :]
            place = np.array([[len(self._volumes) - 1, number]]).repeat(len(rows), axis=0)
            self._segments.append(np.concatenate([place, rows], axis=1))
            self._keep(words)

    def index(self) -> CoordinateIndex:
        """Return the index of all volumes."""
        segments = np.concatenate([np.zeros((0, len(SEGMENT_COLUMNS)), np.int64), *self._segments])
        if self._spill is None or not self._runs:
            words = np.concatenate([np.zeros(0, np.uint32), *self._words])
        else:
            self._spill.flush()
            words = np.memmap(self._spill, np.uint32, "r", shape=(self._runs,))
        return CoordinateIndex(
            volumes=tuple(self._volumes), margin=self._margin, segments=segments, words=words
        )

    def _keep(self, words: UInt32[np.ndarray, "runs"]) -> None:
        self._runs += len(words)
        if self._spill is None:
            self._words.append(words)
        else:
            self._spill.write(words.tobytes())


def index_labels(
    volumes: Mapping[str, Volume],
    *,
    sampling: SamplingOptions,
    margin: Zyx,
    boxes: Mapping[str, Box | None],
    progress: ProgressListener | None = None,
) -> CoordinateIndex:
    """Make an index from labels, in memory: labels, partitions, index.

    Parameters
    ----------
    volumes
        Open label volumes, by name.
    sampling
        Thresholds, radius and smallest size of objects; background only where it asks.
    margin
        Voxels (z, y, x) at each face of each box that no example is centred on.
    boxes
        The part of each volume that is used; None, or no entry: all.
    progress
        Called after each block, in voxels.

    Raises
    ------
    GeometryError
        When a box is not inside its volume, or radius or margin leave nothing of it.
    LabelError
        When a volume holds no labels, or no object of them may be a centre.
    OptionError
        When thresholds or radius are impossible.
    """
    by = Partitioning(
        thresholds=sampling.thresholds, radius=sampling.lom_radius, min_size=sampling.min_size
    )
    builder = IndexBuilder(margin=margin, background=sampling.background)
    for name, labels in volumes.items():
        box = boxes.get(name) or labels.box
        builder.begin(IndexedVolume(name=name, box=box))
        partitioned = PartitionedLabels(
            labels, by=by, box=box, chunks=PAGE_SHAPE, progress=progress
        )
        for part, partitions in partitioned.blocks():
            builder.add(part, partitions)
    index = builder.index()
    for name, labels in volumes.items():
        if not any(partition != BACKGROUND for partition in index.partitions(name)):
            raise LabelError(
                f"no voxel of {volume_called(name)} ({labels.uri}) may be the centre of an "
                f"example: its objects lie within the margin {margin} or the radius "
                f"{sampling.lom_radius} (z,y,x) of its faces; give smaller ones, or leave the "
                "volume out"
            )
    return index


def index_partitions(
    volumes: Sequence[tuple[IndexedVolume, Volume]],
    *,
    margin: Zyx,
    background: bool = False,
    spill: IO[bytes] | None = None,
    progress: ProgressListener | None = None,
) -> CoordinateIndex:
    """Make an index from partitions that were written before.

    Parameters
    ----------
    volumes
        How each is called and weighed, and its partitions, open.
    margin
        Voxels (z, y, x) at each face of each volume that no example is centred on.
    background
        Also keep background.
    spill
        A file opened for reading and writing in which the runs wait; by default memory.
    progress
        Called after each block, in voxels.

    Raises
    ------
    GeometryError
        When the margin leaves nothing of a volume.
    VolumeFormatError
        When a volume holds no partitions.
    LabelError
        When a volume has no centre.
    OptionError
        When two volumes have one name.
    """
    builder = IndexBuilder(margin=margin, background=background, spill=spill)
    report = progress or (lambda _: None)
    total = sum(partitions.box.size for _, partitions in volumes)
    done = 0
    for described, partitions in volumes:
        if partitions.dtype != np.uint8:
            raise VolumeFormatError(
                f"{partitions.uri} holds {partitions.dtype}, and partitions are uint8: make them "
                "from labels with `floodem partition`"
            )
        builder.begin(described)
        for tile in tiles(partitions.box, core=_whole_pages(partitions.shape)):
            builder.add(tile.core, partitions.read(tile.core))
            done += tile.core.size
            report(Progress(stage="coordinates", done=done, total=total, unit="voxels"))
    index = builder.index()
    for described, partitions in volumes:
        if not any(partition != BACKGROUND for partition in index.partitions(described.name)):
            raise LabelError(
                f"{partitions.uri} has no voxel of an object {margin} voxels (z,y,x) or more from "
                "its faces: give a smaller margin, or make partitions with a smaller radius or "
                "smallest size"
            )
    return index


def _whole_pages(shape: Zyx) -> Zyx:
    """Choose blocks of whole pages, as wide as memory permits: rows first, then sections."""
    block = list(PAGE_SHAPE)
    for axis in (2, 1, 0):
        others = block[0] * block[1] * block[2] // block[axis]
        pages = max(1, _BLOCK_BYTES // (others * PAGE_SHAPE[axis]))
        block[axis] = PAGE_SHAPE[axis] * min(pages, -(-shape[axis] // PAGE_SHAPE[axis]))
    return (block[0], block[1], block[2])
