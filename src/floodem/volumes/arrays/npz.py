"""Volumes in numpy archives, ``file.npz@key``.

An npz archive keeps voxel size, offset and kind as the arrays ``voxel_size_nm_zyx``,
``offset_zyx`` and ``floodem_kind`` beside the volume; it is unpacked at the first read and
written in one piece when it is closed. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import difflib
import zipfile
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from floodem.errors import DestinationExistsError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Box
from floodem.memory import require_memory
from floodem.volumes.arrays.npy import NUMPY_FILE, NpyHeader
from floodem.volumes.axes import SPATIAL, Arrangement, arrange, turned
from floodem.volumes.damage import reading
from floodem.volumes.declared import (
    OFFSET_KEY,
    VOLUME_NDIMS,
    VOXEL_SIZE_KEY,
    kind_from,
    native_dtype,
    offset_from,
    require_plausible_deflate,
    size_in_bytes,
    voxel_size_from,
)
from floodem.volumes.description import Description
from floodem.volumes.location import Location
from floodem.volumes.registry import (
    CreateRequest,
    OpenRequest,
    VolumeFormat,
    described_by_name,
)
from floodem.volumes.servers.addresses import split_address
from floodem.volumes.servers.transport import open_file
from floodem.volumes.staging import Staged, require_no_destination
from floodem.volumes.stored import StoredVolume, refusals, refuse_writing
from floodem.volumes.volume import Array, Kind, Volume

DEFAULT_KEY = "segmentation"

_ZIP_SIGNATURE = b"PK\x03\x04"
_EVERY_VOXEL = (slice(None), slice(None), slice(None))
_MEMBER_SUFFIX = ".npy"
_KIND_MEMBER = "floodem_kind"
_FACT_KEYS = (VOXEL_SIZE_KEY, OFFSET_KEY, _KIND_MEMBER)
_FACT_LENGTH = 3
_LONGEST_KIND_BYTES = 256
_MOST_NAMED = 10
"""Arrays that a message lists."""


class NpzVolume(StoredVolume):
    """One array of an archive; unpacked once, at the first read."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        key: str,
        arrangement: Arrangement,
        *,
        handle: IO[bytes],
        **facts: Any,
    ) -> None:
        super().__init__(**facts)
        self._archive = archive
        self._handle = handle
        self._key = key
        self._arrangement = arrangement
        self._unpacked: Array | None = None

    def _read(self, box: Box) -> Array:
        if self._unpacked is None:
            self._unpacked = self._unpack()
        return self._unpacked[box.slices(origin=self.offset)].astype(self.dtype, order="C")

    def _unpack(self) -> Array:
        whole = _read_member(self._archive, self._key, uri=self.uri)
        return self._arrangement.turn(whole[self._arrangement.index(_EVERY_VOXEL)])

    def _release(self) -> None:
        self._unpacked = None
        self._archive.close()
        # The archive leaves a file that it was given open.
        self._handle.close()


class NewNpzVolume(StoredVolume):
    """An archive in the making: held in memory, written when it is closed."""

    def __init__(self, key: str, **facts: Any) -> None:
        super().__init__(**facts)
        self._key = key
        require_memory(
            needed_bytes=size_in_bytes(self.shape, self.dtype),
            purpose=f"writing {self.uri}, which is done in one piece,",
            remedy="choose a chunked format such as zarr",
        )
        self._array = np.zeros(self.shape, self.dtype)

    def _read(self, box: Box) -> Array:
        return self._array[box.slices(origin=self.offset)].copy()

    def _write(self, box: Box, array: Array) -> None:
        self._array[box.slices(origin=self.offset)] = array

    def _finish(self) -> None:
        arrays = {self._key: self._array, OFFSET_KEY: np.asarray(self.offset, dtype=np.int64)}
        if self.voxel_size is not None:
            arrays[VOXEL_SIZE_KEY] = np.asarray(self.voxel_size.zyx_nm, dtype=np.float64)
        if self.kind is not None:
            arrays[_KIND_MEMBER] = np.asarray(self.kind.value)
        assert self._staged is not None
        with (
            refusals("write", self.uri),
            zipfile.ZipFile(self._staged.path, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for key, array in arrays.items():
                with archive.open(key + _MEMBER_SUFFIX, "w", force_zip64=True) as member:
                    npy_format.write_array(member, array, allow_pickle=False)


def _recognises_npz(path: Path) -> bool:
    with contextlib.suppress(OSError, VolumeFormatError):
        return path.is_file() and zipfile.is_zipfile(path) and bool(_keys(path))
    return False


def _keys(path: Path) -> list[str]:
    with reading(path, kind=NUMPY_FILE), zipfile.ZipFile(path) as archive:
        return _member_keys(archive)


def _member_keys(archive: zipfile.ZipFile) -> list[str]:
    return [
        name.removesuffix(_MEMBER_SUFFIX)
        for name in archive.namelist()
        if name.endswith(_MEMBER_SUFFIX)
    ]


def _member_header(archive: zipfile.ZipFile, key: str, *, uri: str) -> NpyHeader:
    """Read a member's header and hold it against the archive's directory and size."""
    member = archive.getinfo(key + _MEMBER_SUFFIX)
    with reading(uri, kind=NUMPY_FILE), archive.open(member) as handle:
        header = NpyHeader(handle, uri=uri)
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
        needed_bytes=header.data_bytes,
        purpose=f"unpacking {uri}",
        remedy="convert it to a chunked format where there is more",
    )
    with reading(uri, kind=NUMPY_FILE), archive.open(key + _MEMBER_SUFFIX) as handle:
        array: Array = npy_format.read_array(handle, allow_pickle=False)
    return array


def _fact(archive: zipfile.ZipFile, key: str, *, uri: str) -> Any:
    if key not in _member_keys(archive):
        return None
    if _member_header(archive, key, uri=uri).shape != (_FACT_LENGTH,):
        raise VolumeFormatError(f"{uri} holds an array {key} that is not three numbers")
    return _read_member(archive, key, uri=uri).tolist()


def _kind(archive: zipfile.ZipFile, *, uri: str) -> Kind | None:
    if _KIND_MEMBER not in _member_keys(archive):
        return None
    header = _member_header(archive, _KIND_MEMBER, uri=uri)
    if header.shape != () or header.dtype.kind != "U" or header.data_bytes > _LONGEST_KIND_BYTES:
        raise VolumeFormatError(f"{uri} holds an array {_KIND_MEMBER} that is not one word")
    with reading(uri, kind=NUMPY_FILE), archive.open(_KIND_MEMBER + _MEMBER_SUFFIX) as handle:
        word = str(npy_format.read_array(handle, allow_pickle=False))
    return kind_from(word, uri=uri)


def _open_npz(request: OpenRequest) -> Volume:
    uri = request.location.uri
    refuse_writing(request)
    handle = open_file(request.location.path)
    try:
        with reading(uri, kind=NUMPY_FILE):
            archive = zipfile.ZipFile(handle)
        key = _choose_key(archive, request)
        header = _member_header(archive, key, uri=uri)
        arrangement = arrange(header.shape, uri=uri, channel=request.channel, asked=request.axes)
        description = _description(archive, request.location)
        return NpzVolume(
            archive,
            key,
            arrangement,
            handle=handle,
            uri=uri,
            shape=arrangement.shape,
            dtype=native_dtype(header.dtype, uri=uri),
            chunks=arrangement.shape,
            description=turned(description, arrangement, believed=SPATIAL),
        )
    except BaseException:
        handle.close()
        raise


def _description(archive: zipfile.ZipFile, location: Location) -> Description:
    uri = location.uri
    told = None
    if OFFSET_KEY not in _member_keys(archive):
        path = split_address(location.path)[2] if location.is_remote else location.path
        told = described_by_name(PurePath(path).name)
    return told or Description(
        offset=offset_from(_fact(archive, OFFSET_KEY, uri=uri), uri=uri),
        voxel_size=voxel_size_from(_fact(archive, VOXEL_SIZE_KEY, uri=uri), uri=uri),
        kind=_kind(archive, uri=uri),
    )


def _choose_key(archive: zipfile.ZipFile, request: OpenRequest) -> str:
    location = request.location
    keys = _member_keys(archive)
    if location.dataset is not None:
        if location.dataset in keys:
            return location.dataset
        near = difflib.get_close_matches(location.dataset, keys, n=_MOST_NAMED, cutoff=0)
        raise VolumeNotFoundError(
            f"{location.uri} names no array: {location.dataset!r} is not there; it holds "
            + (", ".join(near) or "no arrays")
        )
    if DEFAULT_KEY in keys:
        return DEFAULT_KEY
    volumes = [
        key
        for key in keys
        if len(_member_header(archive, key, uri=location.uri).shape) in VOLUME_NDIMS
    ]
    if len(volumes) != 1:
        listed = ", ".join(volumes[:_MOST_NAMED]) or "no 3-D array"
        raise VolumeFormatError(
            f"{location.uri} holds {listed}: name one, as in {location.shown}@NAME"
        )
    return volumes[0]


def _create_npz(request: CreateRequest) -> Volume:
    location = request.location
    path = location.local
    key = location.dataset or DEFAULT_KEY
    if not request.overwrite:
        require_no_destination(path, uri=location.uri)
    others = [
        k
        for k in (_keys(path) if path.is_file() and zipfile.is_zipfile(path) else [])
        if k not in (key, *_FACT_KEYS)
    ]
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
            description=request.description,
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
    reads_axes=True,
    remote="read",
    recognises=_recognises_npz,
    signatures=(_ZIP_SIGNATURE,),
    open=_open_npz,
    create=_create_npz,
)
