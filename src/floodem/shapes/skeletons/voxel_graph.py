"""A mask as a graph: voxels of one object come in, cells with neighbours and lengths go out.

Two voxels are neighbours when they share a face, an edge or a corner. So all
voxels of a 2 x 2 x 2 cell are neighbours, and a graph of cells in place of
voxels keeps exactly what hangs together and what does not, with an eighth to a
quarter of the nodes. Two cells are neighbours when both have a voxel at the side,
edge or corner that they share::

    . # | # .     . # | . #
    . . | . .     # . | . .
    neighbours    not

Each cell stands where its deepest voxel lies, the one farthest from the surface,
so that paths stay in the middle. It is used by `floodem.shapes.skeletons.teasar`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from floodem.geometry import VoxelSize, Zyx

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Sides = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]

CLOSED: Sides = ((False, False), (False, False), (False, False))
"""No side of the array is open: beyond all of them is background."""

_FINE_AXIS_RATIO = 1.5
"""Axes whose voxels are at most this much longer than the shortest edge are halved in cells."""

_HALF_DIRECTIONS: list[Zyx] = [
    d for d in itertools.product((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)) if d > (0, 0, 0)
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VoxelGraph:
    """Cells of an object and which of them are neighbours.

    Attributes
    ----------
    voxels
        The deepest voxel of each cell: z, y, x indices into the mask. Cells come in C order.
    depth_nm
        How far it is from the surface.
    counts
        Voxels in each cell.
    starts, neighbours
        Row i's neighbours are ``neighbours[starts[i]:starts[i + 1]]`` (a CSR
        structure); every pair is there in both directions.
    lengths_nm
        Distance between the two cells' voxels, for each entry of `neighbours`.
    cell_edge_nm, longest_cell_edge_nm
        The shortest and the longest edge of a cell.
    """

    voxels: Int64[np.ndarray, "cells 3"]
    depth_nm: Float64[np.ndarray, "cells"]
    counts: Int64[np.ndarray, "cells"]
    starts: np.ndarray[Any, np.dtype[np.int32]]
    neighbours: np.ndarray[Any, np.dtype[np.int32]]
    lengths_nm: Float64[np.ndarray, "pairs"]
    cell_edge_nm: float
    longest_cell_edge_nm: float

    @property
    def cell_is_cubic(self) -> bool:
        """Tell whether a cell's edges are about equal."""
        return self.longest_cell_edge_nm <= _FINE_AXIS_RATIO * self.cell_edge_nm

    def matrix(self, weights: Float64[np.ndarray, "pairs"]) -> Any:
        """Return the neighbours as a sparse matrix with these weights."""
        from scipy.sparse import csr_array

        shape = (len(self.voxels), len(self.voxels))
        return csr_array((weights, self.neighbours, self.starts), shape=shape)

    def pieces(self, *, min_voxels: int = 1) -> list[VoxelGraph]:
        """Return what hangs together, one graph each, in the order of their first cells.

        Pieces of fewer than `min_voxels` voxels are left out, but never the largest ones.
        """
        from scipy.sparse.csgraph import connected_components

        if not len(self.voxels):
            return []
        # Every pair is there both ways, so that what is strongly connected is connected.
        count, found = connected_components(self.matrix(self.lengths_nm), connection="strong")
        if count == 1:
            return [self]
        _, first, numbers = np.unique(found, return_index=True, return_inverse=True)
        numbers = numbers.reshape(-1)
        sizes = np.bincount(numbers, weights=self.counts)
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], np.arange(len(sizes)), side="right")
        starts = np.concatenate([[0], ends[:-1]])
        kept = np.flatnonzero(sizes >= min(min_voxels, sizes.max()))
        row_of = np.empty(len(numbers), np.int32)
        return [
            self._part(order[starts[piece] : ends[piece]], row_of)
            for piece in kept[np.argsort(first[kept])]
        ]

    def _part(self, rows: Int64[np.ndarray, "rows"], row_of: Any) -> VoxelGraph:
        row_of[rows] = np.arange(len(rows), dtype=np.int32)
        degrees = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(degrees)])
        entries = np.repeat(self.starts[rows] - starts[:-1], degrees) + np.arange(starts[-1])
        return VoxelGraph(
            voxels=self.voxels[rows],
            depth_nm=self.depth_nm[rows],
            counts=self.counts[rows],
            starts=starts.astype(np.int32),
            neighbours=row_of[self.neighbours[entries]],
            lengths_nm=self.lengths_nm[entries],
            cell_edge_nm=self.cell_edge_nm,
            longest_cell_edge_nm=self.longest_cell_edge_nm,
        )


def boundary_distance(
    mask: Bool[np.ndarray, "z y x"], *, voxel_size: VoxelSize, open_sides: Sides = CLOSED
) -> Float32[np.ndarray, "z y x"]:
    """Return how far each voxel of the mask is from the nearest voxel outside, centre to centre.

    Parameters
    ----------
    mask
        Voxels of the object, z, y, x.
    open_sides
        For each axis whether the object may go on beyond the array's low and
        high face: there is no boundary then. Elsewhere background begins.

    Notes
    -----
    `edt` computes it when it is installed (Felzenszwalb and Huttenlocher 2012;
    Meijster et al. 2000), otherwise scipy. An object that fills an array without
    any boundary is measured as if all faces were closed.
    """
    if mask.all() and all(low and high for low, high in open_sides):
        open_sides = CLOSED
    pads = [(int(not low), int(not high)) for low, high in open_sides]
    padded = np.pad(mask, pads)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(pads, mask.shape, strict=True))
    distance: Float32[np.ndarray, "z y x"] = _distance(padded, voxel_size)[inner]
    return distance


def _distance(mask: Mask, voxel_size: VoxelSize) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        import edt
    except ImportError:
        from scipy.ndimage import distance_transform_edt

        found = distance_transform_edt(mask, sampling=voxel_size.zyx_nm)
        return np.asarray(found, np.float32)
    distance = edt.edt(
        np.ascontiguousarray(mask), anisotropy=voxel_size.zyx_nm, black_border=False, parallel=1
    )
    return np.asarray(distance, np.float32)


def cell_shape(voxel_size: VoxelSize) -> Zyx:
    """Return how many voxels make a cell: 2 along the axes with short voxels, 1 along others."""
    shortest = min(voxel_size.zyx_nm)
    z, y, x = (2 if edge <= _FINE_AXIS_RATIO * shortest else 1 for edge in voxel_size.zyx_nm)
    return (z, y, x)


def voxel_graph(
    mask: Bool[np.ndarray, "z y x"],
    *,
    depth_nm: Float32[np.ndarray, "z y x"],
    voxel_size: VoxelSize,
) -> VoxelGraph:
    """Return the cells of a mask as a graph.

    Parameters
    ----------
    mask
        Voxels of the object, z, y, x.
    depth_nm
        Of each voxel (`boundary_distance`).
    """
    cell = cell_shape(voxel_size)
    codes = _cell_codes(mask, cell)
    grid = codes.shape
    flat = codes.reshape(-1)
    places = np.flatnonzero(flat)
    number = np.zeros(flat.size, np.int32)
    number[places] = np.arange(len(places), dtype=np.int32)
    voxels, depth = _deepest(mask, depth_nm, (places, grid, cell))
    own = flat[places]
    sources, targets = [], []
    for direction in _HALF_DIRECTIONS:
        step = (direction[0] * grid[1] + direction[1]) * grid[2] + direction[2]
        here = np.flatnonzero(_touches(own, _side_bits(direction, cell)))
        there = places[here] + step
        opposite = (-direction[0], -direction[1], -direction[2])
        is_pair = _touches(flat[there], _side_bits(opposite, cell))
        sources.append(here[is_pair].astype(np.int32))
        targets.append(number[there[is_pair]])
    edges_nm = [size * count for size, count in zip(voxel_size.zyx_nm, cell, strict=True)]
    ends = (np.concatenate(sources), np.concatenate(targets))
    starts, neighbours = _both_ways(ends, count=len(places))
    return VoxelGraph(
        voxels=voxels,
        depth_nm=depth,
        counts=np.bitwise_count(own).astype(np.int64),
        starts=starts,
        neighbours=neighbours,
        lengths_nm=_lengths(
            voxels * np.array(voxel_size.zyx_nm, np.float64), starts, neighbours=neighbours
        ),
        cell_edge_nm=min(edges_nm),
        longest_cell_edge_nm=max(edges_nm),
    )


def _lengths(
    positions: Float64[np.ndarray, "cells 3"], starts: Any, *, neighbours: Any
) -> Float64[np.ndarray, "pairs"]:
    """Return the distance of each pair; axis by axis, because there are many."""
    rows = np.repeat(np.arange(len(positions), dtype=np.int32), np.diff(starts))
    lengths = np.zeros(len(neighbours))
    for axis in positions.T:
        difference = axis[rows]
        difference -= axis[neighbours]
        difference *= difference
        lengths += difference
    return np.sqrt(lengths, out=lengths)


def _cell_codes(mask: Mask, cell: Zyx) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return which voxels each cell has, one bit each, with one empty cell around them all."""
    grid = [-(-size // count) for size, count in zip(mask.shape, cell, strict=True)]
    codes = np.zeros([size + 2 for size in grid], np.uint8)
    for bit, (dz, dy, dx) in enumerate(itertools.product(*(range(count) for count in cell))):
        part = mask[dz :: cell[0], dy :: cell[1], dx :: cell[2]]
        z, y, x = part.shape
        codes[1 : z + 1, 1 : y + 1, 1 : x + 1] |= part.astype(np.uint8) << np.uint8(bit)
    return codes


def _deepest(
    mask: Mask, depth: np.ndarray[Any, np.dtype[np.float32]], cells: tuple[Any, Any, Zyx]
) -> tuple[Int64[np.ndarray, "cells 3"], Float64[np.ndarray, "cells"]]:
    """Return each cell's deepest voxel and its depth; of equal ones the first in C order."""
    places, grid, cell = cells
    corner = (np.stack(np.unravel_index(places, grid), axis=1) - 1) * cell
    voxels, deepest = corner.copy(), np.full(len(places), -1.0)
    last = np.array(mask.shape) - 1
    for offset in itertools.product(*(range(count) for count in cell)):
        at = corner + offset
        is_inside = (at <= last).all(axis=1)
        z, y, x = np.minimum(at, last).T
        here = np.where(is_inside & mask[z, y, x], depth[z, y, x], -1.0)
        is_deeper = here > deepest
        deepest[is_deeper] = here[is_deeper]
        voxels[is_deeper] = at[is_deeper]
    return voxels, deepest


def _side_bits(direction: Zyx, cell: Zyx) -> np.uint8:
    """Return which voxels of a cell lie at the side, edge or corner towards a direction."""
    bits = 0
    for bit, offset in enumerate(itertools.product(*(range(count) for count in cell))):
        ends = ((count - 1) if d > 0 else 0 for d, count in zip(direction, cell, strict=True))
        if all(d == 0 or o == end for d, o, end in zip(direction, offset, ends, strict=True)):
            bits |= 1 << bit
    return np.uint8(bits)


def _touches(codes: np.ndarray[Any, np.dtype[np.uint8]], side: np.uint8) -> Mask:
    found: Mask = (codes & side) != 0
    return found


def _both_ways(ends: tuple[Any, Any], *, count: int) -> tuple[Any, Any]:
    """Return starts and neighbours of pairs that are given in one direction each."""
    from scipy.sparse import coo_array

    one_way = coo_array(
        (np.ones(len(ends[0]), np.int8), ends), shape=(count, count), dtype=np.int8
    ).tocsr()
    both = (one_way + one_way.T).tocsr()
    both.sort_indices()
    return both.indptr.astype(np.int32), both.indices.astype(np.int32)
