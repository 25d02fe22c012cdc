"""One PNG section: a grey image of 8 or 16 bit in a file in, a 2-D array (y, x) out, and back."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.memory import require_memory
from floodem.volumes.damage import reading
from floodem.volumes.declared import BLOCK_KEY, require_plausible_deflate
from floodem.volumes.packages import require_package
from floodem.volumes.section import IMAGE, Section, colour_image, damaged_image, sync_file
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Array

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DTYPES = ("uint8", "uint16")

# PNG specification 11.2.2: bit depth and colour type of grey images.
_GREY = 0
_DTYPE_OF_DEPTH: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16)}
_HEADER_LENGTH = 13
# Descriptions are a few hundred bytes; anything longer is not ours.
_MAX_TEXT_BYTES = 65_536


def inspect(path: Path) -> Section:
    """Read size, type and description from the header, without the pixels.

    Raises
    ------
    VolumeFormatError
        When it is no grey PNG of 8 or 16 bit.
    """
    with refusals("read", str(path)), open(path, "rb") as handle:
        if handle.read(len(SIGNATURE)) != SIGNATURE:
            raise damaged_image(path, "it does not begin like a PNG file")
        kind, length = _next_chunk(handle)
        header = handle.read(_HEADER_LENGTH)
        if kind != b"IHDR" or length != _HEADER_LENGTH or len(header) < _HEADER_LENGTH:
            raise damaged_image(path, "its header is missing")
        width, height, depth, colour = struct.unpack(">IIBB", header[:10])
        if colour != _GREY:
            raise colour_image(path)
        if depth not in _DTYPE_OF_DEPTH:
            raise VolumeFormatError(
                f"{path} has {depth} bit per pixel: save the sections with 8 or 16"
            )
        handle.seek(4, 1)
        text = _find_text(handle)
    return Section(shape=(height, width), dtype=_DTYPE_OF_DEPTH[depth], text=text)


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


def read(path: Path) -> Array:
    """Return the pixels (y, x).

    Raises
    ------
    VolumeFormatError
        When the file is damaged or cut short.
    UnsafeFileError
        When it declares more pixels than it can hold.
    """
    # Not Image.open: its limit on pixels is global, and below large sections.
    plugin = _pillow("PIL.PngImagePlugin")
    section = inspect(path)
    declared = section.shape[0] * section.shape[1] * section.dtype.itemsize
    require_plausible_deflate(declared, stored_bytes=path.stat().st_size, uri=str(path))
    require_memory(
        needed_bytes=declared, purpose=f"reading {path}", remedy="cut the sections into tiles"
    )
    with reading(path, kind=IMAGE), plugin.PngImageFile(path) as image:
        pixels = np.asarray(image)
    return np.ascontiguousarray(pixels, dtype=section.dtype)


def write(path: Path, section: Array, text: str) -> None:
    """Write a section (y, x) of uint8 or uint16 with its description."""
    info = _pillow("PIL.PngImagePlugin").PngInfo()
    info.add_text(BLOCK_KEY, text)
    image = _pillow("PIL.Image").fromarray(np.ascontiguousarray(section))
    image.save(path, format="PNG", pnginfo=info)
    sync_file(path)
