"""What one block holds of each object: labels come in, a table of whole numbers goes out.

Labels are looked at as runs of equal voxels along x (`floodem.labels.runs`), so
that the work follows the number of runs; only crossings are counted voxel by voxel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from floodem.geometry import Box, Zyx
from floodem.labels.runs import Labels, runs
from floodem.shapes.measures.surface import Columns
from floodem.shapes.measures.table import NOWHERE_FIRST, NOWHERE_LAST, ObjectTable

Compact = np.ndarray[Any, np.dtype[np.int32]]


def count_objects(labels: Labels, *, halo: Box, core: Box, directions: Columns = ()) -> ObjectTable:
    """Count voxels, positions, boxes and crossings of all objects in a block.

    Parameters
    ----------
    labels
        Unsigned integers, z, y, x; 0 is background.
    halo
        Where `labels` lie, in the volume's frame.
    core
        The voxels that this block answers for. A pair of voxels belongs to the block
        that has the pair's first one; so the halo reaches `reach` farther than the
        core, or to the volume's faces.
    directions
        Steps from first voxels to second ones, in groups; none: no crossings.
    """
    ids, compact = _compacted(labels)
    table = _counted(compact[core.slices(origin=halo.start)], core, len(ids))
    columns = [
        sum(
            (_crossings(compact, (halo, core), step=step, count=len(ids)) for step in group),
            start=np.zeros(len(ids), np.int64),
        )
        for group in directions
    ]
    crossings = np.stack(columns, axis=1) if columns else np.zeros((len(ids), 0), np.int64)
    voxels, sums, first, last = table
    made = ObjectTable(
        ids=ids,
        voxels=voxels,
        position_sums=sums,
        first=first,
        last=last,
        crossings=crossings,
    )
    return made.select((ids > 0) & ((voxels > 0) | crossings.any(axis=1)))


def reach(directions: Columns) -> Zyx:
    """Return how far the halo of a block must reach around its core, z, y, x."""
    steps = np.abs([step for group in directions for step in group]).reshape(-1, 3)
    z, y, x = (int(most) for most in steps.max(axis=0, initial=0))
    return (z, y, x)


def _compacted(labels: Labels) -> tuple[Any, Compact]:
    """Return the ids in an array, and the array with the row of each voxel's id."""
    starts, lengths = runs(labels)
    ids, rows = np.unique(labels.reshape(-1)[starts], return_inverse=True)
    compact: Compact = np.repeat(rows.reshape(-1).astype(np.int32), lengths).reshape(labels.shape)
    return ids.astype(np.uint64), compact


def _counted(compact: Compact, core: Box, count: int) -> tuple[Any, Any, Any, Any]:
    """Return voxels, sums of positions, first and last positions of each row."""
    compact = np.ascontiguousarray(compact)
    width = compact.shape[2]
    flat = compact.reshape(-1)
    is_start = np.zeros(flat.size, np.bool_)
    is_start[::width] = True
    is_start[1:] |= flat[1:] != flat[:-1]
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=flat.size)
    rows = flat[starts]
    lines, x = np.divmod(starts, width)
    z, y = np.divmod(lines, compact.shape[1])
    start = np.array(core.start)
    low = np.stack([z, y, x], axis=1) + start
    order = np.argsort(rows, kind="stable")
    there, groups = np.unique(rows[order], return_index=True)

    def summed(values: Any) -> Any:
        # Exactly: the weights of numpy's bincount are float64.
        sums = np.zeros(count, np.int64)
        sums[there] = np.add.reduceat(values[order], groups)
        return sums

    places = lengths[:, None] * low
    places[:, 2] += lengths * (lengths - 1) // 2  # x, x + 1, ... of a run
    sums = np.stack([summed(places[:, axis]) for axis in range(3)], axis=1)
    first = np.full((count, 3), NOWHERE_FIRST)
    last = np.full((count, 3), NOWHERE_LAST)
    first[there] = np.minimum.reduceat(low[order], groups, axis=0)
    low[:, 2] += lengths - 1
    last[there] = np.maximum.reduceat(low[order], groups, axis=0)
    return summed(lengths), sums, first, last


def _crossings(compact: Compact, boxes: tuple[Box, Box], *, step: Zyx, count: int) -> Any:
    """Return for each row how many pairs of voxels a step apart have one of it and one not."""
    halo, core = boxes
    pairs = core.intersection(halo.translate((-step[0], -step[1], -step[2])))
    if pairs is None:
        return np.zeros(count, np.int64)
    here = compact[pairs.slices(origin=halo.start)]
    there = compact[pairs.translate(step).slices(origin=halo.start)]
    is_crossed = here != there
    found = np.bincount(here[is_crossed], minlength=count)
    return found + np.bincount(there[is_crossed], minlength=count)
