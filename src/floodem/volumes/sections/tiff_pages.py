"""One TIFF file whose pages are the sections: a local or remote file in, a volume out.

Pixels that lie in one row in the file are mapped (local) or read by ranges
(remote); of packed ones only the strips and tiles that a box needs are unpacked.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from floodem.errors import UnsafeFileError, VolumeFormatError
from floodem.geometry import Box
from floodem.volumes.axes import Arrangement, arrange
from floodem.volumes.channels import choose_channel
from floodem.volumes.damage import reading
from floodem.volumes.declared import size_in_bytes
from floodem.volumes.description import Description
from floodem.volumes.registry import OpenRequest
from floodem.volumes.sections.section import IMAGE, Section, damaged_image
from floodem.volumes.sections.tiff import (
    describe,
    is_ome_in_several_files,
    open_file,
    tifffile_module,
)
from floodem.volumes.sections.tiff_axes import StoredAxes, stored_axes
from floodem.volumes.sections.tiff_imagej import read_description
from floodem.volumes.sections.tiff_segments import Cut, Place, Segments, Source
from floodem.volumes.servers import transport
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

# TIFF 6.0, PhotometricInterpretation: RGB, CMYK, YCbCr.
_COLOUR = (2, 5, 6)

_TOO_MANY_PIXELS = 2**62
"""Bytes that no file holds; numpy cannot count further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Where the pixels of a series are: in one row (`start`), or page by page."""

    axes: StoredAxes
    segments: Segments
    start: int | None
    places: Sequence[Place]

    @property
    def chunks(self) -> tuple[int, ...]:
        """For each stored axis, how many voxels are cheap to read: tiles, or whole pages."""
        in_page = {"rows": self.segments.height, "columns": self.segments.width}
        if self.segments.tile is not None:
            in_page = dict(zip(in_page, self.segments.tile, strict=True))
        lengths = (1,) * self.axes.leading + self.axes.shape[self.axes.leading :]
        at = self.axes.leading + (self.segments.planes > 1)
        return (*lengths[:at], *in_page.values(), *lengths[at + 2 :])

    def place(self, image: int) -> Place:
        """Return where the strips and tiles of one image lie."""
        if self.start is None:
            return self.places[image]
        size = self.segments.page_bytes
        return Place([self.start + image * size], [size])

    def read(self, index: Sequence[slice]) -> Array:
        """Return what lies at these slices, one for each stored axis."""
        leading = self.axes.leading
        over_pages, in_page = index[:leading], list(index[leading:])
        whole = slice(0, 1)
        cut = Cut(
            planes=in_page.pop(0) if self.segments.planes > 1 else whole,
            rows=in_page.pop(0),
            columns=in_page.pop(0),
            samples=in_page.pop(0) if self.segments.samples > 1 else whole,
        )
        images = np.ravel_multi_index(
            np.meshgrid(*[np.arange(one.start, one.stop) for one in over_pages], indexing="ij"),
            self.axes.shape[:leading],
        ).ravel()
        found = np.empty((len(images), *cut.shape), self.segments.dtype)
        for place, image in zip(found, images.tolist(), strict=True):
            place[...] = self.segments.read(self.place(image), cut)
        return found.reshape([one.stop - one.start for one in index])


class PagesVolume(StoredVolume):
    """One TIFF file with many pages that is read."""

    def __init__(
        self,
        stored: Pixels | Array,
        arrangement: Arrangement,
        *,
        opened: contextlib.ExitStack,
        **facts: Any,
    ) -> None:
        super().__init__(**facts)
        self._stored: Pixels | Array | None = stored
        self._arrangement = arrangement
        self._opened = opened

    def _read(self, box: Box) -> Array:
        assert self._stored is not None, "read after close"
        index = self._arrangement.index(box.slices(origin=self.offset))
        if isinstance(self._stored, np.ndarray):
            found = self._stored[index]
        else:
            slices = [one if isinstance(one, slice) else slice(one, one + 1) for one in index]
            with reading(self.uri, kind=IMAGE):
                found = self._stored.read(slices)
            found = found[tuple(slice(None) if isinstance(one, slice) else 0 for one in index)]
        return np.array(self._arrangement.turn(found), dtype=self.dtype, order="C")

    def _release(self) -> None:
        self._stored = None
        self._opened.close()


def open_pages(request: OpenRequest) -> Volume:
    """Open one TIFF file whose pages are the sections.

    Raises
    ------
    VolumeFormatError
        When it is damaged, in colour, a single image, or its pages differ.
    """
    refuse_writing(request)
    with contextlib.ExitStack() as opened:
        handle = opened.enter_context(_open(request))
        file = opened.enter_context(open_file(request.location.uri, handle))
        with reading(request.location.uri, kind=IMAGE):
            return _volume(file, request, opened)


def _open(request: OpenRequest) -> IO[bytes]:
    location = request.location
    if location.is_remote:
        return transport.open_file(location.path)
    with refusals("read", location.uri):
        return open(location.local, "rb")


def _volume(file: TiffFile, request: OpenRequest, opened: contextlib.ExitStack) -> Volume:
    uri = request.location.uri
    first = describe(file.pages.first, uri)
    if is_ome_in_several_files(file):
        raise VolumeFormatError(
            f"{uri} is one of several files of an OME-TIFF data set, which are not read together: "
            "save it as one file"
        )
    series = _series(file, first, uri)
    page = series.keyframe
    axes = stored_axes(series, page, uri=uri, is_named_by_user=request.axes is not None)
    _require_grey(request, page, first)
    ours = read_description(first.text, uri=uri)
    if math.prod(axes.shape[: axes.leading]) == 1 and ours is None and request.axes is None:
        raise VolumeFormatError(
            f"{uri} is a 2-D image ({first.shape[0]} x {first.shape[1]}), and a volume has three "
            "axes (z, y, x): put the sections into one folder and give that"
        )
    arrangement = arrange(
        axes.shape, uri=uri, channel=request.channel, asked=request.axes, declared=axes.names
    )
    source = Source(file.filehandle, uri)
    pixels = _pixels(series, axes, source)
    description = Description(voxel_size=first.voxel_size) if ours is None else ours
    stored: Pixels | Array = pixels
    if pixels.start is not None and not request.location.is_remote:
        stored = _mapped(request.location.local, pixels, page)
        file.close()
        opened.close()
    return PagesVolume(
        stored,
        arrangement,
        opened=opened.pop_all(),
        uri=uri,
        shape=arrangement.shape,
        dtype=first.dtype,
        chunks=arrangement.spatial(pixels.chunks),
        description=description,
        notices=tuple(filter(None, [axes.notice, first.notice, _other_series(file, uri)])),
    )


def _require_grey(request: OpenRequest, page: TiffPage, first: Section) -> None:
    """Refuse a colour image without a channel."""
    if page.photometric in _COLOUR:
        choose_channel(
            request.channel,
            channels=first.channels,
            path=request.location.uri,
            uri=request.location.uri,
            are_equal=lambda: False,
        )


def _series(file: TiffFile, first: Section, uri: str) -> TiffPageSeries:
    """Return the series of pages that is the volume."""
    _require_last_page(file, uri)
    if file.is_ome or file.is_imagej:
        found = file.series
        if not found:
            raise damaged_image(uri, "it has no pages")
        return found[0]
    # tifffile takes pages for equal after a look at some of them.
    pages = _equal_pages(file, first, uri)
    found = file.series
    if len(found) == len(pages):
        return _in_one(pages)
    return found[0]


def _in_one(pages: list[TiffPage]) -> TiffPageSeries:
    """Make one series of pages that their writer added one by one."""
    first = pages[0]
    series: TiffPageSeries = tifffile_module().TiffPageSeries(
        pages, (len(pages), *first.shape), first.dtype, f"I{first.axes}"
    )
    return series


def _other_series(file: TiffFile, uri: str) -> str:
    count = len(file.series)
    is_passed_over = count > 1 and count != len(file.pages)
    return f"{uri} holds {count} images: the first one is read" if is_passed_over else ""


def _equal_pages(file: TiffFile, first: Section, uri: str) -> list[TiffPage]:
    """Return all pages after checking that they are alike."""
    pages = [file.pages[index].aspage() for index in range(len(file.pages))]
    for index, page in enumerate(pages):
        other = describe(page, uri)
        if other != first:
            raise VolumeFormatError(
                f"page {index} of {uri} has {other.shape[0]} x {other.shape[1]} pixels (y,x) of "
                f"{other.dtype}, the first has {first.shape[0]} x {first.shape[1]} of "
                f"{first.dtype}: sections of one stack must be of one size and type"
            )
    return pages


def _require_last_page(file: TiffFile, uri: str) -> None:
    """Refuse a file whose chain of pages ends in nothing: tifffile would hand out the first ones.

    A page is a count of tags, the tags, and the offset of the next page, 0 for the last.
    """
    count = len(file.pages)
    start = file.pages[count - 1].offset
    layout, handle = file.tiff, file.filehandle
    handle.seek(start)
    (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(start + layout.tagnosize + tags * layout.tagsize)
    (next_page,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    if next_page:
        raise damaged_image(uri, f"page {count} lies beyond the end of the file")


def _pixels(series: TiffPageSeries, axes: StoredAxes, source: Source) -> Pixels:
    """Find out where the pixels are, and that they are there."""
    segments = Segments(series.keyframe, source)
    count = math.prod(axes.shape[: axes.leading])
    declared = size_in_bytes(axes.shape, segments.dtype)
    if declared > _TOO_MANY_PIXELS:
        raise UnsafeFileError(f"{source.path} declares {declared} bytes of pixels: it is damaged")
    start = series.dataoffset
    if start is not None:
        if start + declared > source.size:
            raise damaged_image(
                source.path,
                f"{declared} bytes of pixels are declared, {source.size - start} are there",
            )
        return Pixels(axes=axes, segments=segments, start=int(start), places=())
    pages = list(itertools.islice(series.pages, count + 1))
    places = [Place.of(one) for one in pages if one is not None]
    if len(places) != count:
        raise damaged_image(source.path, f"{count} pages are declared, {len(places)} are there")
    return Pixels(axes=axes, segments=segments, start=None, places=places)


def _mapped(path: Path, pixels: Pixels, page: TiffPage) -> Array:
    dtype = pixels.segments.dtype.newbyteorder(page.parent.byteorder)
    return np.memmap(path, dtype=dtype, mode="r", offset=pixels.start or 0, shape=pixels.axes.shape)
