"""Volumes in HDF5 files: ``path@dataset`` in, datasets (z, y, x) or (c, z, y, x) read by box.

Voxel size, offset and kind are the dataset's attributes ``voxel_size_nm_zyx``
(three float64), ``offset_zyx`` (three int64) and ``kind``. Files on servers are
read by ranges; only what is asked for is fetched.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from floodem.errors import StorageError, VolumeFormatError
from floodem.files import storage_error
from floodem.geometry import Box, Zyx
from floodem.volumes.axes import SPATIAL, Arrangement, arrange, turned
from floodem.volumes.damage import reading
from floodem.volumes.declared import (
    KIND_KEY,
    OFFSET_KEY,
    VOXEL_SIZE_KEY,
    kind_from,
    native_dtype,
    offset_from,
    voxel_size_from,
)
from floodem.volumes.description import Description
from floodem.volumes.hdf5.chunks import DeflatedChunks
from floodem.volumes.hdf5.links import (
    dataset_names,
    missing_dataset,
    refuse_outside_data,
    refuse_outside_links,
)
from floodem.volumes.location import Location
from floodem.volumes.registry import CreateRequest, OpenRequest, VolumeFormat
from floodem.volumes.servers.transport import fetch_ahead, open_file
from floodem.volumes.stored import StoredVolume, refuse_writing
from floodem.volumes.volume import Array, Volume

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_FILE = "HDF5"


class Hdf5Volume(StoredVolume):
    """One dataset of an HDF5 file that is read.

    Parameters
    ----------
    handle
        The remote file that `file` reads, which does not close it.
    """

    def __init__(
        self,
        file: h5py.File,
        dataset: h5py.Dataset,
        arrangement: Arrangement,
        *,
        handle: IO[bytes] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(shape=arrangement.shape, **facts)
        self._file = file
        self._dataset = dataset
        self._arrangement = arrangement
        self._handle = handle
        self._deflated = DeflatedChunks.of(dataset)

    @property
    def dataset(self) -> h5py.Dataset:
        """The dataset itself, for what a volume does not know: attributes."""
        return self._dataset

    def _read(self, box: Box) -> Array:
        index = self._arrangement.index(box.slices(origin=self.offset))
        slices = tuple(at if isinstance(at, slice) else slice(at, at + 1) for at in index)
        with reading(self.uri, kind=HDF5_FILE):
            if self._handle is not None:
                fetch_ahead(self._handle, self._ranges(slices))
            found = self._deflated.read(slices) if self._deflated else self._dataset[slices]
        picked = found[tuple(slice(None) if isinstance(at, slice) else 0 for at in index)]
        return np.ascontiguousarray(self._arrangement.turn(picked), dtype=self.dtype)

    def _ranges(self, slices: tuple[slice, ...]) -> Iterator[tuple[int, int]]:
        """Tell where in the file the chunks of a box lie."""
        if self._dataset.chunks is None:
            return
        grids = [
            range(part.start - part.start % step, part.stop, step)
            for part, step in zip(slices, self._dataset.chunks, strict=True)
        ]
        for corner in itertools.product(*grids):
            chunk = self._dataset.id.get_chunk_info_by_coord(corner)
            if chunk.byte_offset is not None:
                yield chunk.byte_offset, chunk.byte_offset + chunk.size

    def _release(self) -> None:
        self._file.close()
        if self._handle is not None:
            self._handle.close()


def _recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    with contextlib.suppress(OSError), open(path, "rb") as handle:
        return handle.read(len(SIGNATURE)) == SIGNATURE
    return False


def _open(request: OpenRequest) -> Volume:
    location = request.location
    refuse_writing(request)
    file, handle = _open_remote(location) if location.is_remote else (_local(location), None)
    try:
        with reading(location.uri, kind=HDF5_FILE):
            return _volume(file, request, handle=handle)
    except BaseException:
        file.close()
        if handle is not None:
            handle.close()
        raise


def _local(location: Location) -> h5py.File:
    return open_local(location.local)


def _open_remote(location: Location) -> tuple[h5py.File, IO[bytes]]:
    handle = open_file(location.path)
    try:
        with reading(location.uri, kind=HDF5_FILE):
            return h5py.File(handle, "r"), handle
    except BaseException:
        handle.close()
        raise


def _volume(file: h5py.File, request: OpenRequest, *, handle: IO[bytes] | None) -> Volume:
    uri = request.location.uri
    dataset = _find_dataset(file, request)
    arrangement = arrange(dataset.shape or (), uri=uri, channel=request.channel, asked=request.axes)
    chunks = dataset.chunks
    description = Description(
        offset=offset_from(_attribute(dataset, OFFSET_KEY), uri=uri),
        voxel_size=voxel_size_from(_attribute(dataset, VOXEL_SIZE_KEY), uri=uri),
        kind=kind_from(_attribute(dataset, KIND_KEY), uri=uri),
    )
    return Hdf5Volume(
        file,
        dataset,
        arrangement,
        handle=handle,
        uri=uri,
        dtype=native_dtype(dataset.dtype, uri=uri),
        chunks=_whole(arrangement.spatial(chunks)) if chunks else None,
        description=turned(description, arrangement, believed=SPATIAL),
    )


def _whole(lengths: tuple[Any, Any, Any]) -> Zyx:
    z, y, x = lengths
    return (int(z), int(y), int(x))


def open_local(path: Path) -> h5py.File:
    """Open a file on a disk for reading.

    Raises
    ------
    VolumeFormatError
        When it is no HDF5 file, or a damaged one.
    StorageError
        When the system refuses, or another program writes it.
    """
    try:
        with open(path, "rb") as handle:
            handle.read(1)
    except OSError as error:
        raise storage_error("read", path, error) from error
    with reading(path, kind=HDF5_FILE):
        try:
            return h5py.File(path, "r", locking="best-effort")
        except OSError as error:
            if "unable to lock" not in str(error):
                raise
            raise StorageError(
                f"{path} is open in another program that writes it: close it there and try again"
            ) from error


def _find_dataset(file: h5py.File, request: OpenRequest) -> h5py.Dataset:
    location = request.location
    name = location.dataset
    # A remote file must not lead to files of this machine.
    may_leave = request.allow_external and not location.is_remote
    if name is None:
        names = dataset_names(file)
        if len(names) != 1:
            listed = ", ".join(names) or "no 3-D dataset"
            raise VolumeFormatError(
                f"{location.uri} holds {listed}: name one, as in {location.shown}@NAME"
            )
        name = names[0]
    if not may_leave:
        refuse_outside_links(file, name, uri=location.uri)
    try:
        found = file[name]
    except (KeyError, OSError):
        raise missing_dataset(file, name, uri=location.uri) from None
    if not isinstance(found, h5py.Dataset):
        raise missing_dataset(file, name, uri=location.uri)
    if not may_leave:
        refuse_outside_data(file, found, uri=location.uri)
    return found


def _attribute(dataset: h5py.Dataset, name: str) -> Any:
    value = dataset.attrs.get(name)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _create(request: CreateRequest) -> Volume:
    from floodem.volumes.hdf5.creation import create_hdf5

    return create_hdf5(request)


HDF5 = VolumeFormat(
    name="hdf5",
    summary="dataset in an HDF5 file, path@dataset",
    extensions=(".h5", ".hdf5", ".hdf"),
    holds_datasets=True,
    options=frozenset({"fill"}),
    reads_axes=True,
    remote="read",
    recognises=_recognises,
    signatures=(SIGNATURE,),
    open=_open,
    create=_create,
)
