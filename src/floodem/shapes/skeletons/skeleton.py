"""A skeleton: points, edges and radii in nanometres; what one can ask of it, and no files.

It comes from `floodem.shapes.skeletons.teasar` (or from a file) and goes to
`floodem.shapes.skeletons.swc` and `floodem.shapes.skeletons.precomputed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt32

from floodem.errors import GeometryError
from floodem.geometry import VoxelSize


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """Points of an object's midline, and which of them are neighbours.

    Attributes
    ----------
    vertices_zyx_nm
        Positions in nanometres, z, y, x, in the volume's frame: the volume's offset
        is in them, and voxel v covers [v, v + 1) times the voxel's edge.
    edges
        Pairs of rows of `vertices_zyx_nm`. The edges of a skeleton made here are a
        forest; those of a file may have loops.
    radii_nm
        Distance from each vertex to the surface of the object.

    Raises
    ------
    GeometryError
        When the arrays do not fit together, or an edge names no vertex.
    """

    vertices_zyx_nm: Float32[np.ndarray, "vertices 3"]
    edges: UInt32[np.ndarray, "edges 2"]
    radii_nm: Float32[np.ndarray, "vertices"]

    def __post_init__(self) -> None:
        count = len(self.vertices_zyx_nm)
        if self.vertices_zyx_nm.shape != (count, 3) or self.edges.shape != (len(self.edges), 2):
            raise GeometryError(
                f"a skeleton has vertices of shape {self.vertices_zyx_nm.shape} and edges of shape "
                f"{self.edges.shape}: give (n, 3) and (m, 2)"
            )
        if self.radii_nm.shape != (count,):
            raise GeometryError(
                f"a skeleton of {count} vertices has radii of shape {self.radii_nm.shape}: give "
                f"({count},)"
            )
        if len(self.edges) and int(self.edges.max()) >= count:
            raise GeometryError(
                f"an edge of a skeleton names vertex {int(self.edges.max())} of {count}: count "
                "vertices from 0"
            )

    @classmethod
    def empty(cls) -> Skeleton:
        """Return a skeleton without vertices."""
        return cls(
            np.zeros((0, 3), np.float32), np.zeros((0, 2), np.uint32), np.zeros(0, np.float32)
        )

    def __len__(self) -> int:
        return len(self.vertices_zyx_nm)

    @property
    def edge_lengths_nm(self) -> Float32[np.ndarray, "edges"]:
        """Length of each edge, in nanometres."""
        ends = self.vertices_zyx_nm[self.edges.astype(np.int64)]
        lengths: Float32[np.ndarray, "edges"] = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
        return lengths

    @property
    def length_nm(self) -> float:
        """Cable length: the sum of all edges, in nanometres."""
        return float(self.edge_lengths_nm.sum(dtype=np.float64))

    @property
    def degrees(self) -> Int64[np.ndarray, "vertices"]:
        """How many edges meet at each vertex."""
        return np.bincount(self.edges.reshape(-1).astype(np.int64), minlength=len(self))

    @property
    def branch_points(self) -> Int64[np.ndarray, "points"]:
        """Rows of the vertices where three or more edges meet."""
        return np.flatnonzero(self.degrees > 2)

    @property
    def end_points(self) -> Int64[np.ndarray, "points"]:
        """Rows of the vertices with one edge; a vertex that stands alone is none."""
        return np.flatnonzero(self.degrees == 1)

    @property
    def component_numbers(self) -> Int32[np.ndarray, "vertices"]:
        """To which connected piece each vertex belongs: 0, 1, ... by their first vertex."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(self):
            return np.zeros(0, np.int32)
        ends = self.edges.astype(np.int64)
        graph = coo_array(
            (np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(self), len(self))
        )
        _, found = connected_components(graph, directed=False)
        _, first, numbers = np.unique(found, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int32)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first), dtype=np.int32)
        return rank[numbers.reshape(-1)]

    def components(self) -> list[Skeleton]:
        """Return one skeleton for each connected piece, in the order of their first vertices."""
        numbers = self.component_numbers
        if not len(numbers) or not numbers.any():
            return [self] if len(self) else []
        order = np.argsort(numbers, kind="stable")
        row_of = np.empty(len(self), np.int64)
        starts = np.searchsorted(numbers[order], np.arange(int(numbers.max()) + 2))
        row_of[order] = np.arange(len(self)) - starts[numbers[order]]
        ends = self.edges.astype(np.int64)
        edge_numbers = numbers[ends[:, 0]]
        edge_order = np.argsort(edge_numbers, kind="stable")
        edge_starts = np.searchsorted(edge_numbers[edge_order], np.arange(len(starts)))
        made = []
        for number in range(len(starts) - 1):
            rows = order[starts[number] : starts[number + 1]]
            own = edge_order[edge_starts[number] : edge_starts[number + 1]]
            made.append(
                Skeleton(
                    self.vertices_zyx_nm[rows],
                    row_of[ends[own]].astype(np.uint32),
                    self.radii_nm[rows],
                )
            )
        return made

    def moved(self, by_zyx_nm: tuple[float, float, float]) -> Skeleton:
        """Return the skeleton shifted by z, y, x nanometres."""
        shifted = (self.vertices_zyx_nm.astype(np.float64) + by_zyx_nm).astype(np.float32)
        return Skeleton(shifted, self.edges, self.radii_nm)


def join(skeletons: Iterable[Skeleton]) -> Skeleton:
    """Put skeletons into one, one after the other; no edges are added between them."""
    parts = list(skeletons)
    if not parts:
        return Skeleton.empty()
    firsts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    edges = [part.edges.astype(np.int64) + first for part, first in zip(parts, firsts, strict=True)]
    return Skeleton(
        np.concatenate([part.vertices_zyx_nm for part in parts]),
        np.concatenate(edges).astype(np.uint32),
        np.concatenate([part.radii_nm for part in parts]),
    )


def voxel_centres_nm(
    voxels: Int64[np.ndarray, "vertices 3"], *, voxel_size: VoxelSize
) -> Float32[np.ndarray, "vertices 3"]:
    """Return where the centres of voxels lie: z, y, x voxels come in, nanometres go out."""
    centres: Float32[np.ndarray, "vertices 3"] = (
        (voxels + 0.5) * np.array(voxel_size.zyx_nm)
    ).astype(np.float32)
    return centres
