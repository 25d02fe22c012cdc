"""Boxes, voxel sizes and tilings: plain numbers in, plain numbers out.

Everything is ordered z, y, x. Positions and boxes count voxels in the frame of
the volume, whose first voxel lies at the volume's offset; physical sizes are
float nanometres and say so with the suffix ``_nm``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from floodem.errors import GeometryError

Zyx = tuple[int, int, int]

FARTHEST_POSITION = 2**53
"""Positions up to here are exact in every file format and in float64 as well."""

_BOX_RANGE = re.compile(r"\s*(-?\d+)\s*:\s*(-?\d+)\s*")


def parse_zyx(text: str) -> Zyx:
    """Read ``"16,16,16"`` as a triple of integers, ordered z, y, x.

    Raises
    ------
    GeometryError
        When there are not exactly three integers.
    """
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise GeometryError(
            f"{text!r} is not three integers: write z,y,x, for example 16,16,16"
        ) from None
    return (z, y, x)


@dataclass(frozen=True, slots=True)
class Box:
    """Voxels with ``start <= index < stop`` on every axis, ordered z, y, x."""

    start: Zyx
    stop: Zyx

    def __post_init__(self) -> None:
        if any(a > b for a, b in zip(self.start, self.stop, strict=True)):
            raise GeometryError(
                f"box stop {self.stop} lies before its start {self.start}: "
                "give the smaller number first"
            )

    @classmethod
    def from_shape(cls, shape: Zyx, *, start: Zyx = (0, 0, 0)) -> Box:
        """Return the box of this shape that begins at `start`."""
        return cls(start, (start[0] + shape[0], start[1] + shape[1], start[2] + shape[2]))

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read ``"0:80,10:90,20:100"``: half-open ranges in the order z, y, x.

        Raises
        ------
        GeometryError
            When the text is not three ranges, or a stop lies before its start.
        """
        matches = [_BOX_RANGE.fullmatch(part) for part in text.split(",")]
        ranges = [(int(m[1]), int(m[2])) for m in matches if m]
        if len(matches) != 3 or len(ranges) != 3:
            raise GeometryError(
                f"{text!r} is not a box: write z0:z1,y0:y1,x0:x1, for example 0:80,10:90,20:100"
            )
        (z0, z1), (y0, y1), (x0, x1) = ranges
        return cls((z0, y0, x0), (z1, y1, x1))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> Zyx:
        """Edge lengths in voxels, ordered z, y, x."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return (z1 - z0, y1 - y0, x1 - x0)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def contains(self, other: Box) -> bool:
        """Tell whether every voxel of `other` is in this box; an empty box always is."""
        return other.size == 0 or (
            all(a <= b for a, b in zip(self.start, other.start, strict=True))
            and all(a >= b for a, b in zip(self.stop, other.stop, strict=True))
        )

    def contains_point(self, position: Zyx) -> bool:
        """Tell whether the voxel at `position` is in this box."""
        return all(a <= p < b for a, p, b in zip(self.start, position, self.stop, strict=True))

    def intersection(self, other: Box) -> Box | None:
        """Return the voxels in both boxes, or None when there are none."""
        z0, y0, x0 = (max(a, b) for a, b in zip(self.start, other.start, strict=True))
        z1, y1, x1 = (min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        if z0 >= z1 or y0 >= y1 or x0 >= x1:
            return None
        return Box((z0, y0, x0), (z1, y1, x1))

    def grow(self, margin: Zyx) -> Box:
        """Return this box with `margin` voxels added on both sides (negative: removed).

        Raises
        ------
        GeometryError
            When a negative margin leaves less than nothing.
        """
        (z0, y0, x0), (z1, y1, x1), (mz, my, mx) = self.start, self.stop, margin
        return Box((z0 - mz, y0 - my, x0 - mx), (z1 + mz, y1 + my, x1 + mx))

    def translate(self, by: Zyx) -> Box:
        """Return this box moved by `by` voxels."""
        (z0, y0, x0), (z1, y1, x1), (bz, by_, bx) = self.start, self.stop, by
        return Box((z0 + bz, y0 + by_, x0 + bx), (z1 + bz, y1 + by_, x1 + bx))

    def slices(self, *, origin: Zyx = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Return index slices for an array whose first voxel lies at `origin`."""
        (z0, y0, x0), (z1, y1, x1), (oz, oy, ox) = self.start, self.stop, origin
        return (slice(z0 - oz, z1 - oz), slice(y0 - oy, y1 - oy), slice(x0 - ox, x1 - ox))


_SAME_SIZE = 1e-3
"""Relative difference of two voxel edges that a format may have rounded."""


@dataclass(frozen=True, slots=True)
class VoxelSize:
    """Edge lengths of one voxel in nanometres, ordered z, y, x."""

    z_nm: float
    y_nm: float
    x_nm: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(size) and size > 0 for size in self.zyx_nm):
            raise GeometryError(
                f"voxel size {self} nm is not positive on every axis: give z,y,x in nanometres"
            )

    @classmethod
    def parse(cls, text: str) -> VoxelSize:
        """Read ``"30,6,6"``: nanometres in the order z, y, x.

        Raises
        ------
        GeometryError
            When the text is not three positive numbers.
        """
        try:
            z, y, x = (float(part) for part in text.split(","))
        except ValueError:
            raise GeometryError(
                f"{text!r} is not a voxel size: write z,y,x in nanometres, for example 30,6,6"
            ) from None
        return cls(z, y, x)

    def __str__(self) -> str:
        return ",".join(f"{size:g}" for size in self.zyx_nm)

    @property
    def zyx_nm(self) -> tuple[float, float, float]:
        """The three sizes as a tuple, in nanometres."""
        return (self.z_nm, self.y_nm, self.x_nm)

    def is_close(self, other: VoxelSize) -> bool:
        """Tell whether two sizes are one, as formats round them differently."""
        sizes = zip(self.zyx_nm, other.zyx_nm, strict=True)
        return all(math.isclose(a, b, rel_tol=_SAME_SIZE) for a, b in sizes)


UNKNOWN_VOXEL_SIZE = VoxelSize(1.0, 1.0, 1.0)
"""What a model file says where its data do not: voxels are one unit long on every axis."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One block: the voxels it answers for and the voxels it may look at."""

    core: Box
    halo: Box


def tiles(box: Box, *, core: Zyx, margin: Zyx = (0, 0, 0)) -> Iterator[Tile]:
    """Cover a box with blocks whose cores partition it, in C order.

    Cores lie on a grid that begins at the box's start; the last one on each
    axis is cut at the box. The halo is the core grown by `margin` and cut at
    the box::

        |<------------------ box ------------------->|
        |  core 0   |  core 1   |  core 2   |core 3  |
              |<- m |  halo 1   | m ->|

    Raises
    ------
    GeometryError
        When a core edge is not positive or a margin is negative.
    """
    if min(core) < 1:
        raise GeometryError(f"tile core {core} is not positive on every axis")
    if min(margin) < 0:
        raise GeometryError(f"tile margin {margin} is negative")
    (z0, y0, x0), (z1, y1, x1), (dz, dy, dx) = box.start, box.stop, core
    for start in itertools.product(range(z0, z1, dz), range(y0, y1, dy), range(x0, x1, dx)):
        cut = Box.from_shape(core, start=start).intersection(box)
        assert cut is not None
        halo = cut.grow(margin).intersection(box)
        assert halo is not None
        yield Tile(core=cut, halo=halo)


def block_edges(chunks: Zyx, *, reach: Zyx, voxels: int) -> Zyx:
    """Choose blocks of whole chunks, as cubic as they can be.

    Parameters
    ----------
    chunks
        Edges of a chunk; one that is larger than `voxels` is halved until it is not.
    reach
        How far blocks may go on each axis.
    voxels
        About how many voxels a block may have.
    """
    edges = [min(chunk, length) for chunk, length in zip(chunks, reach, strict=True)]
    while math.prod(edges) > voxels and max(edges) > 1:
        longest = edges.index(max(edges))
        edges[longest] = -(-edges[longest] // 2)
    while growing := [axis for axis in range(3) if edges[axis] < reach[axis]]:
        shortest = min(growing, key=lambda axis: edges[axis])
        grown = min(2 * edges[shortest], reach[shortest])
        if math.prod(edges) // edges[shortest] * grown > voxels:
            break
        edges[shortest] = grown
    return (edges[0], edges[1], edges[2])
