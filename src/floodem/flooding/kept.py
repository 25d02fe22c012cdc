"""Objects that were flooded one by one, kept in a segmentation on disk.

In: what a flood has filled. Out: its voxels in a volume (uint64) with an id of its own,
and a record beside it from which the last ones can be taken back, also after the program
has ended. Every step is written down before the volume is touched and again after: a
process that is killed in between leaves a step that the next one finishes.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, UInt64

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    RunConflictError,
    UsageError,
    VolumeFormatError,
)
from floodem.files import PARTIAL_SUFFIX, exclusive, making_folders, remove_partial_files
from floodem.flooding.addresses import is_there
from floodem.flooding.flooder import FloodedObject
from floodem.flooding.kept_record import RECORD, VOXELS, KeptFlood, KeptRecord, Step
from floodem.flooding.results import LABEL_DTYPE
from floodem.flooding.run_folder import RunFolder
from floodem.flooding.sampling import sampled_parts, sampled_shape, within_its_box
from floodem.flooding.segment import state_folder
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.volumes import create_volume, open_volume
from floodem.volumes.location import Location, parse_location
from floodem.volumes.volume import Kind, Volume

_WRITTEN_IN_PLACE = ("zarr", "zarr3", "n5", "precomputed")
_LOCK = "lock"
_REMEMBERED_VOXELS = 2**27
"""Of the masks of floods, a byte each: those that are looked at from afar are read again."""

_PIECE = 64
"""Voxels on each axis that are changed at a time, in whole chunks: about 2 MB of labels."""


class KeptFloods:
    """A segmentation that grows by kept floods; one process at a time may have it open.

    Parameters
    ----------
    destination
        A local zarr, n5 or precomputed volume. It is made with the first flood; one that
        an earlier `KeptFloods` has made is gone on with.
    image
        What is flooded: its box and voxel size are those of the volume.
    voxel_size
        Where the image does not state its own.

    Raises
    ------
    DestinationExistsError
        When something else is at the destination.
    RunConflictError
        When another process has it open, its record is damaged, or it has another box or
        voxel size.
    UsageError, VolumeFormatError
        When floods cannot be kept at such an address.
    StorageError
        When the file system refuses.
    """

    def __init__(
        self, destination: str | Path, *, image: Volume, voxel_size: VoxelSize | None = None
    ) -> None:
        self.uri = str(destination)
        self.box = image.box
        self.voxel_size = image.voxel_size or voxel_size
        self._image = image.uri
        location = parse_location(destination)
        _require_possible(location, self.uri)
        folder = state_folder(self.uri)
        self._record = KeptRecord(folder, destination=self.uri, about=self._about())
        self._volume: Volume | None = None
        self._masks: dict[str, Bool[np.ndarray, "z y x"]] = {}
        self._masks_lock = threading.Lock()
        with ExitStack() as stack:
            stack.enter_context(making_folders(folder))
            if sys.platform == "win32":  # where an open file cannot be removed
                stack.callback(self._drop_lock)
            stack.enter_context(exclusive(folder / _LOCK, what=self.uri))
            stack.callback(self._drop_lock)
            self._open()
            stack.callback(self._close_volume)
            self._opened = stack.pop_all()

    @property
    def floods(self) -> tuple[KeptFlood, ...]:
        """What is kept, in order."""
        return self._record.floods

    @property
    def labels(self) -> tuple[int, ...]:
        """The ids of the kept objects, ascending."""
        return tuple(sorted({flood.label for flood in self.floods}))

    @property
    def next_label(self) -> int:
        """The id that the next new object gets."""
        return max(self.labels, default=0) + 1

    def box_of(self, label: int) -> Box:
        """Return the smallest box that holds all that was kept under an id."""
        boxes = [flood.box for flood in self.floods if flood.label == label]
        starts, stops = zip(*((box.start, box.stop) for box in boxes), strict=True)
        low = tuple(min(along) for along in zip(*starts, strict=True))
        high = tuple(max(along) for along in zip(*stops, strict=True))
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def is_free(self, box: Box) -> bool:
        """Tell, from the record alone, whether nothing was kept in a box."""
        return all(box.intersection(flood.box) is None for flood in self.floods)

    def read(self, box: Box, *, step: Zyx = (1, 1, 1)) -> UInt64[np.ndarray, "z y x"]:
        """Return the ids in a box of the image, 0 where nothing is kept.

        Parameters
        ----------
        step
            Of the voxels to return: every so-manieth on each axis, from the first one of the
            box on. What lies between them is not read.
        """
        if self._volume is None or self.is_free(box):
            return np.zeros(sampled_shape(box, step), LABEL_DTYPE)
        if step == (1, 1, 1):
            return self._volume.read(box)
        labels = np.zeros(sampled_shape(box, step), LABEL_DTYPE)
        # No voxel is written by two floods that are both kept: together they are the volume.
        for number, flood in enumerate(self.floods, start=1):
            parts = sampled_parts(box, flood.box, step=step)
            if parts is not None:
                there, here = parts
                mask = self._mask(number, flood)
                labels[there][mask[here]] = flood.label
        return labels

    def label_at(self, position: Zyx) -> int:
        """Return the id of a voxel of the image, or 0."""
        return int(self.read(Box.from_shape((1, 1, 1), start=position))[0, 0, 0])

    def keep(
        self,
        made: FloodedObject,
        *,
        label: int | None = None,
        model: str,
        options: Mapping[str, Any],
    ) -> KeptFlood | None:
        """Write an object into the volume, where nothing is yet.

        Parameters
        ----------
        made
            What the flood has filled.
        label
            The id of the kept object that it went on from; None for a new one.
        model, options
            Of the flood, for the record.

        Returns
        -------
        flood
            None when there was nothing to write.

        Raises
        ------
        StorageError
            When the file system refuses. What was written is taken back then; where that is
            refused as well, the next `KeptFloods` finishes the step.
        """
        assert label is None or label in self.labels
        self._finish_step()
        new, box = within_its_box(made.mask, made.box)
        if box is not None:
            new &= self.read(box) == 0
            new, box = within_its_box(new, box)
        if box is None:
            return None
        flood = KeptFlood(
            label=self.next_label if label is None else label,
            seed=made.seed,
            box=box,
            voxels=int(np.count_nonzero(new)),
            calls=made.calls,
            seconds=round(made.seconds, 3),
            end=None if made.end is None else made.end.value,
            model=model,
            options=dict(options),
            image=self._image,
            kept_at=datetime.now(UTC).isoformat(timespec="seconds"),
            bits_sha256=self._record.write_bits(len(self.floods) + 1, new),
        )
        self._record.begin(Step("keep", flood))
        try:
            self._finish_step()
        except FloodemError:
            with contextlib.suppress(FloodemError):
                self._abandon_step(flood, new)
            raise
        return flood

    def undo(self) -> KeptFlood | None:
        """Take back the flood that was kept last; return it, or None when there is none.

        Raises
        ------
        StorageError
            When the file system refuses; the next `KeptFloods` finishes the step.
        """
        self._finish_step()
        if not self.floods:
            return None
        flood = self.floods[-1]
        self._record.begin(Step("undo", flood))
        self._finish_step()
        return flood

    def close(self) -> None:
        """Let go of the volume and of the lock."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _about(self) -> dict[str, Any]:
        size = self.voxel_size
        return {
            "image": self._image,
            "box": str(self.box),
            "voxel_size_nm_zyx": None if size is None else list(size.zyx_nm),
        }

    def _open(self) -> None:
        """Look at what is there, and finish what a killed process has begun."""
        record, there = self._record, is_there(self.uri)
        remove_partial_files(record.folder)
        remove_partial_files(record.folder / VOXELS)
        _remove_half_made(parse_location(self.uri).local)
        if not record.path.exists():
            self._refuse_foreign(there=there)
            return
        now = record.about
        record.load()
        for what in ("box", "voxel_size_nm_zyx"):
            if record.about.get(what) != now[what]:
                raise RunConflictError(
                    f"{self.uri} keeps floods of an image with {what} = "
                    f"{record.about.get(what)}, and {self._image} has {now[what]} (z,y,x): choose "
                    "another destination"
                )
        if record.floods and not there:
            raise RunConflictError(
                f"{self.uri} is gone, and its record in {record.folder} is not: bring it back, or "
                "remove the record as well"
            )
        if there:
            self._volume = self._open_volume()
        self._finish_step()
        record.remove_bits(len(record.floods) + 1)

    def _refuse_foreign(self, *, there: bool) -> None:
        run = RunFolder(self._record.folder, destination=self.uri)
        if there or run.has_run():
            made_by = "a result of floodem segment" if run.has_run() else "no volume of kept floods"
            raise DestinationExistsError(
                f"{self.uri} is {made_by} and was left as it is: choose another destination; "
                "shown as a segmentation it is respected by floods"
            )
        # Tells now, and not after the first flood, that nothing can be made there.
        self._create().discard()

    def _create(self) -> Volume:
        return create_volume(
            self.uri,
            shape=self.box.shape,
            dtype=LABEL_DTYPE,
            voxel_size=self.voxel_size,
            offset=self.box.start,
            kind=Kind.LABELS,
        )

    def _open_volume(self) -> Volume:
        volume = open_volume(self.uri, writable=True)
        if volume.box != self.box or volume.dtype != LABEL_DTYPE:
            volume.close()
            raise RunConflictError(
                f"{self.uri} holds {volume.dtype} in {volume.box}, not {np.dtype(LABEL_DTYPE)} in "
                f"{self.box} (z,y,x) as its record says: choose another destination"
            )
        return volume

    def _finish_step(self) -> None:
        """Do what was written down, however much of it is done already."""
        record = self._record
        if record.step is None:
            return
        step = record.step
        is_kept = step.action == "keep"
        number = len(record.floods) + 1 if is_kept else len(record.floods)
        mask = record.read_bits(number, step.flood)
        if self._volume is None:
            if not is_there(self.uri):
                self._create().close()
            self._volume = self._open_volume()
        before, after = (0, step.flood.label) if is_kept else (step.flood.label, 0)
        _replace(self._volume, step.flood.box, mask, before=before, after=after)
        record.finish()
        if not is_kept:
            record.remove_bits(number)

    def _abandon_step(self, flood: KeptFlood, mask: Bool[np.ndarray, "z y x"]) -> None:
        """Leave everything as it was before a flood was to be kept."""
        if self._volume is not None:
            _replace(self._volume, flood.box, mask, before=flood.label, after=0)
        self._record.abandon()

    def _mask(self, number: int, flood: KeptFlood) -> Bool[np.ndarray, "z y x"]:
        """Return which voxels of its box a flood has written, from memory where it is there."""
        with self._masks_lock:
            mask = self._masks.pop(flood.bits_sha256, None)
            if mask is None:
                mask = self._record.read_bits(number, flood)
            self._masks[flood.bits_sha256] = mask
            while sum(one.size for one in self._masks.values()) > _REMEMBERED_VOXELS:
                del self._masks[next(iter(self._masks))]
            return mask

    def _close_volume(self) -> None:
        if self._volume is not None:
            self._volume.close()
            self._volume = None

    def _drop_lock(self) -> None:
        """Leave nothing beside a volume that was never made."""
        folder = self._record.folder
        if not (folder / RECORD).exists():
            with contextlib.suppress(OSError):
                (folder / VOXELS).rmdir()
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)


def default_destination(image: str) -> Path:
    """Return where the floods of an image are kept when nothing is said: in this folder.

    ``/data/em.h5@raw`` gives ``em-floods.zarr``.
    """
    last = re.split(r"[?#]", image.replace("\\", "/"))[0].rstrip("/").rsplit("/", 1)[-1]
    stem = re.sub(r"[^\w.-]+", "-", re.split("[@:]", last)[0]).strip("-.").rsplit(".", 1)[0]
    return Path(f"{stem or 'image'}-floods.zarr")


def _require_possible(location: Location, uri: str) -> None:
    if location.is_remote:
        raise UsageError(
            f"{uri} is remote: keep floods in a local folder, and copy them with `floodem convert`"
        )
    if location.format not in _WRITTEN_IN_PLACE:
        raise VolumeFormatError(
            f"floods cannot be kept in {uri}, which is no format that is written piece by piece: "
            f"give one of {', '.join(_WRITTEN_IN_PLACE)}, for example floods.zarr"
        )


def _remove_half_made(path: Path) -> None:
    """Remove volumes that killed processes were about to put at a path."""
    for left in path.absolute().parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}"):
        shutil.rmtree(left, ignore_errors=True)


def _replace(
    volume: Volume, box: Box, mask: Bool[np.ndarray, "z y x"], *, before: int, after: int
) -> None:
    """Change voxels of a mask that hold one id into another; others stay as they are."""
    origin, chunks = volume.offset, volume.chunks
    z, y, x = (
        start - (start - at) % chunk
        for start, at, chunk in zip(box.start, origin, chunks, strict=True)
    )
    dz, dy, dx = (chunk * max(1, _PIECE // chunk) for chunk in chunks)
    for tile in tiles(Box((z, y, x), box.stop), core=(dz, dy, dx)):
        piece = tile.core.intersection(box)
        if piece is None or not mask[piece.slices(origin=box.start)].any():
            continue
        labels = volume.read(piece)
        labels[mask[piece.slices(origin=box.start)] & (labels == before)] = after
        volume.write(piece, labels)
