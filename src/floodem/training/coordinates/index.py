"""Every voxel that may be the centre of an example, by volume and partition, in few bytes.

Partitions come in as boxes of uint8 (floodem.training.coordinates.partitioning); an
index goes out that finds voxel number n of a partition quickly, from which samplers
draw. Nothing is repeated to balance partitions: that is the samplers' part.

The voxels are kept as runs, see floodem.training.coordinates.pages. A segment is
unpacked when something is drawn from it, so that an index on a disk
(floodem.training.coordinates.index_file) may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt32

from floodem.errors import GeometryError, OptionError, UsageError, VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.training.coordinates.pages import (
    EXCLUDED,
    PAGE_SHAPE,
    PAGE_VOXELS,
    page_box,
    page_grid,
    unpack,
)

BACKGROUND = 0
"""The partition of background and of objects that are too small."""

SEGMENT_COLUMNS = ("volume", "page", "partition", "runs", "voxels")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedVolume:
    """One volume of an index.

    Attributes
    ----------
    name
        How coordinates call it.
    box
        Where its partitions lie, in the volume's own frame.
    weight
        How often examples come from here, relative to the other volumes.
    part
        The only part of the box that holds centres; None: the margin alone says so
        (see floodem.training.coordinates.narrowing).
    """

    name: str
    box: Box
    weight: float = 1.0
    part: Box | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The segments of one partition of one volume."""

    pages: Int64[np.ndarray, "segments"]
    runs_begin: Int64[np.ndarray, "segments"]
    runs_end: Int64[np.ndarray, "segments"]
    voxels: Int64[np.ndarray, "segments"]
    voxels_end: Int64[np.ndarray, "segments"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoordinateIndex:
    """The possible centres of examples.

    Attributes
    ----------
    volumes
        In the order in which they were given.
    margin
        Voxels (z, y, x) at each face of each volume's box that hold no centre.
    segments
        One row for each partition that occurs in a page, by volume, page and
        partition; `SEGMENT_COLUMNS` names the columns.
    words
        The runs of all segments, in their order.
    source
        What messages call the index.

    Raises
    ------
    VolumeFormatError
        When these do not fit each other.
    """

    volumes: tuple[IndexedVolume, ...]
    margin: Zyx
    segments: Int64[np.ndarray, "segments 5"]
    words: UInt32[np.ndarray, "runs"]
    source: str = "the index"
    _tables: dict[tuple[str, int], _Table] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._require_sound()
        object.__setattr__(self, "_tables", self._make_tables())

    @property
    def volume_names(self) -> tuple[str, ...]:
        """Names of the volumes, in the order in which they were given."""
        return tuple(volume.name for volume in self.volumes)

    def volume(self, name: str) -> IndexedVolume:
        """Return what is known of a volume.

        Raises
        ------
        OptionError
            When the index has none of this name.
        """
        for volume in self.volumes:
            if volume.name == name:
                return volume
        raise OptionError(
            f"{self.source} has no volume {name!r}, only {', '.join(self.volume_names)}: "
            "use the names that `floodem sample` was given"
        )

    def partitions(self, name: str) -> tuple[int, ...]:
        """Return the partitions that occur in a volume, ascending; 0 is background."""
        self.volume(name)
        return tuple(partition for volume, partition in self._tables if volume == name)

    def count(self, name: str, partition: int) -> int:
        """Return how many voxels of a volume are in a partition."""
        self.volume(name)
        table = self._tables.get((name, partition))
        return 0 if table is None else int(table.voxels_end[-1])

    def centre(self, name: str, partition: int, *, rank: int) -> Zyx:
        """Return voxel number `rank` (from 0) of a partition, in the volume's own frame.

        They are counted page by page, and within a page in C order.

        Raises
        ------
        VolumeFormatError
            When the index is damaged.
        """
        assert 0 <= rank < self.count(name, partition)
        volume, table = self.volume(name), self._tables[name, partition]
        row = int(np.searchsorted(table.voxels_end, rank, side="right"))
        starts, lengths = self._unpacked(table, row)
        ends = np.cumsum(lengths)
        within = rank - int(table.voxels_end[row] - table.voxels[row])
        run = int(np.searchsorted(ends, within, side="right"))
        at = int(starts[run]) + within - int(ends[run] - lengths[run])
        z, y, x = (
            first + int(index)
            for first, index in zip(
                page_box(volume.box, int(table.pages[row])).start,
                np.unravel_index(at, PAGE_SHAPE),
                strict=True,
            )
        )
        if not self.free_box(name).contains_point((z, y, x)):
            raise self.damaged()
        return (z, y, x)

    def centres(self, name: str, partition: int) -> Iterator[Int64[np.ndarray, "n 3"]]:
        """Yield all voxels (z, y, x) of a partition in the order of their ranks, page by page.

        Raises
        ------
        VolumeFormatError
            When the index is damaged.
        """
        volume, free = self.volume(name), self.free_box(name)
        table = self._tables.get((name, partition))
        for row in range(0 if table is None else len(table.pages)):
            assert table is not None
            starts, lengths = self._unpacked(table, row)
            before = np.cumsum(lengths) - lengths
            flat = np.repeat(starts - before, lengths) + np.arange(int(table.voxels[row]))
            found = np.stack(np.unravel_index(flat, PAGE_SHAPE), axis=1)
            found += page_box(volume.box, int(table.pages[row])).start
            if np.any(found < free.start) or np.any(found >= free.stop):
                raise self.damaged()
            yield found

    def free_box(self, name: str) -> Box:
        """Return where in a volume centres may lie: its part, or else its box less the margin."""
        volume, (z, y, x) = self.volume(name), self.margin
        return volume.box.grow((-z, -y, -x)) if volume.part is None else volume.part

    def require_volumes(self, boxes: Mapping[str, Box], *, margin: Zyx) -> None:
        """Refuse to be used with other volumes than those the index was made for.

        Parameters
        ----------
        boxes
            The box of each volume that is trained on, by name.
        margin
            Voxels (z, y, x) that a patch needs around its centre.

        Raises
        ------
        UsageError
            When a volume is missing here or there.
        GeometryError
            When the partitions lie outside a volume, or patches would leave it.
        """
        unknown = [name for name in self.volume_names if name not in boxes]
        if unknown:
            raise UsageError(
                f"{self.source} holds centres in volume {unknown[0]!r}, which is not among the "
                f"volumes of this run ({', '.join(boxes)}): name it alike in both"
            )
        for name, box in boxes.items():
            volume, free = self.volume(name), self.free_box(name)
            if volume.part is None and not box.contains(volume.box):
                raise GeometryError(
                    f"{self.source} was made from partitions of {name!r} at {volume.box}, and the "
                    f"run sees {box} (z,y,x): run `floodem partition` on the labels of this run "
                    f"with --box {box}, and `floodem sample` again"
                )
            if not box.contains(free.grow(margin)):
                asked = ",".join(str(size) for size in margin)
                raise GeometryError(
                    f"{self.source} holds centres in {free} of {name!r}, and patches reach {asked} "
                    f"voxels (z,y,x) around them, beyond {box}: run `floodem sample` with "
                    f"--margin {asked} or more"
                )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the index to a file; see floodem.training.coordinates.index_file.

        Raises
        ------
        DestinationExistsError
            When something is there and `overwrite` is not set.
        StorageError, ResourceError
            When the file system refuses, or the disk is too full.
        """
        from floodem.training.coordinates.index_file import save_index

        save_index(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> CoordinateIndex:
        """Open an index file; its runs are read when they are needed.

        Raises
        ------
        VolumeNotFoundError
            When there is no file.
        VolumeFormatError
            When it is no index, a damaged one, or one of a later version.
        """
        from floodem.training.coordinates.index_file import load_index

        return load_index(Path(path))

    def _unpacked(
        self, table: _Table, row: int
    ) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        words = self.words[int(table.runs_begin[row]) : int(table.runs_end[row])]
        starts, lengths = unpack(np.asarray(words))
        if int(lengths.sum()) != table.voxels[row] or int(starts[-1] + lengths[-1]) > PAGE_VOXELS:
            raise self.damaged()
        return starts, lengths

    def _make_tables(self) -> dict[tuple[str, int], _Table]:
        volumes, pages, partitions, runs, voxels = self.segments.T
        runs_end = np.cumsum(runs)
        order = np.lexsort((partitions, volumes))
        is_new = (np.diff(volumes[order]) != 0) | (np.diff(partitions[order]) != 0)
        tables = {}
        for rows in np.split(order, np.flatnonzero(is_new) + 1) if len(order) else []:
            name = self.volumes[int(volumes[rows[0]])].name
            tables[name, int(partitions[rows[0]])] = _Table(
                pages=pages[rows],
                runs_begin=runs_end[rows] - runs[rows],
                runs_end=runs_end[rows],
                voxels=voxels[rows],
                voxels_end=np.cumsum(voxels[rows]),
            )
        return tables

    def _require_sound(self) -> None:
        volume, page, partition, runs, voxels = self.segments.T
        pages = np.array([int(np.prod(page_grid(one.box))) for one in self.volumes], np.int64)
        is_sound = (
            len(set(self.volume_names)) == len(self.volumes)
            and np.all((volume >= 0) & (volume < len(self.volumes)))
            and np.all((page >= 0) & (page < pages[volume]))
            and np.all((partition >= 0) & (partition < EXCLUDED))
            and np.all((runs > 0) & (voxels >= runs) & (voxels <= PAGE_VOXELS))
            and int(runs.sum()) == len(self.words)
        )
        if not is_sound:
            raise self.damaged()

    def damaged(self) -> VolumeFormatError:
        """Return what to raise where runs contradict the rest of the index."""
        return VolumeFormatError(
            f"{self.source} is damaged, its runs do not fit its volumes: run `floodem sample` again"
        )
