"""Volumes in NIfTI files, .nii and .nii.gz, of version 1 and 2.

NIfTI stores x fastest, so its bytes are those of an array (z, y, x) in C order.
Sizes are float32 there; our own exact description stands in a header extension
(a comment, JSON text) and goes first, unless somebody has changed the header since.
A compressed file is unpacked whole at the first read, and packed when it is closed.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import shutil
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.files import PARTIAL_SUFFIX
from floodem.memory import require_memory
from floodem.volumes.arrays.mapped_volume import MappedVolume, map_array
from floodem.volumes.arrays.nifti_header import NIFTI_FILE, NiftiHeader, header_bytes, read_header
from floodem.volumes.arrays.raw_volume import create_raw
from floodem.volumes.axes import SPATIAL, turned
from floodem.volumes.damage import reading
from floodem.volumes.declared import NUMBER_DTYPES, require_plausible_deflate, size_in_bytes
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.stored import refusals, refuse_writing
from floodem.volumes.volume import UNCHECKED_BYTES, Array, Volume

_GZIP_SUFFIX = ".gz"
_GZIP_SIGNATURE = b"\x1f\x8b"
# Labels pack well at any level; this is five times as fast as gzip's own choice of 9.
_GZIP_LEVEL = 1
_COPIED_BYTES = 2**20
_MAGIC_PLACES = ((344, b"n+1\0"), (4, b"n+2\0\r\n\x1a\n"))


def is_gzip(path: Path) -> bool:
    """Tell whether a file begins like a gzip file."""
    with open(path, "rb") as handle:
        return handle.read(len(_GZIP_SIGNATURE)) == _GZIP_SIGNATURE


def _unpacked(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if is_gzip(path) else open(path, "rb")


def _recognises(path: Path) -> bool:
    with contextlib.suppress(OSError, EOFError, zlib.error):
        if path.is_file():
            with _unpacked(path) as handle:
                begin = handle.read(512)
            return any(begin[at : at + len(magic)] == magic for at, magic in _MAGIC_PLACES)
    return False


def _open(request: OpenRequest) -> Volume:
    uri, path = request.location.uri, request.location.local
    refuse_writing(request)
    with refusals("read", uri):
        is_packed = is_gzip(path)
        stored_bytes = path.stat().st_size
    with reading(uri, kind=NIFTI_FILE), _unpacked(path) as handle:
        header = read_header(handle, uri=uri)
    arrangement = header.arranged(request)
    if is_packed:
        declared = header.start + size_in_bytes(header.shape, header.dtype)
        require_plausible_deflate(declared, stored_bytes=stored_bytes, uri=uri)
        load = functools.partial(_unpack, path, header, uri=uri)
    else:
        mapped = map_array(path, header.shape, header.dtype, start=header.start, uri=uri)
        load = functools.partial(np.asanyarray, mapped)
    return MappedVolume(
        load,
        arrangement,
        convert=header.scaled,
        uri=uri,
        dtype=header.volume_dtype,
        description=turned(header.description, arrangement, believed=SPATIAL),
        notices=header.notices,
    )


def _unpack(path: Path, header: NiftiHeader, *, uri: str) -> Array:
    """Unpack the voxels of a compressed file."""
    needed = size_in_bytes(header.shape, header.dtype)
    if needed > UNCHECKED_BYTES:
        require_memory(
            needed_bytes=needed,
            purpose=f"unpacking {uri}",
            remedy="unpack it on the disk first (gunzip)",
        )
    with reading(uri, kind=NIFTI_FILE), gzip.open(path) as handle:
        handle.seek(header.start)
        data = np.empty(needed, np.uint8)
        there = 0
        while count := handle.readinto(data[there:].data):
            there += count
        if there < needed:
            raise EOFError(f"{needed} bytes of voxels are declared, {there} are there")
        return data.view(header.dtype).reshape(header.shape)


def _create(request: CreateRequest) -> Volume:
    if request.dtype.name not in NUMBER_DTYPES:
        raise VolumeFormatError(
            f"{request.location.uri}: nifti files hold {', '.join(NUMBER_DTYPES)}, not "
            f"{request.dtype}; "
            "choose one of these (convert --dtype, in Python dtype=) or another format"
        )
    begin = header_bytes(request.shape, request.dtype, request.description)

    def write_empty(path: Path) -> int:
        with open(path, "wb") as handle:
            handle.write(begin)
            handle.truncate(len(begin) + size_in_bytes(request.shape, request.dtype))
        return len(begin)

    is_packed = request.location.path.lower().endswith(_GZIP_SUFFIX)
    return create_raw(request, write_empty=write_empty, finish=_pack if is_packed else None)


def _pack(path: Path) -> None:
    """Replace a file by its compressed form, in pieces; the same voxels give the same bytes."""
    packed = path.with_name(f"{path.name}{_GZIP_SUFFIX}{PARTIAL_SUFFIX}")
    compressing = functools.partial(gzip.GzipFile, filename="", mode="wb", mtime=0)
    try:
        with (
            open(path, "rb") as source,
            open(packed, "wb") as destination,
            compressing(fileobj=destination, compresslevel=_GZIP_LEVEL) as packer,
        ):
            shutil.copyfileobj(source, packer, _COPIED_BYTES)
        os.replace(packed, path)
    finally:
        packed.unlink(missing_ok=True)


NIFTI = VolumeFormat(
    name="nifti",
    summary="one NIfTI file, .nii or .nii.gz",
    extensions=(".nii", ".nii.gz"),
    reads_axes=True,
    recognises=_recognises,
    open=_open,
    create=_create,
)
