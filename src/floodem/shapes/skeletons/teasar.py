"""Skeletons by TEASAR: the voxels of one object come in, its midline goes out.

1. The distance of each voxel from the boundary says how deep it lies.
2. A graph of the object's cells (`floodem.shapes.skeletons.voxel_graph`), in which
   a step is the dearer the nearer it is to the boundary, and one shortest-path
   tree over it from a root at a far end.
3. The cell that is farthest along the tree gives the first path; whatever lies
   within `scale` times the local radius plus `const_nm` of it (inside the object)
   is done with; the farthest cell that is left gives the next path, up to where it
   comes to a path that is there. And so on.
4. Paths are smoothed and their ends centred (`floodem.shapes.skeletons.paths`).

It is the method of Sato et al. 2000 (Pacific Graphics, "TEASAR: tree-structure
extraction algorithm for accurate and robust skeletons") with the invalidation
radius and the treatment of somata of kimimaro (Bae et al. 2021, Cell
188:2574; Silversmith et al. 2021). Different here: what a step costs is a
power of the depth itself and not of its share of the deepest voxel's, so that
thin neurites are as well centred beside a soma as without one; what a path covers
must be near it on ways inside the object as well, so that a neurite which folds
back keeps both arms.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from floodem.errors import OptionError
from floodem.geometry import VoxelSize, Zyx
from floodem.shapes.skeletons.paths import DepthAt, Points, Values, polished
from floodem.shapes.skeletons.skeleton import Skeleton, join
from floodem.shapes.skeletons.voxel_graph import (
    CLOSED,
    Sides,
    VoxelGraph,
    boundary_distance,
    voxel_graph,
)

COST_POWER = 4.0
"""A step costs its length divided by this power of the depth."""

CORE_OF_RADIUS = 0.35
"""A path that comes nearer than this share of the radius to an earlier one ends there."""

CORE_CELLS = 1.8
"""... or nearer than so many cells: a cell's neighbours lie within 1.74 edges."""


END_CAP_RADII = 2.2
"""Where a path was led out of a blunt end, this many radii and a cell are covered: the end's
whole rim is within 2."""

DETOUR = 1.15
DETOUR_FLAT = 1.55
"""How much longer than a straight line a way from cell to cell is at most, about: for cubes
(1.13 for 26 neighbours), and for cells much longer on one axis than on the others."""

_LOOK_AHEAD = 4096
"""Cells that are looked at together for the next one that no path covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeasarOptions:
    """How much detail a skeleton has.

    Attributes
    ----------
    scale, const_nm
        A path covers what is nearer to it than ``scale * radius + const_nm``;
        no other path begins there. Smaller numbers give more twigs. The defaults
        are kimimaro's.
    soma_nm
        An object that is deeper than this somewhere has a soma there, which is
        the root, and covers `soma_scale` times its radius plus `soma_const_nm`.
        The defaults are kimimaro's.
    min_piece_voxels
        Disconnected pieces of an object with fewer voxels are left out; the
        largest piece never is.
    """

    scale: float = 1.5
    const_nm: float = 300.0
    soma_nm: float = 3500.0
    soma_scale: float = 2.0
    soma_const_nm: float = 300.0
    min_piece_voxels: int = 1

    def __post_init__(self) -> None:
        for name in ("scale", "const_nm", "soma_scale", "soma_const_nm"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise OptionError(f"{name} is {value}: give a number from 0 on")
        if not self.soma_nm > 0:
            raise OptionError(f"soma_nm is {self.soma_nm}: give nanometres above 0")


DEFAULTS = TeasarOptions()


def skeletonize_mask(
    mask: Bool[np.ndarray, "z y x"],
    *,
    voxel_size: VoxelSize,
    start: Zyx = (0, 0, 0),
    options: TeasarOptions = DEFAULTS,
    open_sides: Sides = CLOSED,
) -> Skeleton:
    """Return the skeleton of one object; one tree for each of its pieces.

    Parameters
    ----------
    mask
        Its voxels, z, y, x. The skeleton of an empty mask is empty.
    voxel_size
        In nanometres.
    start
        Position of the mask's first voxel in the volume's frame.
    open_sides
        Where the object may go on beyond the array, because the volume ends and
        not the object: radii there are as if it did, and branches go up to the face.

    Notes
    -----
    Pieces come by their first voxel; the same mask gives the same skeleton.
    A tree has no loop: where the object has a hole, its ring is cut somewhere.
    """
    if not mask.any():
        return Skeleton.empty()
    crop = _bounds(mask)
    sides = tuple(
        (low and part.start == 0, high and part.stop == size)
        for (low, high), part, size in zip(open_sides, crop, mask.shape, strict=True)
    )
    mask = mask[crop]
    depth = boundary_distance(mask, voxel_size=voxel_size, open_sides=sides)  # type: ignore[arg-type]
    graph = voxel_graph(mask, depth_nm=depth, voxel_size=voxel_size)
    pieces = graph.pieces(min_voxels=options.min_piece_voxels)
    depth_at = _depth_in(depth, voxel_size)
    made = join(_Tree(piece, options, (voxel_size, depth_at)).grow() for piece in pieces)
    corner = [
        (first + part.start) * edge
        for first, part, edge in zip(start, crop, voxel_size.zyx_nm, strict=True)
    ]
    return made.moved((corner[0], corner[1], corner[2]))


def _bounds(mask: Bool[np.ndarray, "z y x"]) -> tuple[slice, slice, slice]:
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        found.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return (found[0], found[1], found[2])


def _depth_in(depth: Float32[np.ndarray, "z y x"], voxel_size: VoxelSize) -> DepthAt:
    edges, last = np.array(voxel_size.zyx_nm), np.array(depth.shape) - 1

    def depth_at(points_nm: Points) -> Values:
        at = np.floor(points_nm / edges).astype(np.int64)
        z, y, x = np.clip(at, 0, last).T
        is_in = ((at >= 0) & (at <= last)).all(axis=1)
        found: Values = np.where(is_in, depth[z, y, x], 0.0).astype(np.float64)
        return found

    return depth_at


class _Tree:
    """The skeleton of one connected piece while it grows.

    `_joins` says for each cell to which vertex a path that reaches the cell is
    joined, -1 where none has been near; `_is_open` which cells no path covers yet.
    """

    def __init__(
        self, graph: VoxelGraph, options: TeasarOptions, frame: tuple[VoxelSize, DepthAt]
    ) -> None:
        self._graph, self._options = graph, options
        voxel_size, self._depth_at = frame
        self._positions = (graph.voxels + 0.5) * np.array(voxel_size.zyx_nm)
        self._joins = np.full(len(graph.voxels), -1, np.int64)
        self._is_open = np.ones(len(graph.voxels), np.bool_)
        self._points: list[Points] = []
        self._radii: list[Values] = []
        self._edges: list[Int64[np.ndarray, "edges 2"]] = []
        self._firsts: list[int] = []
        self._count = 0

    def grow(self) -> Skeleton:
        """Return the skeleton."""
        graph, options = self._graph, self._options
        self._lengths = graph.matrix(graph.lengths_nm)
        deepest = int(np.argmax(graph.depth_nm))
        has_soma = bool(graph.depth_nm[deepest] >= options.soma_nm)
        root = deepest if has_soma else self._far_end(deepest)
        if has_soma or len(graph.voxels) == 1:
            alone = np.array([root])
            self._append(self._positions[alone], graph.depth_nm[alone], np.zeros((0, 2), np.int64))
            reach_nm = options.soma_scale * graph.depth_nm[alone] + options.soma_const_nm
            self._cover(alone, np.array([0]), reach_nm=reach_nm)
        onward, lengths = self._shortest_paths(root)
        for target in self._open_cells(np.argsort(-lengths, kind="stable")):
            cells, joint = self._path(target, onward)
            vertices, caps_nm = self._add(cells, joint=joint)
            reach_nm = np.maximum(options.scale * graph.depth_nm[cells] + options.const_nm, caps_nm)
            self._cover(cells, vertices, reach_nm=reach_nm)
        return Skeleton(
            np.concatenate(self._points).astype(np.float32),
            np.concatenate(self._edges).astype(np.uint32),
            np.concatenate(self._radii).astype(np.float32),
        )

    def _far_end(self, first: int) -> int:
        """Return a cell that is at one end: the last that a flood from `first` comes to."""
        from scipy.sparse.csgraph import breadth_first_order

        order = breadth_first_order(self._lengths, first, return_predecessors=False)
        return int(order[-1])

    def _shortest_paths(self, root: int) -> tuple[Any, Float64[np.ndarray, "cells"]]:
        """Return each cell's next one on the cheapest way to the root, and that way's length."""
        from scipy.sparse.csgraph import dijkstra

        graph = self._graph
        costs = (graph.depth_nm.max() / graph.depth_nm) ** COST_POWER
        prices = np.repeat(costs, np.diff(graph.starts))
        prices += costs[graph.neighbours]
        prices *= graph.lengths_nm
        _, onward = dijkstra(graph.matrix(prices), indices=root, return_predecessors=True)
        del prices
        onward[root] = root
        steps = np.linalg.norm(self._positions - self._positions[onward], axis=1)
        return onward, _summed_along(onward, steps)

    def _open_cells(self, order: Int64[np.ndarray, "cells"]) -> Iterator[int]:
        """Yield, in this order, cells that are open when their turn comes."""
        at = 0
        while at < len(order):
            is_open = self._is_open[order[at : at + _LOOK_AHEAD]]
            if is_open.any():
                at += int(np.argmax(is_open))
                yield int(order[at])
            at += 1 if is_open.any() else _LOOK_AHEAD

    def _path(self, target: int, onward: Any) -> tuple[Int64[np.ndarray, "cells"], int]:
        """Return the cells from a target on, and the vertex that they join (-1: they end)."""
        cells, cell = [target], target
        while self._joins[cell] < 0 and onward[cell] != cell:
            cell = int(onward[cell])
            cells.append(cell)
        joint = int(self._joins[cell])
        return np.array(cells if joint < 0 else cells[:-1]), joint

    def _add(
        self, cells: Int64[np.ndarray, "cells"], *, joint: int
    ) -> tuple[Int64[np.ndarray, "cells"], Float64[np.ndarray, "cells"]]:
        """Add a path that ends at a vertex or, at -1, freely.

        Returns the vertex that stands for each of its cells, and how far blunt
        ends reach from there.
        """
        points, radii = self._positions[cells], self._graph.depth_nm[cells]
        if joint >= 0:
            at, radius = self._vertex(joint)
            points, radii = np.concatenate([points, [at]]), np.append(radii, radius)
        points, radii, rows, caps = polished(
            points,
            radii,
            is_whole=joint < 0,
            cell_nm=(self._graph.cell_edge_nm, self._graph.longest_cell_edge_nm),
            depth_at=self._depth_at,
        )
        new = points if joint < 0 else points[:-1]
        vertices = np.arange(self._count, self._count + len(points))
        if joint >= 0:
            vertices[-1] = joint
        self._append(new, radii[: len(new)], np.stack([vertices[:-1], vertices[1:]], axis=1))
        caps = np.where(caps > 0, END_CAP_RADII * caps + self._graph.longest_cell_edge_nm, 0.0)
        return vertices[rows[: len(cells)]], caps[: len(cells)]

    def _append(self, points: Points, radii: Values, edges: Any) -> None:
        self._points.append(points)
        self._radii.append(radii)
        self._edges.append(edges)
        self._firsts.append(self._count)
        self._count += len(points)

    def _vertex(self, number: int) -> tuple[Any, float]:
        part = bisect.bisect_right(self._firsts, number) - 1
        row = number - self._firsts[part]
        return self._points[part][row], float(self._radii[part][row])

    def _cover(
        self,
        cells: Int64[np.ndarray, "cells"],
        vertices: Int64[np.ndarray, "cells"],
        *,
        reach_nm: Float64[np.ndarray, "cells"],
    ) -> None:
        """Close the cells within reach of a path, and let later paths join it near its middle."""
        from scipy.sparse.csgraph import dijkstra

        graph, core_nm = self._graph, CORE_CELLS * self._graph.cell_edge_nm
        detour = DETOUR if graph.cell_is_cubic else DETOUR_FLAT
        ways, _, sources = dijkstra(
            self._lengths,
            indices=cells,
            min_only=True,
            limit=detour * max(float(reach_nm.max()), core_nm),
            return_predecessors=True,
        )
        near = np.flatnonzero(np.isfinite(ways))
        row_of = np.argsort(cells)
        row = row_of[np.searchsorted(cells, sources[near], sorter=row_of)]
        distance = np.linalg.norm(self._positions[near] - self._positions[cells[row]], axis=1)
        is_core = distance <= np.maximum(CORE_OF_RADIUS * graph.depth_nm[cells[row]], core_nm)
        self._is_open[near[is_core | (distance <= reach_nm[row])]] = False
        is_core &= self._joins[near] < 0
        self._joins[near[is_core]] = vertices[row[is_core]]


def _summed_along(onward: Any, steps: Float64[np.ndarray, "cells"]) -> Float64[np.ndarray, "cells"]:
    """Return the sum of the steps from each cell to the root, whose step is 0, by doubling."""
    sums, jump = steps.copy(), onward.astype(np.int64)
    while True:
        farther = jump[jump]
        if (farther == jump).all():
            return sums
        sums += sums[jump]
        jump = farther
