"""How a volume is kept: an address and its open volume in, layout, encoding and size out.

Only descriptions are read. What a format does not say cheaply, or metadata that
are not as expected, stay None: these are facts to show, nothing is decided by them.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from floodem.geometry import Zyx
from floodem.volumes.axes import USUAL, arrange, parse_axes
from floodem.volumes.inspection.contents import npz_arrays
from floodem.volumes.inspection.declared_storage import (
    METADATA_FILES,
    READERS,
    UNCOMPRESSED,
    UNEXPECTED,
    Declared,
    lengths,
)
from floodem.volumes.location import Location
from floodem.volumes.volume import Volume

MAX_FILES_COUNTED = 200_000
"""Folders with more files are not added up: on a network folder that would take minutes."""

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


def storage_of(
    location: Location, volume: Volume, *, level: int = 0, axes: str | None = None
) -> Storage:
    """Return how an open volume is kept.

    Parameters
    ----------
    level, axes
        As it was opened with.
    """
    looks: dict[str | None, Callable[[Location, int], tuple[Declared, int | None]]] = {
        "hdf5": _hdf5,
        "npz": _npz,
        **dict.fromkeys(("zarr", "zarr3", "n5", "precomputed"), _chunked),
    }
    look = looks.get(location.format)
    with contextlib.suppress(*UNEXPECTED):
        if look is not None:
            declared, size = look(location, level)
            return _in_zyx(declared, volume, asked=axes, size=size)
    encoding, size = _FIXED_ENCODINGS.get(location.format or ""), None
    with contextlib.suppress(*UNEXPECTED):
        if not location.is_remote:
            size = size_on_disk(location.local)
            encoding = _tiff_encoding(location.local) if location.format == "tiff" else encoding
    return Storage(encoding=encoding, bytes_on_disk=size)


def _in_zyx(declared: Declared, volume: Volume, *, asked: str | None, size: int | None) -> Storage:
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


def _chunked(location: Location, level: int) -> tuple[Declared, int | None]:
    from floodem.volumes.chunked.access import folder_of
    from floodem.volumes.chunked.layouts import LAYOUTS, arrays_inside
    from floodem.volumes.chunked.opening import pyramid_at

    layout = LAYOUTS[location.format or ""]
    folder = folder_of(location)
    pyramid = pyramid_at(folder, layout, uri=location.uri)
    if pyramid is None and not location.is_remote:
        (only,) = arrays_inside(location.local, layout)
        pyramid = pyramid_at(folder.child(only), layout, uri=location.uri)
    assert pyramid is not None
    found = pyramid.levels[level]
    files = found.folder
    declared = READERS[layout.name](found.folder.json(METADATA_FILES[layout.name]), level)
    if layout.name == "precomputed":
        metadata = found.folder.json(METADATA_FILES[layout.name]) or {}
        files = found.folder.child(metadata["scales"][level]["key"])
    declared = replace(
        declared, axes=found.axes or declared.axes or layout.usual_axes.get(len(declared.shape))
    )
    return declared, None if location.is_remote else size_on_disk(Path(files.path))


def _hdf5(location: Location, level: int) -> tuple[Declared, int | None]:
    import h5py

    from floodem.volumes.hdf5.links import dataset_names

    with h5py.File(location.local, "r", locking="best-effort") as file:
        dataset = file[location.dataset or dataset_names(file)[0]]
        if dataset.is_virtual or dataset.external:
            encoding, size = "kept elsewhere", None
        else:
            words = [dataset.compression] if dataset.compression else []
            words += ["shuffled"] if words and dataset.shuffle else []
            encoding, size = ", ".join(words) or UNCOMPRESSED, int(dataset.id.get_storage_size())
        return (
            Declared(
                shape=lengths(dataset.shape),
                dtype=dataset.dtype.name,
                chunks=lengths(dataset.chunks) if dataset.chunks else None,
                encoding=encoding,
            ),
            size,
        )


def _npz(location: Location, level: int) -> tuple[Declared, int | None]:
    from floodem.volumes.arrays.npz import DEFAULT_KEY

    with zipfile.ZipFile(location.local) as archive:
        found = {array.name: array for array in npz_arrays(archive, uri=location.uri)}
        volumes = [array.name for array in found.values() if array.may_be_volume]
        usual = DEFAULT_KEY if DEFAULT_KEY in found else volumes[0]
        array = found[location.dataset or usual]
        member = archive.getinfo(f"{array.name}.npy")
        is_stored = member.compress_type == zipfile.ZIP_STORED
        encoding = UNCOMPRESSED if is_stored else "deflate"
        return Declared(
            shape=array.shape, dtype=array.dtype, encoding=encoding
        ), member.compress_size


def _tiff_encoding(path: Path) -> str:
    """Name the compression of a TIFF file, or of the first one in a folder."""
    import tifffile

    from floodem.volumes.registry import formats
    from floodem.volumes.sections.names import list_folder

    if path.is_dir():
        path /= list_folder(path, formats()["tiff"].extensions).sections[0]
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].aspage().compression
        name = tifffile.COMPRESSION(tag).name.lower()
    return UNCOMPRESSED if name == "none" else name.removeprefix("adobe_")
