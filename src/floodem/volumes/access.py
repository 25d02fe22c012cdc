"""The two doors: a URI in, an open `Volume` out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from numpy.typing import DTypeLike

from floodem.errors import GeometryError, OptionError, VolumeFormatError
from floodem.geometry import FARTHEST_POSITION, VoxelSize, Zyx
from floodem.volumes.axes import TurnedVolume, parse_axes
from floodem.volumes.declared import number_dtype
from floodem.volumes.location import (
    parse_location,
    recognised,
    require_existing,
    require_format,
)
from floodem.volumes.registry import CreateRequest, OpenRequest
from floodem.volumes.volume import Kind, Volume


def open_volume(
    uri: str | Path,
    *,
    channel: int | None = None,
    level: int = 0,
    axes: str | None = None,
    writable: bool = False,
    stores_background: bool = False,
    allow_external: bool = False,
) -> Volume:
    """Open the volume at an address; nothing but its description is read yet.

    Parameters
    ----------
    uri
        Path or URI, see docs/decisions/0002-volumes.md: ``em.h5@raw``, ``sections/``, ``zarr3://em.zarr``.
    channel
        Which channel of a volume with several, counted from 0.
    level
        Which level of a pyramid, counted from 0, the finest.
    axes
        Names of the axes as the file stores them, for example ``"xyz"`` or
        ``"czyx"``, where it does not say or is wrong. Voxel size and offset follow.
    writable
        Also allow `Volume.write`, in place (chunked stores).
    stores_background
        Store chunks of background alone too, which are left out otherwise, so that a
        chunk that is missing was not written or is lost.
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
    if level < 0:
        raise OptionError(f"level {level} is negative: levels count from 0, the finest")
    location = recognised(parse_location(uri))
    require_existing(location)
    record = require_format(location)
    if location.is_remote and record.remote is None:
        raise VolumeFormatError(
            f"{location.uri}: {record.name} volumes are read from local files only: download it"
        )
    if level and not record.reads_levels:
        raise OptionError(f"{location.uri} has no level {level}: {record.name} volumes have one")
    names = None if axes is None else parse_axes(axes)
    if names is not None and writable:
        raise OptionError(f"{location.uri} can be written only with its own axes, not {axes}")
    volume = record.open(
        OpenRequest(
            location=location,
            channel=channel,
            level=level,
            axes=names,
            writable=writable,
            stores_background=stores_background,
            allow_external=allow_external,
        )
    )
    if names is None or record.reads_axes:
        return volume
    try:
        return TurnedVolume(volume, asked=names)
    except BaseException:
        volume.close()
        raise


def create_volume(
    uri: str | Path,
    *,
    shape: Zyx,
    dtype: DTypeLike,
    voxel_size: VoxelSize | None = None,
    offset: Zyx = (0, 0, 0),
    chunks: Zyx | None = None,
    shards: Zyx | None = None,
    encoding: str | None = None,
    levels: Sequence[Zyx] = (),
    channels: int = 1,
    kind: Kind | None = None,
    fill: int = 0,
    overwrite: bool = False,
    work: Path | None = None,
    is_shared: bool = False,
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
    shards
        Voxels (z, y, x) that go into one file together, in whole chunks (zarr 3, precomputed).
    encoding
        How chunks are stored, where a format has a choice (precomputed).
    levels
        Downsampling factors (z, y, x) of further, coarser levels against the first one;
        `Volume.levels` of the new volume holds them all, to be filled by the caller.
    channels
        How many values there are for each voxel, where a format has room for several (zarr,
        precomputed). The volume given back is the first channel's; the others are opened
        with ``open_volume(uri, channel=1, writable=True)`` once it is closed.
    kind
        Whether it will hold an image or labels; by default what its type suggests.
    fill
        What voxels are before they are written, where a format can store it (HDF5).
    overwrite
        Replace what is there, once the new volume is complete.
    work
        A path beside the destination where a local volume grows. There it stays
        when it is discarded, and is taken up again when it exists.
    is_shared
        Take up a remote volume that another process has created, or begun to create, with
        the same arguments; only metadata that differ are refused.

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
    wanted = {
        "shards": shards is not None,
        "encoding": encoding is not None,
        "levels": bool(levels),
        "channels": channels != 1,
        "fill": fill != 0,
        "work": work is not None,
        "is_shared": is_shared,
    }
    unserved = [
        name for name, is_wanted in wanted.items() if is_wanted and name not in record.options
    ]
    if unserved:
        raise VolumeFormatError(
            f"{location.uri}: {record.name} volumes have no {unserved[0]}: "
            "leave it out or choose another format"
        )
    if location.is_remote and record.remote != "write":
        raise VolumeFormatError(
            f"{location.uri}: {record.name} volumes are written to local files only: "
            "choose a local destination, or zarr, n5 or precomputed"
        )
    _require_edges(shape, offset=offset, chunks=chunks, shards=shards, channels=channels)
    return record.create(
        CreateRequest(
            location=location,
            shape=shape,
            dtype=number_dtype(dtype),
            voxel_size=voxel_size,
            offset=offset,
            chunks=chunks,
            shards=shards,
            encoding=encoding,
            levels=tuple(levels),
            channels=channels,
            kind=kind,
            fill=fill,
            overwrite=overwrite,
            work=work,
            is_shared=is_shared,
        )
    )


def _require_edges(
    shape: Zyx, *, offset: Zyx, chunks: Zyx | None, shards: Zyx | None, channels: int
) -> None:
    if min(shape) < 1:
        raise GeometryError(
            f"shape {shape} (z,y,x) is not positive on every axis: a volume has voxels"
        )
    if any(abs(at) + size > FARTHEST_POSITION for at, size in zip(offset, shape, strict=True)):
        raise GeometryError(
            f"offset {offset} and shape {shape} (z,y,x) reach beyond {FARTHEST_POSITION} voxels: "
            "give a smaller offset"
        )
    if channels < 1:
        raise OptionError(f"{channels} channels hold nothing: give 1 or more")
    if chunks is not None and min(chunks) < 1:
        raise GeometryError(
            f"chunks {chunks} (z,y,x) are not positive on every axis: for example 64,64,64"
        )
    if shards is not None and min(shards) < 1:
        raise GeometryError(
            f"shards {shards} (z,y,x) are not positive on every axis: for example 512,512,512"
        )
