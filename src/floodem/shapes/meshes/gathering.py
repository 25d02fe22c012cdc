"""Stage two of meshing a volume: the pieces of some objects come in, their finished meshes go out.

Blocks have left open meshes (`floodem.shapes.meshes.blocks`). Here those of one
object are welded where blocks meet, simplified as a whole, and written as levels
of detail or as files for other programs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt64

from floodem.geometry import Box, Zyx, tiles
from floodem.memory import require_memory
from floodem.shapes.files import mesh_file_name, write_mesh_file
from floodem.shapes.meshes.blocks import first_voxel, fragment
from floodem.shapes.meshes.levels import (
    QUANTIZATION_BITS,
    first_level,
    grid_for,
    levels_of_detail,
)
from floodem.shapes.meshes.mesh import Mesh, same_places
from floodem.shapes.meshes.packs import Place, writing_pack
from floodem.shapes.precomputed import EncodedMesh, encode_multiresolution

ENCODED_COLUMNS = 1
"""Bytes of the manifest, which stands before the fragments."""

BYTES_A_FACE = 512
"""What simplifying takes at its peak for each face of an object, in pyfqmr's own tables."""

Pieces = UInt64[np.ndarray, "pieces 7"]
"""Columns: object, block, start and size in the block's file, voxels, vertices, faces."""

OBJECT, BLOCK, START, SIZE, VOXELS, VERTICES, FACES = range(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How the region was cut, and where each block's file is."""

    region: Box
    edge: int
    folder: Path

    def cores(self) -> list[Box]:
        """Return the blocks in C order; their place in the list is their number."""
        core = (self.edge, self.edge, self.edge)
        return [tile.core for tile in tiles(self.region, core=core)]

    def path(self, number: int) -> Path:
        """Return the file of a block."""
        return self.folder / f"{number}.pack"

    def core(self, number: int) -> Box:
        """Return one block, without making all of them."""
        counts = [-(-size // self.edge) for size in self.region.shape]
        z, rest = divmod(number, counts[1] * counts[2])
        y, x = divmod(rest, counts[2])
        low = self.region.start
        start = (low[0] + z * self.edge, low[1] + y * self.edge, low[2] + x * self.edge)
        core = Box.from_shape((self.edge, self.edge, self.edge), start=start)
        found = core.intersection(self.region)
        assert found is not None
        return found

    def first_voxel(self, number: int) -> Zyx:
        """Return the voxel from whose centre a block's vertices are counted."""
        return first_voxel(self.core(number), self.region)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatherWork:
    """Some objects to finish.

    Attributes
    ----------
    blocks
        Where their pieces are.
    pieces
        One row for each piece, by ascending id, then block.
    edges_nm
        Edges of a voxel (z, y, x).
    max_error_nm
        Of simplifying across seams, which adds to that of the blocks.
    path
        File for encoded meshes (`floodem.shapes.meshes.packs`), or folder for single files.
    file_format
        None: encoded levels of detail; else the ending of single files.
    """

    blocks: Blocks
    pieces: Pieces
    edges_nm: tuple[float, float, float]
    max_error_nm: float
    path: Path
    file_format: str | None


def gather_objects(work: GatherWork) -> dict[str, Any]:
    """Finish the meshes of some objects; return id, voxels, faces of each level and bytes.

    Raises
    ------
    ResourceError
        When an object is too large for the memory that is free.
    GeometryError
        When an object cannot be written.
    StorageError, VolumeFormatError
        When a file cannot be read or written.
    """
    bounds = np.flatnonzero(np.diff(work.pieces[:, OBJECT], prepend=0, append=0) != 0)
    groups = [work.pieces[a:b] for a, b in itertools.pairwise(bounds.tolist())]
    if work.file_format is None:
        with writing_pack(work.path, columns=ENCODED_COLUMNS) as pack:
            rows = []
            for pieces in groups:
                levels, encoded = _encoded(pieces, work)
                object_id = int(pieces[0, OBJECT])
                pack.add(object_id, encoded, len(encoded.manifest))
                rows.append(_row(pieces, levels, len(encoded.manifest) + len(encoded.fragments)))
    else:
        rows = [_write_file(pieces, work) for pieces in groups]
    return {"objects": rows}


def _row(pieces: Pieces, levels: list[Mesh], size: int) -> list[Any]:
    voxels = int(pieces[:, VOXELS].sum())
    return [int(pieces[0, OBJECT]), voxels, [len(mesh.faces) for mesh in levels], size]


def _encoded(pieces: Pieces, work: GatherWork) -> tuple[list[Mesh], EncodedMesh]:
    whole = joined(pieces, work)
    grid = grid_for(whole, margin_nm=work.max_error_nm)
    first = first_level(whole, max_error_nm=work.max_error_nm, grid=grid)
    levels = levels_of_detail(first, max_error_nm=2 * work.max_error_nm, grid=grid)
    edge = grid.edge_nm
    encoded = encode_multiresolution(
        levels,
        chunk_edges_nm=(edge, edge, edge),
        grid_origin_zyx_nm=grid.origin_nm,
        quantization_bits=QUANTIZATION_BITS,
    )
    return levels, encoded


def _write_file(pieces: Pieces, work: GatherWork) -> list[Any]:
    assert work.file_format is not None
    mesh = first_level(joined(pieces, work), max_error_nm=work.max_error_nm)
    path = work.path / mesh_file_name(int(pieces[0, OBJECT]), work.file_format)
    write_mesh_file(path, mesh)
    return _row(pieces, [mesh], path.stat().st_size)


def joined(pieces: Pieces, work: GatherWork) -> Mesh:
    """Return an object as one closed mesh, its pieces welded where blocks meet.

    Raises
    ------
    ResourceError
        When it is too large for the memory that is free.
    """
    object_id, face_count = int(pieces[0, OBJECT]), int(pieces[:, FACES].sum())
    require_memory(
        needed_bytes=face_count * BYTES_A_FACE,
        purpose=f"object {object_id} of {face_count} triangles",
        remedy="use fewer workers, or mesh a coarser level (--level)",
    )
    places, faces, before = [], [], 0
    for piece in pieces.tolist():
        block = piece[BLOCK]
        place = Place(path=work.blocks.path(block), start=piece[START], size=piece[SIZE])
        vertices, triangles = fragment(place.read(), vertices=piece[VERTICES], faces=piece[FACES])
        # Exact: halves of voxels, or what lies between them, far below 2^53.
        places.append(vertices.astype(np.float64) + work.blocks.first_voxel(block))
        faces.append(triangles + np.uint32(before))
        before += len(vertices)
    everywhere = np.concatenate(places)
    # A voxel's centre lies half a voxel behind its corner, from which positions count.
    positions = ((everywhere + 0.5) * np.array(work.edges_nm)).astype(np.float32)
    mesh = Mesh(positions, np.concatenate(faces))
    return mesh.with_joined(_same_at_seams(everywhere, work.blocks))


def _same_at_seams(places: Float64[np.ndarray, "vertices 3"], blocks: Blocks) -> Any:
    """Return for each vertex the first one in its place, looking where blocks meet."""
    away = places - np.array(blocks.region.start)
    at_seam = np.flatnonzero((np.remainder(away, blocks.edge) == 0).any(axis=1))
    same = np.arange(len(places), dtype=np.uint32)
    same[at_seam] = at_seam[same_places(places[at_seam])]
    return same
