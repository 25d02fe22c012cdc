"""Whose voxel it is: points with radii in, the nearest neurite of each voxel out.

A voxel belongs to the point whose power distance ``|p - q|^2 - r^2`` is least (a
Laguerre diagram: cells are convex, and a neurite is a chain of them). The second
least among other neurites tells how far the surface is and how it is inclined.

Work goes by cells on a grid of the volume; a cell's voxels are always computed
together, from the same points, so that they are the same in every box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.geometry import Box, Zyx
from floodem.volumes.synthetic.noise import Floats, cell_shape
from floodem.volumes.synthetic.tubes import LARGEST_RADIUS, Points, Tubes

_CELL = 0.5
"""Edge of a cell, in spacings."""

_NEAR, _FAR = 2.0, 4.0
"""In spacings: where a cell's points are looked for first, and where nothing decisive is near."""

Indices = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True, slots=True)
class Territory:
    """Who owns each voxel of a box.

    Attributes
    ----------
    box
        The voxels, whole cells of the grid.
    points
        What `owner` counts.
    owner
        Index of the nearest point (z, y, x).
    surface_nm
        Distance to the surface of the neurite, along its normal.
    steepness
        Size of that normal's z component, 0 to 1.
    """

    box: Box
    points: Points
    owner: np.ndarray[Any, np.dtype[np.int32]]
    surface_nm: Floats
    steepness: Floats


def cell_grid(tubes: Tubes) -> Zyx:
    """Return the edges of the cells, in voxels."""
    return cell_shape(_CELL * tubes.options.spacing_nm, tubes.placing.voxel_nm)


def whole_cells(box: Box, *, cell: Zyx, within: Box) -> Box:
    """Return the cells that a box touches, as one box, cut at the volume."""
    start = [a // edge * edge for a, edge in zip(box.start, cell, strict=True)]
    stop = [-(-b // edge) * edge for b, edge in zip(box.stop, cell, strict=True)]
    cut = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).intersection(within)
    assert cut is not None
    return cut


def territory(tubes: Tubes, box: Box) -> Territory:
    """Find who owns the voxels of a box, which is grown to whole cells.

    A box of 128^3 voxels takes two seconds and about 100 MB.
    """
    from scipy.spatial import cKDTree

    cell = cell_grid(tubes)
    box = whole_cells(box, cell=cell, within=tubes.options.box)
    spacing = tubes.options.spacing_nm
    points = tubes.points_near(box, reach_nm=(_FAR + 1) * spacing)
    tree = cKDTree(points.places_nm)
    search = _Search(points=points, tree=tree, spacing_nm=spacing)
    offsets = tubes.placing.offsets_over(box)
    owner = np.empty(box.shape, np.int32)
    surface = np.empty(box.shape, np.float32)
    steepness = np.empty(box.shape, np.float32)
    voxel_nm = np.array(tubes.placing.voxel_nm)
    starts = [range(a, b, edge) for a, b, edge in zip(box.start, box.stop, cell, strict=True)]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                one = Box.from_shape(cell, start=(z, y, x)).intersection(box)
                assert one is not None
                where = one.slices(origin=box.start)
                local: list[Floats] = [
                    _axis_centres(one, axis, voxel_nm[axis]) + offsets[axis][where]
                    for axis in range(3)
                ]
                owner[where], surface[where], steepness[where] = search.divide(
                    local, origin_nm=np.array(one.start) * voxel_nm
                )
    return Territory(box, points, owner, surface, steepness)


def _axis_centres(box: Box, axis: int, voxel_nm: float) -> Floats:
    along = [1, 1, 1]
    along[axis] = -1
    centres = (np.arange(box.shape[axis]) + 0.5) * voxel_nm
    return centres.astype(np.float32).reshape(along)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What divides the voxels of a cell among points."""

    points: Points
    tree: Any
    spacing_nm: float

    def divide(
        self, local_nm: list[Floats], *, origin_nm: np.ndarray[Any, np.dtype[np.float64]]
    ) -> tuple[Any, Floats, Floats]:
        """Return owner, surface distance and steepness of a cell's voxels.

        Parameters
        ----------
        local_nm
            Position of each voxel from `origin_nm`: arrays (z, y, x), one for each axis.
        """
        shape = local_nm[0].shape
        places = [axis.reshape(-1, 1) for axis in local_nm]
        low = np.array([axis.min() for axis in places], np.float64)
        high = np.array([axis.max() for axis in places], np.float64)
        half = float(np.sqrt(((high - low) ** 2).sum())) / 2
        chosen = self._candidates(origin_nm + (low + high) / 2, half_nm=half)
        labels = self.points.labels[chosen]
        at = (self.points.places_nm[chosen] - origin_nm).astype(np.float32)
        power = (places[0] - at[:, 0]) ** 2
        power += (places[1] - at[:, 1]) ** 2
        power += (places[2] - at[:, 2]) ** 2
        power -= self.points.weights_nm2[chosen].astype(np.float32)
        rows = np.arange(len(power))
        first = power.argmin(axis=1)
        least = power[rows, first]
        power[labels[first][:, None] == labels] = np.inf
        second = power.argmin(axis=1)
        between = at[second] - at[first]
        distance = np.sqrt(between[:, 0] ** 2 + between[:, 1] ** 2 + between[:, 2] ** 2)
        # Without a second neurite nearby nothing ends here: the distance is infinite.
        distance = np.where(distance > 0, distance, np.float32(1))
        surface = (power[rows, second] - least) / (2 * distance)
        steepness = np.abs(between[:, 0]) / distance
        owner = chosen[first].astype(np.int32)
        return owner.reshape(shape), surface.reshape(shape), steepness.reshape(shape)

    def _candidates(
        self, centre_nm: np.ndarray[Any, np.dtype[np.float64]], *, half_nm: float
    ) -> Indices:
        """Return all points that can be first or second within `half_nm` of a centre, in order."""
        largest = (LARGEST_RADIUS * self.spacing_nm) ** 2
        for reach in (_NEAR * self.spacing_nm, _FAR * self.spacing_nm):
            found = np.array(sorted(self.tree.query_ball_point(centre_nm, reach)), np.intp)
            if not len(found):
                continue
            away = self.points.places_nm[found] - centre_nm
            distance = np.sqrt(away[:, 0] ** 2 + away[:, 1] ** 2 + away[:, 2] ** 2)
            weights = self.points.weights_nm2[found]
            most = (distance + half_nm) ** 2 - weights
            labels = self.points.labels[found]
            best = most.argmin()
            others = labels != labels[best]
            bound = most[others].min() if others.any() else np.inf
            if max(reach - half_nm, 0) ** 2 - largest >= bound:
                break
        assert len(found), "the lattice leaves no hole this large"
        least = np.maximum(distance - half_nm, 0) ** 2 - weights
        chosen: Indices = found[least <= bound]
        return chosen
