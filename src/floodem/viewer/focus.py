"""Where the viewer looks first: layers in, the region to zoom to and a place in it out.

A segmentation is often a small box of its image, and a run over a few neurons
leaves most of its box empty. What was segmented is what the user wants to see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from floodem.geometry import Box, VoxelSize
from floodem.viewer.layers import Kind, Layer, RemoteLayer, largest_objects
from floodem.volumes.kinds import middle
from floodem.volumes.volume import Array

Position = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Focus:
    """What to show first.

    Attributes
    ----------
    region
        What the panels shall hold, in voxels of `size`.
    position_zyx
        Where the slices cross, in voxels of `size`.
    size
        Voxel size of the layer that was chosen.
    """

    region: Box
    position_zyx: Position
    size: VoxelSize


def find_focus(
    layers: Sequence[Layer | RemoteLayer], *, size_of: Callable[[Layer | RemoteLayer], VoxelSize]
) -> Focus | None:
    """Choose the first segmentation where it overlaps the other layers, else the first image.

    Parameters
    ----------
    layers
        Those of which nobody knows where they lie do not count.
    size_of
        Voxel size of a layer.

    Returns
    -------
    focus
        The slices cross in the middle, or in a large object where the middle is empty. None
        where it is not known where anything lies.
    """
    boxes = {layer: layer.box for layer in layers if layer.box is not None}
    if not boxes:
        return None
    chosen = next((one for one in boxes if one.kind is Kind.SEGMENTATION), next(iter(boxes)))
    size, region = size_of(chosen), boxes[chosen]
    if chosen.kind is Kind.SEGMENTATION:
        for layer, box in boxes.items():
            other = in_voxels_of(size, box, size_of(layer))
            region = region.intersection(other) or region
    return Focus(region, _crossing(chosen, region), size)


def in_voxels_of(size: VoxelSize, box: Box, own: VoxelSize) -> Box:
    """Return the voxels of another size that a box touches."""
    scales = [mine / shared for mine, shared in zip(own.zyx_nm, size.zyx_nm, strict=True)]
    z0, y0, x0 = (math.floor(at * scale) for at, scale in zip(box.start, scales, strict=True))
    z1, y1, x1 = (math.ceil(at * scale) for at, scale in zip(box.stop, scales, strict=True))
    return Box((z0, y0, x0), (z1, y1, x1))


def _crossing(layer: Layer | RemoteLayer, region: Box) -> Position:
    z, y, x = ((start + stop) / 2 for start, stop in zip(region.start, region.stop, strict=True))
    centre = (z, y, x)
    if layer.kind is not Kind.SEGMENTATION or isinstance(layer, RemoteLayer):
        return centre
    # A look at the middle is cheap everywhere; all voxels are read for meshes in any case.
    for sample in (middle(region), *([region] if layer.is_meshed_here else [])):
        inside = _inside_an_object(layer.volume.read(sample))
        if inside is not None:
            dz, dy, dx = inside
            z, y, x = sample.start
            is_middle = inside == tuple(edge // 2 for edge in sample.shape)
            return centre if is_middle else (z + dz + 0.5, y + dy + 0.5, x + dx + 0.5)
    return centre


def _inside_an_object(labels: Array) -> tuple[int, int, int] | None:
    """Return the middle voxel if it is labelled, else the innermost of the largest object."""
    z, y, x = (edge // 2 for edge in labels.shape)
    if labels[z, y, x] != 0:
        return z, y, x
    largest = largest_objects(labels, count=1)
    if not largest:
        return None
    voxels = np.argwhere(labels == largest[0])
    # The centre of mass may lie outside of a bent object.
    distances = np.sum((voxels - voxels.mean(axis=0)) ** 2, axis=1)
    z, y, x = (int(index) for index in voxels[np.argmin(distances)])
    return z, y, x
