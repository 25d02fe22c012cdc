"""Many subvolumes seen as one volume of labels: files in, an open volume out.

The id of a segment in the volume is its id in the subvolume plus the largest ids of all
subvolumes before that one, in the order of their corners z, y, x. So ids are unique, do
not depend on the box that is looked at, and those of a single subvolume stay. Nothing is
joined across subvolumes. Where several overlap, see
`floodem.legacy.results.placement`.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from floodem.errors import LabelError, StoppedError, UnsafeFileError, VolumeFormatError
from floodem.files import storage_error
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.legacy.results.admitted import Array, OriginInfo
from floodem.legacy.results.archive import open_archive
from floodem.legacy.results.paths import SubvolumeFile
from floodem.legacy.results.placement import Places
from floodem.legacy.results.subvolume import (
    SEGMENTATION_KEY,
    read_labels,
    read_origins_of,
    read_overlaps_of,
    require_label_header,
)
from floodem.memory import available_memory
from floodem.progress import Progress, ProgressListener
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.description import Description
from floodem.volumes.volume import Kind

_TILE: Zyx = (64, 256, 256)
"""What is put together at a time; it takes about 100 MB."""

_CACHE_BYTES = 2**30
_CACHE_SHARE = 0.25
"""Of the free memory, for subvolumes that stay unpacked; the one last used always does."""

_LARGEST_ID = np.iinfo(np.uint64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One subvolume and where it lies.

    Attributes
    ----------
    file
        Its segmentation on disk.
    box
        Its voxels, in the volume.
    stamp
        Size and time of change of the file, which tell it from a changed one.
    """

    file: SubvolumeFile
    box: Box
    stamp: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was counted in all subvolumes.

    Attributes
    ----------
    before
        What is added to the ids of each subvolume.
    voxels
        How many voxels each id has in the volume; only ids that have any.
    """

    before: tuple[int, ...]
    voxels: Counter[int]


def locate(file: SubvolumeFile) -> Piece:
    """Look where a subvolume lies, without reading its labels.

    Raises
    ------
    FloodemError
        When the file is no result of the older program.
    """
    with open_archive(file.path) as archive:
        shape, _ = require_label_header(archive)
    try:
        stat = file.path.stat()
    except OSError as error:
        raise storage_error("look at", file.path, error) from error
    return Piece(
        file=file,
        box=Box.from_shape(shape, start=file.corner),
        stamp=(stat.st_size, stat.st_mtime_ns),
    )


class MergedResults(DerivedVolume):
    """The labels (uint64) of many subvolumes; 0 where there is none.

    Several threads may read at once. Each subvolume is unpacked as a whole, and a few
    stay unpacked.

    Parameters
    ----------
    pieces
        In the order of their corners, at least one.
    part
        Whose voxels are counted, in the frame of the subvolumes.
    uri
        What messages call it.
    progress, should_stop
        Of the counting, which happens at the first reading.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        *,
        part: Box | None,
        uri: str,
        voxel_size: VoxelSize | None = None,
        progress: ProgressListener | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        low = tuple(min(piece.box.start[axis] for piece in pieces) for axis in range(3))
        high = tuple(max(piece.box.stop[axis] for piece in pieces) for axis in range(3))
        whole = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        super().__init__(
            uri=uri,
            shape=whole.shape,
            dtype=np.dtype(np.uint64),
            chunks=pieces[0].box.shape,
            description=Description(offset=whole.start, voxel_size=voxel_size, kind=Kind.LABELS),
        )
        self.pieces = tuple(pieces)
        self.part = whole if part is None else part
        self.recipe = {"old_results": [_identity(piece) for piece in self.pieces]}
        self.places = Places([piece.box for piece in self.pieces])
        self._progress = progress
        self._should_stop = should_stop
        self._lock = threading.RLock()
        self._unpacked: OrderedDict[int, Array] = OrderedDict()
        self._tally: Tally | None = None

    def tally(self) -> Tally:
        """Count ids and voxels, once.

        Raises
        ------
        LabelError
            When all ids together do not fit 64 bits.
        StoppedError
            When `should_stop` said so.
        FloodemError
            When a file is damaged.
        """
        with self._lock:
            if self._tally is None:
                self._tally = self._count()
            return self._tally

    def require_records(self) -> None:
        """Read all origins and overlaps, so that none is refused once something is written.

        Raises
        ------
        VolumeFormatError, UnsafeFileError
            When those of a file are damaged, or ask for more than results need.
        """
        for piece in self.pieces:
            with open_archive(piece.file.path) as archive:
                try:
                    read_origins_of(archive)
                    read_overlaps_of(archive)
                except (VolumeFormatError, UnsafeFileError) as error:
                    raise type(error)(
                        f"{error}; `floodem convert {piece.file.path} DST` takes the labels alone"
                    ) from error

    def origins(self) -> Iterator[tuple[int, int, OriginInfo]]:
        """Give the id in the volume, its voxels and origin of each segment that has voxels.

        Origins count from the volume's zero.
        """
        tally = self.tally()
        for piece, before in zip(self.pieces, tally.before, strict=True):
            with open_archive(piece.file.path) as archive:
                origins = read_origins_of(archive)
            for segment, info in origins.items():
                voxels = tally.voxels.get(segment + before, 0)
                if voxels:
                    z, y, x = (a + b for a, b in zip(info.start_zyx, piece.box.start, strict=True))
                    yield segment + before, voxels, info._replace(start_zyx=(z, y, x))

    def overlaps(self) -> Iterator[tuple[int, dict[int, int]]]:
        """Give the overlaps of each segment that has voxels, by ids in the volume."""
        tally = self.tally()
        for piece, before in zip(self.pieces, tally.before, strict=True):
            with open_archive(piece.file.path) as archive:
                overlaps = read_overlaps_of(archive)
            for segment, found in overlaps.items():
                if segment + before in tally.voxels:
                    yield segment + before, {other + before: n for other, n in found.items()}

    def _read(self, box: Box) -> Array:
        before = self.tally().before
        result = np.zeros(box.shape, self.dtype)
        for tile in tiles(box, core=_TILE):
            owner = self.places.owners(tile.core)
            made = result[tile.core.slices(origin=box.start)]
            for number in self.places.near(tile.core):
                place = self.places.boxes[number]
                part = place.intersection(tile.core)
                assert part is not None
                labels = self._labels(number)[part.slices(origin=place.start)]
                window = part.slices(origin=tile.core.start)
                is_taken = (owner[window] == number) & (labels != 0)
                ids = labels[is_taken].astype(np.uint64) + np.uint64(before[number])
                made[window][is_taken] = ids
        return result

    def _labels(self, number: int) -> Array:
        with self._lock:
            if number in self._unpacked:
                self._unpacked.move_to_end(number)
                return self._unpacked[number]
            self._make_room(self.places.boxes[number].size * self.dtype.itemsize)
            with open_archive(self.pieces[number].file.path) as archive:
                labels = read_labels(archive)
            self._unpacked[number] = labels
            return labels

    def _make_room(self, needed: int) -> None:
        available = available_memory()
        allowed = _CACHE_BYTES
        if available is not None:
            allowed = min(allowed, int(available * _CACHE_SHARE))
        while self._unpacked and needed + sum(a.nbytes for a in self._unpacked.values()) > allowed:
            self._unpacked.popitem(last=False)

    def _release(self) -> None:
        self._unpacked.clear()

    def _count(self) -> Tally:
        total, done = sum(box.size for box in self.places.boxes), 0
        before, voxels = [0], Counter[int]()
        for number, piece in enumerate(self.pieces):
            if self._should_stop():
                raise StoppedError(
                    "stopped while ids were counted; run the same command again to begin anew"
                )
            part = piece.box.intersection(self.part)
            largest = (
                _largest_id(piece)
                if part is None
                else self._count_piece(number, part, voxels, before=before[-1])
            )
            before.append(before[-1] + largest)
            if before[-1] > _LARGEST_ID:
                raise LabelError(
                    f"the ids of {self.uri} up to {piece.file.path} add up to {before[-1]}, which "
                    "does not fit 64 bits: renumber the labels of each subvolume from 1"
                )
            done += piece.box.size
            if self._progress is not None:
                self._progress(
                    Progress(stage="counting ids", done=done, total=total, unit="voxels")
                )
        return Tally(before=tuple(before[:-1]), voxels=voxels)

    def _count_piece(self, number: int, part: Box, voxels: Counter[int], *, before: int) -> int:
        """Count the voxels that this subvolume gives to the volume; return its largest id."""
        labels, place = self._labels(number), self.places.boxes[number]
        for tile in tiles(part, core=_TILE):
            held = labels[tile.core.slices(origin=place.start)]
            if len(self.places.near(tile.core)) > 1:
                held = held[self.places.owners(tile.core) == number]
            ids, counts = np.unique(held, return_counts=True)
            for segment, count in zip(ids.tolist(), counts.tolist(), strict=True):
                if segment:
                    voxels[segment + before] += count
        return int(labels.max(initial=0))


def _largest_id(piece: Piece) -> int:
    with open_archive(piece.file.path) as archive:
        return max(int(values.max()) for values in archive.pieces(SEGMENTATION_KEY))


def _identity(piece: Piece) -> list[object]:
    return [piece.file.path.name, str(piece.box), *piece.stamp]
