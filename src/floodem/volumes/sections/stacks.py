"""Volumes as sections: a folder of PNG, JPEG or TIFF images.

Sections are taken in natural order of their names (z2 before z10); hidden files
are skipped. Only the sections a box needs are read. Each section that is written
carries the voxel size and its own position as JSON text (PNG: a text chunk named
``floodem``; TIFF: the image description), so that part of a folder still knows
where it lies. Sections may be written by several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import FloodemError, VolumeFormatError
from floodem.geometry import Box
from floodem.volumes.axes import TurnedVolume
from floodem.volumes.channels import choose_channel
from floodem.volumes.description import Description, read_text
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.sections import jpeg, png, tiff, tiff_creation, tiff_pages
from floodem.volumes.sections.creation import create_stack
from floodem.volumes.sections.names import Folder, gaps, ignored, list_folder, told_strangers
from floodem.volumes.sections.section import (
    Section,
    SectionKind,
    Window,
    in_threads,
)
from floodem.volumes.stored import StoredVolume, refuse_writing
from floodem.volumes.volume import Array, Volume

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


def _inspect_all(folder: Folder, kind: SectionKind) -> Section:
    """Describe the first section after checking that all others agree with it."""
    names = folder.sections
    sections: list[Section] = in_threads(
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
        request.channel,
        channels=first.channels,
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
            *told_strangers(folder.sections, uri=uri),
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
            f"axes (z, y, x): give the folder with all sections, {os.path.join(path.parent, '')}"
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
    return create_stack(request, _PNG)


def _create_jpeg(request: CreateRequest) -> Volume:
    raise VolumeFormatError(
        f"{request.location.uri}: jpeg loses detail, so it is read and not written: "
        "write PNG sections instead, as in png://sections"
    )


def _create_tiff(request: CreateRequest) -> Volume:
    if request.location.path.lower().endswith(_TIFF.extensions):
        return tiff_creation.create_pages(request)
    return create_stack(request, _TIFF)


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
    signatures=tiff.SIGNATURES,
    open=_open_tiff,
    create=_create_tiff,
)
