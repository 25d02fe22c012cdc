"""What an old training would not have said: a list of centres and its volumes in, sentences out.

Records may hold background, where nothing is to be filled; and centres may lie so near to
a face that patches leave their volume.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from floodem.geometry import Box, Zyx
from floodem.training.configuration.options import TrainOptions
from floodem.training.coordinates.centre_list import CentreList
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume

LOOKED_AT = 2**12
"""Centres whose labels are looked up: enough for a share within two percent."""

_BLOCK: Zyx = (32, 64, 64)
_ROWS_AT_ONCE = 2**20

Array = np.ndarray[Any, np.dtype[Any]]


def traps(centres: CentreList, options: TrainOptions) -> Iterator[str]:
    """Yield a sentence for each trap in which a training with these options is.

    Raises
    ------
    FloodemError
        When a volume cannot be read, or centres lie outside of it.
    """
    images: dict[str, Box] = {}
    for volume in options.volumes:
        with open_volume(volume.image) as image:
            images[volume.name] = image.box
    centres.require_volumes(images, margin=(0, 0, 0))
    share = background_share(centres, options)
    if share:
        yield (
            f"{share:.1%} of the centres lie on background, where the labels are 0 (of the first "
            f"{min(LOOKED_AT, len(centres)):,}): their target is empty, and the network learns "
            "from them only to stop; build_coordinates leaves such centres out"
        )
    reach = patch_reach(options)
    for number, listed in enumerate(centres.volumes):
        box = images[listed.name]
        if not box.contains(listed.box.grow(reach)):
            leaving = _leaving(centres, number, box=box, reach=reach)
            asked = ",".join(map(str, reach))
            yield (
                f"{leaving / listed.count:.1%} of the centres of {listed.name} lie nearer to its "
                f"faces than the {asked} voxels (z,y,x) that patches reach: what is outside does "
                f"not count in the loss; build_coordinates with --margin {asked} avoids it"
            )


def background_share(centres: CentreList, options: TrainOptions) -> float:
    """Return which share of the first centres lies where labels are 0."""
    draws = np.asarray(centres.draws[:LOOKED_AT]).astype(np.int64)
    empty = 0
    addresses = {volume.name: volume.labels for volume in options.volumes}
    for number, volume in enumerate(centres.volumes):
        mine = draws[draws[:, 0] == number, 1:]
        if len(mine):
            with open_volume(addresses[volume.name]) as labels:
                empty += _count_empty(labels, mine)
    return empty / len(draws)


def patch_reach(options: TrainOptions) -> Zyx:
    """Return how far patches reach from their centres, z, y, x."""
    from floodem.training.examples.preparation import margin

    sampling = dataclasses.replace(options.sampling, out_of_volume="refuse", margin=None)
    return margin(dataclasses.replace(options, sampling=sampling))


def _count_empty(labels: Volume, centres: Int64[np.ndarray, "n 3"]) -> int:
    """Return how many centres have label 0; blocks that hold several are read once."""
    blocks, block_of = np.unique(centres // _BLOCK, axis=0, return_inverse=True)
    empty = 0
    for number, block in enumerate(blocks):
        start = block * _BLOCK
        box = Box.from_shape(_BLOCK, start=(int(start[0]), int(start[1]), int(start[2])))
        here = box.intersection(labels.box)
        assert here is not None
        values = labels.read(here)
        z, y, x = (centres[block_of.reshape(-1) == number] - here.start).T
        empty += int(np.count_nonzero(values[z, y, x] == 0))
    return empty


def _leaving(centres: CentreList, volume: int, *, box: Box, reach: Zyx) -> int:
    """Return how many patches of a volume leave its box."""
    low, high = np.add(box.start, reach), np.subtract(box.stop, reach)
    count = 0
    for first in range(0, len(centres), _ROWS_AT_ONCE):
        rows = np.asarray(centres.draws[first : first + _ROWS_AT_ONCE])
        zyx = rows[rows[:, 0] == volume, 1:]
        count += int(np.any((zyx < low) | (zyx >= high), axis=1).sum())
    return count
