"""Stage one of meshing a volume: one block's labels come in, a file of open meshes goes out.

Blocks partition the volume, and each also looks at the first voxels of the next
one. Its cells of marching cubes reach from voxel centre to voxel centre, so that
every cell belongs to one block, and neighbours have the same vertices in the plane
in which they meet::

    voxels      | a | b | c | d | e | f |
    centres       .   .   .   .   .   .
    block 0       |---cells---|
    block 1                   |---cells---|   (d is the first voxel of block 1)

Simplification leaves vertices at open borders alone, and with them those planes.
At the border of the whole region objects are closed. What a block makes does not
depend on other blocks; `floodem.shapes.meshes.gathering` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt32

from floodem.errors import VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.labels import require_labels, sizes
from floodem.shapes.meshes.marching import marching_cubes
from floodem.shapes.meshes.packs import writing_pack
from floodem.shapes.meshes.simplification import VOLUME_TOLERANCE, collapsed
from floodem.shapes.source import LabelSource, opened_source

FRAGMENT_COLUMNS = 3
"""Voxels in the block's core, vertices, faces."""

_LEAST_FACES = 64
"""Smaller surfaces gain nothing: a cube of two voxels has 44 faces."""

_FACES_WITH_CARE = 5000
"""Up to here the volume is looked at; a larger surface has an inside that hardly changes."""

_TRIES = 3

_EDGES = (256, 128, 64)
_BLOCKS_WANTED = 8

_BYTES_OF_THREE = 12
_DAMAGED = "a working file of unfinished meshes is damaged: begin again with --overwrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWork:
    """One block to mesh.

    Attributes
    ----------
    source
        The segmentation.
    region
        All that is meshed, in voxels of the volume's frame.
    core
        The block's part of it.
    edges_nm
        Edges of a voxel (z, y, x).
    ids
        Only these objects; None: all.
    max_error_nm
        See `floodem.shapes.meshes.simplification`.
    path
        The file to write (`floodem.shapes.meshes.packs`): for each object float32
        vertices (z, y, x in voxels from the centre of the voxel `first_voxel`), then uint32 faces.
    """

    source: LabelSource
    region: Box
    core: Box
    edges_nm: tuple[float, float, float]
    ids: tuple[int, ...] | None
    max_error_nm: float
    path: Path


def first_voxel(core: Box, region: Box) -> Zyx:
    """Return the voxel from whose centre a block's vertices are counted (z, y, x).

    It is the core's first, or the one of background before it at the region's border.
    """
    z, y, x = (a - (a == low) for a, low in zip(core.start, region.start, strict=True))
    return (z, y, x)


def mesh_block(work: BlockWork) -> dict[str, Any]:
    """Mesh the objects of a block and write them to its file; return their numbers.

    Raises
    ------
    LabelError
        When the volume holds no labels.
    StorageError, VolumeFormatError
        When a file cannot be read or written.
    """
    labels, counts = _read(work)
    surfaces = 0
    faces_in_all = 0
    unmeshed = dict(counts)
    found = []
    for label, vertices, faces in marching_cubes(labels, ids=work.ids):
        voxels = unmeshed.pop(label, 0)
        lighter = _lighter(vertices, faces, work=work, voxels=voxels)
        found.append((label, voxels, *lighter))
        surfaces += 1
        faces_in_all += len(lighter[1])
    nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32)
    found += [(label, voxels, *nothing) for label, voxels in unmeshed.items()]
    with writing_pack(work.path, columns=FRAGMENT_COLUMNS) as pack:
        for label, voxels, vertices, faces in sorted(found, key=lambda one: one[0]):
            pieces = [vertices.astype("<f4").tobytes(), faces.astype("<u4").tobytes()]
            pack.add(label, pieces, voxels, len(vertices), len(faces))
    return {"surfaces": surfaces, "faces": faces_in_all}


def _read(work: BlockWork) -> tuple[Shaped[np.ndarray, "z y x"], dict[int, int]]:
    """Return the block with one voxel more on every side that needs it, and the core's sizes."""
    core, region = work.core, work.region
    z, y, x = (b + (b < high) for b, high in zip(core.stop, region.stop, strict=True))
    labels = opened_source(work.source).read(Box(core.start, (z, y, x)))
    require_labels(labels, what=work.source.uri)
    ids, numbers = sizes(labels[core.slices(origin=core.start)])
    wanted = None if work.ids is None else set(work.ids)
    counts = {
        label: number
        for label, number in zip(ids.tolist(), numbers.tolist(), strict=True)
        if label and (wanted is None or label in wanted)
    }
    before = [int(a == low) for a, low in zip(core.start, region.start, strict=True)]
    after = [int(b == high) for b, high in zip(core.stop, region.stop, strict=True)]
    return np.pad(labels, list(zip(before, after, strict=True))), counts


def _lighter(
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: UInt32[np.ndarray, "faces 3"],
    *,
    work: BlockWork,
    voxels: int,
) -> tuple[Float32[np.ndarray, "kept 3"], UInt32[np.ndarray, "left 3"]]:
    """Simplify; small surfaces by less where their volume would suffer."""
    if len(faces) <= _LEAST_FACES:
        return vertices, faces
    edges = np.array(work.edges_nm)
    error = work.max_error_nm
    for _ in range(_TRIES):
        kept, left = collapsed(vertices * edges, faces, max_error=error)
        # The same border before and after: what lies between is the change, from any point.
        made = (kept / edges).astype(np.float32)
        if len(faces) > _FACES_WITH_CARE:
            return made, left
        change = _signed_volume(made, left) - _signed_volume(vertices, faces)
        if abs(change) <= VOLUME_TOLERANCE * voxels:
            return made, left
        error /= 2
    return vertices, faces


def _signed_volume(
    vertices: Float[np.ndarray, "vertices 3"], faces: UInt32[np.ndarray, "faces 3"]
) -> float:
    a, b, c = vertices.astype(np.float64)[faces.T.astype(np.intp)]
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def fragment(
    data: memoryview, *, vertices: int, faces: int
) -> tuple[Float32[np.ndarray, "vertices 3"], UInt32[np.ndarray, "faces 3"]]:
    """Return what `mesh_block` has written for an object.

    Raises
    ------
    VolumeFormatError
        When the numbers do not fit the bytes, or a face names a vertex that is not there.
    """
    split = vertices * _BYTES_OF_THREE
    if len(data) != split + faces * _BYTES_OF_THREE:
        raise VolumeFormatError(_DAMAGED)
    places = np.frombuffer(data[:split], "<f4").reshape(vertices, 3)
    triangles = np.frombuffer(data[split:], "<u4").reshape(faces, 3)
    if faces and int(triangles.max()) >= vertices:
        raise VolumeFormatError(_DAMAGED)
    return places.astype(np.float32), triangles.astype(np.uint32)


def block_edge(region: Box) -> int:
    """Return a good edge of blocks in voxels: large, but with work for several processes."""
    edge = _EDGES[0]
    for edge in _EDGES:
        if int(np.prod([-(-size // edge) for size in region.shape])) >= _BLOCKS_WANTED:
            break
    return edge
