"""Distances between voxels that are compared exactly: a voxel size in, whole numbers out.

Floats would let rounding decide which of two equal distances is smaller, and another cut of
the volume round otherwise. Edges of voxels are therefore whole picometres, divided by what
they have in common, and distances are kept squared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer

from floodem.errors import OptionError
from floodem.geometry import VoxelSize, Zyx

_PM_PER_NM = 1000

_LARGEST_PM = 2**30
"""About a millimetre: squares, and twice their sums, still fit 64 bits."""

_ROUNDING = 1e-9
"""More than a few roundings of float64 can make up together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths in one unit, up to a largest one.

    Attributes
    ----------
    edges
        Edges of a voxel, z, y, x, in units.
    unit_pm
        What a unit is, in picometres.
    limit
        The square of the largest distance that counts, in units squared.
    """

    edges: Zyx
    unit_pm: int
    limit: int

    @classmethod
    def of(cls, voxel_size: VoxelSize, *, max_distance_nm: float) -> Lengths:
        """Return the lengths for a voxel size, rounded to picometres.

        Parameters
        ----------
        max_distance_nm
            The largest distance that counts, 0 or more.

        Raises
        ------
        OptionError
            When the distance is negative or above a millimetre, or an edge of a voxel is
            below a picometre or above a millimetre.
        """
        if not 0 <= max_distance_nm * _PM_PER_NM <= _LARGEST_PM:
            raise OptionError(
                f"max distance {max_distance_nm} nm is out of range: give 0 to "
                f"{_LARGEST_PM // _PM_PER_NM} nanometres"
            )
        if max(voxel_size.zyx_nm) * _PM_PER_NM > _LARGEST_PM:
            raise OptionError(
                f"voxel size {voxel_size} nm (z,y,x) is above a millimetre: give nanometres"
            )
        z, y, x = (round(edge * _PM_PER_NM) for edge in voxel_size.zyx_nm)
        if min(z, y, x) < 1:
            raise OptionError(
                f"voxel size {voxel_size} nm (z,y,x) is below a picometre: give nanometres"
            )
        unit = math.gcd(z, y, x)
        limit = round(max_distance_nm * _PM_PER_NM) ** 2 // unit**2
        return cls(edges=(z // unit, y // unit, x // unit), unit_pm=unit, limit=limit)

    @property
    def reach(self) -> Zyx:
        """How many voxels along z, y, x the largest distance is at most."""
        z, y, x = (math.isqrt(self.limit) // edge for edge in self.edges)
        return (z, y, x)

    def mean_nm(
        self, one: Integer[np.ndarray, "*shape"], other: Integer[np.ndarray, "*shape"]
    ) -> Float64[np.ndarray, "*shape"]:
        """Return the means of two distances in nanometres, from their squares in units.

        The same squares give the same float, in either order, so that what is found in
        different blocks can be compared.
        """
        half = self.unit_pm / (2 * _PM_PER_NM)
        return (np.sqrt(one.astype(np.float64)) + np.sqrt(other.astype(np.float64))) * half

    def halo(self) -> Zyx:
        """Return how far around a voxel must be known, z, y, x, to know what it grows to.

        A voxel's label is found by going to the face neighbour nearest to a segment, and on
        from there (`growing`, beside this). Each step lessens the square of the distance by
        `_least_loss` at least, which bounds the steps, and the distance after t of them. By
        then the way leads t voxels off at most on any axis, a neighbour is one more, and whose
        distance is smallest is known when all within it is.
        """
        reach = list(self.reach)
        left, steps = self.limit, 0
        while left > 0:
            left = max(0, left - self._least_loss(left))
            steps += 1
            for axis, edge in enumerate(self.edges):
                reach[axis] = max(reach[axis], steps + math.isqrt(left) // edge)
        return (reach[0], reach[1], reach[2])

    def _least_loss(self, squared: int) -> int:
        """Return by how much a step lessens a squared distance at least.

        Let the nearest segment voxel be d voxels away on the axis with edge e. The step
        towards it takes e^2 (2 d - 1) = 2 e a - e^2 off the square, where a = d e; the step
        that is taken takes no less. If none takes more than m, then d is 0 on axes with
        e^2 > m, and a at most (m + e^2) / 2e on the others, so that the square is at most the
        sum of ((m + e^2) / 2e)^2 over those. So the least m is sought that allows the square.
        It grows more slowly than the square, so that what is left grows with it.
        """
        squares = sorted(edge**2 for edge in self.edges)
        loss = 0.0
        for count, next_square in enumerate([*squares[1:], math.inf], start=1):
            # The sum over `count` axes as a polynomial in m.
            second = sum(1 / (4 * square) for square in squares[:count])
            first = count / 2
            rest = max(0.0, squared - sum(squares[:count]) / 4)
            root = (math.sqrt(first**2 + 4 * second * rest) - first) / (2 * second)
            loss = max(root, squares[count - 1])
            if loss < next_square:
                break
        # Squares are whole numbers; the float is made a little smaller, never too large.
        return math.ceil(loss * (1 - _ROUNDING))
