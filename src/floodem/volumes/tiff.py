"""TIFF sections: grey images in files or pages in, arrays (y, x) out, and back.

One file with many pages is a volume of its own; ours are uncompressed, so that
boxes can be written in any order.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.errors import DependencyError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.memory import require_memory
from floodem.volumes.damage import reading
from floodem.volumes.declared import (
    native_dtype,
    require_plausible_deflate,
    size_in_bytes,
)
from floodem.volumes.description import Description, read_text
from floodem.volumes.packages import require_package
from floodem.volumes.rawfile import RawArrayFile
from floodem.volumes.registry import CreateRequest, OpenRequest
from floodem.volumes.section import IMAGE, Section, colour_image, damaged_image, sync_file
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NM_PER_UNIT = {
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "\\u00B5m": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
}


def is_tiff(path: Path) -> bool:
    """Tell whether a file begins like a TIFF file."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as handle:
                return handle.read(4) in _SIGNATURES
    return False


def _tifffile() -> ModuleType:
    return require_package("tifffile", purpose="a TIFF file", install="tifffile")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TiffFile]:
    """Open a TIFF file, turning tifffile's many errors into one sentence."""
    tifffile = _tifffile()
    with refusals("read", str(path)), open(path, "rb"):
        pass
    with reading(path, kind=IMAGE):
        try:
            with tifffile.TiffFile(path) as file:
                yield file
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise DependencyError(
                f"{path} is compressed in a way that needs another package: pip install imagecodecs"
            ) from error


def _describe(page: TiffPage, path: Path) -> Section:
    if page.samplesperpixel != 1 or page.photometric in (2, 3):
        raise colour_image(path)
    if page.dtype is None or len(page.shape) != 2:
        raise damaged_image(path, f"pages of shape {page.shape} and type {page.dtype}")
    height, width = page.shape
    return Section(
        shape=(height, width),
        dtype=native_dtype(page.dtype, uri=str(path)),
        text=page.description,
        voxel_size=_imagej_voxel_size(page),
    )


def _imagej_voxel_size(page: TiffPage) -> VoxelSize | None:
    """Read the calibration that ImageJ keeps: a unit, pixels per unit, spacing of sections."""
    if not page.description.startswith("ImageJ="):
        return None
    facts = dict(line.split("=", 1) for line in page.description.splitlines() if "=" in line)
    unit_nm = _NM_PER_UNIT.get(facts.get("unit", "").strip())
    per_unit = [page.tags.valueof(name) for name in ("YResolution", "XResolution")]
    if unit_nm is None or "spacing" not in facts or None in per_unit:
        return None
    try:
        (y_over, y_under), (x_over, x_under) = per_unit
        spacing = float(facts["spacing"])
        return VoxelSize(spacing * unit_nm, unit_nm * y_under / y_over, unit_nm * x_under / x_over)
    except (ValueError, ZeroDivisionError, TypeError):
        return None


def inspect(path: Path) -> Section:
    """Read size, type and description of a file with one page, without its pixels.

    Raises
    ------
    VolumeFormatError
        When it is no grey TIFF file of one page.
    """
    with _opened(path) as file:
        if len(file.pages) != 1:
            raise VolumeFormatError(
                f"{path} has {len(file.pages)} pages in a folder of sections: "
                "give the file itself, or a folder whose files have one page each"
            )
        return _describe(file.pages.first, path)


def _read_page(page: TiffPage, path: Path) -> Array:
    declared = size_in_bytes(page.shape, np.dtype(page.dtype))
    stored = sum(page.databytecounts)
    if page.compression == 1 and stored < declared:
        raise damaged_image(path, f"{declared} bytes of pixels are declared, {stored} are there")
    require_plausible_deflate(declared, stored_bytes=stored, uri=str(path))
    require_memory(
        needed_bytes=declared, purpose=f"reading {path}", remedy="cut the sections into tiles"
    )
    pixels: Array = page.asarray()
    return pixels


def read(path: Path) -> Array:
    """Return the pixels (y, x) of a file with one page.

    Raises
    ------
    VolumeFormatError
        When the file is damaged or cut short.
    """
    with _opened(path) as file:
        page = file.pages.first
        dtype = native_dtype(np.dtype(page.dtype), uri=str(path))
        return np.ascontiguousarray(_read_page(page, path), dtype=dtype)


def write(path: Path, section: Array, text: str) -> None:
    """Write a section (y, x), deflated, with its description."""
    _tifffile().imwrite(
        path,
        np.ascontiguousarray(section),
        compression="zlib",
        photometric="minisblack",
        description=text,
        metadata=None,
    )
    sync_file(path)


class PagesVolume(StoredVolume):
    """One TIFF file with many pages that is read."""

    def __init__(self, path: Path, contiguous_start: int | None, **facts: Any) -> None:
        super().__init__(**facts)
        self._path = path
        self._contiguous_start = contiguous_start

    def _read(self, box: Box) -> Array:
        zs, ys, xs = box.slices(origin=self.offset)
        found = np.empty(box.shape, self.dtype)
        with _opened(self._path) as file:
            if self._contiguous_start is not None:
                mapped = self._map(file)
                found[...] = mapped[zs, ys, xs]
                return found
            for place, index in zip(found, range(zs.start, zs.stop), strict=True):
                place[...] = _read_page(_page(file, index), self._path)[ys, xs]
        return found

    def _map(self, file: TiffFile) -> Array:
        return np.memmap(
            self._path,
            dtype=self.dtype.newbyteorder(file.byteorder),
            mode="r",
            offset=self._contiguous_start or 0,
            shape=self.shape,
        )


def _page(file: TiffFile, index: int) -> TiffPage:
    page = file.pages[index]
    # tifffile hands out light frames for later pages; ours are all whole pages.
    return page.aspage()


def open_pages(request: OpenRequest) -> Volume:
    """Open one TIFF file whose pages are the sections.

    Raises
    ------
    VolumeFormatError
        When it is damaged, in colour, a single image, or its pages differ.
    """
    uri = request.location.uri
    path = request.location.local
    refuse_writing(request)
    with _opened(path) as file:
        first = _describe(file.pages.first, path)
        ours = read_text(first.text, uri=uri)
        start, count = _extent(file, first, path)
        if count == 1 and ours is None:
            raise VolumeFormatError(
                f"{uri} is a 2-D image ({first.shape[0]} x {first.shape[1]}), and a volume has "
                "three axes (z, y, x): put the sections into one folder and give that"
            )
    return PagesVolume(
        path,
        start,
        uri=uri,
        shape=(count, *first.shape),
        dtype=first.dtype,
        chunks=(1, *first.shape),
        description=Description(voxel_size=first.voxel_size) if ours is None else ours,
    )


def _require_last_page(file: TiffFile, path: Path) -> None:
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
        raise damaged_image(path, f"page {count} lies beyond the end of the file")


def _extent(file: TiffFile, first: Section, path: Path) -> tuple[int | None, int]:
    """Return where contiguous voxels begin, or None, and the number of sections."""
    _require_last_page(file, path)
    series = file.series[0]
    grey = tuple(length for length in series.shape if length != 1) or (1,)
    if series.dataoffset is not None and len(file.series) == 1 and not series.is_multifile:
        sections = size_in_bytes(series.shape, first.dtype) // size_in_bytes(
            first.shape, first.dtype
        )
        needed = series.dataoffset + sections * size_in_bytes(first.shape, first.dtype)
        if needed > path.stat().st_size:
            raise damaged_image(path, f"{needed} bytes are declared, {path.stat().st_size} there")
        if sections > 1 and len(grey) > 3:
            raise VolumeFormatError(
                f"{path} has the axes {series.axes} of lengths {series.shape}: "
                "save one channel and one time point with axes z, y, x"
            )
        return series.dataoffset, sections
    for index in range(1, len(file.pages)):
        other = _describe(_page(file, index), path)
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise VolumeFormatError(
                f"page {index} of {path} has {other.shape[0]} x {other.shape[1]} pixels (y,x) of "
                f"{other.dtype}, the first has {first.shape[0]} x {first.shape[1]} of "
                f"{first.dtype}: sections of one stack must be of one size and type"
            )
    return None, len(file.pages)


class NewPagesVolume(StoredVolume):
    """One TIFF file in the making: boxes are written where they belong."""

    def __init__(self, raw: RawArrayFile, **facts: Any) -> None:
        super().__init__(**facts)
        self._raw = raw

    def _local(self, box: Box) -> Box:
        z, y, x = self.offset
        return box.translate((-z, -y, -x))

    def _read(self, box: Box) -> Array:
        return self._raw.read(self._local(box))

    def _write(self, box: Box, array: Array) -> None:
        self._raw.write(self._local(box), array)

    def _release(self) -> None:
        self._raw.close()


def create_pages(request: CreateRequest) -> Volume:
    """Create one TIFF file with a page per section.

    Raises
    ------
    VolumeFormatError
        When TIFF does not hold this type.
    """
    location = request.location
    if request.dtype.name not in DTYPES:
        raise VolumeFormatError(
            f"{location.uri}: tiff files hold {', '.join(DTYPES)}, not {request.dtype}; "
            "choose one of these (convert --dtype, in Python dtype=) or another format"
        )
    staged = Staged(location.local, uri=location.uri, overwrite=request.overwrite, folder=False)
    try:
        with refusals("write", location.uri):
            start = _write_empty_pages(staged.path, request)
            handle = open(staged.path, "rb+")  # noqa: SIM115 - closed by the volume
    except BaseException:
        staged.discard()
        raise
    raw = RawArrayFile(
        handle, start=start, shape=request.shape, dtype=request.dtype, uri=location.uri
    )
    return NewPagesVolume(
        raw,
        uri=location.uri,
        shape=request.shape,
        dtype=request.dtype,
        chunks=(1, *request.shape[1:]),
        description=request.description,
        writable=True,
        staged=staged,
    )


def _write_empty_pages(path: Path, request: CreateRequest) -> int:
    """Write the headers of all pages and room for their pixels; return where those begin."""
    place = _tifffile().imwrite(
        path,
        shape=request.shape,
        dtype=request.dtype,
        photometric="minisblack",
        description=request.description.text(),
        metadata=None,
        contiguous=True,
        returnoffset=True,
    )
    assert place is not None
    return int(place[0])
