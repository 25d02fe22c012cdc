"""The two doors: a URI in, an open `Volume` out."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import DTypeLike

from floodem.errors import GeometryError, OptionError, VolumeFormatError
from floodem.geometry import FARTHEST_POSITION, VoxelSize, Zyx
from floodem.volumes.declared import number_dtype
from floodem.volumes.location import parse_location, require_existing, require_format
from floodem.volumes.registry import CreateRequest, OpenRequest
from floodem.volumes.volume import Volume


def open_volume(
    uri: str | Path,
    *,
    channel: int | None = None,
    writable: bool = False,
    allow_external: bool = False,
) -> Volume:
    """Open the volume at an address; nothing but its description is read yet.

    Parameters
    ----------
    uri
        Path or URI, see docs/decisions/0002-volumes.md: ``em.h5@raw``, ``sections/``, ``zarr3://em.zarr``.
    channel
        Which channel of a volume with several, counted from 0.
    writable
        Also allow `Volume.write`, in place (chunked stores).
    allow_external
        Follow HDF5 links, storage and virtual datasets that leave the file.

    Raises
    ------
    VolumeNotFoundError
        When there is nothing at the address, or no such dataset in the file.
    VolumeFormatError
        When the format cannot be told, or the file is damaged, not 3-D or not numbers.
    UnsafeFileError
        When the file points outside itself.
    StorageError
        When the file system refuses.
    """
    if channel is not None and channel < 0:
        raise OptionError(f"channel {channel} is negative: channels count from 0")
    location = parse_location(uri)
    require_existing(location)
    return require_format(location).open(
        OpenRequest(
            location=location, channel=channel, writable=writable, allow_external=allow_external
        )
    )


def create_volume(
    uri: str | Path,
    *,
    shape: Zyx,
    dtype: DTypeLike,
    voxel_size: VoxelSize | None = None,
    offset: Zyx = (0, 0, 0),
    chunks: Zyx | None = None,
    overwrite: bool = False,
) -> Volume:
    """Create a volume of zeros at an address and open it for writing.

    It appears there when it is closed; until then, and for good when it is
    discarded, what was there before stays. A chunked store that several
    processes are to fill is created, closed and then opened with
    ``open_volume(uri, writable=True)``.

    Parameters
    ----------
    uri
        Path or URI. The ending or the prefix tells the format.
    shape, offset, chunks
        In voxels, ordered z, y, x. Formats without chunks ignore `chunks`.
    dtype
        Type of one voxel; each format names those it holds.
    voxel_size
        In nanometres; None when it is not known.
    overwrite
        Replace what is there, once the new volume is complete.

    Raises
    ------
    DestinationExistsError
        When something is there and `overwrite` is not set.
    VolumeFormatError
        When the format cannot be told or cannot hold this.
    StorageError
        When the file system refuses.
    """
    location = parse_location(uri)
    record = require_format(location)
    if record.create is None:
        raise VolumeFormatError(f"{record.name} volumes ({location.uri}) can be read, not written")
    if min(shape) < 1:
        raise GeometryError(
            f"shape {shape} (z,y,x) is not positive on every axis: a volume has voxels"
        )
    if any(abs(at) + size > FARTHEST_POSITION for at, size in zip(offset, shape, strict=True)):
        raise GeometryError(
            f"offset {offset} and shape {shape} (z,y,x) reach beyond {FARTHEST_POSITION} voxels: "
            "give a smaller offset"
        )
    if chunks is not None and min(chunks) < 1:
        raise GeometryError(
            f"chunks {chunks} (z,y,x) are not positive on every axis: for example 64,64,64"
        )
    return record.create(
        CreateRequest(
            location=location,
            shape=shape,
            dtype=number_dtype(dtype),
            voxel_size=voxel_size,
            offset=offset,
            chunks=chunks,
            overwrite=overwrite,
        )
    )
