"""Labels that are an image by mistake: a pair of open volumes in, nothing or a refusal out.

Every value of an image would be an object of scattered voxels, and training would
begin. What tells them apart: neighbours in an object are equal, and the noise of an
image makes them differ.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from floodem.errors import LabelError
from floodem.geometry import Box, Zyx, tiles
from floodem.volumes.kinds import middle
from floodem.volumes.volume import Volume

GREY_SHARE = 0.6
"""Of neighbours in a section. EM images have 0.96, and 0.72 after a Gaussian of 4 voxels;
segmentations 0.04, and 0.40 where they are sampled so coarsely that objects are a voxel or two."""

_ENOUGH_PAIRS = 1000
_LOOKED_AT: Zyx = (16, 256, 256)


def require_no_image(labels: Volume, *, image: Volume, box: Box) -> None:
    """Refuse labels that look like an image.

    They do where more than `GREY_SHARE` of the neighbours differ, both along y and
    along x, in the middle of the box and in all of it. Pairs with a 0 do not count, so
    that neither lines of a voxel on background nor black borders decide.

    Raises
    ------
    LabelError
        With image, labels and shares.
    """
    if not _is_grey(_differing(labels, [middle(box)])):
        return
    boxes = [tile.core for tile in tiles(box, core=_LOOKED_AT)]
    shares = _differing(labels, boxes)
    if not _is_grey(shares):
        return
    along_y, along_x = shares
    values = len(np.unique(labels.read(middle(box))))
    raise LabelError(
        f"{labels.uri}, given as labels of {image.uri}, looks like an image: {along_y:.0%} of its "
        f"neighbouring voxels differ along y and {along_x:.0%} along x, with {values} different "
        "values in its middle: give the labels of the objects in the image"
    )


def _is_grey(shares: tuple[float, float]) -> bool:
    return min(shares) > GREY_SHARE


def _differing(labels: Volume, boxes: Iterable[Box]) -> tuple[float, float]:
    """Return the shares of neighbours along y and x that differ; 0 where there are few."""
    pairs, differing = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for box in boxes:
        block = labels.read(box)
        for axis, (first, second) in enumerate(
            ((block[:, 1:], block[:, :-1]), (block[..., 1:], block[..., :-1]))
        ):
            are_labelled = (first != 0) & (second != 0)
            pairs[axis] += np.count_nonzero(are_labelled)
            differing[axis] += np.count_nonzero((first != second) & are_labelled)
    if pairs.min() < _ENOUGH_PAIRS:
        return (0.0, 0.0)
    along_y, along_x = (differing / pairs).tolist()
    return (along_y, along_x)
