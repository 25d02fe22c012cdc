"""The volumes behind a report: addresses in, open volumes of one frame and boxes of them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import GeometryError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import open_volume
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Array, Volume

Source = str | Path | VolumeSource | Volume
"""A volume by address, with more to say about it (level, channel), or open."""

_SAME_SIZE = 1e-3
"""Relative difference up to which voxel sizes count as the same."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Volumes:
    """Open volumes over each other.

    Attributes
    ----------
    voxel_size
        Of all; None where nobody states it.
    """

    truth: Volume
    segmentations: tuple[Volume, ...]
    image: Volume | None
    voxel_size: VoxelSize | None


def uri_of(source: Source) -> str:
    """Return the address of a volume."""
    return source.uri if isinstance(source, VolumeSource | Volume) else str(source)


def open_volumes(
    opened: ExitStack,
    *,
    truth: Source,
    segmentations: Sequence[Source],
    image: Source | None,
    voxel_size: VoxelSize | None,
) -> Volumes:
    """Open what is given by address, to be closed by `opened`.

    Raises
    ------
    GeometryError
        When the image has voxels of another size than the truth.
    FloodemError
        What `open_volume` refuses.
    """
    below = _open(truth, opened)
    labels = tuple(_open(one, opened) for one in segmentations)
    grey = None if image is None else _open(image, opened)
    stated = [below.voxel_size, *(one.voxel_size for one in labels)]
    size = voxel_size or next((one for one in stated if one is not None), None)
    if grey is not None and grey.voxel_size is not None:
        if size is not None and voxel_size is None and not _are_alike(size, grey.voxel_size):
            raise GeometryError(
                f"the image {grey.uri} has voxels of {grey.voxel_size} nm and the labels of {size} "
                "nm (z,y,x): give the image at the resolution of the labels (--image)"
            )
        size = size or grey.voxel_size
    return Volumes(truth=below, segmentations=labels, image=grey, voxel_size=size)


def _open(source: Source, opened: ExitStack) -> Volume:
    if isinstance(source, Volume):
        return source
    if isinstance(source, VolumeSource):
        return opened.enter_context(source.open())
    return opened.enter_context(open_volume(source))


def _are_alike(one: VoxelSize, other: VoxelSize) -> bool:
    return all(
        math.isclose(a, b, rel_tol=_SAME_SIZE)
        for a, b in zip(one.zyx_nm, other.zyx_nm, strict=True)
    )


class BoxOf(Volume):
    """A box of another volume, which is read when it is asked for; nothing where that has none.

    Parameters
    ----------
    source
        Stays open as long as this one is used.
    box
        In the frame of the source; may reach beyond it.
    fill
        What voxels beyond it are.
    """

    def __init__(
        self,
        source: Volume,
        *,
        box: Box,
        voxel_size: VoxelSize,
        dtype: np.dtype[Any] | None = None,
        fill: float = 0,
    ) -> None:
        self._source = source
        self._fill = fill
        self.uri = source.uri
        self.box = box
        self.dtype = dtype or source.dtype
        self.voxel_size = voxel_size
        self.chunks = box.shape
        self.kind = source.kind

    def _read(self, box: Box) -> Array:
        found = np.full(box.shape, self._fill, self.dtype)
        part = box.intersection(self._source.box)
        if part is not None:
            found[part.slices(origin=box.start)] = self._source.read(part)
        return found
