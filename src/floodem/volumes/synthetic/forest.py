"""Where neurites run: a forest on a bent lattice, each node a function of its own place.

Lattice nodes (k, j, i) go from level to level along k: a node's successor is the
node above it, or that node's neighbour in the direction of the level, decided by
noise that neighbours mostly share. Nodes that come together are a branching, a
node nobody goes to is a tip, a node without successor an end. As all that move
within a level move alike, no two paths cross::

    level k+1   o   o   o   o        tip at the second, branching at the fourth
                |     /   / |
    level k     o   o   o   o

The lattice is turned and bent by shears, which keep its density. A neurite is
all nodes that lead to the same root: the last node before an end or before the
path leaves the volume. So every neurite is one tree inside the volume, and its
root is found by following successors, wherever one begins.
"""

from __future__ import annotations

import itertools

import numpy as np

from floodem.volumes.synthetic.noise import (
    Flags,
    Floats,
    Integers,
    hashed,
    make_key,
    noise_at,
    uniform,
)
from floodem.volumes.synthetic.options import SyntheticOptions

_JITTER = 0.12
"""Of the nodes, in lattice spacings: at most a third of the least distance of two paths."""

_BEND_WAVELENGTH = 8.0
"""In lattice spacings; with `bend` 3 a shear of at most 0.75."""

_MOVE_WAVELENGTH = (2.0, 3.0, 3.0)
"""Over how many nodes (k, j, i) neighbours decide alike."""

_MOVE_THRESHOLD = 0.15
"""Noise above which a node moves sideways: about a third of them."""

_GATHER_EDGE = 3
"""Edge of the groups of columns that may come together at once."""

_TURN_DECIMALS = 12

_DIRECTIONS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])


class Forest:
    """The nodes of one synthetic volume.

    Nodes are rows (k, j, i) of integers; positions are nanometres (z, y, x) from the
    volume's first corner.
    """

    def __init__(self, options: SyntheticOptions) -> None:
        self._options = options
        self.spacing_nm = options.spacing_nm
        self.extent_nm = np.multiply(options.shape, options.voxel_size.zyx_nm)
        self._keys = {
            purpose: make_key(options.seed, purpose)
            for purpose in ("jitter", "bend z", "bend y", "bend x", "move", "way", "gather", "end")
        }
        self._bend_nm = options.bend * self.spacing_nm
        self._turn = _random_turn(make_key(options.seed, "turn"))
        self.low, self.high = self.range_of(np.zeros(3), self.extent_nm)

    @property
    def nodes(self) -> int:
        """Upper bound of the numbers that `number` gives."""
        z, y, x = (int(n) for n in self.high - self.low)
        return z * y * x

    def number(self, nodes: Integers) -> Integers:
        """Return a number from 0 for each node that may lie inside the volume."""
        _, y, x = (int(n) for n in self.high - self.low)
        k, j, i = (nodes - self.low).T
        numbers: Integers = (k * y + j) * x + i
        return numbers

    def range_of(self, start_nm: Floats, stop_nm: Floats) -> tuple[Integers, Integers]:
        """Return the half-open range of all nodes (k, j, i) that can lie inside a box."""
        reach = self._bend_nm + _JITTER * self.spacing_nm
        corners = np.array(
            list(itertools.product(*np.stack([start_nm - reach, stop_nm + reach], axis=1)))
        )
        lattice = corners @ self._turn / self.spacing_nm
        low = np.floor(lattice.min(axis=0)).astype(np.int64) - 1
        high = np.ceil(lattice.max(axis=0)).astype(np.int64) + 2
        return low, high

    def positions_nm(self, nodes: Integers) -> Floats:
        """Return where nodes lie, in nanometres (z, y, x)."""
        k, j, i = nodes.T
        key = self._keys["jitter"]
        jitter = [uniform(hashed(key, k, j, i, [axis])) * 2 - 1 for axis in range(3)]
        lattice = (nodes.T + _JITTER * np.array(jitter)) * self.spacing_nm
        turned = [
            row[0] * lattice[0] + row[1] * lattice[1] + row[2] * lattice[2] for row in self._turn
        ]
        z, y, x = turned
        unit = 1 / (_BEND_WAVELENGTH * self.spacing_nm)
        z = z + self._bend_nm * noise_at(self._keys["bend z"], y * unit, x * unit)
        y = y + self._bend_nm * noise_at(self._keys["bend y"], z * unit, x * unit)
        x = x + self._bend_nm * noise_at(self._keys["bend x"], z * unit, y * unit)
        return np.stack([z, y, x], axis=1)

    def are_inside(self, positions_nm: Floats) -> Flags:
        """Tell which positions lie in the volume."""
        inside = (positions_nm >= 0) & (positions_nm < self.extent_nm)
        return np.asarray(inside.all(axis=1))

    def are_ends(self, nodes: Integers) -> Flags:
        """Tell which nodes have no successor."""
        ends: Flags = uniform(hashed(self._keys["end"], *nodes.T)) < self._options.ending
        return ends

    def successors(self, nodes: Integers) -> Integers:
        """Return the next node of each node, whether or not it is an end."""
        k, j, i = nodes.T
        ways = _DIRECTIONS[hashed(self._keys["way"], k) >> np.uint32(30)]
        unit = [n / length for n, length in zip((k, j, i), _MOVE_WAVELENGTH, strict=True)]
        moves = noise_at(self._keys["move"], *unit) > _MOVE_THRESHOLD
        group_j, group_i = j // _GATHER_EDGE, i // _GATHER_EDGE
        gathers = uniform(hashed(self._keys["gather"], k, group_j, group_i))
        middle = np.stack([group_j, group_i], axis=1) * _GATHER_EDGE + _GATHER_EDGE // 2
        sideways = nodes[:, 1:] + np.where(moves[:, None], ways, 0)
        to = np.where((gathers < self._options.branching)[:, None], middle, sideways)
        return np.concatenate([(k + 1)[:, None], to], axis=1)

    def have_predecessors(self, nodes: Integers) -> Flags:
        """Tell which nodes some other node leads to."""
        found = np.zeros(len(nodes), bool)
        reach = range(-1, 2)
        for dj, di in itertools.product(reach, reach):
            before = nodes + np.array((-1, dj, di))
            leads = (self.successors(before) == nodes).all(axis=1) & ~self.are_ends(before)
            found |= leads
        return found

    def roots(self, nodes: Integers) -> Integers:
        """Return the last node of each path; all `nodes` must lie inside the volume."""
        if not len(nodes):
            return nodes
        places, back = np.unique(nodes, axis=0, return_inverse=True)
        roots = places.copy()
        moving = np.flatnonzero(~self.are_ends(places))
        while len(moving):
            onward = self.successors(roots[moving])
            inside = self.are_inside(self.positions_nm(onward))
            moving = moving[inside]
            roots[moving] = onward[inside]
            moving = moving[~self.are_ends(roots[moving])]
        return roots[back.reshape(-1)]


def _random_turn(key: int) -> Floats:
    """Return a rotation matrix, evenly distributed over all directions.

    References
    ----------
    K. Shoemake, "Uniform random rotations", Graphics Gems III (1992).
    """
    u, v, w = uniform(hashed(key, np.arange(3)))
    a, b, c, d = (
        np.sqrt(1 - u) * np.sin(2 * np.pi * v),
        np.sqrt(1 - u) * np.cos(2 * np.pi * v),
        np.sqrt(u) * np.sin(2 * np.pi * w),
        np.sqrt(u) * np.cos(2 * np.pi * w),
    )
    # Rounded, because sines differ in the last digit from machine to machine.
    turn = np.array(
        [
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]
    )
    return np.round(turn, _TURN_DECIMALS)


def nodes_of_range(low: Integers, high: Integers) -> Integers:
    """Return all nodes of a half-open range as rows (k, j, i), in C order."""
    axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.stack([axis.reshape(-1) for axis in grid], axis=1)
