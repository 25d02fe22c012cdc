"""A triangle mesh in memory: what marching cubes give, and what writers of mesh files take.

Positions are nanometres in the frame of the volume, ordered z, y, x; voxel v
covers [v, v + 1) voxel edges. Writers of xyz files use `Mesh.as_xyz`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt32

from floodem.errors import GeometryError

CornersZyx = tuple[tuple[float, float, float], tuple[float, float, float]]

MAX_VERTICES = 2**32 - 1
"""Faces name their vertices by 32-bit numbers, as every mesh file does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Places ``origin + step * n`` for whole n, in nanometres, ordered z, y, x."""

    step_nm: tuple[float, float, float]
    origin_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def even(cls, step_nm: float) -> Lattice:
        """Return a lattice with the same step along every axis."""
        return cls(step_nm=(step_nm, step_nm, step_nm))


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles of one object.

    Attributes
    ----------
    vertices_zyx_nm
        Positions in nanometres, ordered z, y, x.
    faces
        Three vertices for each triangle, in the order that makes the volume of a
        closed mesh positive when z, y, x are taken for the axes of a right-handed
        frame: ``(b - a) x (c - a)``, computed from the positions as they stand
        here, points out of the object. Turning the axes to x, y, z mirrors that
        frame, so `as_xyz` turns each triangle as well.
    """

    vertices_zyx_nm: Float32[np.ndarray, "vertices 3"]
    faces: UInt32[np.ndarray, "faces 3"]

    @classmethod
    def empty(cls) -> Mesh:
        """Return a mesh without triangles."""
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint32))

    @classmethod
    def concatenate(cls, meshes: Sequence[Mesh]) -> Mesh:
        """Put meshes side by side in one; vertices in the same place stay apart (see `welded`).

        Raises
        ------
        GeometryError
            When together they have more vertices than 32-bit numbers count.
        """
        if not meshes:
            return cls.empty()
        counts = np.cumsum([0, *(len(mesh.vertices_zyx_nm) for mesh in meshes)])
        if counts[-1] > MAX_VERTICES:
            raise GeometryError(
                f"a mesh of {counts[-1]} vertices is more than 32-bit numbers count: "
                "mesh a coarser level"
            )
        vertices = np.concatenate([mesh.vertices_zyx_nm for mesh in meshes])
        faces = np.concatenate(
            [
                mesh.faces + np.uint32(before)
                for mesh, before in zip(meshes, counts[:-1], strict=True)
            ]
        )
        return cls(vertices, faces)

    @property
    def is_empty(self) -> bool:
        """Whether there are no triangles."""
        return len(self.faces) == 0

    @property
    def area_nm2(self) -> float:
        """Surface in square nanometres."""
        a, b, c = self._corners()
        return float(np.sqrt(sum(part**2 for part in _crossed(b - a, c - a))).sum() / 2)

    @property
    def volume_nm3(self) -> float:
        """Enclosed volume in cubic nanometres; means something for closed meshes only.

        Negative when the triangles are turned inwards.
        """
        a, b, c = self._corners()
        return float(sum(one @ other for one, other in zip(a, _crossed(b, c), strict=True)) / 6)

    @property
    def box_nm(self) -> CornersZyx | None:
        """Lowest and highest corner (z, y, x) in nanometres; None for a mesh without vertices."""
        if len(self.vertices_zyx_nm) == 0:
            return None
        low, high = self.vertices_zyx_nm.min(axis=0), self.vertices_zyx_nm.max(axis=0)
        return (_triple(low), _triple(high))

    def as_xyz(self) -> tuple[Float32[np.ndarray, "vertices 3"], UInt32[np.ndarray, "faces 3"]]:
        """Return positions ordered x, y, z and triangles turned so that they still look outwards.

        In the right-handed frame x, y, z the corners of each triangle run counter-clockwise
        seen from outside, as OBJ, PLY, STL, glTF and Neuroglancer's formats have it.
        """
        return (
            np.ascontiguousarray(self.vertices_zyx_nm[:, ::-1]),
            np.ascontiguousarray(self.faces[:, ::-1]),
        )

    @classmethod
    def from_xyz(
        cls,
        vertices_xyz_nm: Float32[np.ndarray, "vertices 3"],
        faces: UInt32[np.ndarray, "faces 3"],
    ) -> Mesh:
        """Undo `as_xyz`."""
        return cls(
            np.ascontiguousarray(vertices_xyz_nm[:, ::-1]), np.ascontiguousarray(faces[:, ::-1])
        )

    def welded(self) -> Mesh:
        """Make one of vertices that are the same to the last bit.

        Triangles that lose a corner by it are dropped, and so are vertices without a
        triangle. The order of both stays.
        """
        return self.with_joined(same_places(self.vertices_zyx_nm))

    def with_joined(self, same: UInt32[np.ndarray, "vertices"]) -> Mesh:
        """Put each vertex in the place of another (or itself), as `welded` does.

        Parameters
        ----------
        same
            The vertex that each becomes.
        """
        faces = same[self.faces]
        is_kept = (
            (faces[:, 0] != faces[:, 1])
            & (faces[:, 1] != faces[:, 2])
            & (faces[:, 2] != faces[:, 0])
        )
        return Mesh(self.vertices_zyx_nm, faces[is_kept]).without_loose_vertices()

    def rounded(self, lattice: Lattice) -> Mesh:
        """Move vertices to the nearest places of a lattice, as far as 32-bit numbers hold them."""
        step, origin = np.array(lattice.step_nm), np.array(lattice.origin_nm)
        places = np.rint((self.vertices_zyx_nm - origin) / step) * step + origin
        return Mesh(places.astype(np.float32), self.faces)

    def without_loose_vertices(self) -> Mesh:
        """Drop vertices that no triangle has; the order of the others stays."""
        is_used = np.zeros(len(self.vertices_zyx_nm), bool)
        is_used[self.faces.ravel()] = True
        if is_used.all():
            return self
        numbers = np.cumsum(is_used, dtype=np.uint32) - np.uint32(1)
        return Mesh(self.vertices_zyx_nm[is_used], numbers[self.faces])

    def _corners(self) -> Float64[np.ndarray, "3 axes faces"]:
        """Return the places of the first, second and third corners, axis by axis."""
        if self.is_empty:
            return np.zeros((3, 3, 0))
        # Near the origin, where products of positions keep their small digits.
        vertices = self.vertices_zyx_nm.astype(np.float64)
        vertices -= vertices.mean(axis=0)
        columns = np.ascontiguousarray(vertices.T)
        return np.stack([columns[:, corner] for corner in self.faces.T.astype(np.intp)])


def _crossed(one: Any, other: Any) -> tuple[Any, Any, Any]:
    """Return cross products, axis by axis, which is twice as fast as row by row."""
    (a, b, c), (d, e, f) = one, other
    return b * f - c * e, c * d - a * f, a * e - b * d


def same_places(
    places: Float[np.ndarray, "vertices 3"],
) -> UInt32[np.ndarray, "vertices"]:
    """Return for each place the first index that has it, to the last bit (0 and -0 are one)."""
    places = np.ascontiguousarray(places + places.dtype.type(0))  # -0 becomes 0
    bits = places.view(f"u{places.itemsize}").astype(np.uint64)
    mixed = bits[:, 0] * _MULTIPLIERS[0] + bits[:, 1] * _MULTIPLIERS[1] + bits[:, 2]
    order = np.argsort(mixed, kind="stable")
    same = np.empty(len(order), np.uint32)
    same[order] = _first_of_runs(mixed[order], order)
    if np.array_equal(places[same], places):
        return same
    # Two places have one number, which is rare: sort by the places themselves.
    z, y, x = places.T
    order = np.lexsort((x, y, z))
    same[order] = _first_of_runs(places[order], order)
    return same


_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
"""Odd numbers that spread the bits of positions over 64 (those of SplitMix64 and xxHash)."""


def _first_of_runs(ordered: Any, order: Any) -> Any:
    """Return the first of `order` in each run of equal rows, for every one of the run."""
    is_new = np.ones(len(order), bool)
    differs = ordered[1:] != ordered[:-1]
    is_new[1:] = differs if differs.ndim == 1 else differs.any(axis=1)
    return order[np.flatnonzero(is_new)[np.cumsum(is_new) - 1]]


def _triple(values: Any) -> tuple[float, float, float]:
    z, y, x = (float(value) for value in values)
    return (z, y, x)
