"""Labels by address, for work that several processes share: text in, open volumes out.

Whether a segmentation is still the same is told as by
`floodem.volumes.conversion.fingerprint`, except that the folder of a precomputed volume
may hold meshes and skeletons, whose coming and going says nothing about it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem import geometry
from floodem.errors import FloodemError, OptionError
from floodem.files import storage_error
from floodem.geometry import VoxelSize, Zyx
from floodem.shapes.precomputed.folders import INFO, MAX_INFO_BYTES, read_json
from floodem.volumes.conversion.fingerprint import fingerprint, stored_path
from floodem.volumes.kinds import looks_like_labels
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSource(VolumeSource):
    """A label volume that any process can open again."""

    def identity(self, volume: Volume) -> dict[str, Any]:
        """Return what tells these labels from others or changed ones, as JSON values.

        A key or a signature in the address is left out: it goes into records, and may be
        another one tomorrow. What is put beside the scales of a precomputed volume does not
        matter, since meshes and skeletons belong there.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        uri = without_secrets(self.uri)
        asked = {"uri": uri, "level": self.level, "channel": self.channel, "axes": self.axes}
        return asked | source_identity(volume)


_open: dict[LabelSource, Volume] = {}
"""Some files are unpacked whole when they are opened, which no block pays again."""

_MOST_OPEN = 2
"""A segmentation, and what it is compared with."""


def opened_source(source: LabelSource) -> Volume:
    """Return the open volume of a source; it stays open for the next block of this process.

    Of more than two the one that was asked for least lately is closed.

    Raises
    ------
    VolumeNotFoundError, VolumeFormatError, UnsafeFileError, StorageError
        As `floodem.open_volume`.
    """
    volume = _open.pop(source, None)
    if volume is None:
        while len(_open) >= _MOST_OPEN:
            _open.pop(next(iter(_open))).close()
        volume = source.open()
    _open[source] = volume
    return volume


def close_source() -> None:
    """Close what blocks of this process were read from; by who had them done."""
    while _open:
        _open.popitem()[1].close()


def require_voxel_size(volume: Volume, asked: VoxelSize | None) -> VoxelSize:
    """Return the voxel size that was asked for or that the file states.

    Raises
    ------
    OptionError
        When neither is there.
    """
    found = asked or volume.voxel_size
    if found is None:
        raise OptionError(
            f"{volume.uri} does not state its voxel size: give it in nanometres, z,y,x "
            "(--voxel-size 30,6,6)"
        )
    return found


def block_edges(volume: Volume, *, voxels: int) -> Zyx:
    """Choose blocks of about `voxels` voxels: whole chunks where they are not larger.

    The choice depends on the volume alone, so that an interrupted run finds its blocks again.
    """
    return geometry.block_edges(volume.chunks, reach=volume.shape, voxels=voxels)


def image_notice(volume: Volume) -> str | None:
    """Return a sentence where what is given as labels looks like an image, else None.

    Raises
    ------
    StorageError, VolumeFormatError
        When the voxels in the middle cannot be read.
    """
    if looks_like_labels(volume):
        return None
    return (
        f"{volume.uri} ({volume.dtype}) looks like an image: every grey value in it is taken for "
        "an object"
    )


def source_identity(volume: Volume) -> dict[str, Any]:
    """Return what tells a segmentation from a changed one, as JSON values.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    scales = _scale_folders(volume)
    if scales is None:
        return fingerprint(volume)
    digest = hashlib.sha256()
    for folder in scales:
        try:
            for line in _listed(folder):
                digest.update(line)
        except OSError as error:
            raise storage_error("look at", folder, error) from error
    size = volume.voxel_size
    return {
        "box": str(volume.box),
        "dtype": volume.dtype.name,
        "voxel_size": None if size is None else list(size.zyx_nm),
        "scales": digest.hexdigest(),
    }


def _scale_folders(volume: Volume) -> list[Path] | None:
    """Return the folders with the voxels of a local precomputed volume; None for others."""
    try:
        location = parse_location(volume.uri)
        if location.is_remote:
            return None
        root = stored_path(location)
        values = read_json(root / INFO, max_bytes=MAX_INFO_BYTES)
        return [root / str(scale["key"]) for scale in values["scales"]]
    except (FloodemError, KeyError, TypeError):
        return None


def _listed(folder: Path) -> Iterator[bytes]:
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda one: one.name):
            stat = entry.stat()
            yield f"{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="replace")
