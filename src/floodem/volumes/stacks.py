"""Volumes as sections: a folder of PNG, JPEG or TIFF images.

Sections are taken in natural order of their names (z2 before z10); hidden files
are skipped. Only the sections a box needs are read. Each section that is written
carries the voxel size and its own position as JSON text (PNG: a text chunk named
``floodem``; TIFF: the image description), so that part of a folder still knows
where it lies. Sections may be written by several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import FloodemError, GeometryError, VolumeFormatError
from floodem.files import PARTIAL_SUFFIX, remove_partial_files, sync_folder
from floodem.geometry import Box
from floodem.volumes import jpeg, png, tiff, tiff_create, tiff_pages
from floodem.volumes.axes import TurnedVolume
from floodem.volumes.description import Description, read_text
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.section import Section, Window, choose_channel, sync_file
from floodem.volumes.section_names import Folder, gaps, ignored, list_folder
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Volume

_MIN_NAME_DIGITS = 4
_THREADS = 8
"""For looking at thousands of small files, which is mostly waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionKind:
    """How one kind of section file is recognised, described, read and written."""

    name: str
    extensions: tuple[str, ...]
    dtypes: tuple[str, ...] = ()
    inspect: Callable[[Path], Section]
    read: Callable[[Path, Section, Window], Array]
    write: Callable[[Path, Array, str], None] | None = None


_PNG = SectionKind(
    name="png",
    extensions=(".png",),
    dtypes=png.DTYPES,
    inspect=png.inspect,
    read=png.read,
    write=png.write,
)
_JPEG = SectionKind(name="jpeg", extensions=(".jpg", ".jpeg"), inspect=jpeg.inspect, read=jpeg.read)
_TIFF = SectionKind(
    name="tiff",
    extensions=(".tif", ".tiff"),
    dtypes=tiff.DTYPES,
    inspect=tiff.inspect,
    read=tiff.read,
    write=tiff.write,
)
_KINDS = (_PNG, _JPEG, _TIFF)


class StackVolume(StoredVolume):
    """A folder of sections that is read.

    Attributes
    ----------
    section_names
        Names of the files, from the first section to the last.
    """

    def __init__(
        self, folder: Folder, kind: SectionKind, *, section: Section, channel: int, **facts: Any
    ) -> None:
        super().__init__(**facts)
        self.section_names = folder.sections
        self._folder = folder.path
        self._kind = kind
        self._section = section
        self._channel = channel

    def _read(self, box: Box) -> Array:
        zs, ys, xs = box.slices(origin=self.offset)
        window = Window(rows=ys, columns=xs, channel=self._channel)
        found = np.empty(box.shape, self.dtype)
        for place, name in zip(found, self.section_names[zs], strict=True):
            place[...] = self._kind.read(self._folder / name, self._section, window)
        return found


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
            self._written[:] = _in_threads(self._is_there, range(self.shape[0]))

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
            _in_threads(lambda index: sync_file(self._path(index)), range(self.shape[0]))
            sync_folder(self._place)


def _in_threads(call: Callable[[int], Any], indices: Iterable[int]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(call, indices))


def _inspect_all(folder: Folder, kind: SectionKind) -> Section:
    """Describe the first section after checking that all others agree with it."""
    names = folder.sections
    sections: list[Section] = _in_threads(
        lambda index: kind.inspect(folder.path / names[index]), range(len(names))
    )
    first = sections[0]
    for name, other in zip(names, sections, strict=True):
        path = folder.path / name
        if other.shape != first.shape:
            raise VolumeFormatError(
                f"{path} has {other.shape[0]} x {other.shape[1]} pixels (y,x) and {names[0]} "
                f"has {first.shape[0]} x {first.shape[1]}: sections of one stack must be of one "
                "size; crop or pad them"
            )
        if (other.dtype, other.channels) != (first.dtype, first.channels):
            raise VolumeFormatError(
                f"{path} holds {_type(other)} and {names[0]} holds {_type(first)}: "
                "sections of one stack must be of one type; convert them"
            )
    return first


def _type(section: Section) -> str:
    return f"{section.dtype}" + (f" in {section.channels} channels" * (section.channels > 1))


def _open_stack(request: OpenRequest, kind: SectionKind) -> Volume:
    uri = request.location.uri
    refuse_writing(request)
    folder = list_folder(request.location.local, kind.extensions)
    if not folder.sections:
        raise _no_sections(folder, kind, uri=uri)
    first = _inspect_all(folder, kind)
    path = folder.path / folder.sections[0]
    channel = choose_channel(
        first,
        request.channel,
        path=path,
        uri=uri,
        are_equal=lambda: _are_channels_equal(path, first, kind),
    )
    ours = read_text(first.text, uri=uri)
    return StackVolume(
        folder,
        kind,
        section=first,
        channel=channel,
        uri=uri,
        shape=(len(folder.sections), *first.shape),
        dtype=first.dtype,
        chunks=(1, *first.shape),
        description=Description(voxel_size=first.voxel_size) if ours is None else ours,
        notices=(
            *gaps(folder.sections, uri=uri),
            *ignored(folder, uri=uri),
            *filter(None, [first.notice]),
        ),
    )


def _are_channels_equal(path: Path, section: Section, kind: SectionKind) -> bool:
    """Tell whether the colours of a section are grey; alpha does not count."""
    if section.channels < len("rgb"):
        return False
    planes = [kind.read(path, section, Window(channel=channel)) for channel in range(len("rgb"))]
    return all(np.array_equal(planes[0], plane) for plane in planes[1:])


def _no_sections(folder: Folder, kind: SectionKind, *, uri: str) -> VolumeFormatError:
    below = [name for name in folder.folders if _sections_in(folder.path / name, (kind,))]
    if below:
        return VolumeFormatError(
            f"{uri} holds no {kind.name} sections itself, but its folder {below[0]} does: "
            f"give {folder.path / below[0]}"
        )
    return VolumeFormatError(f"{uri} holds no {kind.name} sections: check the address")


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


def _sections_in(path: Path, kinds: Sequence[SectionKind]) -> bool:
    endings = tuple(ending for kind in kinds for ending in kind.extensions)
    try:
        return bool(list_folder(path, endings).sections)
    except FloodemError:
        return False


def _holds_sections(path: Path, kind: SectionKind) -> bool:
    """Tell whether a folder holds sections, or else a folder in it does, to be told so."""
    if not path.is_dir():
        return False
    if _sections_in(path, (kind,)):
        return True
    if _sections_in(path, _KINDS):
        return False
    below = [name for name in list_folder(path, ()).folders if _sections_in(path / name, _KINDS)]
    return bool(below) and _sections_in(path / below[0], (kind,))


def _open_images(request: OpenRequest, kind: SectionKind) -> Volume:
    path = request.location.local
    if path.is_file():
        height, width = kind.inspect(path).shape
        raise VolumeFormatError(
            f"{request.location.uri} is a 2-D image ({height} x {width}), and a volume has three "
            f"axes (z, y, x): give the folder with all sections, {path.parent}"
        )
    return _open_stack(request, kind)


def _open_tiff(request: OpenRequest) -> Volume:
    if request.location.is_remote or request.location.local.is_file():
        return tiff_pages.open_pages(request)
    volume = _open_stack(request, _TIFF)
    return volume if request.axes is None else TurnedVolume(volume, asked=request.axes)


def _create_png(request: CreateRequest) -> Volume:
    if request.location.path.lower().endswith(_PNG.extensions):
        raise VolumeFormatError(
            f"{request.location.uri} names one image, and PNG holds one section a file: "
            "name a folder, as in png://sections"
        )
    return _create_stack(request, _PNG)


def _create_jpeg(request: CreateRequest) -> Volume:
    raise VolumeFormatError(
        f"{request.location.uri}: jpeg loses detail, so it is read and not written: "
        "write PNG sections instead, as in png://sections"
    )


def _create_tiff(request: CreateRequest) -> Volume:
    if request.location.path.lower().endswith(_TIFF.extensions):
        return tiff_create.create_pages(request)
    return _create_stack(request, _TIFF)


PNG = VolumeFormat(
    name="png",
    summary="folder of PNG sections, 8 or 16 bit",
    extensions=_PNG.extensions,
    options=frozenset({"work"}),
    recognises=lambda path: _holds_sections(path, _PNG),
    open=lambda request: _open_images(request, _PNG),
    create=_create_png,
)
JPEG = VolumeFormat(
    name="jpeg",
    summary="folder of JPEG sections, read only",
    extensions=_JPEG.extensions,
    keeps_position=False,
    recognises=lambda path: _holds_sections(path, _JPEG),
    open=lambda request: _open_images(request, _JPEG),
    create=_create_jpeg,
)
TIFF = VolumeFormat(
    name="tiff",
    summary="folder of TIFF sections, or one file of many pages",
    extensions=_TIFF.extensions,
    options=frozenset({"work"}),
    reads_axes=True,
    remote="read",
    recognises=lambda path: _holds_sections(path, _TIFF) or tiff.is_tiff(path),
    open=_open_tiff,
    create=_create_tiff,
)
