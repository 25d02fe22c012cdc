"""Volumes as sections: a folder of PNG or TIFF images, or one TIFF file with many pages.

Sections are taken in natural order of their names (z2 before z10); hidden files
are skipped. Only the sections a box needs are read. Each section carries the
voxel size and its own position as JSON text (PNG: a text chunk named
``floodem``; TIFF: the image description), so that part of a folder still knows
where it lies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import GeometryError, OptionError, VolumeFormatError
from floodem.geometry import Box
from floodem.volumes import png, tiff
from floodem.volumes.description import Description, read_text
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.section import Section
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Volume

_DIGITS = re.compile(r"(\d+)")
_MIN_NAME_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionKind:
    """How one kind of section file is recognised, described, read and written."""

    name: str
    extensions: tuple[str, ...]
    dtypes: tuple[str, ...]
    inspect: Callable[[Path], Section]
    read: Callable[[Path], Array]
    write: Callable[[Path, Array, str], None]


_PNG = SectionKind(
    name="png",
    extensions=(".png",),
    dtypes=png.DTYPES,
    inspect=png.inspect,
    read=png.read,
    write=png.write,
)
_TIFF = SectionKind(
    name="tiff",
    extensions=(".tif", ".tiff"),
    dtypes=tiff.DTYPES,
    inspect=tiff.inspect,
    read=tiff.read,
    write=tiff.write,
)


def natural_order(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Return a sort key by which z2 comes before z10, whatever the case of letters."""
    parts = _DIGITS.split(name.casefold())
    key: list[tuple[int, int | str]] = [
        (0, int(part)) if part.isdecimal() else (1, part) for part in parts if part
    ]
    return key, name


def section_paths(folder: Path, extensions: Sequence[str]) -> list[Path]:
    """List the sections in a folder in natural order, without hidden files."""
    with refusals("read", str(folder)):
        found = [
            entry
            for entry in folder.iterdir()
            if entry.suffix.lower() in extensions
            and not entry.name.startswith(".")
            and entry.is_file()
        ]
    return sorted(found, key=lambda path: natural_order(path.name))


class StackVolume(StoredVolume):
    """A folder of sections that is read."""

    def __init__(self, paths: Sequence[Path], kind: SectionKind, **facts: Any) -> None:
        super().__init__(**facts)
        self._paths = paths
        self._kind = kind

    def _read(self, box: Box) -> Array:
        zs, ys, xs = box.slices(origin=self.offset)
        found = np.empty(box.shape, self.dtype)
        for place, path in zip(found, self._paths[zs], strict=True):
            section = self._kind.read(path)
            if section.shape != self.shape[1:] or section.dtype != self.dtype:
                raise VolumeFormatError(f"{path} has changed since {self.uri} was opened")
            place[...] = section[ys, xs]
        return found


class NewStackVolume(StoredVolume):
    """A folder of sections in the making; sections never written are background."""

    def __init__(self, kind: SectionKind, **facts: Any) -> None:
        super().__init__(**facts)
        self._kind = kind
        self._written = np.zeros(self.shape[0], bool)

    def _path(self, index: int) -> Path:
        assert self._staged is not None
        digits = max(_MIN_NAME_DIGITS, len(str(self.shape[0] - 1)))
        return self._staged.path / f"z{index:0{digits}d}{self._kind.extensions[0]}"

    def _read(self, box: Box) -> Array:
        zs, ys, xs = box.slices(origin=self.offset)
        found = np.zeros(box.shape, self.dtype)
        for place, index in zip(found, range(zs.start, zs.stop), strict=True):
            if self._written[index]:
                place[...] = self._kind.read(self._path(index))[ys, xs]
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
        z, y, x = self.offset
        text = Description(
            voxel_size=self.voxel_size, offset=(z + index, y, x), kind=self.kind
        ).text()
        with refusals("write", self.uri):
            self._kind.write(self._path(index), section, text)
        self._written[index] = True

    def _finish(self) -> None:
        background = np.zeros(self.shape[1:], self.dtype)
        for index in np.flatnonzero(~self._written):
            self._write_section(int(index), background)


def _inspect_all(paths: Sequence[Path], kind: SectionKind) -> Section:
    """Describe the first section after checking that all others agree with it."""
    first = kind.inspect(paths[0])
    for path in paths[1:]:
        other = kind.inspect(path)
        if other.shape != first.shape:
            raise VolumeFormatError(
                f"{path} has {other.shape[0]} x {other.shape[1]} pixels (y,x) and {paths[0].name} "
                f"has {first.shape[0]} x {first.shape[1]}: sections of one stack must be of one "
                "size; crop or pad them"
            )
        if other.dtype != first.dtype:
            raise VolumeFormatError(
                f"{path} holds {other.dtype} and {paths[0].name} holds {first.dtype}: "
                "sections of one stack must be of one type; convert them"
            )
    return first


def refuse_channel(request: OpenRequest) -> None:
    """Refuse a channel of a format that has only one."""
    if request.channel:
        raise OptionError(
            f"{request.location.uri} has no channel {request.channel}: sections are grey images"
        )


def _open_stack(request: OpenRequest, kind: SectionKind) -> Volume:
    uri = request.location.uri
    folder = request.location.local
    refuse_channel(request)
    refuse_writing(request)
    paths = section_paths(folder, kind.extensions)
    if not paths:
        raise VolumeFormatError(f"{uri} holds no {kind.name} sections: check the address")
    first = _inspect_all(paths, kind)
    ours = read_text(first.text, uri=uri)
    return StackVolume(
        paths,
        kind,
        uri=uri,
        shape=(len(paths), *first.shape),
        dtype=first.dtype,
        chunks=(1, *first.shape),
        description=Description(voxel_size=first.voxel_size) if ours is None else ours,
    )


def _create_stack(request: CreateRequest, kind: SectionKind) -> Volume:
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

    return NewStackVolume(
        kind,
        uri=location.uri,
        shape=request.shape,
        dtype=request.dtype,
        chunks=(1, *request.shape[1:]),
        description=request.description,
        writable=True,
        staged=Staged(
            location.local,
            uri=location.uri,
            overwrite=request.overwrite,
            folder=True,
            objection=objection,
        ),
    )


def _holds_sections(path: Path, kind: SectionKind) -> bool:
    return path.is_dir() and bool(section_paths(path, kind.extensions))


def _open_png(request: OpenRequest) -> Volume:
    path = request.location.local
    if path.is_file():
        height, width = png.inspect(path).shape
        raise VolumeFormatError(
            f"{request.location.uri} is a 2-D image ({height} x {width}), and a volume has three "
            f"axes (z, y, x): give the folder with all sections, {path.parent}"
        )
    return _open_stack(request, _PNG)


def _open_tiff(request: OpenRequest) -> Volume:
    if request.location.local.is_file():
        refuse_channel(request)
        return tiff.open_pages(request)
    return _open_stack(request, _TIFF)


def _create_png(request: CreateRequest) -> Volume:
    if request.location.path.lower().endswith(_PNG.extensions):
        raise VolumeFormatError(
            f"{request.location.uri} names one image, and PNG holds one section a file: "
            "name a folder, as in png://sections"
        )
    return _create_stack(request, _PNG)


def _create_tiff(request: CreateRequest) -> Volume:
    if request.location.path.lower().endswith(_TIFF.extensions):
        return tiff.create_pages(request)
    return _create_stack(request, _TIFF)


PNG = VolumeFormat(
    name="png",
    summary="folder of PNG sections, 8 or 16 bit",
    extensions=_PNG.extensions,
    recognises=lambda path: _holds_sections(path, _PNG),
    open=_open_png,
    create=_create_png,
)
TIFF = VolumeFormat(
    name="tiff",
    summary="folder of TIFF sections, or one file of many pages",
    extensions=_TIFF.extensions,
    recognises=lambda path: _holds_sections(path, _TIFF) or tiff.is_tiff(path),
    open=_open_tiff,
    create=_create_tiff,
)
