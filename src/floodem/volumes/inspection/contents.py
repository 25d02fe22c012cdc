"""Which arrays a file or folder holds: an address in, names, shapes and types out.

Nothing is unpacked and no link is followed.
"""

from __future__ import annotations

import contextlib
import zipfile
from dataclasses import dataclass

from floodem.volumes.inspection.declared_storage import METADATA_FILES, READERS, UNEXPECTED, lengths
from floodem.volumes.location import Location

_VOLUME_NDIMS = range(3, 6)
"""Axes z, y, x, and at most channel and time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """One array of a file or folder that holds several."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def may_be_volume(self) -> bool:
        """Whether it has as many axes as a volume may have, and is not empty."""
        return len(self.shape) in _VOLUME_NDIMS and min(self.shape) > 0


def arrays_in(location: Location) -> tuple[StoredArray, ...]:
    """List the arrays of a local file or folder that holds several; none for other volumes.

    Links are not followed. The order is that of the names in the file.

    Raises
    ------
    FloodemError
        When the file is damaged.
    """
    if location.is_remote or location.dataset is not None:
        return ()
    if location.format == "hdf5":
        return _datasets(location)
    if location.format == "npz":
        from floodem.volumes.arrays.npy import NUMPY_FILE
        from floodem.volumes.damage import reading

        with (
            reading(location.uri, kind=NUMPY_FILE),
            zipfile.ZipFile(location.local) as archive,
        ):
            return npz_arrays(archive, uri=location.uri)
    return _chunked_arrays(location) if location.format in READERS else ()


def _datasets(location: Location) -> tuple[StoredArray, ...]:
    import h5py

    from floodem.volumes.damage import reading

    found: list[StoredArray] = []

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            shape = lengths(item.shape or ())
            found.append(StoredArray(name=name, shape=shape, dtype=str(item.dtype)))

    with (
        reading(location.uri, kind="HDF5"),
        h5py.File(location.local, "r", locking="best-effort") as file,
    ):
        file.visititems(collect)
    return tuple(found)


def npz_arrays(archive: zipfile.ZipFile, *, uri: str) -> tuple[StoredArray, ...]:
    """List the arrays of an open npz archive, from their headers alone."""
    from floodem.volumes.arrays.npy import NpyHeader

    found = []
    for name in archive.namelist():
        if name.endswith(".npy"):
            with archive.open(name) as handle:
                header = NpyHeader(handle, uri=uri)
            found.append(
                StoredArray(
                    name=name.removesuffix(".npy"),
                    shape=lengths(header.shape),
                    dtype=str(header.dtype),
                )
            )
    return tuple(found)


def _chunked_arrays(location: Location) -> tuple[StoredArray, ...]:
    from floodem.volumes.chunked.access import folder_of
    from floodem.volumes.chunked.layouts import LAYOUTS, arrays_inside
    from floodem.volumes.chunked.opening import pyramid_at

    layout = LAYOUTS[location.format or ""]
    folder = folder_of(location)
    if pyramid_at(folder, layout, uri=location.uri) is not None:
        return ()
    found = []
    for name in arrays_inside(location.local, layout):
        shape: tuple[int, ...] = ()
        dtype = "damaged"
        with contextlib.suppress(*UNEXPECTED):
            pyramid = pyramid_at(folder.child(name), layout, uri=location.uri)
            assert pyramid is not None
            at = pyramid.levels[0].folder
            declared = READERS[layout.name](at.json(METADATA_FILES[layout.name]), 0)
            shape, dtype = declared.shape, declared.dtype
        found.append(StoredArray(name=name, shape=shape, dtype=dtype))
    return tuple(found)
