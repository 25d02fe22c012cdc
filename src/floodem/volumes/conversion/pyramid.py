"""The coarser levels of a volume: shape and voxel size in, factors and coarser voxels out.

Each level is computed from the one before it. Where the levels lie is in
`floodem.volumes.pyramid_geometry`; writing them is part of a conversion.
"""

from __future__ import annotations

import math

import numpy as np

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.packages import require_package
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.volume import Array, Kind, Volume

COARSEST_IN_PLANE = 64
"""A pyramid ends with the first level that is no longer than this in y and x: about one chunk."""

LEVEL_RATIO = math.sqrt(2)
"""Voxel sizes that differ by no more count as level: halving would not bring them nearer."""

PIECE_BYTES = 64 * 2**20
"""So much of the finer level is held at once."""

_METHODS = {Kind.IMAGE: "mean", Kind.LABELS: "mode"}


def level_factors(
    shape: Zyx, voxel_size: VoxelSize | None, *, count: int | None = None
) -> tuple[Zyx, ...]:
    """Choose the levels of a pyramid.

    From one level to the next every axis is halved whose voxel size is level
    with the smallest (at most 1.41 times it), so that thick sections are halved
    in y and x alone until those are level with z. An axis of one voxel stays.

    Parameters
    ----------
    shape
        Of the finest level, z, y, x.
    voxel_size
        In nanometres; None counts as equal edges.
    count
        How many levels below the finest one; by default as many as it takes
        until one is no longer than 64 voxels in y and x.

    Returns
    -------
    tuple
        For each coarser level the voxels of the finest in one of its voxels (z, y, x).

    Raises
    ------
    OptionError
        When `count` is negative, or there are not so many levels.

    Examples
    --------
    >>> level_factors((100, 512, 512), VoxelSize(30, 6, 6))
    ((1, 2, 2), (1, 4, 4), (2, 8, 8))
    """
    if count is not None and count < 0:
        raise OptionError(f"a pyramid of {count} levels is not possible: give 0 or more")
    edges_nm = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size.zyx_nm
    factors: list[Zyx] = []
    now: Zyx = (1, 1, 1)
    while len(factors) < count if count is not None else _is_long(shape, now):
        after = _next(shape, edges_nm, now)
        if after == now:
            raise OptionError(
                f"a volume of shape {shape} (z,y,x) has no {count} coarser levels: ask for "
                f"{len(factors)} or fewer"
            )
        factors.append(after)
        now = after
    return tuple(factors)


def _lengths(shape: Zyx, factors: Zyx) -> Zyx:
    return level_box(Box.from_shape(shape), factors).shape


def _is_long(shape: Zyx, factors: Zyx) -> bool:
    return max(_lengths(shape, factors)[1:]) > COARSEST_IN_PLANE


def _next(shape: Zyx, edges_nm: tuple[float, float, float], factors: Zyx) -> Zyx:
    lengths = _lengths(shape, factors)
    sizes = [edge * factor for edge, factor in zip(edges_nm, factors, strict=True)]
    long = [size for size, length in zip(sizes, lengths, strict=True) if length > 1]
    limit = min(long, default=0.0) * LEVEL_RATIO
    z, y, x = (
        factor * 2 if length > 1 and size <= limit else factor
        for factor, size, length in zip(factors, sizes, lengths, strict=True)
    )
    return (z, y, x)


def downsample(array: Array, *, start: Zyx, factors: Zyx, kind: Kind) -> Array:
    """Compute the voxels of a coarser level.

    Windows are aligned to the absolute frame and cut at the array's edges.
    Images get the mean of a window, rounded to the nearest whole number in
    integer types and to the even one of two (sums are exact in integers, and in
    the type itself in floats); labels get the value that fills most of it, the
    smallest of several, so that background wins a tie.

    Parameters
    ----------
    array
        Voxels of the finer level, z, y, x.
    start
        Position of the first one in the finer level's frame.
    factors
        How many voxels become one, per axis: 1 or 2.
    kind
        Whether they are an image or labels.

    Returns
    -------
    array
        The voxels of ``level_box`` of the array's box.

    Raises
    ------
    OptionError
        When a factor is neither 1 nor 2.
    DependencyError
        When tensorstore, which does the arithmetic, is not installed.
    """
    # With larger ones tensorstore gives wrong means for a window that is cut on both sides.
    if not set(factors) <= {1, 2}:
        raise OptionError(
            f"levels are made by factors of 1 or 2 on each axis (z,y,x), not {factors}: go through "
            "the levels between"
        )
    tensorstore = require_package(
        "tensorstore", purpose="a pyramid of coarser levels", install="tensorstore"
    )
    view = tensorstore.array(array).translate_to[start]
    coarse = tensorstore.downsample(view, list(factors), _METHODS[kind])
    found: Array = coarse.read(order="C").result()
    return found


def read_coarse(finer: Volume, box: Box, *, factors: Zyx, kind: Kind) -> Array:
    """Compute the voxels `box` of the level that lies above `finer`, piece by piece.

    Parameters
    ----------
    finer
        The level before.
    box
        In the frame of the coarser level.
    factors
        Of the coarser level against `finer`: 1 or 2 on each axis.
    kind
        Whether they are an image or labels.
    """
    found = np.empty(box.shape, finer.dtype)
    fz, fy, fx = factors
    layer_bytes = fz * fy * fx * math.prod(box.shape[1:]) * finer.dtype.itemsize
    layers = max(1, PIECE_BYTES // layer_bytes)
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    for z in range(z0, z1, layers):
        end = min(z + layers, z1)
        wanted = Box((z * fz, y0 * fy, x0 * fx), (end * fz, y1 * fy, x1 * fx))
        piece = wanted.intersection(finer.box)
        assert piece is not None
        found[z - z0 : end - z0] = downsample(
            finer.read(piece), start=piece.start, factors=factors, kind=kind
        )
    return found
