"""Volumes in numpy's own files: npz (``file.npz@key``) and npy.

An npz archive keeps voxel size and offset as the arrays ``voxel_size_nm_zyx``
and ``offset_zyx`` beside the volume; it is unpacked at the first read and
written in one piece when it is closed. An npy file is read in place and has no
room for either. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from floodem.errors import DestinationExistsError, VolumeFormatError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.geometry import Box, Zyx
from floodem.volumes.memory import require_memory
from floodem.volumes.rawfile import RawArrayFile
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.staging import Staged, require_no_destination
from floodem.volumes.stored import (
    OFFSET_KEY,
    VOXEL_SIZE_KEY,
    StoredVolume,
    native_dtype,
    offset_from,
    refusals,
    require_plausible_deflate,
    select_channel,
    size_in_bytes,
    voxel_size_from,
)
from floodem.volumes.volume import Array, Volume

DEFAULT_KEY = "segmentation"
ZIP_SIGNATURE = b"PK\x03\x04"
NPY_SIGNATURE = b"\x93NUMPY"

_MEMBER_SUFFIX = ".npy"
_FACT_KEYS = (VOXEL_SIZE_KEY, OFFSET_KEY)
_FACT_LENGTH = 3
_VOLUME_NDIMS = (3, 4)


class _Header:
    """What an npy file or archive member declares."""

    def __init__(self, handle: IO[bytes], *, uri: str) -> None:
        try:
            version = npy_format.read_magic(handle)  # type: ignore[no-untyped-call]
            read = {
                (1, 0): npy_format.read_array_header_1_0,
                (2, 0): npy_format.read_array_header_2_0,
            }.get(version)
            if read is None:
                raise ValueError(f"npy version {version} holds no plain numbers")
            self.shape, self.fortran_order, self.dtype = read(handle)  # type: ignore[no-untyped-call]
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise _damaged(uri, error) from error
        self.data_start = handle.tell()

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype.itemsize)


def _damaged(uri: str, error: Exception) -> VolumeFormatError:
    return VolumeFormatError(
        f"{uri} cannot be read as a numpy file: {error}; it is damaged, cut short or something else"
    )


# --- npz ---------------------------------------------------------------------


class NpzVolume(StoredVolume):
    """One array of an archive; unpacked once, at the first read."""

    def __init__(
        self, archive: zipfile.ZipFile, key: str, channel: int | None, **facts: Any
    ) -> None:
        super().__init__(**facts)
        self._archive = archive
        self._key = key
        self._channel = channel
        self._unpacked: Array | None = None

    def _read(self, box: Box) -> Array:
        if self._unpacked is None:
            self._unpacked = self._unpack()
        return self._unpacked[box.slices(origin=self.offset)].astype(self.dtype, order="C")

    def _unpack(self) -> Array:
        whole = _read_member(self._archive, self._key, uri=self.uri)
        return whole if self._channel is None else whole[self._channel]

    def _write(self, box: Box, array: Array) -> None:
        self._require_writable()

    def _release(self) -> None:
        self._unpacked = None
        self._archive.close()


class NewNpzVolume(StoredVolume):
    """An archive in the making: held in memory, written when it is closed."""

    def __init__(self, key: str, **facts: Any) -> None:
        super().__init__(**facts)
        self._key = key
        require_memory(
            size_in_bytes(self.shape, self.dtype),
            purpose=f"writing {self.uri}, which is done in one piece,",
            remedy="choose a chunked format such as zarr",
        )
        self._array = np.zeros(self.shape, self.dtype)

    def _read(self, box: Box) -> Array:
        return self._array[box.slices(origin=self.offset)].copy()

    def _write(self, box: Box, array: Array) -> None:
        self._array[box.slices(origin=self.offset)] = array

    def _finish(self) -> None:
        facts = {OFFSET_KEY: np.asarray(self.offset, dtype=np.int64)}
        if self.voxel_size is not None:
            facts[VOXEL_SIZE_KEY] = np.asarray(self.voxel_size.zyx_nm, dtype=np.float64)
        assert self._staged is not None
        with refusals("write", self.uri), open(self._staged.path, "wb") as handle:
            np.savez_compressed(handle, allow_pickle=False, **{self._key: self._array}, **facts)


def _recognises_npz(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and zipfile.is_zipfile(path) and bool(_keys(path))
    return False


def _keys(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return _member_keys(archive)
    except zipfile.BadZipFile:
        return []


def _member_keys(archive: zipfile.ZipFile) -> list[str]:
    return [
        name.removesuffix(_MEMBER_SUFFIX)
        for name in archive.namelist()
        if name.endswith(_MEMBER_SUFFIX)
    ]


def _member_header(archive: zipfile.ZipFile, key: str, *, uri: str) -> _Header:
    """Read a member's header and hold it against the archive's directory and size."""
    member = archive.getinfo(key + _MEMBER_SUFFIX)
    try:
        with archive.open(member) as handle:
            header = _Header(handle, uri=uri)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _damaged(uri, error) from error
    if header.dtype.hasobject:
        return header
    declared = header.data_start + header.data_bytes
    if declared != member.file_size:
        raise VolumeFormatError(
            f"{uri} declares {declared} bytes in the array {key} but {member.file_size} in the "
            "archive: the file is damaged"
        )
    require_plausible_deflate(declared, stored_bytes=member.compress_size, uri=uri)
    return header


def _read_member(archive: zipfile.ZipFile, key: str, *, uri: str) -> Array:
    header = _member_header(archive, key, uri=uri)
    native_dtype(header.dtype, uri=uri)
    require_memory(
        header.data_bytes,
        purpose=f"unpacking {uri}",
        remedy="convert it to a chunked format where there is more",
    )
    try:
        with archive.open(key + _MEMBER_SUFFIX) as handle:
            array: Array = npy_format.read_array(handle, allow_pickle=False)  # type: ignore[no-untyped-call]
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile, OSError) as error:
        raise _damaged(uri, error) from error
    return array


def _fact(archive: zipfile.ZipFile, key: str, *, uri: str) -> Any:
    if key not in _member_keys(archive):
        return None
    if _member_header(archive, key, uri=uri).shape != (_FACT_LENGTH,):
        raise VolumeFormatError(f"{uri} holds an array {key} that is not three numbers")
    return _read_member(archive, key, uri=uri).tolist()


def _open_npz(request: OpenRequest) -> Volume:
    uri = request.location.uri
    try:
        archive = zipfile.ZipFile(request.location.local)
    except zipfile.BadZipFile as error:
        raise _damaged(uri, error) from error
    except OSError as error:
        raise storage_error("read", uri, error) from error
    try:
        key = _choose_key(archive, request)
        header = _member_header(archive, key, uri=uri)
        shape, channel = select_channel(header.shape, channel=request.channel, uri=uri)
        volume = NpzVolume(
            archive,
            key,
            channel,
            uri=uri,
            shape=shape,
            dtype=native_dtype(header.dtype, uri=uri),
            chunks=shape,
            offset=offset_from(_fact(archive, OFFSET_KEY, uri=uri), uri=uri),
            voxel_size=voxel_size_from(_fact(archive, VOXEL_SIZE_KEY, uri=uri), uri=uri),
        )
        if request.writable:
            volume._require_writable()
    except BaseException:
        archive.close()
        raise
    return volume


def _choose_key(archive: zipfile.ZipFile, request: OpenRequest) -> str:
    location = request.location
    keys = _member_keys(archive)
    if location.dataset is not None:
        if location.dataset in keys:
            return location.dataset
        near = difflib.get_close_matches(location.dataset, keys, n=len(keys) or 1, cutoff=0)
        raise VolumeNotFoundError(
            f"{location.uri} names no array: {location.dataset!r} is not there; it holds "
            + (", ".join(near) or "no arrays")
        )
    if DEFAULT_KEY in keys:
        return DEFAULT_KEY
    volumes = [
        key
        for key in keys
        if len(_member_header(archive, key, uri=location.uri).shape) in _VOLUME_NDIMS
    ]
    if len(volumes) != 1:
        listed = ", ".join(volumes) or "no 3-D array"
        raise VolumeFormatError(
            f"{location.uri} holds {listed}: name one, as in {location.path}@NAME"
        )
    return volumes[0]


def _create_npz(request: CreateRequest) -> Volume:
    location = request.location
    path = location.local
    key = location.dataset or DEFAULT_KEY
    if not request.overwrite:
        require_no_destination(path, uri=location.uri)
    others = [k for k in (_keys(path) if path.is_file() else []) if k not in (key, *_FACT_KEYS)]
    if others:
        raise DestinationExistsError(
            f"{path} was left as it is, because it also holds {', '.join(others)} and an npz file "
            "is written whole: choose another file"
        )
    staged = Staged(path, uri=location.uri, overwrite=request.overwrite, folder=False)
    try:
        return NewNpzVolume(
            key,
            uri=location.uri,
            shape=request.shape,
            dtype=request.dtype,
            chunks=request.chunks or (1, *request.shape[1:]),
            offset=request.offset,
            voxel_size=request.voxel_size,
            writable=True,
            staged=staged,
        )
    except BaseException:
        staged.discard()
        raise


NPZ = VolumeFormat(
    name="npz",
    summary="array in a numpy archive, path@key",
    extensions=(".npz",),
    holds_datasets=True,
    recognises=_recognises_npz,
    open=_open_npz,
    create=_create_npz,
)


# --- npy ---------------------------------------------------------------------


class NpyVolume(StoredVolume):
    """An npy file, read in place."""

    def __init__(self, mapped: Array, **facts: Any) -> None:
        super().__init__(**facts)
        self._mapped: Array | None = mapped

    def _read(self, box: Box) -> Array:
        assert self._mapped is not None, "read after close"
        return self._mapped[box.slices(origin=self.offset)].astype(self.dtype, order="C")

    def _write(self, box: Box, array: Array) -> None:
        self._require_writable()

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
                return handle.read(len(NPY_SIGNATURE)) == NPY_SIGNATURE
    return False


def _open_npy(request: OpenRequest) -> Volume:
    uri = request.location.uri
    path = request.location.local
    with refusals("read", uri), open(path, "rb") as handle:
        header = _Header(handle, uri=uri)
    dtype = native_dtype(header.dtype, uri=uri)
    held = path.stat().st_size - header.data_start
    if held < header.data_bytes:
        raise VolumeFormatError(
            f"{uri} declares {header.data_bytes} bytes of voxels and holds {held}: "
            "the file is cut short"
        )
    shape, channel = select_channel(header.shape, channel=request.channel, uri=uri)
    with refusals("read", uri):
        mapped: Array = np.memmap(
            path,
            dtype=header.dtype,
            mode="r",
            offset=header.data_start,
            shape=header.shape,
            order="F" if header.fortran_order else "C",
        )
    volume = NpyVolume(
        mapped if channel is None else mapped[channel],
        uri=uri,
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
    )
    if request.writable:
        volume._require_writable()
    return volume


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
        offset=request.offset,
        voxel_size=request.voxel_size,
        writable=True,
        staged=staged,
    )


def _npy_header(shape: Zyx, dtype: np.dtype[Any]) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, fields)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


NPY = VolumeFormat(
    name="npy",
    summary="one numpy array; no voxel size, no offset",
    extensions=(".npy",),
    keeps_position=False,
    recognises=_recognises_npy,
    open=_open_npy,
    create=_create_npy,
)
