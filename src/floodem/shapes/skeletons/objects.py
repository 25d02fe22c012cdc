"""One group of objects skeletonised: what to read comes in, files and numbers go out.

This is what a worker process does (`floodem.shapes.skeletons.job`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from floodem.files import replacing, write_text
from floodem.geometry import Box, Zyx
from floodem.labels import require_labels
from floodem.shapes.precomputed.folders import write_bytes
from floodem.shapes.skeletons.folder import SWC_ENDING
from floodem.shapes.skeletons.kimimaro_adapter import skeletonize_mask_with_kimimaro
from floodem.shapes.skeletons.plan import Group, Reading
from floodem.shapes.skeletons.precomputed import encode_skeleton
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.skeletons.swc import Unit, swc_text
from floodem.shapes.skeletons.teasar import TeasarOptions, skeletonize_mask
from floodem.shapes.skeletons.voxel_graph import Mask, Sides
from floodem.shapes.source import LabelSource, opened_source
from floodem.volumes.volume import Array, Volume

METHODS = {"teasar": skeletonize_mask, "kimimaro": skeletonize_mask_with_kimimaro}
"""What makes a skeleton of a mask, by the name that `--method` takes."""

_SLAB_VOXELS = 2**23
"""A large box is read so many voxels at a time, and only the mask is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where skeletons go; None: not wanted.

    Attributes
    ----------
    precomputed
        Folder of one file for each skeleton.
    packs
        Folder of files of many encoded skeletons, one file for each group: what
        shards are made from.
    swc, swc_unit, swc_source
        Folder of SWC files, their unit, and what their head says they are from.
    """

    precomputed: Path | None = None
    packs: Path | None = None
    swc: Path | None = None
    swc_unit: Unit = "nm"
    swc_source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupTask:
    """A group with all that a process needs to work on it."""

    source: LabelSource
    group: Group
    method: str
    options: TeasarOptions
    outputs: Outputs


def skeletonize_group(task: GroupTask) -> dict[str, Any]:
    """Skeletonise the objects of a group and write them.

    Returns
    -------
    dict
        ``objects``: for each, in order of ids, its id, vertices, pieces, length in
        nanometres, and bytes as encoded. One without vertices, which a coarse level
        may have lost, has no bytes and no files.
    """
    rows: list[list[float]] = []
    pack: list[bytes] = []
    for number, skeleton in _skeletons(task):
        if not len(skeleton):
            rows.append([number, 0, 0, 0.0, 0])
            continue
        encoded = encode_skeleton(skeleton)
        if task.outputs.precomputed is not None:
            write_bytes(task.outputs.precomputed / str(number), encoded)
        if task.outputs.packs is not None:
            pack.append(encoded)
        if task.outputs.swc is not None:
            text = swc_text(
                skeleton,
                unit=task.outputs.swc_unit,
                source=f"id {number} of {task.outputs.swc_source}",
            )
            write_text(task.outputs.swc / f"{number}{SWC_ENDING}", text)
        pieces = int(skeleton.component_numbers.max(initial=-1)) + 1
        rows.append([number, len(skeleton), pieces, skeleton.length_nm, len(encoded)])
    if task.outputs.packs is not None:
        with replacing(task.outputs.packs / f"{task.group.key}.bin") as partial:
            partial.write_bytes(b"".join(pack))
    return {"objects": rows}


def _skeletons(task: GroupTask) -> Iterator[tuple[int, Skeleton]]:
    group, reading = task.group, task.group.reading
    least = max(1, task.options.min_piece_voxels // reading.coarsening)
    options = replace(task.options, min_piece_voxels=least)
    opened = opened_source(task.source)
    volume = _level(opened, reading)
    boxes = [
        _read_box(_box(start, stop), reading)
        for start, stop in zip(group.starts.tolist(), group.stops.tolist(), strict=True)
    ]
    common = _hull(boxes) if len(boxes) > 1 else None
    labels = None if common is None else volume.read(common)
    for number, box in zip(group.ids.tolist(), boxes, strict=True):
        if common is not None and labels is not None:
            mask = labels[box.slices(origin=common.start)] == number
        else:
            mask = _mask(volume, box, (number, reading.pool))
        skeleton = METHODS[task.method](
            mask,
            voxel_size=reading.voxel_size,
            start=_pooled(box, reading.pool).start,
            options=options,
            open_sides=_open_sides(box, volume.box),
        )
        yield number, skeleton


def _level(volume: Volume, reading: Reading) -> Volume:
    if reading.level == 0:
        return volume
    levels = volume.levels
    finest = next(i for i, level in enumerate(levels) if level.shape == volume.shape)
    return levels[finest + reading.level]


def _box(start: list[int], stop: list[int]) -> Box:
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _read_box(box: Box, reading: Reading) -> Box:
    """Return what to read of the level: the voxels over `box`, and one more for rounding."""
    if reading.factors == (1, 1, 1):
        return box
    scaled = _pooled(box, reading.factors).grow((1, 1, 1)).intersection(reading.box)
    return reading.box if scaled is None else scaled


def _pooled(box: Box, pool: Zyx) -> Box:
    """Return the coarse voxels that hold some of a box."""
    z, y, x = (low // factor for low, factor in zip(box.start, pool, strict=True))
    stop_z, stop_y, stop_x = (
        -(-high // factor) for high, factor in zip(box.stop, pool, strict=True)
    )
    return Box((z, y, x), (stop_z, stop_y, stop_x))


def _hull(boxes: list[Box]) -> Box:
    low = np.min([box.start for box in boxes], axis=0).tolist()
    high = np.max([box.stop for box in boxes], axis=0).tolist()
    return _box(low, high)


def _open_sides(box: Box, volume: Box) -> Sides:
    z, y, x = (
        (low == first, high == last)
        for low, first, high, last in zip(
            box.start, volume.start, box.stop, volume.stop, strict=True
        )
    )
    return (z, y, x)


def _mask(volume: Volume, box: Box, what: tuple[int, Zyx]) -> Mask:
    """Read a box slab by slab; return where the object is, with voxels taken together."""
    number, pool = what
    whole = _pooled(box, pool)
    mask = np.zeros(whole.shape, np.bool_)
    depth = max(1, _SLAB_VOXELS // math.prod(box.shape[1:]))
    depth = -(-depth // pool[0]) * pool[0]
    first = whole.start[0] * pool[0]
    for low in range(first, box.stop[0], depth):
        cut = Box((low, *box.start[1:]), (low + depth, *box.stop[1:])).intersection(box)
        if cut is None:
            continue
        labels = volume.read(cut)
        require_labels(labels, what=volume.uri)
        part = _pooled(cut, pool)
        mask[part.slices(origin=whole.start)] |= _any(labels == number, cut, (part, pool))
    return mask


def _any(mask: Array, box: Box, coarse: tuple[Box, Zyx]) -> Array:
    """Return which coarse voxels hold some of the mask, which lies at `box`."""
    part, pool = coarse
    if pool == (1, 1, 1):
        return mask
    for axis in range(3):
        edges = np.arange(part.start[axis], part.stop[axis]) * pool[axis] - box.start[axis]
        mask = np.logical_or.reduceat(mask, np.maximum(edges, 0), axis=axis)
    return mask
