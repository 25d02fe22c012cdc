"""Whether a converted volume still is what was written: an address in, damages out.

The record beside the volume (`record`) says which blocks there are and
what their bytes add up to. A block that does not bear its receipt out is looked at
chunk by chunk, so that the damage is named as closely as the record allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import FloodemError, StoppedError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.progress import Progress, ProgressListener
from floodem.volumes.access import create_volume, open_volume
from floodem.volumes.conversion.block_reading import Reader, compared
from floodem.volumes.conversion.destination import (
    is_by_section,
    is_in_place,
    is_resumable,
    moved_by,
    serves_threads,
    work_place,
)
from floodem.volumes.conversion.incomplete import open_levels, with_gaps
from floodem.volumes.conversion.receipts import Key, Receipt, checksum
from floodem.volumes.conversion.record import (
    CONVERSION_FILES,
    ConversionRecord,
    Status,
    level_boxes,
    record_address,
)
from floodem.volumes.conversion.verification_result import Damage, LevelCheck, Verification
from floodem.volumes.location import Location, parse_location
from floodem.volumes.parallel import usable_threads
from floodem.volumes.volume import Kind, Volume

_STAGE = "verify"
_MOST_NARROWED = 10_000
"""Beyond so many damages blocks are named and not their chunks: the volume is gone anyway."""

_NO_RECEIPT = "has no receipt: it was not written, or the record is damaged"
_CHANGED = "holds other bytes than were written"
_UNREADABLE = "cannot be read: "
_EMPTY = "reads as background only: its file is missing or emptied"


def written_ns(uri: str | Path) -> int | None:
    """Return when a conversion to a local address last stated how far it is; None without one."""
    folder = Path(record_address(parse_location(uri)))
    files = [folder / name for name in CONVERSION_FILES]
    return max((file.stat().st_mtime_ns for file in files if file.is_file()), default=None)


def verify(
    uri: str | Path,
    *,
    threads: int | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Verification:
    """Check a volume that `convert` has made, or was making, against its receipts.

    Everything is read once. Changed bytes, missing chunks and truncated files are
    found on all levels; nothing is changed.

    Parameters
    ----------
    threads
        How many blocks are read at once; by default one for each core.
    progress
        Called after every block, in voxels.
    should_stop
        Asked after every block; when it answers True the check ends with `StoppedError`.

    Raises
    ------
    VolumeNotFoundError
        When there is no record of a conversion, or no volume.
    VolumeFormatError
        When the volume there has another shape or type than the one in the record.
    RunConflictError
        When the record itself is damaged.
    StorageError
        When the file system refuses.
    """
    location = parse_location(uri)
    record = ConversionRecord(location)
    found = _look(record, location)
    check = _Check(
        found,
        threads=usable_threads(threads),
        progress=progress,
        should_stop=should_stop,
    )
    with found.open() as opened:
        check.require_as_recorded(opened)
        levels = tuple(check.level(level, one) for level, one in enumerate(opened))
    return Verification(
        uri=location.uri,
        record=record.address,
        is_finished=found.is_finished,
        is_lossy=bool(found.values["made"]["is_lossy"]),
        levels=levels,
        damages=tuple(check.damages),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A record, and the address of the volume that it tells about."""

    location: Location
    values: dict[str, Any]
    receipts: dict[Key, Receipt]
    is_finished: bool

    @contextlib.contextmanager
    def open(self) -> Iterator[Sequence[Volume]]:
        """Open all levels of the volume, of a stopped conversion where it grows."""
        location, work = self.location, work_place(self.location)
        with contextlib.ExitStack() as opened:
            if self.is_finished or location.is_remote:
                levels = self._levels(location.uri)
            elif is_by_section(location):
                # Sections that are not there yet would let the others move up.
                levels = (self._growing_stack(work),)
            else:
                levels = self._levels(f"{location.format}://{work}")
            for level in levels:
                opened.callback(level.discard)
            yield levels

    def _levels(self, uri: str) -> Sequence[Volume]:
        """Open what is there; levels and sections that are missing refuse to be read."""
        boxes = level_boxes(self.values)
        with contextlib.ExitStack() as opened:
            try:
                volume = open_volume(uri)
                opened.callback(volume.close)
                levels = volume.levels
            except (VolumeNotFoundError, VolumeFormatError):
                if len(boxes) == 1:
                    raise
                return open_levels(uri, boxes=boxes, dtype=np.dtype(self.values["made"]["dtype"]))
            opened.pop_all()
        return levels if len(levels) > 1 else (with_gaps(volume, box=boxes[0]),)

    def _growing_stack(self, work: Path) -> Volume:
        made = self.values["made"]
        (box,) = level_boxes(self.values)
        size, kind = made["voxel_size"], made["kind"]
        return create_volume(
            self.location.uri,
            shape=box.shape,
            dtype=made["dtype"],
            voxel_size=None if size is None else VoxelSize(*size),
            offset=box.start,
            kind=None if kind is None else Kind(kind),
            overwrite=True,
            work=work,
        )


def _look(record: ConversionRecord, location: Location) -> _Found:
    """Find out whether a finished or a stopped conversion is to be checked.

    Where a finished volume is about to be replaced, it is checked and not its successor.
    """
    running, finished = record.running(), record.finished()
    if running is not None and _is_over(running, location):
        return _Found(
            location=location, values=running, receipts=record.journal.read(), is_finished=True
        )
    if finished is not None:
        return _Found(
            location=location, values=finished, receipts=record.receipts(), is_finished=True
        )
    if running is None:
        raise VolumeNotFoundError(
            f"there is no record of a conversion to {location.uri} ({record.address}): "
            "only what `floodem convert` or `floodem segment` wrote can be verified"
        )
    if not is_resumable(location):
        raise VolumeNotFoundError(
            f"the conversion to {location.uri} was stopped, and {location.format} files are "
            "written as a whole: run it again"
        )
    if not location.is_remote and not work_place(location).exists():
        raise VolumeNotFoundError(
            f"the conversion to {location.uri} was stopped, and {work_place(location)}, where it "
            "had grown, is gone: run it again"
        )
    return _Found(
        location=location, values=running, receipts=record.journal.read(), is_finished=False
    )


def _is_over(running: dict[str, Any], location: Location) -> bool:
    return running["status"] == Status.COMMITTING and is_in_place(running, location)


class _Check:
    """Goes through the levels and notes what is wrong."""

    def __init__(
        self,
        found: _Found,
        *,
        threads: int,
        progress: ProgressListener | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.damages: list[Damage] = []
        self._found = found
        self._location = found.location
        self._boxes = level_boxes(found.values)
        self._threads = threads
        self._progress = progress
        self._should_stop = should_stop
        self._done = 0
        self._total = sum(receipt.box.size for receipt in found.receipts.values())

    def require_as_recorded(self, levels: Sequence[Volume]) -> None:
        """Refuse a volume that is not even of the recorded shape and type."""
        dtype = self._found.values["made"]["dtype"]
        shapes = [box.shape for box in self._boxes]
        there = [one.shape for one in levels]
        found = levels[0].dtype
        if there != shapes or found.name != dtype:
            raise VolumeFormatError(
                f"{self._location.uri} holds {_words(there)} {found} and was written as "
                f"{_words(shapes)} {dtype}: it was replaced, or its metadata are damaged; convert "
                "again"
            )

    def level(self, level: int, volume: Volume) -> LevelCheck:
        """Check one level."""
        box, made = self._boxes[level], self._found.values["made"]["levels"][level]
        own = {key: one for key, one in self._found.receipts.items() if key[0] == level}
        blocks = [tile.core for tile in tiles(box, core=_triple(made["block"]))]
        missing = [one for one in blocks if (level, one.start) not in own]
        if not self._found.is_finished:
            missing = []
        self.damages += (Damage(level=level, box=one, reason=_NO_RECEIPT) for one in missing)
        known = len(self.damages)
        wrong = 0
        moved = moved_by(volume, box, location=self._location)
        in_threads = serves_threads(self._location)
        with Reader(volume, serves_threads=in_threads, threads=self._threads) as reader:
            receipts = own.values()
            for one, is_right in compared(reader, receipts, moved=moved, threads=self._threads):
                if not is_right:
                    wrong += 1
                    self.damages += self._narrowed(
                        reader, one, chunks=_triple(made["chunks"]), moved=moved
                    )
                self._report(one.box.size)
        written = sum(one.box.size for one in own.values())
        self.damages[known:] = _joined(self.damages[known:], box, voxels=written)
        return LevelCheck(
            level=level, blocks=len(blocks), receipts=len(own), damaged=wrong + len(missing)
        )

    def _narrowed(
        self, reader: Reader, receipt: Receipt, *, chunks: Zyx, moved: Zyx
    ) -> list[Damage]:
        """Find the chunks of a block that are not as they were written."""
        cells = receipt.cells_in(chunks) if len(self.damages) < _MOST_NARROWED else []
        parts: list[tuple[Box, int | None]] = [*cells] or [(receipt.box, receipt.crc32c)]
        damages = []
        for box, crc in parts:
            try:
                array = reader.read(box.translate(moved))
            except FloodemError as error:
                reason = f"{_UNREADABLE}{error}"
            else:
                if checksum(array) == crc:
                    continue
                reason = _CHANGED if array.any() else _EMPTY
            damages.append(Damage(level=receipt.level, box=box, reason=reason))
        whole = Damage(level=receipt.level, box=receipt.box, reason=_CHANGED)
        return _joined(damages, receipt.box, voxels=receipt.box.size) or [whole]

    def _report(self, voxels: int) -> None:
        self._done += voxels
        if self._progress is not None:
            self._progress(
                Progress(stage=_STAGE, done=self._done, total=self._total, unit="voxels")
            )
        if self._should_stop():
            raise StoppedError("stopped before everything was checked: run it again")


def _joined(damages: list[Damage], box: Box, *, voxels: int) -> list[Damage]:
    """Name a box once where one cause keeps all that was written of it from being read.

    Parameters
    ----------
    voxels
        How many were written.
    """
    reasons = {damage.reason for damage in damages}
    is_all = sum(damage.box.size for damage in damages) == voxels
    if not is_all or len(reasons) != 1 or not damages[0].reason.startswith(_UNREADABLE):
        return damages
    return [replace(damages[0], box=box)]


def _triple(values: list[int]) -> Zyx:
    z, y, x = values
    return (z, y, x)


def _words(shapes: list[Zyx]) -> str:
    finest = " x ".join(str(length) for length in shapes[0])
    return finest if len(shapes) == 1 else f"{finest} in {len(shapes)} levels"
