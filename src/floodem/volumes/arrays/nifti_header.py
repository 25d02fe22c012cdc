"""What the header of a NIfTI file says: an open file in, a checked `Header` out, and back.

nibabel knows the fields; nothing it says is believed before it is held against
what a volume can be. NIfTI orders everything x, y, z; `Header` is z, y, x.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import IO, Any

import numpy as np

from floodem.errors import GeometryError, UnsafeFileError, VolumeFormatError
from floodem.geometry import FARTHEST_POSITION, VoxelSize, Zyx
from floodem.volumes.arrays.header import Header
from floodem.volumes.axes import SPATIAL
from floodem.volumes.declared import native_dtype
from floodem.volumes.description import Description, read_text
from floodem.volumes.packages import require_package
from floodem.volumes.volume import Array, Kind

NIFTI_FILE = "a NIfTI file"

# NIfTI-1 and NIfTI-2 standards (nifti1.h, nifti2.h).
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_FLAG_BYTES = 4
_EXTENSION_HEAD_BYTES = 8
_EXTENSION_STEP = 16
_COMMENT_CODE = 6
_LABEL_INTENT = 1002
_MAX_NIFTI1_LENGTH = 2**15 - 1
_NM_PER_UNIT = {"meter": 1e9, "mm": 1e6, "micron": 1e3}
_WRITTEN_UNIT = "micron"
_ALIGNED_CODE = 2
"""NIFTI_XFORM_ALIGNED_ANAT: coordinates aligned to something else, here the volume's own frame."""

_MAX_EXTENSION_BYTES = 2**26
"""DICOM headers that some programs copy into NIfTI have a few megabytes."""

_AXES_OF_NDIM = {3: SPATIAL, 4: f"c{SPATIAL}", 5: f"ct{SPATIAL}"}
"""NIfTI's dimensions are x, y, z, t, and then anything; a fourth one is read as channels."""

_FLOAT32_DIGITS = 6
_WHOLE_TOLERANCE = 1e-3
_WIDE_ITEMSIZE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiHeader(Header):
    """A NIfTI header, checked.

    Attributes
    ----------
    scale
        What stored values are multiplied by, and what is added.
    """

    scale: tuple[float, float]

    @property
    def volume_dtype(self) -> np.dtype[Any]:
        """Type of the values after scaling."""
        if self.scale == (1, 0):
            return self.dtype.newbyteorder("=")
        is_wide = self.dtype.itemsize > _WIDE_ITEMSIZE and self.dtype != np.dtype(np.float32)
        return np.dtype(np.float64 if is_wide else np.float32)

    def scaled(self, stored: Array) -> Array:
        """Return the values that stored ones stand for."""
        if self.scale == (1, 0):
            return stored
        slope, intercept = (self.volume_dtype.type(factor) for factor in self.scale)
        values: Array = stored.astype(self.volume_dtype) * slope + intercept
        return values


def _nibabel() -> ModuleType:
    return require_package("nibabel", purpose=NIFTI_FILE, install="nibabel")


def read_header(handle: IO[bytes], *, uri: str) -> NiftiHeader:
    """Read and check the header at the beginning of an open file.

    Raises
    ------
    VolumeFormatError
        When it is no NIfTI header, or one of something that is no volume.
    UnsafeFileError
        When it is absurdly long.
    """
    length_bytes = handle.read(4)
    sizes = (int.from_bytes(length_bytes, order) for order in ("little", "big"))
    length = next((size for size in sizes if size in _HEADER_BYTES), 0)
    if len(length_bytes) < 4 or not length:
        raise ValueError("it does not begin like one")
    # nibabel reads extensions without a limit: it is shown none.
    fixed = length_bytes + handle.read(length - 4)
    if len(fixed) < length:
        raise EOFError("its header is cut short")
    header = getattr(_nibabel(), _HEADER_BYTES[length]).from_fileobj(
        io.BytesIO(fixed + bytes(_FLAG_BYTES)), check=False
    )
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ValueError("its voxels are in another file (.hdr and .img); save it as .nii")
    start = _start(float(header["vox_offset"]), least=length + _FLAG_BYTES, uri=uri)
    notes: list[str] = []
    shape, axes, dtype, is_colour = _array(header, uri=uri)
    declared = _declared(header, notes, uri=uri)
    ours = _ours(handle.read(start - length), header.endianness, uri=uri)
    if ours is not None:
        notes.clear()
        if not _agree(ours, header):
            notes.append(
                f"{uri} was changed by another program since it was written: voxel size and "
                "offset are those of its header"
            )
            ours = replace(declared, kind=ours.kind)
    scale = _scale(header, uri=uri)
    if scale != (1, 0):
        notes.append(f"{uri} is scaled: its values are what is stored * {scale[0]} + {scale[1]}")
    return NiftiHeader(
        shape=shape,
        axes=axes,
        dtype=dtype,
        start=start,
        scale=scale,
        description=declared if ours is None else ours,
        is_colour=is_colour,
        notices=tuple(notes),
    )


def _start(declared: float, *, least: int, uri: str) -> int:
    if declared == 0:
        return least
    if not math.isfinite(declared) or declared < least or declared != int(declared):
        raise ValueError(f"its voxels begin at byte {declared:g}")
    if declared - least > _MAX_EXTENSION_BYTES:
        raise UnsafeFileError(
            f"{uri} declares {declared:.0f} bytes of header: the file is damaged or made to "
            "exhaust memory"
        )
    return int(declared)


def _array(header: Any, *, uri: str) -> tuple[tuple[int, ...], str, np.dtype[Any], bool]:
    """Return shape and axes in C order, type, and whether pixels are colours."""
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise ValueError(f"it declares {count} dimensions")
    lengths = [int(length) for length in header["dim"][1 : count + 1]]
    while len(lengths) > len(SPATIAL) and lengths[-1] == 1:
        lengths.pop()
    text = " x ".join(str(length) for length in lengths)
    if min(lengths) < 1:
        raise ValueError(f"it declares {text} voxels")
    if len(lengths) not in _AXES_OF_NDIM:
        raise VolumeFormatError(
            f"{uri} has {len(lengths)} dimensions (x, y, z, ...: {text}), and a volume has three: "
            "save one volume"
        )
    shape, axes = tuple(reversed(lengths)), _AXES_OF_NDIM[len(lengths)]
    nibabel = _nibabel()
    try:
        dtype = np.dtype(header.get_data_dtype())
    except nibabel.spatialimages.HeaderDataError as error:
        raise ValueError(error) from error
    if dtype.fields:
        if "c" in axes:
            raise VolumeFormatError(
                f"{uri} has {shape[0]} colour volumes, and a volume has one value per voxel: "
                "save one of them in grey"
            )
        return (*shape, len(dtype.fields)), f"{axes}c", np.dtype(np.uint8), True
    native_dtype(dtype, uri=uri)
    if dtype.itemsize > np.dtype(np.float64).itemsize:
        raise VolumeFormatError(f"{uri} holds {dtype} values: save it as float64 or less")
    return shape, axes, dtype, False


def _scale(header: Any, *, uri: str) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return (1, 0)
    intercept = 0 if math.isnan(intercept) else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise VolumeFormatError(
            f"{uri} declares that values are scaled by {slope} and {intercept}: it is damaged"
        )
    return slope, intercept


def _declared(header: Any, notes: list[str], *, uri: str) -> Description:
    """Read voxel size, offset and kind from the fields of the standard."""
    kind = Kind.LABELS if int(header["intent_code"]) == _LABEL_INTENT else None
    sizes = [float(size) for size in header["pixdim"][1:4]]
    try:
        unit = str(header.get_xyzt_units()[0])
    except KeyError:
        unit = "unknown"
    unit_nm = _NM_PER_UNIT.get(unit)
    voxel_size = None
    if unit_nm is not None:
        with contextlib.suppress(GeometryError):
            voxel_size = VoxelSize(*(_rounded(abs(size) * unit_nm) for size in reversed(sizes)))
    if voxel_size is None and set(map(abs, sizes)) != {1}:
        sized = ", ".join(f"{size:g}" for size in reversed(sizes))
        notes.append(f"{uri} gives the voxel size {sized} (z,y,x) in {unit} units: it is not used")
    return Description(
        voxel_size=voxel_size, kind=kind, offset=_offset(header, sizes, notes, uri=uri)
    )


def _rounded(size_nm: float) -> float:
    return float(f"{size_nm:.{_FLOAT32_DIGITS}g}")


def _offset(header: Any, sizes: Sequence[float], notes: list[str], *, uri: str) -> Zyx:
    """Read the position of the first voxel; between voxels the nearest one is taken."""
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        return (0, 0, 0)
    try:
        affine = np.asarray(header.get_best_affine(), float)
        if not np.isfinite(affine).all():
            raise ValueError
        is_straight = np.allclose(
            affine[:3, :3], np.diag(np.abs(sizes)), rtol=_WHOLE_TOLERANCE, atol=0
        )
    except (ValueError, np.linalg.LinAlgError):
        affine, is_straight = np.eye(4), False
    if not is_straight:
        notes.append(
            f"{uri} says that its axes are turned or mirrored in space: the voxels are taken as "
            "they are stored"
        )
        return (0, 0, 0)
    position = affine[:3, 3] / np.abs(sizes)
    whole = np.rint(position)
    is_whole = np.abs(position - whole).max() <= _WHOLE_TOLERANCE * max(1, np.abs(whole).max())
    if np.abs(whole).max() > FARTHEST_POSITION:
        notes.append(f"{uri} begins beyond {FARTHEST_POSITION} voxels: the offset is not used")
        return (0, 0, 0)
    if not is_whole:
        notes.append(f"{uri} begins between voxels: the nearest voxel is taken as its offset")
    x, y, z = (int(at) for at in whole)
    return (z, y, x)


def _ours(extensions: bytes, endianness: str, *, uri: str) -> Description | None:
    """Find our description among the extensions."""
    for code, content in _extensions(extensions, endianness):
        if code == _COMMENT_CODE:
            found = read_text(content.rstrip(b"\0").decode("utf-8", "replace"), uri=uri)
            if found is not None:
                return found
    return None


def _extensions(data: bytes, endianness: str) -> Iterator[tuple[int, bytes]]:
    """Take the extensions apart: size and code (int32), then content."""
    at = _FLAG_BYTES
    if data[:1] in (b"", b"\0"):
        return
    while at + _EXTENSION_HEAD_BYTES <= len(data):
        size, code = struct.unpack_from(f"{endianness}ii", data, at)
        if size < _EXTENSION_HEAD_BYTES or at + size > len(data):
            return
        yield code, data[at + _EXTENSION_HEAD_BYTES : at + size]
        at += size


def _agree(ours: Description, header: Any) -> bool:
    """Tell whether the standard fields are those that stand beside our description."""
    expected = _fields(ours)
    return all(np.array_equal(header[name], value) for name, value in expected.items())


def _fields(description: Description) -> dict[str, Any]:
    """Return what the standard fields say about a description, as float32 or float64."""
    micron = 1 / _NM_PER_UNIT[_WRITTEN_UNIT]
    size = description.voxel_size
    sizes = [size_nm * micron for size_nm in reversed(size.zyx_nm)] if size else [1.0, 1.0, 1.0]
    rows = np.zeros((3, 4))
    rows[:, :3] = np.diag(sizes)
    rows[:, 3] = np.multiply(sizes, description.offset[::-1])
    # Through the narrower type, in which version 1 keeps them.
    sizes = np.asarray([1, *sizes, 1, 1, 1, 1], np.float32).tolist()
    rows = rows.astype(np.float32).astype(float)
    return {"pixdim": sizes, "srow_x": rows[0], "srow_y": rows[1], "srow_z": rows[2]}


def header_bytes(shape: Zyx, dtype: np.dtype[Any], description: Description) -> bytes:
    """Return all that stands before the voxels of a new file."""
    is_small = max(shape) <= _MAX_NIFTI1_LENGTH
    length = next(size for size, name in _HEADER_BYTES.items() if ("1" in name) == is_small)
    header = getattr(_nibabel(), _HEADER_BYTES[length])(endianness="<")
    header.set_data_dtype(dtype)
    header["dim"] = [3, *reversed(shape), 1, 1, 1, 1]
    for name, value in _fields(description).items():
        header[name] = value
    header["sform_code"] = _ALIGNED_CODE
    header.set_xyzt_units(_WRITTEN_UNIT if description.voxel_size else "unknown")
    header["scl_slope"], header["scl_inter"] = 1, 0
    if description.kind is Kind.LABELS:
        header["intent_code"] = _LABEL_INTENT
    text = description.text().encode()
    size = -(-(_EXTENSION_HEAD_BYTES + len(text)) // _EXTENSION_STEP) * _EXTENSION_STEP
    start = length + _FLAG_BYTES + size
    header["vox_offset"] = start
    head = size.to_bytes(4, "little") + _COMMENT_CODE.to_bytes(4, "little")
    extension = (head + text).ljust(size, b"\0")
    return bytes(header.binaryblock) + b"\1\0\0\0" + extension
