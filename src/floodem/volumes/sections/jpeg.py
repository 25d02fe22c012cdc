"""One JPEG section: a grey image, or one channel of a colour image, in; an array (y, x) out.

JPEG loses detail, so it is read and never written.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.volumes.damage import reading
from floodem.volumes.packages import require_package
from floodem.volumes.sections.section import (
    IMAGE,
    Section,
    Window,
    changed,
    damaged_image,
    require_room,
)
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Array

# ITU-T T.81, table B.1: markers.
_START = b"\xff\xd8"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_SCAN, _END = 0xDA, 0xD9

_CMYK_CHANNELS = 4
_BITS = 8


def inspect(path: Path) -> Section:
    """Read size and channels from the header, without the pixels.

    Raises
    ------
    VolumeFormatError
        When it is no JPEG of 8 bit, grey or in colour.
    """
    with refusals("read", str(path)), open(path, "rb") as handle:
        return _inspect(handle, path)


def _inspect(handle: IO[bytes], path: Path) -> Section:
    frame = frame_of(handle)
    if frame is None:
        raise damaged_image(path, "it has no JPEG header")
    bits, height, width, channels = frame
    if channels == _CMYK_CHANNELS or bits != _BITS:
        raise VolumeFormatError(
            f"{path} is a JPEG of {channels} channels with {bits} bit, and grey or RGB with "
            f"{_BITS} is read: save the sections as PNG"
        )
    if not (height and width) or channels not in (1, 3):
        raise damaged_image(path, f"{width} x {height} pixels of {channels} channels")
    return Section(shape=(height, width), dtype=np.dtype(np.uint8), channels=channels)


def frame_of(handle: IO[bytes]) -> tuple[int, int, int, int] | None:
    """Return the bits, height, width and channels of a JPEG stream, None when it is none."""
    if handle.read(2) != _START:
        return None
    while True:
        lead = handle.read(1)
        if lead != b"\xff":
            return None
        while lead == b"\xff":
            lead = handle.read(1)
        if not lead or lead[0] in (_SCAN, _END):
            return None
        if lead[0] in _ALONE:
            continue
        length = int.from_bytes(handle.read(2), "big")
        if length < 2:
            return None
        if lead[0] in _FRAMES:
            facts = handle.read(6)
            if len(facts) < 6:
                return None
            bits, height, width, channels = struct.unpack(">BHHB", facts)
            return bits, height, width, channels
        handle.seek(length - 2, 1)


def _pillow() -> ModuleType:
    return require_package("PIL.JpegImagePlugin", purpose="a JPEG image", install="pillow")


def read(path: Path, expected: Section, window: Window) -> Array:
    """Return the pixels (y, x) of a window.

    Raises
    ------
    VolumeFormatError
        When the file is damaged, cut short, or another than expected.
    """
    plugin = _pillow()
    with refusals("read", str(path)), open(path, "rb") as handle:
        if _inspect(handle, path) != expected:
            raise changed(path)
        require_room(expected, path)
        handle.seek(0)
        with reading(path, kind=IMAGE), plugin.JpegImageFile(handle) as image:
            return window.cut(np.asarray(image), expected.dtype)
