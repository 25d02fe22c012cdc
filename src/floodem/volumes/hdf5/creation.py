"""New datasets in HDF5 files: a request in, a volume to be filled out.

New datasets are chunked and gzip-compressed. One is added to an existing file by
way of a copy that then replaces it, so that the file is whole at every moment
(docs/decisions/0002-volumes.md).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from floodem.errors import DestinationExistsError, StorageError, VolumeFormatError
from floodem.files import require_free_disk, storage_error
from floodem.geometry import Box
from floodem.volumes.axes import arrange
from floodem.volumes.damage import reading
from floodem.volumes.declared import (
    DEFAULT_CHUNKS,
    KIND_KEY,
    OFFSET_KEY,
    VOXEL_SIZE_KEY,
    fit_chunks,
)
from floodem.volumes.hdf5.file import PatientFile
from floodem.volumes.hdf5.links import dataset_names, refuse_outside_links
from floodem.volumes.hdf5.reading import HDF5_FILE, Hdf5Volume, open_local
from floodem.volumes.registry import CreateRequest
from floodem.volumes.staging import Staged, require_no_destination
from floodem.volumes.stored import refusals
from floodem.volumes.volume import Array, Volume

IMAGE_DATASET = "raw"
LABEL_DATASET = "segmentation"

# h5py's own default: level 9 is several times slower for a few percent.
_GZIP_LEVEL = 4
_MAX_IMAGE_ITEMSIZE = 2


class NewHdf5Volume(Hdf5Volume):
    """A dataset in the making, in a file that is not yet in its place."""

    def __init__(
        self,
        file: h5py.File,
        dataset: h5py.Dataset,
        *,
        patient: PatientFile,
        copied: os.stat_result | None,
        **facts: Any,
    ) -> None:
        arrangement = arrange(dataset.shape, uri=facts["uri"])
        super().__init__(file, dataset, arrangement, **facts)
        # HDF5 may still hold chunks back.
        self._deflated = None
        self._patient = patient
        self._copied = copied

    def _write(self, box: Box, array: Array) -> None:
        self._dataset[box.slices(origin=self.offset)] = array
        self.require_written()

    def _finish(self) -> None:
        self._file.close()
        self.require_written()
        assert self._staged is not None
        if self._copied is not None and _version(self._copied) != _version(
            self._staged.final.stat()
        ):
            raise StorageError(
                f"{self._staged.final} was changed by another program while {self.uri} was being "
                "added, and stays as that program left it: try again, or write a file of its own"
            )

    def _release(self) -> None:
        self._file.close()
        self._patient.close()

    def require_written(self) -> None:
        """Report what the file system has refused so far.

        Raises
        ------
        StorageError
            When it refused a write.
        """
        if self._patient.refusal is not None:
            raise storage_error("write", self.uri, self._patient.refusal)


def create_hdf5(request: CreateRequest) -> Volume:
    """Create a dataset in a new or existing file.

    Raises
    ------
    FloodemError
        As `floodem.volumes.create_volume`.
    """
    location = request.location
    path = location.local
    name = location.dataset or _default_name(request.dtype)
    adds = path.is_file() and _require_room(path, request)
    staged = Staged(path, uri=location.uri, overwrite=adds or request.overwrite, folder=False)
    patient = None
    try:
        with refusals("write", location.uri):
            copied = _copy_existing(staged.final, staged.path) if adds else None
            patient = PatientFile(staged.path)
        # The patient file refuses nothing: what h5py raises here is damage.
        with reading(location.uri, kind=HDF5_FILE):
            file, dataset = _start(patient, name, request)
        volume = NewHdf5Volume(
            file,
            dataset,
            patient=patient,
            copied=copied,
            uri=location.uri,
            dtype=request.dtype,
            chunks=request.chunks,
            description=request.description,
            writable=True,
            staged=staged,
        )
    except BaseException:
        if patient is not None:
            patient.close()
        staged.discard()
        raise
    try:
        volume.require_written()
    except BaseException:
        volume.discard()
        raise
    return volume


def _default_name(dtype: np.dtype[Any]) -> str:
    is_image = dtype.kind == "f" or dtype.itemsize <= _MAX_IMAGE_ITEMSIZE
    return IMAGE_DATASET if is_image else LABEL_DATASET


def _require_room(path: Path, request: CreateRequest) -> bool:
    """Check an existing file for the new dataset; tell whether its contents are to be kept."""
    name = request.location.dataset
    if name is None and not request.overwrite:
        require_no_destination(path, uri=request.location.uri)
    with reading(path, kind=HDF5_FILE), open_local(path) as file:
        if name is None:
            names = dataset_names(file)
            if len(names) > 1:
                raise DestinationExistsError(
                    f"{path} was left as it is, because it holds {', '.join(names)}: "
                    f"name the one to overwrite, as in {path}@{names[0]}"
                )
            return False
        # Through a link into another file the dataset would be written there.
        refuse_outside_links(file, name, uri=request.location.uri)
        there = file.get(name, getlink=True)
        if there is not None and not request.overwrite:
            raise DestinationExistsError(
                f"{path} holds {name} already and was left as it is: "
                "choose another name or --overwrite (overwrite=True)"
            )
        if isinstance(there, h5py.HardLink) and not isinstance(file[name], h5py.Dataset):
            raise DestinationExistsError(
                f"{name} in {path} is a group and was left as it is: choose another name"
            )
    return True


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _copy_existing(path: Path, copy: Path) -> os.stat_result:
    found = path.stat()
    require_free_disk(path, needed_bytes=path.stat().st_size, purpose=f"adding a dataset to {path}")
    shutil.copyfile(path, copy)
    shutil.copymode(path, copy)
    return found


def _start(
    patient: PatientFile, name: str, request: CreateRequest
) -> tuple[h5py.File, h5py.Dataset]:
    file = h5py.File(patient, "a")
    try:
        if name in file:
            del file[name]
        return file, _new_dataset(file, name, request)
    except BaseException:
        file.close()
        raise


def _new_dataset(file: h5py.File, name: str, request: CreateRequest) -> h5py.Dataset:
    try:
        dataset = file.create_dataset(
            name,
            shape=request.shape,
            dtype=request.dtype,
            chunks=fit_chunks(request.chunks or DEFAULT_CHUNKS, shape=request.shape),
            compression="gzip",
            compression_opts=_GZIP_LEVEL,
            fillvalue=request.fill,
        )
    except (ValueError, TypeError) as error:
        raise VolumeFormatError(
            f"{request.location.uri} cannot hold a dataset {name!r}: {error}; choose another name"
        ) from error
    dataset.attrs[OFFSET_KEY] = np.asarray(request.offset, dtype=np.int64)
    if request.voxel_size is not None:
        dataset.attrs[VOXEL_SIZE_KEY] = np.asarray(request.voxel_size.zyx_nm, dtype=np.float64)
    if request.kind is not None:
        dataset.attrs[KIND_KEY] = request.kind.value
    return dataset
