"""The strips and tiles of TIFF pages: a window in, only the pieces it needs are read and unpacked.

tifffile knows how a piece is packed; where the pieces lie, how large they may
become and which are needed is decided here.
"""

from __future__ import annotations

import importlib
import io
import itertools
import math
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from floodem.errors import UnsafeFileError, VolumeFormatError
from floodem.memory import require_memory
from floodem.volumes.declared import require_plausible_deflate
from floodem.volumes.packages import require_package
from floodem.volumes.sections.jpeg import frame_of
from floodem.volumes.sections.section import damaged_image
from floodem.volumes.volume import UNCHECKED_BYTES, Array

if TYPE_CHECKING:
    from tifffile import TiffFrame, TiffPage

# TIFF 6.0 and its supplements, Compression.
_NONE = 1
_JPEG = 7
_DEFLATE = (8, 32946)
_KNOWN = {
    _NONE: "none",
    2: "CCITT RLE",
    3: "CCITT T.4",
    4: "CCITT T.6",
    5: "LZW",
    _JPEG: "JPEG",
    **dict.fromkeys(_DEFLATE, "deflate"),
    32773: "PackBits",
    34925: "LZMA",
    34926: "Zstandard",
    50000: "Zstandard",
}
"""Those whose pieces unpack to no more than their declared size."""

_WITHOUT_IMAGECODECS = (_NONE, *_DEFLATE)
_WHOLE_BYTES = (8, 16, 32, 64)


class Source:
    """An open file that several threads read from."""

    def __init__(self, handle: Any, path: Path | str) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self.path = path
        self.size = int(handle.seek(0, io.SEEK_END) or handle.tell())

    def read(self, start: int, count: int) -> bytes:
        """Return these bytes.

        Raises
        ------
        VolumeFormatError
            When they lie beyond the end of the file.
        """
        if start < 0 or count < 0 or start + count > self.size:
            raise damaged_image(
                self.path,
                f"bytes {start} to {start + count} hold pixels, and the file has {self.size}",
            )
        with self._lock:
            self._handle.seek(start)
            data: bytes = self._handle.read(count)
        if len(data) != count:
            raise damaged_image(self.path, f"{count} bytes were to be read, {len(data)} came")
        return data


@dataclass(frozen=True, slots=True)
class Place:
    """Where the strips or tiles of one page lie."""

    starts: Sequence[int]
    counts: Sequence[int]

    @classmethod
    def of(cls, page: TiffPage | TiffFrame) -> Self:
        """Take the place of a page from tifffile."""
        return cls(page.dataoffsets, page.databytecounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A part of a page: planes, rows, columns, and samples of a pixel."""

    planes: slice
    rows: slice
    columns: slice
    samples: slice

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths (plane, y, x, sample)."""
        planes, rows, columns, samples = (
            one.stop - one.start for one in (self.planes, self.rows, self.columns, self.samples)
        )
        return planes, rows, columns, samples


class Segments:
    """Reads windows of pages that are all made like one of them.

    Raises
    ------
    VolumeFormatError
        When they are packed in a way whose size is not known beforehand.
    DependencyError
        When unpacking needs a package that is not installed.
    """

    def __init__(self, page: TiffPage, source: Source) -> None:
        self._page = page
        self._source = source
        self.planes, depth, self.height, self.width, self.samples = page.shaped
        assert depth == 1, "refused when the page was described"
        self.dtype = np.dtype(page.dtype)
        self._stored_dtype = self.dtype.newbyteorder(page.parent.byteorder)
        if page.is_tiled:
            self._piece = (page.tilelength, page.tilewidth)
        else:
            self._piece = (min(page.rowsperstrip, self.height), self.width)
        if min(self._piece) < 1:
            raise damaged_image(source.path, f"pieces of {self._piece} pixels (y,x)")
        self._has_imagecodecs = _has_imagecodecs()
        self._require_unpackable()
        # Taken now, while one thread is here: tifffile makes them at the first use.
        self._decode = page.decode
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    @property
    def page_bytes(self) -> int:
        """What the pixels of one page take."""
        return self.planes * self.height * self.width * self.samples * int(self.dtype.itemsize)

    @property
    def tile(self) -> tuple[int, int] | None:
        """Size (y, x) of one tile, None for pages in strips."""
        return self._piece if self._page.is_tiled else None

    def _require_unpackable(self) -> None:
        path, packing = self._source.path, self._page.compression
        name = _KNOWN.get(packing)
        if name is None:
            raise VolumeFormatError(
                f"{path} is compressed in a way that is not read here (TIFF compression "
                f"{int(packing)}): save it with LZW, deflate or without compression"
            )
        if packing not in _WITHOUT_IMAGECODECS and not self._has_imagecodecs:
            require_package(
                "imagecodecs", purpose=f"{path}, compressed with {name},", install="floodem[tiff]"
            )

    def read(self, place: Place, cut: Cut) -> Array:
        """Return a part of a page as an array (plane, y, x, sample)."""
        if self._is_plain(place):
            return self._read_rows(place.starts[0], cut)[:, :, cut.columns, cut.samples]
        found = np.zeros(cut.shape, self.dtype)
        for at, plane in enumerate(range(cut.planes.start, cut.planes.stop)):
            self._read_pieces(found[at], place, plane, cut=cut)
        return found

    def _is_plain(self, place: Place) -> bool:
        """Tell whether the pixels of a page lie one after the other as they are."""
        page = self._page
        if (
            page.is_tiled
            or page.compression != _NONE
            or page.predictor != 1
            or page.fillorder != 1
            or page.bitspersample not in _WHOLE_BYTES
            or not place.starts
            or sum(place.counts) < self.page_bytes
        ):
            return False
        pieces = list(zip(place.starts, place.counts, strict=True))
        return all(a + count == b for (a, count), (b, _) in itertools.pairwise(pieces))

    def _read_rows(self, start: int, cut: Cut) -> Array:
        row_bytes = self.width * self.samples * self.dtype.itemsize
        planes, rows, _, _ = cut.shape
        self._require_memory(planes * rows * row_bytes)
        parts = [
            self._source.read(
                start + (plane * self.height + cut.rows.start) * row_bytes, rows * row_bytes
            )
            for plane in range(cut.planes.start, cut.planes.stop)
        ]
        return np.frombuffer(b"".join(parts), self._stored_dtype).reshape(
            planes, rows, self.width, self.samples
        )

    def _read_pieces(self, found: Array, place: Place, plane: int, *, cut: Cut) -> None:
        """Fill `found` (y, x, sample) from the strips or tiles of one plane."""
        rows, columns, samples = cut.rows, cut.columns, cut.samples
        height, width = self._piece
        across, down = math.ceil(self.width / width), math.ceil(self.height / height)
        for row in range(rows.start // height, math.ceil(rows.stop / height)):
            for column in range(columns.start // width, math.ceil(columns.stop / width)):
                piece = self._unpack(place, (plane * down + row) * across + column)
                if piece is None:
                    continue
                y0, x0 = row * height, column * width
                ys = slice(max(rows.start, y0), min(rows.stop, y0 + piece.shape[0]))
                xs = slice(max(columns.start, x0), min(columns.stop, x0 + piece.shape[1]))
                found[
                    ys.start - rows.start : ys.stop - rows.start,
                    xs.start - columns.start : xs.stop - columns.start,
                ] = piece[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0, samples]

    def _unpack(self, place: Place, index: int) -> Array | None:
        """Return one strip or tile (y, x, sample), or None for one that is left out."""
        if index >= min(len(place.starts), len(place.counts)):
            raise damaged_image(self._source.path, f"piece {index} of a page is missing")
        count = place.counts[index]
        if not count:
            return None
        height, width = self._piece
        unpacked = height * width * self.samples * self.dtype.itemsize
        self._require_memory(unpacked)
        data = self._source.read(place.starts[index], count)
        packing = self._page.compression
        if packing in _DEFLATE:
            require_plausible_deflate(unpacked, stored_bytes=count, uri=str(self._source.path))
            if not self._has_imagecodecs:
                data = _bounded(data, unpacked)
        if packing == _JPEG:
            self._require_honest_jpeg(data)
        piece: Array | None = self._decode(data, index, **self._tables)[0]
        return None if piece is None else piece[0]

    def _require_honest_jpeg(self, data: bytes) -> None:
        """Refuse a piece whose own header speaks of more pixels than the page's."""
        frame = frame_of(io.BytesIO(data))
        if frame is not None and (frame[1] > self._piece[0] or frame[2] > self._piece[1]):
            raise UnsafeFileError(
                f"{self._source.path} declares pieces of {self._piece[0]} x {self._piece[1]} "
                f"pixels, and one of them {frame[1]} x {frame[2]}: the file is damaged or made "
                "to exhaust memory"
            )

    def _require_memory(self, needed_bytes: int) -> None:
        if needed_bytes > UNCHECKED_BYTES:
            require_memory(
                needed_bytes=needed_bytes,
                purpose=f"reading {self._source.path}",
                remedy="save the sections in tiles",
            )


def _has_imagecodecs() -> bool:
    try:
        importlib.import_module("imagecodecs")
    except ImportError:
        return False
    return True


def _bounded(data: bytes, limit: int) -> bytes:
    """Cut off what deflated data hold beyond a limit: on its own tifffile unpacks all of it."""
    return zlib.compress(zlib.decompressobj().decompress(data, limit), level=0)
