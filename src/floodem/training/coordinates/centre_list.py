"""Centres in a fixed order, one for each draw: a file comes in, draw number n goes out.

Coordinates that somebody balanced and shuffled already are kept as they are: 16 bytes
each, used where they lie in the file, so that tens of millions take no memory.

description  volumes with the boxes around their centres, and where all came from
draws        int32, one row for each draw: number of the volume, z, y, x

Files are made by `CentreListWriter`, whoever knows the centres (floodem.legacy.records).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from jaxtyping import Int32, Int64

from floodem.errors import GeometryError, UsageError, VolumeFormatError
from floodem.files import existing_parent, making_folders, storage_error
from floodem.geometry import Box, Zyx
from floodem.training.configuration.options import volume_called
from floodem.training.coordinates.archive import (
    ArchiveKind,
    map_member,
    read_description,
    reading,
    require_kind,
    write_archive,
    zyx,
)

KIND = ArchiveKind(name="floodem list of centres", version=1, members={"draws": ("<i4", 2)})

_COLUMNS = 4
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVolume:
    """One volume of a list.

    Attributes
    ----------
    name
        How coordinates call it.
    box
        The smallest around its centres, z, y, x in the volume's own frame.
    count
        How many draws are of it.
    """

    name: str
    box: Box
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CentreList:
    """Centres of examples in the order in which they are drawn.

    Attributes
    ----------
    volumes
        Those that occur.
    draws
        Number of the volume, z, y, x of each.
    origin
        What is known of where they came from: plain values by name.
    source
        What messages call the list.

    Raises
    ------
    VolumeFormatError
        When these do not fit each other.
    """

    volumes: tuple[ListedVolume, ...]
    draws: Int32[np.ndarray, "draws 4"]
    origin: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the list"

    def __post_init__(self) -> None:
        names = set(self.volume_names)
        counts = [volume.count for volume in self.volumes]
        if (
            len(names) != len(self.volumes)
            or self.draws.ndim != 2
            or self.draws.shape[1] != _COLUMNS
            or not len(self.draws)
            or min(counts, default=0) < 1
            or sum(counts) != len(self.draws)
        ):
            raise self._damaged()

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def volume_names(self) -> tuple[str, ...]:
        """Names of the volumes."""
        return tuple(volume.name for volume in self.volumes)

    def draw(self, number: int) -> tuple[str, Zyx]:
        """Return volume and centre of draw `number`; behind the last comes the first again.

        Raises
        ------
        VolumeFormatError
            When the list is damaged.
        """
        volume, z, y, x = (int(value) for value in self.draws[number % len(self.draws)])
        if not 0 <= volume < len(self.volumes):
            raise self._damaged()
        known = self.volumes[volume]
        if not known.box.contains_point((z, y, x)):
            raise self._damaged()
        return known.name, (z, y, x)

    def require_volumes(self, boxes: Mapping[str, Box], *, margin: Zyx) -> None:
        """Refuse to be used with volumes in which the centres do not lie.

        Parameters
        ----------
        boxes
            The box of each volume that is trained on, by name.
        margin
            Voxels (z, y, x) that a patch needs around its centre.

        Raises
        ------
        UsageError
            When a volume is not among those of the run.
        GeometryError
            When centres lie outside a volume, or patches would leave it.
        """
        for volume in self.volumes:
            if volume.name not in boxes:
                raise UsageError(
                    f"{self.source} holds centres in volume {volume.name!r}, which is not among "
                    f"the volumes of this run ({', '.join(boxes)}): name it alike in both"
                )
            box = boxes[volume.name]
            if not box.contains(volume.box):
                raise GeometryError(
                    f"{self.source} holds centres in {volume.box} (z,y,x) of "
                    f"{volume_called(volume.name)}, which lies at {box}: give the volume that they "
                    "were made from, whole"
                )
            if not box.contains(volume.box.grow(margin)):
                asked = ",".join(str(size) for size in margin)
                raise GeometryError(
                    f"{self.source} holds centres in {volume.box} of {volume_called(volume.name)}, "
                    f"and patches reach {asked} voxels (z,y,x) around them, beyond {box}: set "
                    "sampling.out_of_volume to pad, or make the centres with a larger margin"
                )

    @classmethod
    def load(cls, path: str | Path) -> CentreList:
        """Open a list; its draws stay in the file until they are needed.

        Raises
        ------
        VolumeNotFoundError
            When there is no file.
        VolumeFormatError
            When it is no list, a damaged one, or one of a later version.
        StorageError
            When the file system refuses.
        """
        path = Path(path)
        description = read_description(path)
        with reading(path):
            require_kind(description, KIND, path=path)
            return cls(
                volumes=tuple(_volume(entry) for entry in description["volumes"]),
                draws=map_member(path, "draws", kind=KIND.members["draws"]),
                origin=dict(description["origin"]),
                source=str(path),
            )

    def _damaged(self) -> VolumeFormatError:
        return VolumeFormatError(
            f"{self.source} is damaged, its draws do not fit its volumes: make the list again"
        )


class CentreListWriter:
    """Takes centres in their order and makes a list of them; to be used in a ``with`` statement.

    They wait in a temporary file beside the list. The list appears when the body ends
    well, in one piece; what was there is replaced.

    Parameters
    ----------
    path
        The file.
    origin
        What is known of where they come from: plain values by name.

    Raises
    ------
    StorageError
        When the file system refuses.
    UsageError
        When the body ends without any centre.
    """

    def __init__(self, path: str | Path, *, origin: Mapping[str, Any]) -> None:
        self._path, self._origin = Path(path), dict(origin)
        self._seen: dict[str, ListedVolume] = {}
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        folder = existing_parent(self._path.absolute().parent)
        try:
            self._spill: IO[bytes] = self._stack.enter_context(tempfile.TemporaryFile(dir=folder))
        except OSError as error:
            raise storage_error("write in", folder, error) from error
        return self

    def add(
        self,
        names: tuple[str, ...],
        volumes: Int64[np.ndarray, "n"],
        *,
        centres: Int64[np.ndarray, "n 3"],
    ) -> None:
        """Take centres that come next.

        Parameters
        ----------
        names
            Of the volumes.
        volumes
            The volume of each centre, by its number among the names.
        centres
            z, y, x of each, in the volume's own frame.

        Raises
        ------
        GeometryError
            When a centre lies too far from the origin to be kept.
        StorageError
            When the file system refuses.
        """
        if not len(centres):
            return
        if int(centres.max()) > _LARGEST or int(centres.min()) < -_LARGEST:
            raise GeometryError(
                f"a centre lies beyond {_LARGEST} voxels from the origin, where no list reaches: "
                "give coordinates of the volume itself"
            )
        rows = np.empty((len(centres), _COLUMNS), "<i4")
        rows[:, 1:] = centres
        order = np.argsort(volumes, kind="stable")
        found, firsts = np.unique(volumes[order], return_index=True)
        ordered = centres[order]
        numbers = np.zeros(len(names), np.int64)
        for number, mine in zip(found.tolist(), np.split(ordered, firsts[1:]), strict=True):
            numbers[number] = self._note(names[number], mine)
        rows[:, 0] = numbers[volumes]
        try:
            self._spill.write(rows.data)
        except OSError as error:
            raise storage_error("write beside", self._path, error) from error
        self._count += len(rows)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        if not self._count:
            raise UsageError(
                f"there is no centre for {self._path}: check the files that they come from"
            )
        description = {
            "origin": self._origin,
            "volumes": [
                {
                    "name": volume.name,
                    "start_zyx": list(volume.box.start),
                    "stop_zyx": list(volume.box.stop),
                    "count": volume.count,
                }
                for volume in self._seen.values()
            ],
        }
        try:
            self._spill.flush()
            draws = np.memmap(self._spill, "<i4", "r", shape=(self._count, _COLUMNS))
        except OSError as refusal:
            raise storage_error("read beside", self._path, refusal) from refusal
        with making_folders(self._path.absolute().parent):
            write_archive(self._path, KIND, description=description, arrays={"draws": draws})
        del draws  # an open map would keep the temporary file on Windows

    def _note(self, name: str, centres: Int64[np.ndarray, "n 3"]) -> int:
        """Count centres of a volume; return its number."""
        low, high = zyx(centres.min(axis=0).tolist()), zyx((centres.max(axis=0) + 1).tolist())
        before = self._seen.get(name)
        if before is not None:
            low = _each(min, low, before.box.start)
            high = _each(max, high, before.box.stop)
        count = len(centres) + (0 if before is None else before.count)
        self._seen[name] = ListedVolume(name=name, box=Box(low, high), count=count)
        return list(self._seen).index(name)


def _each(choose: Any, a: Zyx, b: Zyx) -> Zyx:
    z, y, x = (int(choose(one, other)) for one, other in zip(a, b, strict=True))
    return (z, y, x)


def _volume(entry: Mapping[str, Any]) -> ListedVolume:
    box = Box(zyx(entry["start_zyx"]), zyx(entry["stop_zyx"]))
    return ListedVolume(name=str(entry["name"]), box=box, count=int(entry["count"]))
