"""Volumes in npy files: one array, read in place, with no room for voxel size or offset.

Files on servers are read by ranges. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from floodem.errors import VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.volumes.arrays.raw_volume import create_raw
from floodem.volumes.arrays.rawfile import RangedArray
from floodem.volumes.axes import Arrangement, arrange
from floodem.volumes.damage import reading
from floodem.volumes.declared import native_dtype, size_in_bytes
from floodem.volumes.location import Location
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.servers.transport import open_file
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Volume

NUMPY_FILE = "a numpy file"
SIGNATURE = b"\x93NUMPY"


class NpyHeader:
    """What an npy file or archive member declares: shape, order, type, and where voxels begin.

    Raises
    ------
    VolumeFormatError
        When there is no such header.
    """

    def __init__(self, handle: IO[bytes], *, uri: str) -> None:
        with reading(uri, kind=NUMPY_FILE):
            version = npy_format.read_magic(handle)
            read = {
                (1, 0): npy_format.read_array_header_1_0,
                (2, 0): npy_format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise ValueError(f"npy version {version} holds no plain numbers")
            self.shape, self.fortran_order, self.dtype = read(handle)
        self.data_start = handle.tell()

    @property
    def data_bytes(self) -> int:
        """How many bytes the voxels take."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


class NpyVolume(StoredVolume):
    """An npy file, read in place."""

    def __init__(
        self,
        stored: Array | RangedArray,
        arrangement: Arrangement,
        *,
        is_reversed: bool,
        **facts: Any,
    ) -> None:
        super().__init__(shape=arrangement.shape, chunks=(1, *arrangement.shape[1:]), **facts)
        self._stored: Array | RangedArray | None = stored
        self._arrangement = arrangement
        self._is_reversed = is_reversed

    def _read(self, box: Box) -> Array:
        assert self._stored is not None, "read after close"
        index = self._arrangement.index(box.slices(origin=self.offset))
        found = self._stored[index[::-1]].T if self._is_reversed else self._stored[index]
        return self._arrangement.turn(found).astype(self.dtype, order="C")

    def _release(self) -> None:
        if isinstance(self._stored, RangedArray):
            self._stored.close()
        self._stored = None


def _recognises_npy(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as handle:
                return handle.read(len(SIGNATURE)) == SIGNATURE
    return False


def _open_npy(request: OpenRequest) -> Volume:
    location = request.location
    uri = location.uri
    refuse_writing(request)
    handle = open_file(location.path)
    try:
        with refusals("read", uri):
            header = NpyHeader(handle, uri=uri)
            held = handle.seek(0, io.SEEK_END) - header.data_start
        dtype = native_dtype(header.dtype, uri=uri)
        if held < header.data_bytes:
            raise VolumeFormatError(
                f"{uri} declares {header.data_bytes} bytes of voxels and holds {held}: "
                "the file is cut short; copy it again"
            )
        arrangement = arrange(header.shape, uri=uri, channel=request.channel, asked=request.axes)
        # An array in Fortran order is one in C order with its axes the other way round.
        shape = header.shape[::-1] if header.fortran_order else header.shape
        stored = _stored(location, header, shape, handle=handle)
    except BaseException:
        handle.close()
        raise
    if not location.is_remote:
        handle.close()
    return NpyVolume(stored, arrangement, is_reversed=header.fortran_order, uri=uri, dtype=dtype)


def _stored(
    location: Location, header: NpyHeader, shape: tuple[int, ...], *, handle: IO[bytes]
) -> Array | RangedArray:
    if location.is_remote:
        return RangedArray(
            handle, start=header.data_start, shape=shape, dtype=header.dtype, uri=location.uri
        )
    with refusals("read", location.uri):
        return np.memmap(
            location.local, dtype=header.dtype, mode="r", offset=header.data_start, shape=shape
        )


def _create_npy(request: CreateRequest) -> Volume:
    def write_empty(path: Path) -> int:
        header = _npy_header(request.shape, request.dtype)
        with open(path, "wb") as handle:
            handle.write(header)
            handle.truncate(len(header) + size_in_bytes(request.shape, request.dtype))
        return len(header)

    return create_raw(request, write_empty=write_empty)


def _npy_header(shape: Zyx, dtype: np.dtype[Any]) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


NPY = VolumeFormat(
    name="npy",
    summary="one numpy array; no voxel size, no offset",
    extensions=(".npy",),
    keeps_position=False,
    options=frozenset({"work"}),
    reads_axes=True,
    remote="read",
    recognises=_recognises_npy,
    signatures=(SIGNATURE,),
    open=_open_npy,
    create=_create_npy,
)
