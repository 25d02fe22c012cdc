"""Folders of sections in the making: a request in, a volume written by whole sections out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import GeometryError, VolumeFormatError
from floodem.files import PARTIAL_SUFFIX, remove_partial_files, sync_folder
from floodem.geometry import Box
from floodem.volumes.description import Description
from floodem.volumes.registry import CreateRequest
from floodem.volumes.sections.section import Section, SectionKind, Window, in_threads, sync_file
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume, refusals
from floodem.volumes.volume import Array, Volume

_MIN_NAME_DIGITS = 4


class NewStackVolume(StoredVolume):
    """A folder of sections in the making; sections never written are background.

    Each section appears under its name when it is whole. They are made durable
    together when the volume is closed, since waiting for the disk after each of
    them costs more than writing it. A resumed volume keeps the sections it finds.
    """

    def __init__(self, kind: SectionKind, **facts: Any) -> None:
        super().__init__(**facts)
        self._kind = kind
        self._written = np.zeros(self.shape[0], bool)
        assert self._staged is not None
        self._place = self._staged.path
        if self._staged.is_resumed:
            self._written[:] = in_threads(self._is_there, range(self.shape[0]))

    @property
    def section_names(self) -> tuple[str, ...]:
        """Names of the files, from the first section to the last."""
        digits = max(_MIN_NAME_DIGITS, len(str(self.shape[0] - 1)))
        extension = self._kind.extensions[0]
        return tuple(f"z{index:0{digits}d}{extension}" for index in range(self.shape[0]))

    def _path(self, index: int) -> Path:
        digits = max(_MIN_NAME_DIGITS, len(str(self.shape[0] - 1)))
        return self._place / f"z{index:0{digits}d}{self._kind.extensions[0]}"

    @property
    def _section(self) -> Section:
        return Section(shape=(self.shape[1], self.shape[2]), dtype=self.dtype)

    def _text(self, index: int) -> str:
        z, y, x = self.offset
        return Description(
            voxel_size=self.voxel_size, offset=(z + index, y, x), kind=self.kind
        ).text()

    def _is_there(self, index: int) -> bool:
        path = self._path(index)
        if not path.is_file():
            return False
        try:
            found = self._kind.inspect(path)
        except VolumeFormatError:
            return False
        return found == self._section and found.text == self._text(index)

    def _read(self, box: Box) -> Array:
        zs, ys, xs = box.slices(origin=self.offset)
        found = np.zeros(box.shape, self.dtype)
        window = Window(rows=ys, columns=xs)
        for place, index in zip(found, range(zs.start, zs.stop), strict=True):
            if self._written[index]:
                place[...] = self._kind.read(self._path(index), self._section, window)
        return found

    def _write(self, box: Box, array: Array) -> None:
        _, height, width = self.shape
        if box.shape[1:] != (height, width):
            raise GeometryError(
                f"box {box} covers part of its sections, and {self.uri} is written by whole "
                f"sections of {height} x {width} (y,x): write those, or choose a chunked format"
            )
        first = box.start[0] - self.offset[0]
        for index, section in enumerate(array, start=first):
            self._write_section(index, section)

    def _write_section(self, index: int, section: Array) -> None:
        assert self._kind.write is not None
        path = self._path(index)
        partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
        with refusals("write", self.uri):
            self._kind.write(partial, section, self._text(index))
            os.replace(partial, path)
        self._written[index] = True

    def _finish(self) -> None:
        background = np.zeros(self.shape[1:], self.dtype)
        for index in np.flatnonzero(~self._written):
            self._write_section(int(index), background)
        with refusals("write", self.uri):
            remove_partial_files(self._place)
            in_threads(lambda index: sync_file(self._path(index)), range(self.shape[0]))
            sync_folder(self._place)


def create_stack(request: CreateRequest, kind: SectionKind) -> Volume:
    """Create a folder of sections.

    Raises
    ------
    VolumeFormatError
        When such sections do not hold this type.
    DestinationExistsError
        When the folder exists and may not be replaced, or holds other things.
    """
    location = request.location
    if request.dtype.name not in kind.dtypes:
        raise VolumeFormatError(
            f"{location.uri}: {kind.name} sections hold {', '.join(kind.dtypes)}, not "
            f"{request.dtype}; "
            "choose one of these (convert --dtype, in Python dtype=) or another format"
        )

    def objection(folder: Path) -> str | None:
        strangers = [
            entry.name
            for entry in folder.iterdir()
            if entry.suffix.lower() not in kind.extensions and not entry.name.startswith(".")
        ]
        return f"also holds {strangers[0]}" if strangers else None

    staged = Staged(
        location.local,
        uri=location.uri,
        overwrite=request.overwrite,
        folder=True,
        work=request.work,
        objection=objection,
    )
    try:
        return NewStackVolume(
            kind,
            uri=location.uri,
            shape=request.shape,
            dtype=request.dtype,
            chunks=(1, *request.shape[1:]),
            description=request.description,
            writable=True,
            staged=staged,
        )
    except BaseException:
        staged.discard()
        raise
