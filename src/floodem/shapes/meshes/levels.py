"""Levels of detail of one object: its closed mesh comes in, lighter and lighter ones go out.

They are what Neuroglancer's multi-resolution format wants
(`floodem.shapes.precomputed.encode_multiresolution`), on the very lattice to which
that format rounds positions, so that what is watertight here is so in the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from floodem.shapes.meshes.mesh import Lattice, Mesh
from floodem.shapes.meshes.simplification import coarser

QUANTIZATION_BITS: Literal[16] = 16

LEVELS = 3
"""Every object has so many, unless it is too small for them."""

_REDUCTION = 4
"""A level has a quarter of the triangles of the finer one: twice the length of their edges."""

_MOST_LEVELS = 12
_LIGHT_FACES = 2048
"""More than `LEVELS` levels are made until one is as light as this."""
_LEAST_FACES = 16
"""What has fewer is not made lighter."""
_NOT_WORTH = 0.75
"""A level with more than this part of the finer one's triangles is left out."""

_COARSE_VOLUME_TOLERANCE = 0.4
"""Levels but the first are seen from afar, where thin parts may grow thinner."""

_FACES_A_CELL = 32768
"""So many triangles of the finest level are fetched and decoded together, about 100 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The cubes that a mesh's levels are cut into; level k has cells of ``edge_nm * 2**k``.

    Attributes
    ----------
    origin_nm
        Corner of the first cell (z, y, x), a 32-bit number along each axis.
    edge_nm
        Edge of a cell of the finest level, a 32-bit number as well.
    """

    origin_nm: tuple[float, float, float]
    edge_nm: float

    def lattice(self, level: int) -> Lattice:
        """Return the places that vertices of a level are rounded to."""
        step = self.edge_nm * 2**level / (2**QUANTIZATION_BITS - 1)
        return Lattice(step_nm=(step, step, step), origin_nm=self.origin_nm)


def grid_for(mesh: Mesh, *, margin_nm: float) -> Grid:
    """Return a grid around a mesh: one cell for a small object, more for one of many faces."""
    low = mesh.vertices_zyx_nm.min(axis=0).astype(np.float64) - margin_nm
    high = mesh.vertices_zyx_nm.max(axis=0).astype(np.float64) + margin_nm
    corner = np.nextafter(low.astype(np.float32), np.float32(-np.inf))
    z, y, x = (float(value) for value in corner)
    # Cells on a surface grow by four where they are halved along all axes.
    halvings = max(0, math.ceil(math.log(max(len(mesh.faces), 1) / _FACES_A_CELL, 4)))
    extent = float((high - corner).max())
    edge = np.nextafter(np.float32(extent / 2**halvings), np.float32(np.inf))
    return Grid(origin_nm=(z, y, x), edge_nm=float(edge))


def first_level(mesh: Mesh, *, max_error_nm: float, grid: Grid | None = None) -> Mesh:
    """Return the finest level: a closed mesh, simplified across the seams of its blocks."""
    lattice = None if grid is None else grid.lattice(0)
    return _inside(coarser(mesh, max_error_nm=max_error_nm, lattice=lattice), grid)


def levels_of_detail(first: Mesh, *, max_error_nm: float, grid: Grid) -> list[Mesh]:
    """Return the levels, finest first; each has about a quarter of the triangles before.

    The error of level k is at most ``max_error_nm * 4**k``, that of a curved surface
    whose edges grow twofold with each level.
    """
    levels = [first]
    while len(levels) < _MOST_LEVELS:
        finer = levels[-1]
        is_enough = len(levels) >= LEVELS and len(finer.faces) <= _LIGHT_FACES
        if is_enough or len(finer.faces) < _LEAST_FACES:
            break
        number = len(levels)
        made = coarser(
            finer,
            max_error_nm=max_error_nm * _REDUCTION**number,
            target_faces=len(finer.faces) // _REDUCTION,
            volume_tolerance=_COARSE_VOLUME_TOLERANCE,
            lattice=grid.lattice(number),
        )
        if len(made.faces) > _NOT_WORTH * len(finer.faces):
            break
        levels.append(_inside(made, grid))
    return levels


def _inside(mesh: Mesh, grid: Grid | None) -> Mesh:
    """Keep vertices from reaching below the grid, where coarse levels may overshoot a little."""
    if grid is None or mesh.is_empty:
        return mesh
    corner = np.array(grid.origin_nm, np.float32)
    if (mesh.vertices_zyx_nm >= corner).all():
        return mesh
    return Mesh(np.maximum(mesh.vertices_zyx_nm, corner), mesh.faces)
