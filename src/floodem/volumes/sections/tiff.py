"""TIFF files and sections: an image file in, a description or an array (y, x) out, and back.

What stands here serves both a folder with one section a file and, with the modules
``tiff_pages``, ``tiff_axes`` and ``tiff_creation``, one file with many pages.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes.damage import reading
from floodem.volumes.declared import native_dtype
from floodem.volumes.description import read_text
from floodem.volumes.packages import require_package
from floodem.volumes.sections.section import (
    IMAGE,
    Section,
    Window,
    changed,
    damaged_image,
    palette_image,
    require_room,
)
from floodem.volumes.sections.tiff_axes import voxel_size_of
from floodem.volumes.sections.tiff_segments import Cut, Place, Segments, Source
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Array

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# TIFF 6.0, PhotometricInterpretation.
_MIN_IS_WHITE = 0
_PALETTE = 3

_NM_PER_CM = 1e7


def is_tiff(path: Path) -> bool:
    """Tell whether a file begins like a TIFF file."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as handle:
                return handle.read(4) in SIGNATURES
    return False


def tifffile_module() -> ModuleType:
    """Import tifffile.

    Raises
    ------
    DependencyError
        When it is not installed.
    """
    return require_package("tifffile", purpose="a TIFF file", install="tifffile")


def open_file(path: Path | str, handle: IO[bytes]) -> TiffFile:
    """Read the first header of an open file.

    Raises
    ------
    VolumeFormatError
        When it is no TIFF file.
    """
    tifffile = tifffile_module()
    with reading(path, kind=IMAGE):
        # Without this the metadata of OME could name other files to be opened.
        file: TiffFile = tifffile.TiffFile(handle, _multifile=False)
        if not file.pages:
            raise ValueError("it has no pages")
        return file


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TiffFile]:
    """Open a TIFF file, turning tifffile's many errors into one sentence."""
    with refusals("read", str(path)):
        handle = open(path, "rb")  # noqa: SIM115 - closed below
    with handle, open_file(path, handle) as file, reading(path, kind=IMAGE):
        yield file


def describe(page: TiffPage, path: Path | str) -> Section:
    """Say what a page holds.

    Raises
    ------
    VolumeFormatError
        When it is a palette image, or damaged.
    """
    if page.photometric == _PALETTE:
        raise palette_image(path)
    # Tags of damaged files hold long lists where one number is meant.
    lengths: tuple[Any, ...] = (page.imagelength, page.imagewidth, page.samplesperpixel)
    are_counts = all(isinstance(length, int) and length > 0 for length in lengths)
    if not are_counts or page.dtype is None or len(page.shape) < 2 or page.imagedepth != 1:
        raise damaged_image(path, f"pages of shape {page.shape} and type {page.dtype}")
    dtype = np.dtype(page.dtype)
    if dtype.kind == "f" and dtype.itemsize < np.dtype(np.float32).itemsize:
        dtype = np.dtype(np.float32)
    return Section(
        shape=(page.imagelength, page.imagewidth),
        dtype=native_dtype(dtype, uri=str(path)),
        channels=page.samplesperpixel,
        text=page.description,
        voxel_size=voxel_size_of(page),
        notice=f"{path} says that 0 is white (MinIsWhite): the values are taken as they are stored"
        if page.photometric == _MIN_IS_WHITE
        else "",
    )


def inspect(path: Path) -> Section:
    """Read size, type and description of a file with one page, without its pixels.

    Raises
    ------
    VolumeFormatError
        When it is no TIFF file of one page.
    """
    with opened(path) as file:
        if len(file.pages) != 1:
            raise VolumeFormatError(
                f"{path} has {len(file.pages)} pages in a folder of sections: "
                "give the file itself, or a folder whose files have one page each"
            )
        return describe(file.pages.first, path)


def read(path: Path, expected: Section, window: Window) -> Array:
    """Return the pixels (y, x) of a window in a file with one page.

    Raises
    ------
    VolumeFormatError
        When the file is damaged, cut short, or another than expected.
    """
    with opened(path) as file:
        page = file.pages.first
        if describe(page, path) != expected:
            raise changed(path)
        require_room(expected, path)
        segments = Segments(page, Source(file.filehandle, path))
        channel = slice(window.channel, window.channel + 1)
        whole = slice(0, 1)
        is_planar = segments.planes > 1
        pixels = segments.read(
            Place.of(page),
            Cut(
                planes=channel if is_planar else whole,
                rows=slice(*window.rows.indices(expected.shape[0])[:2]),
                columns=slice(*window.columns.indices(expected.shape[1])[:2]),
                samples=whole if is_planar else channel,
            ),
        )
        return np.ascontiguousarray(pixels[0, :, :, 0], dtype=expected.dtype)


def resolution_per_cm(voxel_size: VoxelSize | None) -> dict[str, Any]:
    """Return what tifffile is to write into the tags of resolution: pixels per centimetre."""
    if voxel_size is None:
        return {}
    _, y_nm, x_nm = voxel_size.zyx_nm
    return {
        "resolution": (_NM_PER_CM / x_nm, _NM_PER_CM / y_nm),
        "resolutionunit": "CENTIMETER",
    }


def write(path: Path, section: Array, text: str) -> None:
    """Write a section (y, x), deflated, with its description and resolution."""
    ours = read_text(text, uri=str(path))
    tifffile_module().imwrite(
        path,
        np.ascontiguousarray(section),
        compression="zlib",
        photometric="minisblack",
        description=text,
        metadata=None,
        **resolution_per_cm(None if ours is None else ours.voxel_size),
    )


def is_ome_in_several_files(file: TiffFile) -> bool:
    """Tell whether the metadata of an OME-TIFF file name other files than this one."""
    xml = file.ome_metadata or ""
    if re.search(r"<(?:\w+:)?BinaryOnly\b", xml):
        return True
    ours = re.search(r"<(?:\w+:)?OME\b[^>]*\bUUID\s*=\s*[\"']([^\"']+)", xml)
    named = {uuid.strip() for uuid in re.findall(r"<(?:\w+:)?UUID\b[^>]*>([^<]*)<", xml)}
    return len(named | ({ours[1]} if ours else set())) > 1
