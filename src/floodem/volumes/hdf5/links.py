"""What an HDF5 file holds, and where its links and storage lead.

An open file and a name come in; names of datasets, or a refusal of whatever
leaves the file, go out. A file from somewhere else could otherwise make floodem
read any other file of the machine.
"""

from __future__ import annotations

import difflib
import posixpath

import h5py

from floodem.errors import UnsafeFileError, VolumeNotFoundError
from floodem.volumes.axes import SPATIAL, USUAL
from floodem.volumes.damage import reading

# As many as HDF5 itself follows in a row (H5L_NUM_LINKS).
_MAX_SOFT_LINKS = 16
_SAME_FILE = "."
_NDIMS = range(len(SPATIAL), len(USUAL) + 1)


def dataset_names(file: h5py.File) -> list[str]:
    """Return the names of the datasets with three to five axes, without following links."""
    names: list[str] = []

    def collect(name: str, found: object) -> None:
        if isinstance(found, h5py.Dataset) and len(found.shape or ()) in _NDIMS:
            names.append(name)

    with reading(file.filename, kind="HDF5"):
        file.visititems(collect)
    return names


def missing_dataset(file: h5py.File, name: str, *, uri: str) -> VolumeNotFoundError:
    """Say that there is no such dataset, and which there are, nearest first."""
    names = dataset_names(file)
    near = difflib.get_close_matches(name, names, n=len(names) or 1, cutoff=0)
    listed = ", ".join(near) if near else "no 3-D dataset"
    return VolumeNotFoundError(f"{uri} names no dataset: {name!r} is not there; it holds {listed}")


def refuse_outside_links(file: h5py.File, name: str, *, uri: str) -> None:
    """Follow a name link by link and refuse one that leaves the file.

    Raises
    ------
    UnsafeFileError
        When an external link is on the way, or soft links go round in circles.
    """
    pending = [part for part in name.split("/") if part not in ("", ".")]
    at = "/"
    soft_links = 0
    while pending:
        part = pending.pop(0)
        at = posixpath.join(at, part)
        link = file.get(at, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise UnsafeFileError(
                f"{uri} is a link into another file ({link.filename}): open that file itself, "
                "or allow external links if you trust where this file comes from"
            )
        if isinstance(link, h5py.SoftLink):
            soft_links += 1
            if soft_links > _MAX_SOFT_LINKS:
                raise UnsafeFileError(f"{uri} is a link that leads round in circles")
            target = posixpath.join(posixpath.dirname(at), link.path)
            pending = [p for p in target.split("/") if p not in ("", ".")] + pending
            at = "/"


def refuse_outside_data(file: h5py.File, dataset: h5py.Dataset, *, uri: str) -> None:
    """Refuse a dataset whose voxels are kept in another file.

    Raises
    ------
    UnsafeFileError
        When it has external storage, or is virtual with a source outside.
    """
    _refuse_outside_data(file, dataset, uri=uri, seen=set())


def _refuse_outside_data(
    file: h5py.File, dataset: h5py.Dataset, *, uri: str, seen: set[str]
) -> None:
    if dataset.external:
        raise UnsafeFileError(
            f"{uri} keeps its voxels in another file ({dataset.external[0][0]}): "
            "allow external storage if you trust where this file comes from"
        )
    if not dataset.is_virtual:
        return
    for source in dataset.virtual_sources():
        if source.file_name != _SAME_FILE:
            raise UnsafeFileError(
                f"{uri} is a virtual dataset with voxels in another file ({source.file_name}): "
                "allow external sources if you trust where this file comes from"
            )
        if source.dset_name in seen:
            continue
        seen.add(source.dset_name)
        refuse_outside_links(file, source.dset_name, uri=uri)
        inner = file.get(source.dset_name)
        if isinstance(inner, h5py.Dataset):
            _refuse_outside_data(file, inner, uri=uri, seen=seen)
