"""One PNG section: an image in a file in, a 2-D array (y, x) out, and back.

Grey images of 1 to 16 bit are read (fewer than 8 as the numbers they store: a mask
of 1 bit gives 0 and 1), and one channel of colour images of 8 bit. Grey images of 8
and 16 bit are written.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.volumes.damage import reading
from floodem.volumes.declared import BLOCK_KEY, require_plausible_deflate
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
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Array

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DTYPES = ("uint8", "uint16")

# PNG specification 11.2.2: colour types, and how many channels they have.
_GREY = 0
_PALETTE = 3
_CHANNELS = {_GREY: 1, 2: 3, 4: 2, 6: 4}
_DTYPE_OF_DEPTH: dict[int, np.dtype[Any]] = {
    **dict.fromkeys((1, 2, 4, 8), np.dtype(np.uint8)),
    16: np.dtype(np.uint16),
}
_SPREAD_OF_DEPTH = {2: 85, 4: 17}
"""What Pillow multiplies small depths by, to fill 8 bit."""

_HEADER_LENGTH = 13
# Descriptions are a few hundred bytes; anything longer is not ours.
_MAX_TEXT_BYTES = 65_536

# Measured on 4.7 million pixels of electron micrographs and of labels, one core: this writes
# 44 and 184 MB/s at ratios 1.32 and 35; Pillow's own choice 27 and 124 MB/s at 1.32 and 38.
_COMPRESS_LEVEL = 1
_RUN_LENGTH_STRATEGY = 3
"""Z_RLE in zlib.h."""


def inspect(path: Path) -> Section:
    """Read size, type and description from the header, without the pixels.

    Raises
    ------
    VolumeFormatError
        When it is no PNG of grey values or channels.
    """
    with refusals("read", str(path)), open(path, "rb") as handle:
        return _inspect(handle, path)[0]


def _inspect(handle: IO[bytes], path: Path) -> tuple[Section, int]:
    """Return what the header says, and the bits of one value."""
    if handle.read(len(SIGNATURE)) != SIGNATURE:
        raise damaged_image(path, "it does not begin like a PNG file")
    kind, length = _next_chunk(handle)
    header = handle.read(_HEADER_LENGTH)
    if kind != b"IHDR" or length != _HEADER_LENGTH or len(header) < _HEADER_LENGTH:
        raise damaged_image(path, "its header is missing")
    width, height, depth, colour = struct.unpack(">IIBB", header[:10])
    if colour == _PALETTE:
        raise palette_image(path)
    if colour not in _CHANNELS or depth not in _DTYPE_OF_DEPTH or not (width and height):
        raise damaged_image(
            path, f"{width} x {height} pixels of colour type {colour} with {depth} bit"
        )
    if colour != _GREY and depth != 8:
        raise VolumeFormatError(
            f"{path} is a colour image of {depth} bit, of which only 8 are read: "
            "save the sections as grey images, which may have 16"
        )
    handle.seek(4, 1)
    section = Section(
        shape=(height, width),
        dtype=_DTYPE_OF_DEPTH[depth],
        channels=_CHANNELS[colour],
        text=_find_text(handle),
    )
    return section, depth


def _next_chunk(handle: IO[bytes]) -> tuple[bytes, int]:
    head = handle.read(8)
    if len(head) < 8:
        return b"", 0
    return head[4:], int.from_bytes(head[:4], "big")


def _find_text(handle: IO[bytes]) -> str:
    """Return our text chunk, which stands before the pixels."""
    while True:
        kind, length = _next_chunk(handle)
        if kind in (b"", b"IDAT", b"IEND"):
            return ""
        if kind != b"tEXt" or length > _MAX_TEXT_BYTES:
            handle.seek(length + 4, 1)
            continue
        key, _, value = handle.read(length).partition(b"\0")
        handle.seek(4, 1)
        if key == BLOCK_KEY.encode():
            return value.decode("latin-1")


def _pillow(module: str) -> ModuleType:
    return require_package(module, purpose="a stack of PNG sections", install="pillow")


def read(path: Path, expected: Section, window: Window) -> Array:
    """Return the pixels (y, x) of a window.

    Raises
    ------
    VolumeFormatError
        When the file is damaged, cut short, or another than expected.
    UnsafeFileError
        When it declares more pixels than it can hold.
    """
    # Not Image.open: its limit on pixels is global, and below large sections.
    plugin = _pillow("PIL.PngImagePlugin")
    with refusals("read", str(path)), open(path, "rb") as handle:
        section, depth = _inspect(handle, path)
        if section != expected:
            raise changed(path)
        require_plausible_deflate(
            section.size_in_bytes * depth // (8 * section.dtype.itemsize),
            stored_bytes=handle.seek(0, 2),
            uri=str(path),
        )
        require_room(section, path)
        handle.seek(0)
        with reading(path, kind=IMAGE), plugin.PngImageFile(handle) as image:
            pixels = window.cut(np.asarray(image), section.dtype)
    return pixels // _SPREAD_OF_DEPTH.get(depth, 1) if depth in _SPREAD_OF_DEPTH else pixels


def write(path: Path, section: Array, text: str) -> None:
    """Write a section (y, x) of uint8 or uint16 with its description."""
    info = _pillow("PIL.PngImagePlugin").PngInfo()
    info.add_text(BLOCK_KEY, text)
    image = _pillow("PIL.Image").fromarray(np.ascontiguousarray(section))
    image.save(
        path,
        format="PNG",
        pnginfo=info,
        compress_level=_COMPRESS_LEVEL,
        compress_type=_RUN_LENGTH_STRATEGY,
    )
