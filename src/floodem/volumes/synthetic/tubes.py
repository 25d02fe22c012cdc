"""Neurites as points with radii: a box in, the points of all neurites near it out.

Each edge of the forest (`floodem.volumes.synthetic.forest`) is sampled; each
sample gets the number of its neurite and a radius. Samples lie at centres of
voxels, so that they are inside their own labels exactly.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from floodem.geometry import Box
from floodem.volumes.synthetic.forest import Forest, nodes_of_range
from floodem.volumes.synthetic.noise import (
    Flags,
    Floats,
    Integers,
    hashed,
    make_key,
    noise_at,
    normal,
)
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.placing import Placing

SAMPLES = 4
"""Points on an edge, its first node among them."""

MEAN_RADIUS = 0.45
"""Of neurites, in spacings."""

LARGEST_RADIUS = 1.2
"""In spacings; no point of a neurite has more."""

_SMALLEST_RADIUS = 0.08
_RADIUS_DECIMALS = 6
_TIP = 0.35
"""What is left of the radius at a tip."""

_VARICOSITY = 1.2
"""Strength of the swellings along a neurite: largest change of the radius's logarithm."""

_VARICOSITY_NODES = 1.2
"""Their wavelength, in nodes."""

_AROUND = 0.5
"""In spacings: which points of a neurite count as around another one of it."""

_CLEARANCE_VOXELS = 2.2
"""How near to a point of a thin neurite its surface may come, in mean edges of a voxel."""


@dataclass(frozen=True, slots=True)
class Points:
    """Samples of neurites, in the order of the lattice.

    Attributes
    ----------
    labels
        Of their neurites.
    voxels
        Where they lie, rows (z, y, x).
    places_nm
        The same in the space of the tubes (`floodem.volumes.synthetic.placing`).
    weights_nm2
        Squared radii, which decide how much room neurites take from each other.
    room_nm
        Distance to the surface of the neurite.
    spare_nm
        The least of that among the neurite's points around.
    nodes, steps
        The edge each lies on, by its first node (k, j, i), and which sample it is.
    """

    labels: Integers
    voxels: Integers
    places_nm: Floats
    weights_nm2: Floats
    room_nm: Floats
    spare_nm: Floats
    nodes: Integers
    steps: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: Flags) -> Points:
        """Return some of the points."""
        return Points(
            self.labels[which],
            self.voxels[which],
            self.places_nm[which],
            self.weights_nm2[which],
            self.room_nm[which],
            self.spare_nm[which],
            self.nodes[which],
            self.steps[which],
        )


class Tubes:
    """The neurites of one synthetic volume."""

    def __init__(self, options: SyntheticOptions) -> None:
        self.options = options
        self.forest = Forest(options)
        self.placing = Placing(options)
        self._calibre_key = make_key(options.seed, "calibre")
        self._varicosity_key = make_key(options.seed, "varicosity")
        self.clearance_nm = _CLEARANCE_VOXELS * math.prod(options.voxel_size.zyx_nm) ** (1 / 3)
        self._around_nm = _AROUND * options.spacing_nm
        largest = LARGEST_RADIUS * options.spacing_nm
        self.neighbourhood_nm = self.clearance_nm + float(np.hypot(largest, self.clearance_nm))

    def points_near(self, box: Box, *, reach_nm: float) -> Points:
        """Return all points within `reach_nm` of a box of voxels, and perhaps some further."""
        voxel_nm = np.array(self.placing.voxel_nm)
        # What is just beyond decides how much room a point has.
        beyond = reach_nm + self.neighbourhood_nm + self._around_nm + 0.5 * self.options.spacing_nm
        start = np.array(box.start) * voxel_nm - beyond
        stop = np.array(box.stop) * voxel_nm + beyond
        found = self._sample(start, stop)
        known = self._with_room(found)
        near = (known.places_nm >= start + beyond - reach_nm) & (
            known.places_nm <= stop - beyond + reach_nm
        )
        return known.select(near.all(axis=1))

    def _sample(self, start_nm: Floats, stop_nm: Floats) -> Points:
        forest = self.forest
        reach = 2 * self.options.spacing_nm
        nodes = nodes_of_range(*forest.range_of(start_nm - reach, stop_nm + reach))
        at = forest.positions_nm(nodes)
        near = ((at >= start_nm - reach) & (at <= stop_nm + reach)).all(axis=1)
        nodes, at = nodes[near], at[near]
        onward = forest.successors(nodes)
        to = forest.positions_nm(onward)
        is_inside, leads_inside = forest.are_inside(at), forest.are_inside(to)
        is_end = forest.are_ends(nodes)
        owners = np.where(is_inside[:, None], nodes, onward)
        is_known = is_inside | (leads_inside & ~is_end)
        nodes, onward, owners = nodes[is_known], onward[is_known], owners[is_known]
        at, to, is_end = at[is_known], to[is_known], is_end[is_known]
        roots = forest.roots(owners)
        radii = self._radii(nodes, roots)
        next_radii = self._radii(onward, roots)
        steps = np.tile(np.arange(SAMPLES), len(nodes))
        row = np.repeat(np.arange(len(nodes)), SAMPLES)
        share = steps / SAMPLES
        positions = at[row] + (to - at)[row] * share[:, None]
        keep = forest.are_inside(positions) & ((steps == 0) | ~is_end[row])
        keep &= ((positions >= start_nm) & (positions <= stop_nm)).all(axis=1)
        row, steps, share, positions = row[keep], steps[keep], share[keep], positions[keep]
        radius = radii[row] + (next_radii - radii)[row] * share
        voxels = self.placing.voxels_near(positions)
        return Points(
            labels=forest.number(roots)[row] + 1,
            voxels=voxels,
            places_nm=self.placing.place(voxels),
            weights_nm2=radius**2,
            room_nm=np.full(len(row), np.inf),
            spare_nm=np.full(len(row), np.inf),
            nodes=nodes[row],
            steps=steps,
        )

    def _radii(self, nodes: Integers, roots: Integers) -> Floats:
        """Return the radius of neurites at nodes, in nanometres."""
        options = self.options
        spread = normal(hashed(self._calibre_key, *roots.T)).astype(np.float64)
        swelling = noise_at(self._varicosity_key, *(nodes.T / _VARICOSITY_NODES))
        tips = np.where(self.forest.have_predecessors(nodes), 1.0, _TIP)
        radii = MEAN_RADIUS * np.exp(options.calibre * spread) * np.exp(_VARICOSITY * swelling)
        limited = np.clip(radii * tips, _SMALLEST_RADIUS, LARGEST_RADIUS)
        # Rounded, because exp differs in the last digit from machine to machine.
        rounded: Floats = np.round(options.spacing_nm * limited, _RADIUS_DECIMALS)
        return rounded

    def _with_room(self, points: Points) -> Points:
        """Leave each point enough room between those of other neurites.

        A point's cell ends at distance ``(d^2 + w_a - w_b) / 2d`` towards a neighbour
        at distance d. Where no weight exceeds ``(d - c)^2 - c^2`` with d the distance
        of the nearest neighbour, that is never less than the clearance c.
        """
        from scipy.spatial import cKDTree

        tree = cKDTree(points.places_nm)
        pairs = tree.query_pairs(self.neighbourhood_nm, output_type="ndarray")
        a, b = pairs.T
        foreign = points.labels[a] != points.labels[b]
        own_a, own_b = a[~foreign], b[~foreign]
        a, b = a[foreign], b[foreign]
        distance = _distance(points.places_nm, a, b)
        squared = distance**2
        nearest = np.full(len(points), self.neighbourhood_nm)
        np.minimum.at(nearest, a, distance)
        np.minimum.at(nearest, b, distance)
        c = self.clearance_nm
        most = np.where(nearest > 2 * c, (nearest - c) ** 2 - c**2, 0)
        weights = np.minimum(points.weights_nm2, most)
        room = np.full(len(points), self.neighbourhood_nm / 2)
        np.minimum.at(room, a, (squared + weights[a] - weights[b]) / (2 * distance))
        np.minimum.at(room, b, (squared + weights[b] - weights[a]) / (2 * distance))
        near = _distance(points.places_nm, own_a, own_b) <= self._around_nm
        own_a, own_b = own_a[near], own_b[near]
        spare = room.copy()
        np.minimum.at(spare, own_a, room[own_b])
        np.minimum.at(spare, own_b, room[own_a])
        return dataclasses.replace(points, weights_nm2=weights, room_nm=room, spare_nm=spare)


def _distance(places_nm: Floats, a: Integers, b: Integers) -> Floats:
    """Return the distances of pairs of places."""
    z, y, x = (places_nm[a] - places_nm[b]).T
    distance: Floats = np.sqrt(z**2 + y**2 + x**2)
    return distance
