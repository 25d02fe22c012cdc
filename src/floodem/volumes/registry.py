"""Which formats there are: a name in, a record that opens and creates volumes out.

Built-in formats are listed below; other packages add theirs by an entry point in
the group ``floodem.volume_formats`` that names a `VolumeFormat`. Where a file's name
tells what its format has no room for, an entry point in the group
``floodem.file_names`` names a function that reads it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize, Zyx

if TYPE_CHECKING:
    import numpy as np

    from floodem.volumes.description import Description
    from floodem.volumes.location import Location
    from floodem.volumes.volume import Kind, Volume

ENTRY_POINT_GROUP = "floodem.volume_formats"
FILE_NAME_GROUP = "floodem.file_names"

_BUILT_IN = (
    "floodem.volumes.chunked.formats:ZARR",
    "floodem.volumes.chunked.formats:ZARR3",
    "floodem.volumes.chunked.formats:N5",
    "floodem.volumes.chunked.formats:PRECOMPUTED",
    "floodem.volumes.hdf5.reading:HDF5",
    "floodem.volumes.arrays.npz:NPZ",
    "floodem.volumes.arrays.npy:NPY",
    "floodem.volumes.sections.stacks:PNG",
    "floodem.volumes.sections.stacks:TIFF",
    "floodem.volumes.sections.stacks:JPEG",
    "floodem.volumes.arrays.nifti:NIFTI",
    "floodem.volumes.arrays.mrc:MRC",
    "floodem.volumes.arrays.dm:DM",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """What `open_volume` asks of a format.

    `axes` names the stored axes in stored order (``"xyz"``, ``"czyx"``) where the
    user knows better than the file; see `floodem.volumes.axes`. `stores_background`
    is for chunked stores that are written: chunks of background alone are stored too.
    """

    location: Location
    channel: int | None = None
    level: int = 0
    axes: str | None = None
    writable: bool = False
    stores_background: bool = False
    allow_external: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What `create_volume` asks of a format; all triples are z, y, x.

    `levels` are the downsampling factors of the coarser levels against the first.
    `work` is where a local volume grows; see `floodem.volumes.staging.Staged`.
    `is_shared` lets several processes create one remote volume.
    """

    location: Location
    shape: Zyx
    dtype: np.dtype[Any]
    voxel_size: VoxelSize | None = None
    offset: Zyx = (0, 0, 0)
    chunks: Zyx | None = None
    shards: Zyx | None = None
    encoding: str | None = None
    levels: tuple[Zyx, ...] = ()
    channels: int = 1
    kind: Kind | None = None
    fill: int = 0
    overwrite: bool = False
    work: Path | None = None
    is_shared: bool = False

    @property
    def description(self) -> Description:
        """What is noted beside the voxels."""
        from floodem.volumes.description import Description

        return Description(voxel_size=self.voxel_size, offset=self.offset, kind=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFormat:
    """One way of keeping a volume.

    Attributes
    ----------
    name
        Also the prefix that forces this format: ``name://path``.
    summary
        Half a line for tables and messages.
    extensions
        Lower-case endings, with the dot, that mean this format.
    holds_datasets
        Whether one file or folder holds several arrays (``path@dataset``).
    keeps_position
        Whether voxel size and offset are stored with the data.
    options
        Which of ``shards``, ``encoding``, ``levels``, ``channels``, ``fill``, ``work`` and
        ``is_shared`` a new volume may be given.
    reads_axes
        Whether `open` serves `OpenRequest.axes`; otherwise its volume is turned afterwards.
    reads_levels
        Whether `open` serves `OpenRequest.level`.
    remote
        How it is served over http, gs and s3: ``"write"``, ``"read"`` or None.
    recognises
        Tells from a look at an existing local file or folder whether it is one.
    recognises_remote
        The same for a folder on a server; None for formats that are files.
    signatures
        How its files begin that are read from servers.
    open, create
        Make the volume; `create` is None for formats that are only read.
    """

    name: str
    summary: str
    extensions: tuple[str, ...] = ()
    holds_datasets: bool = False
    keeps_position: bool = True
    options: frozenset[str] = frozenset()
    reads_axes: bool = False
    reads_levels: bool = False
    remote: str | None = None
    recognises: Callable[[Path], bool]
    recognises_remote: Callable[[Location], bool] | None = None
    signatures: tuple[bytes, ...] = ()
    open: Callable[[OpenRequest], Volume]
    create: Callable[[CreateRequest], Volume] | None = None


@functools.cache
def formats() -> dict[str, VolumeFormat]:
    """Return every format by its name: the built-in ones first, then those of other packages.

    A format of another package that cannot be loaded is left out with a
    warning, so that it does not stand in the way of the rest.

    Raises
    ------
    VolumeFormatError
        When two formats have the same name.
    """
    found: dict[str, VolumeFormat] = {}
    for address in _BUILT_IN:
        module, name = address.split(":")
        record: VolumeFormat = getattr(import_module(module), name)
        found[record.name] = record
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            plugged = point.load()
        except (ImportError, AttributeError) as error:
            warnings.warn(
                f"the volume format {point.name!r} ({point.value}) cannot be loaded: {error}; "
                "reinstall the package it comes from",
                RuntimeWarning,
                stacklevel=2,
            )
            continue
        if plugged.name in found:
            raise VolumeFormatError(
                f"two packages call a volume format {plugged.name!r} (one is {point.value}): "
                "uninstall one of them"
            )
        found[plugged.name] = plugged
    return found


@functools.cache
def _readers_of_names() -> tuple[Callable[[str], Description | None], ...]:
    found = []
    for point in entry_points(group=FILE_NAME_GROUP):
        try:
            found.append(point.load())
        except (ImportError, AttributeError) as error:
            warnings.warn(
                f"the reader of file names {point.name!r} ({point.value}) cannot be loaded: "
                f"{error}; reinstall the package it comes from",
                RuntimeWarning,
                stacklevel=2,
            )
    return tuple(found)


def described_by_name(name: str) -> Description | None:
    """Return what a file's name, without its folder, tells about the volume in it, or None."""
    told = (read(name) for read in _readers_of_names())
    return next((description for description in told if description is not None), None)
