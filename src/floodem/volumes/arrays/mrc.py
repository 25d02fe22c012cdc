"""Volumes in MRC files (.mrc, .map, .rec, .st), as microscopes and IMOD write them.

The voxels are mapped. Voxel size (Angstrom) and start (whole voxels) are float32 and
int32 in the header; our exact description stands in its text labels. MRC has no
unsigned bytes: uint8 is read where IMOD says so, and not written.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.volumes.arrays.mapped_volume import MappedVolume, map_array
from floodem.volumes.arrays.mrc_header import (
    FARTHEST,
    MRC_FILE,
    SIGNATURE,
    SIGNATURE_PLACE,
    header_bytes,
    read_header,
)
from floodem.volumes.arrays.raw_volume import create_raw
from floodem.volumes.axes import SPATIAL, turned
from floodem.volumes.damage import reading
from floodem.volumes.declared import size_in_bytes
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.stored import refusals, refuse_writing
from floodem.volumes.volume import Volume

DTYPES = ("int16", "uint16", "int8", "float32")


def _recognises(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as handle:
                handle.seek(SIGNATURE_PLACE)
                return handle.read(len(SIGNATURE)) == SIGNATURE
    return False


def _open(request: OpenRequest) -> Volume:
    uri, path = request.location.uri, request.location.local
    refuse_writing(request)
    with refusals("read", uri):
        handle = open(path, "rb")  # noqa: SIM115 - closed below
    with handle, reading(uri, kind=MRC_FILE):
        header = read_header(handle, uri=uri)
    mapped = map_array(path, header.shape, header.dtype, start=header.start, uri=uri)
    arrangement = header.arranged(request)
    believed = "".join(letter for letter in header.axes if letter in SPATIAL)
    is_half = header.dtype.itemsize == np.dtype(np.float16).itemsize and header.dtype.kind == "f"
    return MappedVolume(
        functools.partial(np.asanyarray, mapped),
        arrangement,
        uri=uri,
        dtype=np.dtype(np.float32) if is_half else header.dtype.newbyteorder("="),
        description=turned(header.description, arrangement, believed=believed),
        notices=header.notices,
    )


def _create(request: CreateRequest) -> Volume:
    if request.dtype.name not in DTYPES:
        advice = "uint16" if request.dtype == np.uint8 else "one of these"
        raise VolumeFormatError(
            f"{request.location.uri}: mrc files hold {', '.join(DTYPES)}, not {request.dtype}; "
            f"choose {advice} (convert --dtype, in Python dtype=) or another format"
        )
    if max(request.shape) > FARTHEST:
        raise VolumeFormatError(
            f"{request.location.uri}: shape {request.shape} (z,y,x) reaches beyond the {FARTHEST} "
            "voxels of an MRC axis: choose another format"
        )
    begin = header_bytes(request.shape, request.dtype, request.description)

    def write_empty(path: Path) -> int:
        with open(path, "wb") as handle:
            handle.write(begin)
            handle.truncate(len(begin) + size_in_bytes(request.shape, request.dtype))
        return len(begin)

    return create_raw(request, write_empty=write_empty)


MRC = VolumeFormat(
    name="mrc",
    summary="one MRC file, as microscopes and IMOD write it",
    extensions=(".mrc", ".map", ".rec", ".st"),
    reads_axes=True,
    recognises=_recognises,
    open=_open,
    create=_create,
)
