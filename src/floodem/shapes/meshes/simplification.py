"""Fewer triangles for the same surface: a mesh comes in, a lighter one goes out.

Edges are collapsed by quadric error (Garland and Heckbert 1997, SIGGRAPH '97,
"Surface simplification using quadric error metrics"). A vertex that stands for
several is at most the error away from the planes of all triangles that met at
those: the root of the sum of the squared distances stays below it. pyfqmr does
the work (MIT, loaded where it is used).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt32

from floodem.geometry import VoxelSize
from floodem.shapes.meshes.mesh import Lattice, Mesh
from floodem.shapes.meshes.pinches import without_pinches
from floodem.volumes.packages import require_package

_ROUNDS = 20
"""The error grows to its limit in so many rounds, and the best edges go first."""
_ROUNDS_A_SURVEY = 5
"""Neighbours are counted anew once in so many rounds."""
_GROWTH = 7.0
_FIRST_ROUND = 3
"""The error of round k is ``((k + first) / (rounds - 1 + first)) ** (growth / 2)`` of the limit:
with 3 and 7, pyfqmr's defaults, the first round takes what is flat."""

_FEWEST_FACES = 4
"""A tetrahedron: no closed mesh has fewer."""

_TRIES = 3

_LATTICE_STEPS = 2**16
"""As many as Neuroglancer's format has to a cell."""

VOLUME_TOLERANCE = 0.01
"""How much of an object's volume one simplification may add or take away."""


def default_error_nm(voxel_size: VoxelSize) -> float:
    """Return the error that is allowed where nobody says: one voxel.

    It is the edge of a cube with the volume of a voxel.
    """
    z, y, x = voxel_size.zyx_nm
    return float((z * y * x) ** (1 / 3))


def simplified(mesh: Mesh, *, max_error_nm: float, target_faces: int = 0) -> Mesh:
    """Collapse edges as long as the error allows it and there are more faces than asked.

    Vertices at open borders stay where they are to the last bit. Triangles never
    turn over. Closed meshes stay closed, but two parts of a surface may come to
    share an edge (see `coarser`).

    Parameters
    ----------
    max_error_nm
        Largest distance from the planes that a vertex stands for.
    target_faces
        Enough is enough; 0: as few as the error allows.

    Raises
    ------
    DependencyError
        When pyfqmr is not installed.
    """
    if mesh.is_empty:
        return mesh
    # Positions near 0 keep the digits of products; adding the corner again restores every bit.
    corner = mesh.vertices_zyx_nm.min(axis=0).astype(np.float64)
    vertices, faces = collapsed(
        mesh.vertices_zyx_nm.astype(np.float64) - corner,
        mesh.faces,
        max_error=max_error_nm,
        target_faces=target_faces,
    )
    return Mesh((vertices + corner).astype(np.float32), faces)


def coarser(
    mesh: Mesh,
    *,
    max_error_nm: float,
    target_faces: int = 0,
    volume_tolerance: float = VOLUME_TOLERANCE,
    lattice: Lattice | None = None,
) -> Mesh:
    """Simplify a closed mesh into one in which each edge has exactly two faces.

    Parameters
    ----------
    max_error_nm, target_faces
        As in `simplified`.
    volume_tolerance
        Where the volume changes by more than this fraction, half the error is tried,
        then a quarter; then the mesh stays as it is.
    lattice
        Where vertices may lie, so that those which a file format would lay onto each
        other are one before edges are looked at; None: 1/256 of the error.

    Raises
    ------
    DependencyError
        When pyfqmr is not installed.
    """
    if mesh.is_empty:
        return mesh
    before = mesh.volume_nm3
    lattice = lattice or _fine_lattice(mesh)

    def parted(candidate: Mesh) -> Mesh:
        return without_pinches(candidate.rounded(lattice).welded(), max_shift_nm=max_error_nm)

    error = max_error_nm
    for _ in range(_TRIES):
        made = parted(simplified(mesh, max_error_nm=error, target_faces=target_faces))
        if abs(made.volume_nm3 - before) <= volume_tolerance * abs(before):
            return made
        error /= 2
    return parted(mesh)


def _fine_lattice(mesh: Mesh) -> Lattice:
    low, high = mesh.vertices_zyx_nm.min(axis=0), mesh.vertices_zyx_nm.max(axis=0)
    return Lattice.even(float((high - low).max()) / _LATTICE_STEPS or 1.0)


def collapsed(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: UInt32[np.ndarray, "faces 3"],
    *,
    max_error: float,
    target_faces: int = 0,
) -> tuple[Float64[np.ndarray, "kept 3"], UInt32[np.ndarray, "left 3"]]:
    """Do the work of `simplified` on bare arrays, in whatever unit they have.

    Raises
    ------
    DependencyError
        When pyfqmr is not installed.
    """
    pyfqmr = require_package("pyfqmr", purpose="simplifying meshes", install="floodem[shapes]")
    simplify: Any = pyfqmr.Simplify()
    simplify.setMesh(vertices, faces.view(np.int32))
    # The threshold of round k is alpha * (k + K) ** aggressiveness, in squared lengths.
    simplify.simplify_mesh(
        target_count=max(target_faces, _FEWEST_FACES),
        update_rate=_ROUNDS_A_SURVEY,
        max_iterations=_ROUNDS,
        alpha=max_error**2 / (_ROUNDS - 1 + _FIRST_ROUND) ** _GROWTH,
        K=_FIRST_ROUND,
        aggressiveness=_GROWTH,
        preserve_border=True,
        verbose=False,
    )
    kept, left, _ = simplify.getMesh()
    return kept, left.view(np.uint32)
