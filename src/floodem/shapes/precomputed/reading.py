"""Meshes back from a folder of multi-resolution meshes: a folder in, `Mesh`es by level out.

For tests and for tools that export single objects from such a folder. A damaged
file is told by one `VolumeFormatError`, and takes bounded memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from floodem.errors import LabelError, OptionError, VolumeFormatError
from floodem.files import storage_error
from floodem.shapes.meshes.mesh import Mesh
from floodem.shapes.precomputed.folders import object_name, read_info
from floodem.shapes.precomputed.infos import IDENTITY, MeshInfo, Transform
from floodem.shapes.precomputed.manifest import Manifest, ManifestLevel
from floodem.shapes.precomputed.shards import MAX_ID, ShardReader, read_range
from floodem.volumes.damage import damaged
from floodem.volumes.packages import require_package

MAX_MANIFEST_BYTES = 64 * 2**20
"""Four million fragments of one object."""

MAX_FRAGMENT_BYTES = 2**28
"""A fragment is what a browser fetches in one go; that is a thousand times too large."""

_MAX_FACES = 2**24
_MAX_FACES_PER_BYTE = 1024


class MeshFolder:
    """A local folder of multi-resolution meshes, sharded or not.

    Raises
    ------
    VolumeNotFoundError
        When the folder has no info.
    VolumeFormatError
        When the info is damaged, or that of something else.
    """

    def __init__(self, folder: Path) -> None:
        info = read_info(folder)
        if not isinstance(info, MeshInfo):
            raise VolumeFormatError(
                f"{folder} holds {info.TYPE}, not multi-resolution meshes: give a folder that "
                "floodem mesh wrote"
            )
        self.info = info
        self._folder = folder
        self._shards = (
            None
            if info.sharding is None
            else ShardReader(folder, spec=info.sharding, max_object_bytes=MAX_MANIFEST_BYTES)
        )

    def ids(self) -> Iterator[int]:
        """Yield the ids of all meshes, in no particular order.

        Raises
        ------
        VolumeFormatError
            When a shard is damaged.
        StorageError
            When the file system refuses.
        """
        if self._shards is not None:
            yield from self._shards.ids()
            return
        try:
            for path in self._folder.iterdir():
                match = re.fullmatch(r"([0-9]{1,20})\.index", path.name)
                if match and int(match[1]) <= MAX_ID:
                    yield int(match[1])
        except OSError as error:
            raise storage_error("look at", self._folder, error) from error

    def manifest(self, object_id: int) -> Manifest:
        """Return the manifest of an object.

        Raises
        ------
        LabelError
            When there is no mesh of this id.
        VolumeFormatError
            When the file is damaged.
        StorageError
            When the file system refuses.
        """
        return self._open(object_id)[0]

    def mesh(self, object_id: int, *, level: int = 0) -> Mesh:
        """Return a level of an object's mesh, its pieces welded.

        Raises
        ------
        LabelError
            When there is no mesh of this id.
        OptionError
            When it has no such level.
        VolumeFormatError
            When a file is damaged.
        StorageError
            When the file system refuses.
        DependencyError
            When DracoPy is not installed.
        """
        manifest, path, start = self._open(object_id)
        if not 0 <= level < len(manifest.levels):
            raise OptionError(
                f"the mesh of {object_id} has no level {level}: it has {len(manifest.levels)}, "
                "counted from 0, the finest"
            )
        start += sum(one.total_bytes for one in manifest.levels[:level])
        places, faces = self._fragments(manifest.levels[level], path, start)
        steps = (1 << self.info.quantization_bits) - 1
        cell = np.array(manifest.cell_edges_xyz_nm) * 2.0**level
        origin = np.array(manifest.grid_origin_xyz_nm) + manifest.levels[level].offset_xyz_nm
        mesh = _mesh(origin + cell * (places / steps), faces, self.info.transform)
        return mesh.welded()

    def _open(self, object_id: int) -> tuple[Manifest, Path, int]:
        """Return a manifest, and in which file and from where the fragments lie."""
        what = f"the manifest of {object_id} in {self._folder}"
        if self._shards is not None:
            place = self._shards.find(object_id)
            data = self._shards.read(object_id)
            if place is None or data is None:
                raise self._missing(object_id)
            manifest = Manifest.from_bytes(data, what=what)
            return manifest, place.path, place.start - manifest.fragment_bytes
        path = self._folder / object_name(object_id)
        index = path.with_name(f"{path.name}.index")
        if not index.is_file():
            raise self._missing(object_id)
        size = index.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise damaged(index, kind="a manifest", reason=f"it has {size} bytes")
        return Manifest.from_bytes(read_range(index, 0, size=size), what=what), path, 0

    def _missing(self, object_id: int) -> LabelError:
        return LabelError(f"{self._folder} has no mesh of {object_id}: check the id")

    def _fragments(
        self, level: ManifestLevel, path: Path, start: int
    ) -> tuple[Int64[np.ndarray, "vertices 3"], Int64[np.ndarray, "faces 3"]]:
        """Return the pieces of a level: whole steps from the grid's corner, x, y, z."""
        draco = require_package(
            "DracoPy", purpose="reading meshes of Neuroglancer", install="floodem[shapes]"
        )
        steps = (1 << self.info.quantization_bits) - 1
        places, faces, count = [np.zeros((0, 3), np.int64)], [np.zeros((0, 3), np.int64)], 0
        for cell, size in zip(level.cells_xyz.astype(np.int64), level.sizes.tolist(), strict=True):
            if size:
                if size > MAX_FRAGMENT_BYTES:
                    raise damaged(path, kind="fragments of a mesh", reason=f"one of {size} bytes")
                data = read_range(path, start, size=size)
                inside, corners = _decoded(draco, data, steps=steps, path=path)
                places.append(inside + cell * steps)
                faces.append(corners + count)
                count += len(inside)
            start += size
        return np.concatenate(places), np.concatenate(faces)


def _decoded(
    draco: Any, data: bytes, *, steps: int, path: Path
) -> tuple[Int64[np.ndarray, "vertices 3"], Int64[np.ndarray, "faces 3"]]:
    """Return the vertices of a fragment, in steps from its cell's corner, and its faces."""
    kind = "a fragment of a mesh"
    declared = _declared_faces(data)
    if declared is None or declared > min(_MAX_FACES, _MAX_FACES_PER_BYTE * len(data)):
        raise damaged(path, kind=kind, reason=f"{len(data)} bytes for {declared} triangles")
    try:
        decoded = draco.decode(data)
        positions = np.asarray(decoded.points, np.float64).reshape(-1, 3)
        faces = np.asarray(decoded.faces).reshape(-1, 3).astype(np.int64)
    except (draco.FileTypeException, AttributeError, ValueError, TypeError, RuntimeError) as error:
        raise damaged(path, kind=kind, reason=error) from error
    if not ((positions > -1) & (positions < steps + 1)).all():
        raise damaged(path, kind=kind, reason="a vertex lies outside its cell")
    if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(positions):
        raise damaged(path, kind=kind, reason="a triangle names a vertex that is not there")
    return np.rint(positions).astype(np.int64), faces


def _declared_faces(data: bytes) -> int | None:
    """Return how many triangles a Draco mesh says it has, or None when it is none.

    The decoder makes room for them before it looks further.

    References
    ----------
    Draco bitstream specification, ParseHeader and DecodeConnectivityData, version 2.2.
    """
    if len(data) < 12 or data[:5] != b"DRACO" or data[7] != 1 or data[10] & 0x80:
        return None  # too short, something else, points only, or with metadata before the rest
    if data[8] == 0:  # sequential: triangles come first
        return _varint(data, 11)[0]
    _, offset = _varint(data, 12)  # after the kind of traversal: vertices, then triangles
    return _varint(data, offset)[0]


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = data[offset] if offset < len(data) else 0
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, offset


def _mesh(
    positions_xyz: Float64[np.ndarray, "vertices 3"],
    faces: Int64[np.ndarray, "faces 3"],
    transform: Transform,
) -> Mesh:
    if transform != IDENTITY:
        matrix = np.array(transform).reshape(3, 4)
        positions_xyz = positions_xyz @ matrix[:, :3].T + matrix[:, 3]
        if np.linalg.det(matrix[:, :3]) < 0:
            faces = faces[:, ::-1]
    return Mesh.from_xyz(positions_xyz.astype(np.float32), faces.astype(np.uint32))
