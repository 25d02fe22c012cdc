"""Synthetic electron microscopy as a volume: boxes are computed when they are read."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from floodem.geometry import Box, Zyx, tiles
from floodem.volumes.conversion.derived import DerivedVolume
from floodem.volumes.description import Description
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.synthesis import label_dtype, synthesize
from floodem.volumes.volume import Array, Kind

_BLOCK = 64
"""Edge of the boxes that are cheap to read; what is around them makes smaller ones slower."""

_TILE = (128, 128, 128)
"""What is computed at a time, whatever is read: it takes 240 MB of memory."""


class SyntheticVolume(DerivedVolume):
    """The image or the labels of a synthetic volume, without a file.

    Voxels are the same whatever the boxes in which they are read, and several
    threads may read at once.

    Parameters
    ----------
    options
        What it is like.
    part
        ``"image"`` (uint8) or ``"labels"`` (uint32, uint64 where the volume is huge).
    """

    def __init__(self, options: SyntheticOptions, *, part: Literal["image", "labels"]) -> None:
        is_image = part == "image"
        super().__init__(
            uri=f"synthetic:{part}",
            shape=options.shape,
            dtype=np.dtype(np.uint8) if is_image else label_dtype(options),
            chunks=_chunks(options.shape),
            description=Description(
                voxel_size=options.voxel_size,
                kind=Kind.IMAGE if is_image else Kind.LABELS,
            ),
        )
        self.options = options
        self._part = part
        self.recipe = {"synthetic": _plain(dataclasses.asdict(options)), "part": part}

    def _read(self, box: Box) -> Array:
        result = np.empty(box.shape, self.dtype)
        for tile in tiles(box, core=_TILE):
            made = synthesize(self.options, tile.core)
            part = made.image if self._part == "image" else made.labels
            result[tile.core.slices(origin=box.start)] = part
        return result


def _chunks(shape: Zyx) -> Zyx:
    z, y, x = (min(edge, _BLOCK) for edge in shape)
    return (z, y, x)


def _plain(values: Any) -> Any:
    """Turn tuples into lists, as JSON gives them back."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, tuple | list) else values
