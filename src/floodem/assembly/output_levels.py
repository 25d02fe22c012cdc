"""Coarser levels of the segmentation: the level before in, voxels of the next out, as tasks.

Levels are computed as `floodem convert --pyramid` does (the most frequent label, in
windows aligned to the absolute frame), one after the other, each in blocks of whole
chunks::

    labels -> level-1 -> level-2 -> ...     (a stage each, with receipts of its own)
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.assembly.destination import LabelDestination
from floodem.assembly.writing import ChunkSums, pieces, require_going_on
from floodem.cluster import Task
from floodem.geometry import Box, Zyx
from floodem.volumes import open_volume
from floodem.volumes.conversion.pyramid import read_coarse
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.volume import Kind

LEVEL_VOXELS = 2**24
"""Voxels of a coarser level that one task computes: 128 MiB, from eight times as much at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelTask:
    """A part of one coarser level.

    Attributes
    ----------
    target
        Address of the volume, see `LabelDestination.target`.
    level
        From 1.
    box
        In the frame of that level.
    factors
        Against the level before.
    """

    target: str
    level: int
    box: Box
    factors: Zyx


def level_tasks(destination: LabelDestination, level: int) -> list[Task]:
    """Return the tasks that fill a coarser level, once the level before is complete.

    Parameters
    ----------
    level
        From 1 to ``len(destination.factors)``.
    """
    factors = ((1, 1, 1), *destination.factors)
    box = level_box(destination.plan.box, factors[level])
    before, now = factors[level - 1], factors[level]
    step = (now[0] // before[0], now[1] // before[1], now[2] // before[2])
    alone = destination.shards or destination.chunks
    return [
        Task(
            key=f"{number:08}",
            argument=LevelTask(target=destination.target, level=level, box=part, factors=step),
        )
        for number, part in enumerate(pieces(box, chunks=alone, voxels=LEVEL_VOXELS))
    ]


def write_level_task(task: LevelTask) -> dict[str, Any]:
    """Compute and write a part of a coarser level.

    Returns
    -------
    dict
        As of `write_core_task`.

    Raises
    ------
    StorageError
        When the disk or the server refuses.
    """
    with contextlib.ExitStack() as opened:
        finer = opened.enter_context(open_volume(task.target, level=task.level - 1))
        coarser = opened.enter_context(
            open_volume(task.target, level=task.level, writable=True, stores_background=True)
        )
        require_going_on()
        found = read_coarse(finer, task.box, factors=task.factors, kind=Kind.LABELS)
        coarser.write(task.box, found)
        sums = ChunkSums(task.box, chunks=coarser.chunks)
        sums.add(task.box, found)
        return {
            "voxels": task.box.size,
            "labelled": int(np.count_nonzero(found)),
            "crc32c": sums.total(),
        }
