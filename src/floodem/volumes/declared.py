"""What a file declares, checked before anything trusts it or is allocated for it.

Declared shapes, types, channels, voxel sizes and offsets come in; facts a
`Volume` can stand on go out, or one sentence that says why not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from floodem.errors import GeometryError, OptionError, UnsafeFileError, VolumeFormatError
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes.volume import Kind

VOXEL_SIZE_KEY = "voxel_size_nm_zyx"
OFFSET_KEY = "offset_zyx"
KIND_KEY = "kind"
BLOCK_KEY = "floodem"
BLOCK_VERSION = 1

DEFAULT_CHUNKS: Zyx = (64, 64, 64)
"""A quarter of a megabyte of image: one field of view touches at most eight."""

NUMBER_DTYPES = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
)
"""Every type of voxel that a volume may have."""

VOLUME_NDIMS = (3, 4)
"""Axes z, y, x, or channel, z, y, x."""

DEFLATE_MAX_RATIO = 1032
"""Deflate turns this many bytes into one at best (zlib technical details)."""

_DEFLATE_SLACK_BYTES = 1024


def number_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a numpy type of whole or real numbers in native byte order.

    Raises
    ------
    OptionError
        When there is no such type.
    """
    try:
        kind = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise OptionError(
            f"{dtype!r} is no type of voxel: use for example uint8, uint64 or float32"
        ) from None
    if kind.kind not in "uif":
        raise OptionError(f"voxels of type {kind} are not numbers: use for example uint64")
    return kind


def fit_chunks(chunks: Zyx, *, shape: Zyx) -> Zyx:
    """Cut chunks at the volume's edges."""
    return (min(chunks[0], shape[0]), min(chunks[1], shape[1]), min(chunks[2], shape[2]))


def native_dtype(dtype: np.dtype[Any], *, uri: str) -> np.dtype[Any]:
    """Return the type as which voxels are handed out: native byte order, booleans as uint8.

    Raises
    ------
    VolumeFormatError
        When the file holds no real numbers.
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind not in "uif":
        raise VolumeFormatError(
            f"{uri} holds values of type {dtype}, not whole or real numbers: "
            "it cannot be used as a volume"
        )
    return dtype.newbyteorder("=")


def voxel_size_from(values: Any, *, uri: str) -> VoxelSize | None:
    """Read a voxel size (z, y, x in nm) from a file's attribute; None stays None.

    Raises
    ------
    VolumeFormatError
        When it is not three positive numbers.
    """
    if values is None:
        return None
    try:
        z, y, x = (float(value) for value in values)
        return VoxelSize(z, y, x)
    except (TypeError, ValueError, GeometryError):
        raise VolumeFormatError(
            f"{uri} declares the voxel size {values!r}: expected three positive numbers "
            "z, y, x in nanometres"
        ) from None


def offset_from(values: Any, *, uri: str) -> Zyx:
    """Read an offset (z, y, x in voxels) from a file's attribute; None is 0, 0, 0.

    Raises
    ------
    VolumeFormatError
        When it is not three whole numbers.
    """
    if values is None:
        return (0, 0, 0)
    try:
        z, y, x = (int(value) for value in values)
        if any(a != b for a, b in zip((z, y, x), values, strict=True)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise VolumeFormatError(
            f"{uri} declares the offset {values!r}: expected three whole numbers z, y, x in voxels"
        ) from None
    return (z, y, x)


def kind_from(value: Any, *, uri: str) -> Kind | None:
    """Read what a file says that its values mean; None stays None.

    Raises
    ------
    VolumeFormatError
        When it is neither ``image`` nor ``labels``.
    """
    try:
        return None if value is None else Kind(value)
    except ValueError:
        raise VolumeFormatError(
            f"{uri} declares the kind {value!r}: expected image or labels"
        ) from None


def require_plausible_deflate(declared_bytes: int, *, stored_bytes: int, uri: str) -> None:
    """Refuse deflated data that declare more than they can unpack to.

    Raises
    ------
    UnsafeFileError
        When the declared size is beyond what deflate can reach.
    """
    if declared_bytes > stored_bytes * DEFLATE_MAX_RATIO + _DEFLATE_SLACK_BYTES:
        raise UnsafeFileError(
            f"{uri} declares {declared_bytes} bytes but holds only {stored_bytes} compressed "
            "ones, which cannot unpack to that: the file is damaged or made to exhaust memory"
        )


def size_in_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Return how many bytes an array of this shape and type takes."""
    return math.prod(shape) * dtype.itemsize
