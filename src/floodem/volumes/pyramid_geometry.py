"""Where the levels of a pyramid lie: a box and factors in, the box of the coarser level out.

Levels are aligned to the absolute frame and not to the volume's first voxel, as in
Neuroglancer's precomputed and in ``tensorstore.downsample``: voxel ``i`` of a level
with factor ``f`` covers voxels ``i * f`` to ``i * f + f - 1`` of the finest one,
whatever the offset. A first or last voxel may so be covered in part only::

    finest   |5|6|7|8|9|10|11|12|13|      box 5:14
    factor 4 |   1   |   2    |   3   |   box 1:4
"""

from __future__ import annotations

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize, Zyx


def require_factors(factors: Zyx) -> None:
    """Refuse downsampling factors that are not positive.

    Raises
    ------
    OptionError
        When one of them is below 1.
    """
    if min(factors) < 1:
        raise OptionError(
            f"downsampling factors {factors} (z,y,x) are not positive: write for example 1,2,2"
        )


def level_box(box: Box, factors: Zyx) -> Box:
    """Return where a level lies, in its own voxels: every one that covers some of `box`.

    Parameters
    ----------
    box
        The finest level, in its own frame (z, y, x).
    factors
        Voxels of the finest level in one voxel of this one, per axis.

    Raises
    ------
    OptionError
        When a factor is not positive.

    Examples
    --------
    >>> level_box(Box((5, 0, -3), (14, 8, 4)), (4, 2, 2))
    Box(start=(1, 0, -2), stop=(4, 4, 2))
    """
    require_factors(factors)
    z, y, x = (a // f for a, f in zip(box.start, factors, strict=True))
    stop_z, stop_y, stop_x = (-(-b // f) for b, f in zip(box.stop, factors, strict=True))
    return Box((z, y, x), (stop_z, stop_y, stop_x))


def finest_box(box: Box, factors: Zyx) -> Box:
    """Return the voxels of the finest level that `box` of a level covers, uncut.

    Examples
    --------
    >>> finest_box(Box((1, 0, -2), (4, 4, 2)), (4, 2, 2))
    Box(start=(4, 0, -4), stop=(16, 8, 4))
    """
    require_factors(factors)
    z, y, x = (a * f for a, f in zip(box.start, factors, strict=True))
    stop_z, stop_y, stop_x = (b * f for b, f in zip(box.stop, factors, strict=True))
    return Box((z, y, x), (stop_z, stop_y, stop_x))


def level_voxel_size(size: VoxelSize | None, factors: Zyx) -> VoxelSize | None:
    """Return the voxel size of a level in nanometres; unknown stays unknown.

    Examples
    --------
    >>> level_voxel_size(VoxelSize(30, 6, 4), (1, 4, 8))
    VoxelSize(z_nm=30, y_nm=24, x_nm=32)
    """
    require_factors(factors)
    if size is None:
        return None
    z, y, x = (s * f for s, f in zip(size.zyx_nm, factors, strict=True))
    return VoxelSize(z, y, x)
