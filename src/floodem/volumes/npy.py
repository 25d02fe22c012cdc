"""Volumes in npy files: one array, read in place, with no room for voxel size or offset.

Nothing is ever unpickled.
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
from floodem.volumes.axes import arrange
from floodem.volumes.damage import reading
from floodem.volumes.declared import native_dtype
from floodem.volumes.rawfile import RawArrayFile
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.staging import Staged
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Volume

NUMPY_FILE = "a numpy file"
SIGNATURE = b"\x93NUMPY"
EVERY_VOXEL = (slice(None), slice(None), slice(None))


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

    def __init__(self, mapped: Array, **facts: Any) -> None:
        super().__init__(**facts)
        self._mapped: Array | None = mapped

    def _read(self, box: Box) -> Array:
        assert self._mapped is not None, "read after close"
        return self._mapped[box.slices(origin=self.offset)].astype(self.dtype, order="C")

    def _release(self) -> None:
        self._mapped = None


class NewNpyVolume(StoredVolume):
    """An npy file in the making: boxes are written where they belong."""

    def __init__(self, raw: RawArrayFile, **facts: Any) -> None:
        super().__init__(**facts)
        self._raw = raw

    def _read(self, box: Box) -> Array:
        return self._raw.read(box.translate(_negative(self.offset)))

    def _write(self, box: Box, array: Array) -> None:
        self._raw.write(box.translate(_negative(self.offset)), array)

    def _release(self) -> None:
        self._raw.close()


def _negative(offset: Zyx) -> Zyx:
    return (-offset[0], -offset[1], -offset[2])


def _recognises_npy(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as handle:
                return handle.read(len(SIGNATURE)) == SIGNATURE
    return False


def _open_npy(request: OpenRequest) -> Volume:
    uri = request.location.uri
    path = request.location.local
    refuse_writing(request)
    with refusals("read", uri), open(path, "rb") as handle:
        header = NpyHeader(handle, uri=uri)
    dtype = native_dtype(header.dtype, uri=uri)
    held = path.stat().st_size - header.data_start
    if held < header.data_bytes:
        raise VolumeFormatError(
            f"{uri} declares {header.data_bytes} bytes of voxels and holds {held}: "
            "the file is cut short; copy it again"
        )
    arrangement = arrange(header.shape, uri=uri, channel=request.channel, asked=request.axes)
    shape = arrangement.shape
    with refusals("read", uri):
        mapped: Array = np.memmap(
            path,
            dtype=header.dtype,
            mode="r",
            offset=header.data_start,
            shape=header.shape,
            order="F" if header.fortran_order else "C",
        )
    return NpyVolume(
        arrangement.turn(mapped[arrangement.index(EVERY_VOXEL)]),
        uri=uri,
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
    )


def _create_npy(request: CreateRequest) -> Volume:
    location = request.location
    staged = Staged(location.local, uri=location.uri, overwrite=request.overwrite, folder=False)
    try:
        with refusals("write", location.uri):
            raw = RawArrayFile.create(
                staged.path,
                header=_npy_header(request.shape, request.dtype),
                shape=request.shape,
                dtype=request.dtype,
                uri=location.uri,
            )
    except BaseException:
        staged.discard()
        raise
    return NewNpyVolume(
        raw,
        uri=location.uri,
        shape=request.shape,
        dtype=request.dtype,
        chunks=(1, *request.shape[1:]),
        description=request.description,
        writable=True,
        staged=staged,
    )


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
    reads_axes=True,
    recognises=_recognises_npy,
    open=_open_npy,
    create=_create_npy,
)
