"""Volumes in Gatan's Digital Micrograph files, .dm3 and .dm4; read only.

The largest data set of a file is the volume (the others are thumbnails). ncempy
finds it in the tree of tags and reads no pixels for that. But it believes what it
reads, keeps every tag under its full name, and knows no limit, so that a small file
of deeply nested tags could take gigabytes; the limits are put around it here. The
voxels are mapped without it.
"""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path
from typing import IO, Any

import numpy as np

from floodem.errors import GeometryError, VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes.arrays.mapped_volume import MappedVolume, map_array
from floodem.volumes.axes import SPATIAL, arrange, turned
from floodem.volumes.damage import reading
from floodem.volumes.description import Description
from floodem.volumes.packages import require_package
from floodem.volumes.registry import OpenRequest, VolumeFormat
from floodem.volumes.stored import refusals, refuse_writing
from floodem.volumes.units import in_nm, nm_per
from floodem.volumes.volume import Array, Volume

DM_FILE = "a Digital Micrograph file"

# Version 3 or 4 (4 bytes), the length of the tags (4 or 8), the byte order, which is 1.
_LITTLE_ENDIAN = b"\0\0\0\1"
_BYTE_ORDER_PLACE = {b"\0\0\0\3": 8, b"\0\0\0\4": 12}
_DTYPE_OF_CODE = {
    1: "<i2",
    2: "<f4",
    6: "u1",
    7: "<i4",
    9: "i1",
    10: "<u2",
    11: "<u4",
    12: "<f8",
    14: "u1",
}
_COLOUR_CODE = 23
_FLOAT32_DIGITS = 6

_MAX_NAME_LENGTH = 4096
_MAX_TEXT_BYTES = 2**20
_MAX_TAG_BYTES = 2**26
"""Files of long series have some ten thousand tags with names of a hundred letters."""


def _recognises(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as handle:
                begin = handle.read(16)
            place = _BYTE_ORDER_PLACE.get(begin[:4])
            return place is not None and begin[place : place + 4] == _LITTLE_ENDIAN
    return False


@functools.cache
def _parser() -> Any:
    """Make ncempy's parser, with limits to the tags it keeps."""
    dm = require_package("ncempy.io.dm", purpose=DM_FILE, install="floodem[dm]")

    class Limited(dm.fileDM):  # type: ignore[misc, name-defined]
        """Stops where names or texts of tags grow beyond reason."""

        spent = 0

        def fromfile(self, file: IO[bytes], *, dtype: Any, count: int) -> Array:
            """Read numbers, all of them; numpy's own reader allocates before it looks."""
            kind = np.dtype(dtype)
            wanted = int(count) * kind.itemsize
            if wanted > _MAX_TEXT_BYTES:
                raise ValueError("one of its texts is too long")
            data = file.read(wanted)
            if len(data) < wanted:
                raise EOFError("its tags are cut short")
            return np.frombuffer(data, kind)

        def _readTagGroup(self) -> None:  # noqa: N802 - ncempy's name
            if len(self._curGroupNameAtLevelX) > _MAX_NAME_LENGTH:
                raise ValueError("the names of its tags are too long")
            super()._readTagGroup()

        def _storeTag(self, name: str, value: Any) -> Any:  # noqa: N802 - ncempy's name
            self.spent += len(self._curGroupNameAtLevelX) + len(name)
            if self.spent > _MAX_TAG_BYTES:
                raise ValueError("it has too many tags")
            return super()._storeTag(name, value)

    return Limited


def _open(request: OpenRequest) -> Volume:
    uri, path = request.location.uri, request.location.local
    refuse_writing(request)
    parser = _parser()
    with refusals("read", uri), open(path, "rb"):
        pass
    with reading(uri, kind=DM_FILE):
        if not _recognises(path):
            raise ValueError("it does not begin like one")
        # Counters of ncempy are 8 bits wide and overflow without harm.
        with np.errstate(over="ignore"):
            tags = _tags(parser, path)
        shape, description = _largest(tags, uri=uri)
        dtype = _dtype(tags["code"], uri=uri)
    mapped = map_array(path, shape, dtype, start=tags["start"], uri=uri)
    axes = SPATIAL if len(shape) == len(SPATIAL) else f"c{SPATIAL}"
    arrangement = arrange(
        shape, uri=uri, channel=request.channel, asked=request.axes, declared=axes
    )
    return MappedVolume(
        functools.partial(np.asanyarray, mapped),
        arrangement,
        uri=uri,
        dtype=dtype.newbyteorder("="),
        description=turned(description, arrangement, believed=SPATIAL),
    )


def _tags(parser: Any, path: Path) -> dict[str, Any]:
    """Return what the file says about its largest data set, axes ordered x, y, z."""
    with open(path, "rb") as handle:
        try:
            file = parser(handle)
        except AssertionError as error:
            # ncempy's way of saying that a tag does not begin like one.
            raise ValueError("a tag does not begin like one") from error
        lengths_xyz = [
            [int(length) for length in one]
            for one in zip(file.xSize, file.ySize, file.zSize, file.zSize2, strict=True)
        ]
        if not lengths_xyz:
            raise ValueError("it holds no data")
        at = max(range(len(lengths_xyz)), key=lambda index: math.prod(lengths_xyz[index]))
        first = sum(int(count) for count in file.dataShape[:at])
        calibrated = slice(first, first + int(file.dataShape[at]))
        return {
            "lengths_xyz": lengths_xyz[at][: int(file.dataShape[at])],
            "code": int(file.dataType[at]),
            "start": int(file.dataOffset[at]),
            "sizes_xyz": [float(size) for size in file.scale[calibrated]],
            "units_xyz": [str(unit) for unit in file.scaleUnit[calibrated]],
        }


def _largest(tags: dict[str, Any], *, uri: str) -> tuple[tuple[int, ...], Description]:
    """Return shape (C order) and description of the data set."""
    lengths = tags["lengths_xyz"]
    text = " x ".join(str(length) for length in reversed(lengths))
    if min(lengths) < 1 or tags["start"] < 0:
        raise ValueError(f"it declares {text} voxels at byte {tags['start']}")
    if tags["code"] == _COLOUR_CODE:
        raise VolumeFormatError(
            f"{uri} is a colour image, and a volume has one value per voxel: save it in grey"
        )
    if len(lengths) < len(SPATIAL):
        raise VolumeFormatError(
            f"{uri} is a 2-D image ({text}), and a volume has three axes (z, y, x): save the "
            "sections as TIFF into one folder and give that"
        )
    return tuple(reversed(lengths)), Description(voxel_size=_voxel_size(tags))


def _voxel_size(tags: dict[str, Any]) -> VoxelSize | None:
    """Read the calibration, None where it is not of three lengths."""
    sizes = [
        (size, nm_per(unit.replace("\0", "")))
        for size, unit in zip(tags["sizes_xyz"], tags["units_xyz"], strict=False)
    ][: len(SPATIAL)]
    if len(sizes) < len(SPATIAL):
        return None
    in_order = [
        float(f"{in_nm(abs(size), unit_nm):.{_FLOAT32_DIGITS}g}")
        for size, unit_nm in reversed(sizes)
        if unit_nm is not None
    ]
    try:
        z, y, x = in_order
        return VoxelSize(z, y, x)
    except (ValueError, GeometryError):
        return None


def _dtype(code: int, *, uri: str) -> np.dtype[Any]:
    if code not in _DTYPE_OF_CODE:
        raise VolumeFormatError(
            f"{uri} holds values of Digital Micrograph's type {code}, not whole or real numbers: "
            "save it as one of those"
        )
    return np.dtype(_DTYPE_OF_CODE[code])


DM = VolumeFormat(
    name="dm",
    summary="Digital Micrograph file (.dm3, .dm4), read only",
    extensions=(".dm3", ".dm4"),
    reads_axes=True,
    recognises=_recognises,
    open=_open,
)
