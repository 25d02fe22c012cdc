"""Digital Micrograph files, written as far as readers look: a tree of tags around arrays.

A file is a version, lengths, and one group. A group counts its tags; a tag is a
group (20) or a value (21) behind its name. Numbers that describe the tree are big
endian, 4 bytes wide in version 3 and 8 in version 4; values are little endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"u1": 8, "i2": 2, "i4": 3, "u2": 4, "u4": 5, "f4": 6, "f8": 7, "i1": 9}
DATA_TYPES = {"i2": 1, "f4": 2, "u1": 6, "i4": 7, "i1": 9, "u2": 10, "u4": 11, "f8": 12}


def image(
    array: np.ndarray, *, sizes_xyz: tuple[float, ...], units: tuple[str, ...], code: int = 0
) -> dict[str, Any]:
    """Return the tags of one image; the array is ordered z, y, x."""
    dimensions = [
        {"Origin": np.float32(0), "Scale": np.float32(size), "Units": unit}
        for size, unit in zip(sizes_xyz, units, strict=True)
    ]
    brightness = {"Origin": np.float32(0), "Scale": np.float32(1), "Units": ""}
    return {
        "ImageData": {
            "Calibrations": {"Brightness": brightness, "Dimension": dimensions},
            "Data": array,
            "DataType": np.uint32(code or DATA_TYPES[array.dtype.str[1:]]),
            "Dimensions": [np.uint32(length) for length in reversed(array.shape)],
            "PixelDepth": np.uint32(array.itemsize),
        },
        "Name": "image",
    }


def write_dm(
    path: Path,
    array: np.ndarray,
    *,
    version: int = 3,
    sizes_xyz: tuple[float, ...] = (4, 6, 30),
    units: tuple[str, ...] = ("nm", "nm", "nm"),
    has_thumbnail: bool = True,
    code: int = 0,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write a file with one image, behind a thumbnail as Digital Micrograph does."""
    thumbnail = image(np.zeros((2, 3), np.int32), sizes_xyz=(1, 1), units=("", ""), code=23)
    images = [thumbnail] if has_thumbnail else []
    images.append(image(array, sizes_xyz=sizes_xyz, units=units, code=code))
    body = _group({**(more or {}), "ImageList": images}, version)
    wide = ">Q" if version == 4 else ">I"
    head = struct.pack(">I", version) + struct.pack(wide, len(body)) + struct.pack(">I", 1)
    path.write_bytes(head + body + bytes(8))
    return path


def _group(tags: dict[str, Any] | list[Any], version: int) -> bytes:
    named = list(tags.items()) if isinstance(tags, dict) else [("", tag) for tag in tags]
    entries = b"".join(_tag(name, value, version) for name, value in named)
    return b"\1\0" + _number(len(named), version) + entries


def _tag(name: str, value: Any, version: int) -> bytes:
    is_group = isinstance(value, dict | list)
    label = struct.pack(">BH", 20 if is_group else 21, len(name)) + name.encode("latin-1")
    content = _group(value, version) if is_group else _value(value, version)
    length = struct.pack(">Q", len(content)) if version == 4 else b""
    return label + length + content


def _value(value: Any, version: int) -> bytes:
    if isinstance(value, str):
        value = np.frombuffer(value.encode("utf-16-le"), np.uint16)
    number = TYPES[np.asarray(value).dtype.str[1:]]
    info = [20, number, value.size] if isinstance(value, np.ndarray) else [number]
    numbers = b"".join(_number(part, version) for part in (len(info), *info))
    return b"%%%%" + numbers + np.asarray(value).tobytes()


def _number(value: int, version: int) -> bytes:
    return struct.pack(">Q" if version == 4 else ">I", value)
