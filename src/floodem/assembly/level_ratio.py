"""How the levels of one image lie over each other: an open pyramid in, whole ratios out."""

from __future__ import annotations

from floodem.errors import GeometryError, OptionError
from floodem.flooding.masks.rules import RATIO_TOLERANCE
from floodem.geometry import Zyx
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.volume import Volume


def level_ratio(volume: Volume, *, level: int, finer: int = 0) -> Zyx:
    """Return how many voxels of a finer level lie along each edge of a coarser one's.

    Parameters
    ----------
    volume
        Any open level of a pyramid.

    Raises
    ------
    OptionError
        When there is no such level.
    GeometryError
        When its voxels are no whole multiples, or do not lie over those of the finer one.
    """
    levels = volume.levels
    for number in (level, finer):
        if number >= len(levels):
            raise OptionError(
                f"{volume.uri} has no level {number}: it has {len(levels)}, counted from 0, the "
                "finest; make more with `floodem convert --pyramid`"
            )
    coarse, fine = levels[level], levels[finer]
    ratio = _ratio(coarse, fine)
    expected = level_box(fine.box, ratio)
    # Other programs leave out a last voxel that is not whole.
    shorter = [0 <= a - b <= 1 for a, b in zip(expected.stop, coarse.box.stop, strict=True)]
    if coarse.box.start != expected.start or not all(shorter):
        raise GeometryError(
            f"level {level} of {volume.uri} holds {coarse.box} (z,y,x), and {ratio} times as "
            f"coarse as level {finer} it would hold {expected}: make its levels anew with "
            "`floodem convert --pyramid`"
        )
    return ratio


def _ratio(coarse: Volume, fine: Volume) -> Zyx:
    if coarse.voxel_size is None or fine.voxel_size is None:
        pairs = zip(fine.shape, coarse.shape, strict=True)
        z, y, x = (max(1, round(a / b)) for a, b in pairs)
        return (z, y, x)
    exact = [a / b for a, b in zip(coarse.voxel_size.zyx_nm, fine.voxel_size.zyx_nm, strict=True)]
    if any(round(one) < 1 or abs(one / round(one) - 1) > RATIO_TOLERANCE for one in exact):
        raise GeometryError(
            f"{coarse.uri} has voxels of {coarse.voxel_size} nm and a finer level of "
            f"{fine.voxel_size} nm (z,y,x): levels must be whole multiples of each other"
        )
    z, y, x = (round(one) for one in exact)
    return (z, y, x)
