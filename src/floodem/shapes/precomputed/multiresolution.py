"""One object's mesh, level by level, as Neuroglancer's multi-resolution format has it.

Meshes of one object come in, finest first; a manifest and the Draco-encoded
fragments go out, which `floodem.shapes.precomputed.folders` puts into files.
Format: neuroglancer_multilod_draco (google/neuroglancer,
src/datasource/precomputed/meshes.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.errors import GeometryError
from floodem.shapes.meshes.mesh import Mesh
from floodem.shapes.precomputed.cutting import Lattice, Triangles, cut_triangles
from floodem.shapes.precomputed.manifest import (
    CELL_BITS,
    MAX_LEVELS,
    Manifest,
    ManifestLevel,
    Xyz,
    z_curve_cells,
    z_curve_keys,
)
from floodem.volumes.packages import require_package

QuantizationBits = Literal[10, 16]

DRACO_LEVEL = 7
"""A quarter smaller than level 1, a tenth slower to write and to read."""


class EncodedMesh(NamedTuple):
    """A mesh as two pieces of bytes: its manifest, and its fragments in one row."""

    manifest: bytes
    fragments: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Level:
    """Triangles of one level, cut, welded and encoded.

    `octants` are cells of the next finer grid (Z-curve keys) that its triangles lie in.
    """

    scale_nm: float
    fragments: dict[int, bytes]
    octants: set[int]


def encode_multiresolution(
    levels: Sequence[Mesh],
    *,
    chunk_edges_nm: tuple[float, float, float],
    grid_origin_zyx_nm: tuple[float, float, float] | None = None,
    quantization_bits: QuantizationBits = 16,
    scales_nm: Sequence[float] | None = None,
) -> EncodedMesh:
    """Cut the levels of a mesh into grid cells and encode the pieces.

    Level k has cells of ``chunk_edges_nm * 2**k``. Vertices are rounded to
    ``2**quantization_bits - 1`` steps to a cell edge (`Lattice.rounded`); apart from that
    nothing is lost: the pieces of a closed mesh, welded, are a closed mesh. Where a level
    has an octant that the next finer level leaves empty, or the other way round, an empty
    fragment says so, so that Neuroglancer never draws one level inside another.

    A level from which rounding leaves no triangle is left out, with those after it.

    Parameters
    ----------
    levels
        The same object at falling detail, finest first.
    chunk_edges_nm
        Edges of a cell of the finest level, ordered z, y, x.
    grid_origin_zyx_nm
        Corner of cell (0, 0, 0); no mesh may reach below it. None: the lowest corner
        of the meshes. It is rounded down to 32-bit numbers, which is what files hold.
    quantization_bits
        10 or 16.
    scales_nm
        How coarse each level is, not falling; Neuroglancer changes level where this
        length is about ten pixels long. None: the mean edge of the level's triangles.

    Raises
    ------
    GeometryError
        When there is no triangle, a mesh reaches below the origin, or the cells are
        too small for the mesh.
    DependencyError
        When DracoPy is not installed.
    """
    draco = require_package("DracoPy", purpose="writing meshes for Neuroglancer", install=_EXTRA)
    if not 1 <= len(levels) <= MAX_LEVELS or levels[0].is_empty:
        raise GeometryError(
            f"a mesh of {len(levels)} levels, the first without triangles or missing, cannot be "
            f"written: give 1 to {MAX_LEVELS} levels that have some"
        )
    edges = _edges_xyz(chunk_edges_nm)
    origin = _origin_xyz(levels, grid_origin_zyx_nm)
    made: list[_Level] = []
    scale = 0.0
    for number, mesh in enumerate(levels):
        scale = max(scale, _typical_edge_nm(mesh) if scales_nm is None else scales_nm[number])
        lattice = Lattice(bits=quantization_bits, has_halves=number > 0)
        corners = _on_lattice(mesh, lattice, cell_xyz_nm=edges * 2**number, origin_xyz_nm=origin)
        level = _encode_level(draco, corners, lattice, scale_nm=scale)
        if not level.fragments:
            break
        made.append(level)
    if not made:
        raise GeometryError(
            f"a mesh is smaller than the steps of {min(edges) / lattice.steps:g} nm that its "
            "vertices are rounded to: give smaller cells"
        )
    return _assemble(made, edges, origin)


_EXTRA = "floodem[shapes]"


def _edges_xyz(edges_zyx_nm: tuple[float, float, float]) -> Float64[np.ndarray, "3"]:
    edges = np.array(edges_zyx_nm[::-1], np.float32).astype(np.float64)
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise GeometryError(
            f"cells of {edges_zyx_nm} nm have no size: give three positive lengths, z,y,x"
        )
    return edges


def _origin_xyz(
    levels: Sequence[Mesh], origin_zyx_nm: tuple[float, float, float] | None
) -> Float64[np.ndarray, "3"]:
    """Return the grid's corner as 32-bit numbers hold it, never above what was asked."""
    if origin_zyx_nm is None:
        lowest = [mesh.vertices_zyx_nm.min(axis=0) for mesh in levels if not mesh.is_empty]
        asked = np.min(lowest, axis=0)[::-1].astype(np.float64)
    else:
        asked = np.array(origin_zyx_nm[::-1], np.float64)
    if not np.isfinite(asked).all():
        raise GeometryError(
            f"a mesh begins at {tuple(asked[::-1])}, which is no place: mesh the object again"
        )
    rounded = asked.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return np.asarray(np.where(rounded > asked, below, rounded), np.float64)


def _typical_edge_nm(mesh: Mesh) -> float:
    """Return the edge of the equilateral triangle with the mesh's mean area."""
    if mesh.is_empty:
        return 0.0
    return math.sqrt(mesh.area_nm2 / len(mesh.faces) * 4 / math.sqrt(3))


def _on_lattice(
    mesh: Mesh,
    lattice: Lattice,
    *,
    cell_xyz_nm: Float64[np.ndarray, "3"],
    origin_xyz_nm: Float64[np.ndarray, "3"],
) -> Triangles:
    """Return the corners of triangles, x, y, z, in steps of a level's lattice."""
    vertices_xyz_nm, faces = mesh.as_xyz()
    places = lattice.rounded(
        (vertices_xyz_nm.astype(np.float64) - origin_xyz_nm) / cell_xyz_nm * lattice.steps
    )
    corners: Triangles = places[faces.astype(np.intp)]
    if not len(corners):
        return corners
    lowest, highest = float(corners.min()), float(corners.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise GeometryError("a mesh has vertices that are no places: mesh the object again")
    if lowest < 0:
        raise GeometryError(
            f"a mesh reaches below the origin {tuple(origin_xyz_nm[::-1])} nm (z,y,x) of its "
            "grid: give an origin that lies below it"
        )
    if highest >= lattice.steps * (1 << CELL_BITS):
        raise GeometryError(
            f"a mesh is more than {1 << CELL_BITS} cells of {tuple(cell_xyz_nm[::-1])} nm "
            "(z,y,x) long: give larger cells"
        )
    return corners


def _encode_level(draco: Any, corners: Triangles, lattice: Lattice, *, scale_nm: float) -> _Level:
    corners, slabs = cut_triangles(corners, lattice=lattice)
    cells = lattice.cells(slabs)
    places = (corners - (cells * lattice.steps)[:, None, :]).astype(np.int64)
    packed = places[..., 0] | places[..., 1] << lattice.bits | places[..., 2] << 2 * lattice.bits
    is_kept = (
        (packed[:, 0] != packed[:, 1])
        & (packed[:, 1] != packed[:, 2])
        & (packed[:, 2] != packed[:, 0])
    )
    packed, cells, slabs = packed[is_kept], cells[is_kept], slabs[is_kept]
    keys = z_curve_keys(cells)
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    bounds = [*starts.tolist(), len(order)]
    fragments = {
        int(key): _encode_fragment(draco, packed[order[bounds[row] : bounds[row + 1]]], lattice)
        for row, key in enumerate(found)
    }
    octants = {int(key) for key in np.unique(z_curve_keys(slabs))} if lattice.has_halves else set()
    return _Level(scale_nm=_file_scale(scale_nm), fragments=fragments, octants=octants)


def _file_scale(scale_nm: float) -> float:
    """Return a scale that is not 0 in a file, where 0 means that there is no such level."""
    return max(float(np.float32(scale_nm)), float(np.finfo(np.float32).tiny))


def _encode_fragment(
    draco: Any, packed: Int64[np.ndarray, "triangles 3"], lattice: Lattice
) -> bytes:
    """Weld the triangles of one cell and encode them with integer positions."""
    found, faces = np.unique(packed, return_inverse=True)
    places = np.stack([found, found >> lattice.bits, found >> 2 * lattice.bits], axis=1)
    places &= lattice.steps
    # Positions of an integer type are stored as they are, which is what the format asks for.
    encoded: bytes = draco.encode(
        places.astype(np.int32),
        faces.reshape(packed.shape).astype(np.uint32),
        compression_level=DRACO_LEVEL,
    )
    return encoded


def _assemble(
    levels: Sequence[_Level],
    edges_xyz_nm: Float64[np.ndarray, "3"],
    origin_xyz_nm: Float64[np.ndarray, "3"],
) -> EncodedMesh:
    cells = [set(level.fragments) for level in levels]
    for number, level in enumerate(levels[1:]):
        cells[number] |= level.octants
    for number in range(1, len(levels)):
        # A cell without a parent would never be reached from the root.
        cells[number] |= {key >> 3 for key in cells[number - 1]}
    manifest_levels, fragments = [], []
    for level, keys in zip(levels, cells, strict=True):
        ordered = sorted(keys)
        pieces = [level.fragments.get(key, b"") for key in ordered]
        fragments += pieces
        ordered_keys: UInt64[np.ndarray, "cells"] = np.array(ordered, np.uint64)
        manifest_levels.append(
            ManifestLevel(
                scale_nm=level.scale_nm,
                cells_xyz=z_curve_cells(ordered_keys).astype(np.uint32),
                sizes=np.array([len(piece) for piece in pieces], np.uint32),
            )
        )
    manifest = Manifest(
        cell_edges_xyz_nm=_triple(edges_xyz_nm),
        grid_origin_xyz_nm=_triple(origin_xyz_nm),
        levels=tuple(manifest_levels),
    )
    return EncodedMesh(manifest.to_bytes(), b"".join(fragments))


def _triple(values: Float64[np.ndarray, "3"]) -> Xyz:
    x, y, z = (float(value) for value in values)
    return (x, y, z)
