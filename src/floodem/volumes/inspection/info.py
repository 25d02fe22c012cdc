"""What is at an address: a URI in, shape, type, place, levels, size and ids out.

Nothing but descriptions is read, unless ids are counted.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import FloodemError, OptionError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.progress import ProgressListener
from floodem.volumes.access import open_volume
from floodem.volumes.conversion.record import ConversionRecord, record_address
from floodem.volumes.inspection.contents import StoredArray, arrays_in
from floodem.volumes.inspection.ids import IdCounts, count_ids
from floodem.volumes.inspection.pairs import require_alike, require_matching
from floodem.volumes.inspection.storage import Storage, storage_of
from floodem.volumes.kinds import looks_like_labels
from floodem.volumes.location import (
    Location,
    parse_location,
    recognised,
    require_existing,
    require_format,
)
from floodem.volumes.volume import Kind, Volume, likely_kind

SMALL_VOXELS = 2**27
"""Label volumes up to this size have their ids counted unasked: that takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelInfo:
    """One level of a pyramid: shape (z, y, x) and voxel size."""

    shape: Zyx
    voxel_size: VoxelSize | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeInfo:
    """One volume.

    Attributes
    ----------
    dataset
        Name of the array in its file or folder; None where there are no names.
    box, dtype, voxel_size, kind
        As of the volume; see `floodem.volumes.Volume`.
    storage
        How it is kept.
    chunks
        What is cheap to read alone (z, y, x).
    levels
        Of its pyramid, finest first; one where there is none.
    ids
        None where they were not counted.
    """

    dataset: str | None
    box: Box
    dtype: np.dtype[Any]
    voxel_size: VoxelSize | None
    kind: Kind | None
    storage: Storage
    chunks: Zyx
    levels: tuple[LevelInfo, ...]
    ids: IdCounts | None

    @property
    def bytes_unpacked(self) -> int:
        """What all its voxels take, those of other channels included."""
        return math.prod(self.storage.stored_shape or self.box.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What is at an address.

    Attributes
    ----------
    uri, format
        The address, and the name of the format.
    arrays
        Those in a local file or folder that holds several, where none was named.
    volume
        None where there are several to choose from.
    notices
        Sentences about what is odd.
    """

    uri: str
    format: str
    arrays: tuple[StoredArray, ...]
    volume: VolumeInfo | None
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values; triples are z, y, x, sizes nm."""
        return {
            "uri": self.uri,
            "format": self.format,
            "arrays": [asdict(array) for array in self.arrays],
            "volume": None if self.volume is None else _volume_dict(self.volume),
            "notices": list(self.notices),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def inspect(
    uri: str | Path,
    *,
    channel: int | None = None,
    level: int = 0,
    axes: str | None = None,
    allow_external: bool = False,
    ids: bool | None = None,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> Info:
    """Say what is at an address.

    A local file or folder with several volumes, none of them named, is answered
    with the list of its arrays.

    Parameters
    ----------
    uri, channel, level, axes, allow_external
        As for `open_volume`.
    ids
        Whether to count ids, which reads the volume. By default where it holds
        labels, is small (`SMALL_VOXELS`) and lies on no server.
    threads
        For counting; by default one for each core that this process may use.
    progress
        Called while ids are counted, in voxels.

    Raises
    ------
    LabelError
        When ids are to be counted of what holds no labels.
    FloodemError
        Whatever `open_volume` refuses.
    """
    location = recognised(parse_location(uri))
    _require_here(location)
    format_ = require_format(location).name
    arrays: tuple[StoredArray, ...] = ()
    with contextlib.suppress(FloodemError):  # what is wrong, opening it says better
        arrays = arrays_in(location)
    if _is_undecided(location, arrays):
        if channel is not None or axes is not None or level or ids:
            raise OptionError(
                f"{location.uri} holds {len(arrays)} arrays: name one, as in "
                f"{location.path}@{arrays[0].name}"
            )
        return Info(uri=location.uri, format=format_, arrays=arrays, volume=None, notices=())
    volume, notices = _open(uri, channel, level=level, axes=axes, allow_external=allow_external)
    with volume:
        levels, missing = _levels_of(volume)
        notices += missing
        counted = None
        if _is_counted_unasked(volume, location) if ids is None else ids:
            counted = count_ids(volume, threads=threads, progress=progress)
        found = VolumeInfo(
            dataset=location.dataset or _taken(location, arrays),
            box=volume.box,
            dtype=volume.dtype,
            voxel_size=volume.voxel_size,
            kind=volume.kind,
            storage=storage_of(location, volume, level=level, axes=axes),
            chunks=volume.chunks,
            levels=tuple(LevelInfo(shape=one.shape, voxel_size=one.voxel_size) for one in levels),
            ids=counted,
        )
        notices += volume.notices
    return Info(uri=location.uri, format=format_, arrays=arrays, volume=found, notices=notices)


def require_together(uris: Sequence[str | Path], **options: Any) -> None:
    """Refuse addresses of which the later ones do not lie on the first one voxel by voxel.

    Parameters
    ----------
    uris
        An image, then labels, whose types are looked at as well; or images alone, or
        labels alone.
    options
        ``channel``, ``level``, ``axes`` and ``allow_external``, as for `inspect`.

    Raises
    ------
    VolumeFormatError
        With the first thing that does not match; see `floodem.volumes.inspection.pairs`.
    FloodemError
        Whatever `open_volume` refuses.
    """
    channel = options.pop("channel", None)
    first, _ = _open(uris[0], channel, **options)
    with first:
        is_labels = looks_like_labels(first)
        for uri in uris[1:]:
            other, _ = _open(uri, channel, **options)
            with other:
                if looks_like_labels(other) == is_labels:
                    require_alike(first, other)
                else:
                    require_matching(first, other)


def _open(uri: str | Path, channel: int | None, **options: Any) -> tuple[Volume, tuple[str, ...]]:
    """Open a volume; of several channels the first one, if none was asked for, with a notice."""
    try:
        return open_volume(uri, channel=channel, **options), ()
    except OptionError as error:
        if channel is not None:
            raise
        return open_volume(uri, channel=0, **options), (str(error),)


def _levels_of(volume: Volume) -> tuple[tuple[Volume, ...], tuple[str, ...]]:
    """Open the pyramid; of one with a missing level this level alone, with a notice."""
    try:
        return volume.levels, ()
    except VolumeNotFoundError as error:
        return (volume,), (str(error),)


def _is_undecided(location: Location, arrays: tuple[StoredArray, ...]) -> bool:
    """Tell whether an address stands for several volumes and names none of them."""
    from floodem.volumes.arrays.npz import DEFAULT_KEY

    if location.format == "npz" and any(array.name == DEFAULT_KEY for array in arrays):
        return False
    return sum(array.may_be_volume for array in arrays) > 1


def _is_counted_unasked(volume: Volume, location: Location) -> bool:
    """Tell whether counting ids takes seconds: of small label volumes that are not far away."""
    kind = volume.kind or likely_kind(volume.dtype)
    is_labels = kind is Kind.LABELS and volume.dtype.kind in "ui"
    return is_labels and volume.box.size <= SMALL_VOXELS and not location.is_remote


def _taken(location: Location, arrays: tuple[StoredArray, ...]) -> str | None:
    """Return the name of the array that an address without one stands for."""
    from floodem.volumes.arrays.npz import DEFAULT_KEY

    volumes = [array.name for array in arrays if array.may_be_volume]
    if location.format == "npz" and DEFAULT_KEY in volumes:
        return DEFAULT_KEY
    return volumes[0] if len(volumes) == 1 else None


def _require_here(location: Location) -> None:
    """Refuse an address where there is nothing, saying so where a stopped conversion lies there."""
    try:
        require_existing(location)
    except VolumeNotFoundError:
        begun = None
        with contextlib.suppress(FloodemError):  # what is wrong there is not what was asked
            begun = ConversionRecord(location).running()
        if begun is None:
            raise
        raise VolumeNotFoundError(
            f"there is no {location.path} yet: a conversion to it was stopped or is under way "
            f"({record_address(location)}): wait for it, or run the same command again to go on"
        ) from None


def _volume_dict(volume: VolumeInfo) -> dict[str, Any]:
    return {
        "dataset": volume.dataset,
        "shape_zyx": volume.box.shape,
        "offset_zyx": volume.box.start,
        "dtype": volume.dtype.name,
        "kind": volume.kind,
        "voxel_size_nm_zyx": _nm(volume.voxel_size),
        "chunks_zyx": volume.storage.chunks or volume.chunks,
        "shards_zyx": volume.storage.shards,
        "stored_axes": volume.storage.axes,
        "stored_shape": volume.storage.stored_shape,
        "encoding": volume.storage.encoding,
        "bytes_unpacked": volume.bytes_unpacked,
        "bytes_on_disk": volume.storage.bytes_on_disk,
        "levels": [
            {"shape_zyx": one.shape, "voxel_size_nm_zyx": _nm(one.voxel_size)}
            for one in volume.levels
        ],
        "ids": None if volume.ids is None else asdict(volume.ids),
    }


def _nm(size: VoxelSize | None) -> tuple[float, float, float] | None:
    return None if size is None else size.zyx_nm
