"""What the header of an MRC file says: 1024 bytes in, a checked `Header` out, and back.

The layout of the fields is mrcfile's; what old programs and IMOD write besides the
MRC2014 standard is read here. MRC orders everything x, y, z; `Header` is z, y, x.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import IO, Any, Literal

import numpy as np

from floodem.errors import GeometryError, VolumeFormatError
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes.arrays.header import Header
from floodem.volumes.axes import SPATIAL
from floodem.volumes.declared import BLOCK_KEY
from floodem.volumes.description import Description, read_text
from floodem.volumes.packages import require_package

MRC_FILE = "an MRC file"

# MRC2014 (Cheng et al. 2015, J. Struct. Biol. 192:146) and the IMOD MRC2 format.
HEADER_BYTES = 1024
SIGNATURE_PLACE = 208
SIGNATURE = b"MAP"
_DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_COLOUR_MODE = 16
_REFUSED_MODES = {3: "complex int16", 4: "complex float32", 101: "4-bit"}
_BIG_STAMPS = (b"\x11\x11",)
_VOLUME_STACKS = range(401, 631)
_VOLUME_GROUP = 1
_IMOD_PLACE = 152
_IMOD_STAMP = 1146047817
_IMOD_SIGNED_BYTES = 1
_IMOD_HALF_BYTES = 16
_UNSIGNED_FROM = 128
_NM_PER_ANGSTROM = 0.1
_UNKNOWN_SIZE_NM = (_NM_PER_ANGSTROM,) * 3
"""One Angstrom a voxel is what programs write that do not know the size."""

_VERSION = 20141
_LABEL_BYTES = 80
_LABELS = 10
_LITTLE_MACHINE = (0x44, 0x44, 0, 0)
_UNDETERMINED = {"dmin": 0, "dmax": -1, "dmean": -2, "rms": -1}
"""What MRC2014 writes for statistics that nobody has computed."""

FARTHEST = 2**31 - 1
"""Lengths and starts are int32."""

_FLOAT32_DIGITS = 6
_OUR_LABEL = f'{{"{BLOCK_KEY}":'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw:
    """A header as bytes, in its byte order, and as fields."""

    data: bytes
    order: Literal["<", ">"]
    fields: Any


def _layout() -> np.dtype[Any]:
    dtypes: ModuleType = require_package("mrcfile.dtypes", purpose=MRC_FILE, install="mrcfile")
    layout: np.dtype[Any] = dtypes.HEADER_DTYPE
    return layout


def read_header(handle: IO[bytes], *, uri: str) -> Header:
    """Read and check the header at the beginning of an open file.

    Raises
    ------
    VolumeFormatError
        When the values are of a type that a volume cannot hold.
    ValueError, EOFError
        When it is no MRC header.
    """
    data = handle.read(HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        raise EOFError("its header is cut short")
    order = _byte_order(data)
    fields = np.frombuffer(data, _layout().newbyteorder(order))[0]
    raw = _Raw(data=data, order=order, fields=fields)
    mode = int(fields["mode"])
    if mode in _REFUSED_MODES:
        raise VolumeFormatError(
            f"{uri} holds {_REFUSED_MODES[mode]} values (MRC mode {mode}), not whole or real "
            "numbers of 8 bit or more: convert it with the program that wrote it"
        )
    names = _names(fields)
    stored = _shape(fields)
    notes: list[str] = []
    description = _description(raw, names, notes, uri=uri)
    is_colour = mode == _COLOUR_MODE
    start = HEADER_BYTES + int(fields["nsymbt"])
    if start < HEADER_BYTES:
        raise ValueError(f"its extended header has {start - HEADER_BYTES} bytes")
    axes = names if len(stored) == len(SPATIAL) else f"c{names}"
    if is_colour and len(stored) > len(SPATIAL):
        raise VolumeFormatError(f"{uri} is a stack of colour volumes: save one of them in grey")
    dtype = np.dtype("u1") if is_colour else _dtype(raw, notes, uri=uri)
    return Header(
        shape=(*stored, 3) if is_colour else stored,
        axes=f"{axes}c" if is_colour else axes,
        dtype=dtype,
        start=start,
        description=description,
        is_colour=is_colour,
        notices=tuple(notes),
    )


def _byte_order(data: bytes) -> Literal["<", ">"]:
    """Tell the byte order by the machine stamp, and without one by which numbers make sense."""
    stamp = data[212:214]
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    if stamp in _BIG_STAMPS:
        orders = (">", "<")
    for order in orders:
        nx, ny, nz, mode = struct.unpack_from(f"{order}4i", data)
        known = mode in _DTYPE_OF_MODE or mode in _REFUSED_MODES or mode == _COLOUR_MODE
        if known and min(nx, ny, nz) > 0:
            return order
    nx, ny, nz, mode = struct.unpack_from(f"{orders[0]}4i", data)
    raise ValueError(f"it declares {nx} x {ny} x {nz} voxels (x,y,z) of mode {mode}")


def _names(fields: Any) -> str:
    """Name the stored axes: sections, rows, columns."""
    numbers = [int(fields[name]) for name in ("maps", "mapr", "mapc")]
    if numbers == [0, 0, 0]:
        return SPATIAL
    if sorted(numbers) != [1, 2, 3]:
        raise ValueError(f"its axes are numbered {numbers} (sections, rows, columns)")
    return "".join("xyz"[number - 1] for number in numbers)


def _shape(fields: Any) -> tuple[int, ...]:
    nz, ny, nx = (int(fields[name]) for name in ("nz", "ny", "nx"))
    if int(fields["ispg"]) not in _VOLUME_STACKS:
        return nz, ny, nx
    depth = int(fields["mz"])
    if depth < 1 or nz % depth:
        raise ValueError(f"its {nz} sections are no whole number of volumes with {depth} each")
    return nz // depth, depth, ny, nx


def _dtype(raw: _Raw, notes: list[str], *, uri: str) -> np.dtype[Any]:
    mode = int(raw.fields["mode"])
    if mode == 0 and not _has_signed_bytes(raw, notes, uri=uri):
        return np.dtype("u1")
    return np.dtype(raw.order + _DTYPE_OF_MODE[mode])


def _has_signed_bytes(raw: _Raw, notes: list[str], *, uri: str) -> bool:
    """Tell whether bytes are signed, as MRC2014 says, or not, as IMOD wrote for long."""
    stamp, flags = struct.unpack_from(f"{raw.order}2i", raw.data, _IMOD_PLACE)
    if stamp == _IMOD_STAMP:
        if flags & _IMOD_HALF_BYTES:
            raise VolumeFormatError(
                f"{uri} holds 4-bit values: convert it with the program that wrote it"
            )
        return bool(flags & _IMOD_SIGNED_BYTES)
    least, most = float(raw.fields["dmin"]), float(raw.fields["dmax"])
    if least >= 0 and most >= _UNSIGNED_FROM:
        notes.append(f"{uri} says that its signed bytes reach {most:g}: they are taken as unsigned")
        return False
    return True


def _description(raw: _Raw, names: str, notes: list[str], *, uri: str) -> Description:
    """Read voxel size and offset, from our labels where the fields agree with them."""
    fields = raw.fields
    counts = (fields["mz"], fields["my"], fields["mx"])
    cells = (fields["cella"][letter] for letter in SPATIAL)
    sizes = [
        float(f"{float(cell) / int(count) * _NM_PER_ANGSTROM:.{_FLOAT32_DIGITS}g}") if count else 0
        for cell, count in zip(cells, counts, strict=True)
    ]
    try:
        voxel_size = None if tuple(sizes) == _UNKNOWN_SIZE_NM else VoxelSize(*sizes)
    except GeometryError:
        voxel_size = None
        if any(sizes):
            notes.append(f"{uri} gives the voxel size {sizes} nm (z,y,x): it is not used")
    # Starts count columns, rows and sections, whatever those are called.
    starts = dict(zip(names, ("nzstart", "nystart", "nxstart"), strict=True))
    z, y, x = (int(fields[starts[letter]]) for letter in SPATIAL)
    declared = Description(voxel_size=voxel_size, offset=(z, y, x))
    ours = _ours(raw.data, uri=uri)
    if ours is None:
        return declared
    if _is_near(ours, declared):
        return ours
    notes.append(
        f"{uri} was changed by another program since it was written: voxel size and offset are "
        "those of its header"
    )
    return Description(voxel_size=voxel_size, offset=declared.offset, kind=ours.kind)


def _ours(data: bytes, *, uri: str) -> Description | None:
    """Find our description in the labels, over as many as it takes."""
    text = data[HEADER_BYTES - _LABELS * _LABEL_BYTES :].decode("latin-1")
    begin = text.find(_OUR_LABEL)
    if begin < 0 or begin % _LABEL_BYTES:
        return None
    end = text.find("}}", begin) + len("}}")
    return read_text(text[begin:end], uri=uri)


def _is_near(ours: Description, declared: Description) -> bool:
    """Tell whether the fields are those that stand beside our description."""
    size, other = (
        one.voxel_size.zyx_nm if one.voxel_size else _UNKNOWN_SIZE_NM for one in (ours, declared)
    )
    tolerance = 10.0 ** (1 - _FLOAT32_DIGITS)
    return _start(ours) == declared.offset and bool(
        np.allclose(size, other, rtol=tolerance, atol=0)
    )


def _start(description: Description) -> Zyx:
    """Return what of an offset the fields can hold."""
    is_held = max(map(abs, description.offset)) <= FARTHEST
    return description.offset if is_held else (0, 0, 0)


def header_bytes(shape: Zyx, dtype: np.dtype[Any], description: Description) -> bytes:
    """Return the header of a new file; one that mrcfile calls valid."""
    header = np.zeros((), _layout().newbyteorder("<"))
    mode = next(mode for mode, name in _DTYPE_OF_MODE.items() if np.dtype(name) == dtype)
    size = description.voxel_size.zyx_nm if description.voxel_size else _UNKNOWN_SIZE_NM
    text = json.dumps({BLOCK_KEY: description.block()}, separators=(",", ":"))
    labels = [text[at : at + _LABEL_BYTES] for at in range(0, len(text), _LABEL_BYTES)]
    values: Mapping[str, Any] = {
        "mode": mode,
        "mapc": 1,
        "mapr": 2,
        "maps": 3,
        "ispg": _VOLUME_GROUP,
        "nversion": _VERSION,
        "map": SIGNATURE + b" ",
        "machst": _LITTLE_MACHINE,
        "nlabl": len(labels),
        **_UNDETERMINED,
    }
    for name, value in values.items():
        header[name] = value
    for letter, length, start, size_nm in zip(
        SPATIAL, shape, _start(description), size, strict=True
    ):
        header[f"n{letter}"] = header[f"m{letter}"] = length
        header[f"n{letter}start"] = start
        header["cella"][letter] = length * size_nm / _NM_PER_ANGSTROM
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    for at, label in enumerate(labels):
        header["label"][at] = label.encode("ascii")
    return header.tobytes()
