"""How a volume is kept: an address and its open volume in, layout, encoding and size out.

Only descriptions are read. What a format does not say cheaply, or metadata that
are not as expected, stay None: these are facts to show, nothing is decided by them.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import FloodemError
from floodem.geometry import Zyx
from floodem.volumes.axes import USUAL, arrange, parse_axes
from floodem.volumes.location import Location
from floodem.volumes.volume import Volume

MAX_FILES_COUNTED = 200_000
"""Folders with more files are not added up: on a network folder that would take minutes."""

_UNEXPECTED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, FloodemError)
"""What reading metadata of another shape than expected raises."""

UNCOMPRESSED = "uncompressed"
_NO_COMPRESSION = ("bytes", "endian", "transpose", "crc32c")
_SHARDING = "sharding_indexed"
_ARRAY_NDIMS = (3, 4, 5)
_FIXED_ENCODINGS = {"npy": UNCOMPRESSED, "png": "deflate", "jpeg": "lossy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How one array is kept; None where it is not known.

    Attributes
    ----------
    axes
        Names of the stored axes, in stored order (``"xyzc"``).
    stored_shape
        Their lengths.
    chunks, shards
        Voxels that are decoded together, and that lie in one file, ordered z, y, x.
    encoding
        How they are compressed, in words.
    bytes_on_disk
        What the files (or the part of a file) take.
    """

    axes: str | None = None
    stored_shape: tuple[int, ...] | None = None
    chunks: Zyx | None = None
    shards: Zyx | None = None
    encoding: str | None = None
    bytes_on_disk: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """One array of a file or folder that holds several."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def may_be_volume(self) -> bool:
        """Whether it has as many axes as a volume may have, and is not empty."""
        return len(self.shape) in _ARRAY_NDIMS and min(self.shape) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """What metadata say of an array, in stored axis order."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    encoding: str | None = None
    axes: str | None = None


def storage_of(
    location: Location, volume: Volume, *, level: int = 0, axes: str | None = None
) -> Storage:
    """Return how an open volume is kept.

    Parameters
    ----------
    level, axes
        As it was opened with.
    """
    looks: dict[str | None, Callable[[Location, int], tuple[_Declared, int | None]]] = {
        "hdf5": _hdf5,
        "npz": _npz,
        **dict.fromkeys(("zarr", "zarr3", "n5", "precomputed"), _chunked),
    }
    look = looks.get(location.format)
    with contextlib.suppress(*_UNEXPECTED):
        if look is not None:
            declared, size = look(location, level)
            return _in_zyx(declared, volume, asked=axes, size=size)
    encoding, size = _FIXED_ENCODINGS.get(location.format or ""), None
    with contextlib.suppress(*_UNEXPECTED):
        if not location.is_remote:
            size = size_on_disk(location.local)
            encoding = _tiff_encoding(location.local) if location.format == "tiff" else encoding
    return Storage(encoding=encoding, bytes_on_disk=size)


def _in_zyx(declared: _Declared, volume: Volume, *, asked: str | None, size: int | None) -> Storage:
    names = parse_axes(asked) if asked else declared.axes or USUAL[-len(declared.shape) :]
    if asked and len(names) + 1 == len(declared.shape):
        names += "c"  # a channel axis of length 1, which the user need not name
    channel = 0 if "c" in names else None
    arrangement = arrange(declared.shape, uri=volume.uri, channel=channel, asked=names)
    if arrangement.shape != volume.shape:
        return Storage(stored_shape=declared.shape, encoding=declared.encoding, bytes_on_disk=size)
    return Storage(
        axes=names,
        stored_shape=declared.shape,
        chunks=arrangement.spatial(declared.chunks) if declared.chunks else None,
        shards=arrangement.spatial(declared.shards) if declared.shards else None,
        encoding=declared.encoding,
        bytes_on_disk=size,
    )


def size_on_disk(path: Path) -> int | None:
    """Add up the bytes of a file or of all files in a folder; None when they are too many."""
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for count, size in enumerate(_sizes(path)):
        if count >= MAX_FILES_COUNTED:
            return None
        total += size
    return total


def _sizes(folder: Path) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(Path(entry.path))
            elif entry.is_file():
                yield entry.stat().st_size


def _chunked(location: Location, level: int) -> tuple[_Declared, int | None]:
    from floodem.volumes.chunked_access import folder_of
    from floodem.volumes.chunked_opening import pyramid_at
    from floodem.volumes.layouts import LAYOUTS, arrays_inside

    layout = LAYOUTS[location.format or ""]
    folder = folder_of(location)
    pyramid = pyramid_at(folder, layout, uri=location.uri)
    if pyramid is None and not location.is_remote:
        (only,) = arrays_inside(location.local, layout)
        pyramid = pyramid_at(folder.child(only), layout, uri=location.uri)
    assert pyramid is not None
    found = pyramid.levels[level]
    files = found.folder
    declared = _READERS[layout.name](found.folder.json(_METADATA[layout.name]), level)
    if layout.name == "precomputed":
        metadata = found.folder.json(_METADATA[layout.name]) or {}
        files = found.folder.child(metadata["scales"][level]["key"])
    declared = replace(
        declared, axes=found.axes or declared.axes or layout.usual_axes.get(len(declared.shape))
    )
    return declared, None if location.is_remote else size_on_disk(Path(files.path))


_METADATA = {
    "zarr": ".zarray",
    "zarr3": "zarr.json",
    "n5": "attributes.json",
    "precomputed": "info",
}


def _zarr2(metadata: Any, level: int) -> _Declared:
    compressor = metadata["compressor"]
    return _Declared(
        shape=_lengths(metadata["shape"]),
        dtype=np.dtype(metadata["dtype"]).name,
        chunks=_lengths(metadata["chunks"]),
        encoding=_codec(compressor["id"], compressor) if compressor else UNCOMPRESSED,
    )


def _zarr3(metadata: Any, level: int) -> _Declared:
    from floodem.volumes.layouts.layout import named_axes

    chunks = _lengths(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    codecs, shards = metadata["codecs"], None
    if codecs[0]["name"] == _SHARDING:
        inner = codecs[0]["configuration"]
        shards, chunks, codecs = chunks, _lengths(inner["chunk_shape"]), inner["codecs"]
    words = [
        _codec(codec["name"], codec.get("configuration", {}))
        for codec in codecs
        if codec["name"] not in _NO_COMPRESSION
    ]
    return _Declared(
        shape=_lengths(metadata["shape"]),
        dtype=str(metadata["data_type"]),
        chunks=chunks,
        shards=shards,
        encoding=", ".join(words) or UNCOMPRESSED,
        axes=named_axes(metadata.get("dimension_names")),
    )


def _n5(metadata: Any, level: int) -> _Declared:
    compression = metadata["compression"]
    kind = compression["type"]
    return _Declared(
        shape=_lengths(metadata["dimensions"]),
        dtype=str(metadata["dataType"]),
        chunks=_lengths(metadata["blockSize"]),
        encoding=UNCOMPRESSED if kind == "raw" else _codec(kind, compression),
    )


def _precomputed(metadata: Any, level: int) -> _Declared:
    scale, channels = metadata["scales"][level], int(metadata["num_channels"])
    return _Declared(
        shape=(*_lengths(scale["size"]), channels),
        dtype=str(metadata["data_type"]),
        chunks=(*_lengths(scale["chunk_sizes"][0]), channels),
        encoding=scale["encoding"] + (", sharded" if scale.get("sharding") else ""),
    )


_READERS: dict[str, Callable[[Any, int], _Declared]] = {
    "zarr": _zarr2,
    "zarr3": _zarr3,
    "n5": _n5,
    "precomputed": _precomputed,
}


def _lengths(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _codec(name: str, configuration: Any) -> str:
    inner = configuration.get("cname")
    return f"{name} ({inner})" if inner else str(name)


def _hdf5(location: Location, level: int) -> tuple[_Declared, int | None]:
    import h5py

    from floodem.volumes.hdf5_links import dataset_names

    with h5py.File(location.local, "r", locking="best-effort") as file:
        dataset = file[location.dataset or dataset_names(file)[0]]
        if dataset.is_virtual or dataset.external:
            encoding, size = "kept elsewhere", None
        else:
            words = [dataset.compression] if dataset.compression else []
            words += ["shuffled"] if words and dataset.shuffle else []
            encoding, size = ", ".join(words) or UNCOMPRESSED, int(dataset.id.get_storage_size())
        return (
            _Declared(
                shape=_lengths(dataset.shape),
                dtype=dataset.dtype.name,
                chunks=_lengths(dataset.chunks) if dataset.chunks else None,
                encoding=encoding,
            ),
            size,
        )


def _npz(location: Location, level: int) -> tuple[_Declared, int | None]:
    from floodem.volumes.npz import DEFAULT_KEY

    with zipfile.ZipFile(location.local) as archive:
        found = {array.name: array for array in _members(archive, uri=location.uri)}
        volumes = [array.name for array in found.values() if array.may_be_volume]
        usual = DEFAULT_KEY if DEFAULT_KEY in found else volumes[0]
        array = found[location.dataset or usual]
        member = archive.getinfo(f"{array.name}.npy")
        is_stored = member.compress_type == zipfile.ZIP_STORED
        encoding = UNCOMPRESSED if is_stored else "deflate"
        return _Declared(
            shape=array.shape, dtype=array.dtype, encoding=encoding
        ), member.compress_size


def _tiff_encoding(path: Path) -> str:
    """Name the compression of a TIFF file, or of the first one in a folder."""
    import tifffile

    from floodem.volumes.registry import formats
    from floodem.volumes.section_names import list_folder

    if path.is_dir():
        path /= list_folder(path, formats()["tiff"].extensions).sections[0]
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].aspage().compression
        name = tifffile.COMPRESSION(tag).name.lower()
    return UNCOMPRESSED if name == "none" else name.removeprefix("adobe_")


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
        from floodem.volumes.damage import reading
        from floodem.volumes.npy import NUMPY_FILE

        with (
            reading(location.uri, kind=NUMPY_FILE),
            zipfile.ZipFile(location.local) as archive,
        ):
            return _members(archive, uri=location.uri)
    return _chunked_arrays(location) if location.format in _READERS else ()


def _datasets(location: Location) -> tuple[StoredArray, ...]:
    import h5py

    from floodem.volumes.damage import reading

    found: list[StoredArray] = []

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            shape = _lengths(item.shape or ())
            found.append(StoredArray(name=name, shape=shape, dtype=str(item.dtype)))

    with (
        reading(location.uri, kind="HDF5"),
        h5py.File(location.local, "r", locking="best-effort") as file,
    ):
        file.visititems(collect)
    return tuple(found)


def _members(archive: zipfile.ZipFile, *, uri: str) -> tuple[StoredArray, ...]:
    from floodem.volumes.npy import NpyHeader

    found = []
    for name in archive.namelist():
        if name.endswith(".npy"):
            with archive.open(name) as handle:
                header = NpyHeader(handle, uri=uri)
            found.append(
                StoredArray(
                    name=name.removesuffix(".npy"),
                    shape=_lengths(header.shape),
                    dtype=str(header.dtype),
                )
            )
    return tuple(found)


def _chunked_arrays(location: Location) -> tuple[StoredArray, ...]:
    from floodem.volumes.chunked_access import folder_of
    from floodem.volumes.chunked_opening import pyramid_at
    from floodem.volumes.layouts import LAYOUTS, arrays_inside

    layout = LAYOUTS[location.format or ""]
    folder = folder_of(location)
    if pyramid_at(folder, layout, uri=location.uri) is not None:
        return ()
    found = []
    for name in arrays_inside(location.local, layout):
        shape: tuple[int, ...] = ()
        dtype = "damaged"
        with contextlib.suppress(*_UNEXPECTED):
            pyramid = pyramid_at(folder.child(name), layout, uri=location.uri)
            assert pyramid is not None
            at = pyramid.levels[0].folder
            declared = _READERS[layout.name](at.json(_METADATA[layout.name]), 0)
            shape, dtype = declared.shape, declared.dtype
        found.append(StoredArray(name=name, shape=shape, dtype=dtype))
    return tuple(found)
