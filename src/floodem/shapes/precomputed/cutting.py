"""Cutting triangles along a grid, exactly: integer corners come in, and go out with their cells.

All corners lie on an integer lattice, and so do the places where an edge is cut.
Where an edge is cut depends on that edge alone (never on its triangle), so that
two triangles which shared an edge share all its pieces: what was closed is closed
after welding. It stands between a mesh and `floodem.shapes.precomputed.multiresolution`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

Triangles = Float64[np.ndarray, "triangles 3 3"]
Pieces = Float64[np.ndarray, "pieces 3 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Integer positions inside a grid of cubes, and the planes that part the slabs of an axis.

    A cell is 2^bits - 1 steps wide: its last position is the first of the next cell.
    With `has_halves` each cell is parted once more, into slabs 2i and 2i + 1, at its
    position 2^(bits - 1), which is where Neuroglancer parts a fragment
    (neuroglancer_draco.cc, partition_point).
    """

    bits: int
    has_halves: bool

    @property
    def steps(self) -> int:
        """Steps from one side of a cell to the other."""
        return (1 << self.bits) - 1

    @property
    def _middle(self) -> int:
        return 1 << (self.bits - 1)

    def planes(self, numbers: Int64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        """Return where the plane below each slab lies."""
        if not self.has_halves:
            below = numbers * self.steps
        else:
            below = (numbers >> 1) * self.steps + (numbers & 1) * self._middle
        return np.asarray(below, np.float64)

    def slabs(self, places: Float64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Return the slab of each place; a place on a plane belongs to the slab above it."""
        numbers: Int64[np.ndarray, "..."] = (places // self.steps).astype(np.int64)
        if not self.has_halves:
            return numbers
        numbers *= 2
        numbers += places >= self.planes(numbers + 1)
        return numbers

    def rounded(self, places: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        """Return the lattice positions nearest to places.

        The middle of a cell lies half way between two of them. Both become the one that is
        on the plane: a step beside it, all that lies in the middle would give a layer of
        triangles too thin to have a direction, and Neuroglancer's shading would show it.
        """
        rounded: Float64[np.ndarray, "..."] = np.floor(places + 0.5)
        if self.has_halves:
            rounded += rounded % self.steps == self._middle - 1
        return rounded

    def cells(self, slabs: Int64[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Return the grid cells that these slabs are parts of."""
        cells: Int64[np.ndarray, "..."] = slabs >> int(self.has_halves)
        return cells


def cut_triangles(
    corners: Triangles, *, lattice: Lattice
) -> tuple[Pieces, Int64[np.ndarray, "pieces 3"]]:
    """Cut triangles so that each lies in one slab of every axis.

    Parameters
    ----------
    corners
        Corners of triangles: whole numbers of at least 0, in the order of axes of
        the caller.
    lattice
        Where the planes are.

    Returns
    -------
    corners, slabs
        The pieces, with the orientation of what they were cut from, and the slabs of
        each along the axes. A triangle that lies in a plane belongs to the slab below
        it, as Neuroglancer has it, or to slab 0.
    """
    for axis in range(3):
        corners = _cut_along(corners, axis, lattice=lattice)
    slabs = [np.maximum(_range(corners[:, :, axis], lattice)[1], 0) for axis in range(3)]
    return corners, np.stack(slabs, axis=1)


def _range(
    places: Float64[np.ndarray, "triangles 3"], lattice: Lattice
) -> tuple[Int64[np.ndarray, "triangles"], Int64[np.ndarray, "triangles"]]:
    """Return the first and the last slab of triangles; last < first for one in a plane."""
    a, b, c = places[:, 0], places[:, 1], places[:, 2]  # faster than min(axis=1)
    first = np.minimum(np.minimum(a, b), c)
    last = np.maximum(np.maximum(a, b), c)
    last_slab = lattice.slabs(last)
    last_slab -= lattice.planes(last_slab) == last
    return lattice.slabs(first), last_slab


def _cut_along(corners: Triangles, axis: int, *, lattice: Lattice) -> Pieces:
    done = []
    while len(corners):
        first, last = _range(corners[:, :, axis], lattice)
        is_whole = last <= first
        done.append(corners[is_whole])
        corners, first, last = corners[~is_whole], first[~is_whole], last[~is_whole]
        if len(corners):
            # Of the planes first + 1 .. last the one whose number has most trailing zeros: near
            # the middle, and the first of any row of planes that it stands in. So an edge is cut
            # at the same planes in the same order in both of its triangles.
            level = np.frexp((first ^ last).astype(np.float64))[1].astype(np.int64) - 1
            corners = _cut_at(corners, axis, lattice.planes(last >> level << level))
    return np.concatenate(done) if done else corners


def _cut_at(corners: Triangles, axis: int, planes: Float64[np.ndarray, "triangles"]) -> Pieces:
    """Cut each triangle at its own plane, which has corners on both sides."""
    sides = np.sign(corners[:, :, axis] - planes[:, None])
    touches = (sides == 0).any(axis=1)
    # The corner that lies in the plane, else the one that is alone on its side, comes first.
    lead = np.where(
        touches,
        (sides == 0).argmax(axis=1),
        (sides != np.sign(sides.sum(axis=1))[:, None]).argmax(axis=1),
    )
    turned = (lead[:, None] + np.arange(3)) % 3
    corners = np.take_along_axis(corners, turned[:, :, None], axis=1)
    return np.concatenate(
        [
            _cut_in_two(corners[touches], axis, planes[touches]),
            _cut_in_three(corners[~touches], axis, planes[~touches]),
        ]
    )


def _cut_in_two(corners: Triangles, axis: int, planes: Float64[np.ndarray, "triangles"]) -> Pieces:
    r"""Cut from corner a, which lies in the plane, to the opposite edge.

    ::

            c
           /|
          / |
      ---a--x---
          \ |
           \|
            b
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    x = _crossings(one=b, other=c, axis=axis, planes=planes)
    return np.concatenate([np.stack([a, b, x], axis=1), np.stack([a, x, c], axis=1)])


def _cut_in_three(
    corners: Triangles, axis: int, planes: Float64[np.ndarray, "triangles"]
) -> Pieces:
    r"""Cut off corner a, which is alone on its side.

    ::

            a
           / \
      ----x---y----
         /     \
        b-------c
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    x = _crossings(one=a, other=b, axis=axis, planes=planes)
    y = _crossings(one=a, other=c, axis=axis, planes=planes)
    return np.concatenate(
        [
            np.stack([a, x, y], axis=1),
            np.stack([x, b, c], axis=1),
            np.stack([x, c, y], axis=1),
        ]
    )


def _crossings(
    *,
    one: Float64[np.ndarray, "triangles 3"],
    other: Float64[np.ndarray, "triangles 3"],
    axis: int,
    planes: Float64[np.ndarray, "triangles"],
) -> Float64[np.ndarray, "triangles 3"]:
    """Return where edges cross their planes, on the lattice; the same from either end."""
    is_ordered = (one[:, axis] < other[:, axis])[:, None]
    low, high = np.where(is_ordered, one, other), np.where(is_ordered, other, one)
    part = (planes - low[:, axis]) / (high[:, axis] - low[:, axis])
    crossings: Float64[np.ndarray, "triangles 3"] = np.rint(low + (high - low) * part[:, None])
    crossings[:, axis] = planes
    return crossings
