"""Two segmentations to be compared, for tests of consensus."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.consensus import ConsensusOptions, make_consensus
from floodem.assembly.consensus.gathering import (
    CleanTask,
    Gathering,
    PairTask,
    clean,
    number_pairs,
)
from floodem.assembly.consensus.overlay import lay_over
from floodem.assembly.consensus.tables import ConsensusTables
from floodem.assembly.consensus.tasks import (
    SIDES,
    BlockTask,
    find_pieces_task,
    find_touching_task,
    write_consensus_task,
)
from floodem.geometry import Box
from floodem.shapes.source import LabelSource, close_source
from floodem.volumes import create_volume, open_volume
from reference.consensus import consensus

SMALL = ConsensusOptions(min_size=2, split_min_size=3)


def blobs(shape, *, seed, step=3, objects=6, offset_id=0):
    """Blocky objects with holes and noise: many components, some of them tiny."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, objects, [-(-edge // step) for edge in shape])
    fine = np.kron(coarse, np.ones((step, step, step), np.int64))
    labels = fine[tuple(slice(edge) for edge in shape)]
    noise = rng.random(shape) < 0.08
    labels[noise] = rng.integers(0, objects, int(noise.sum()))
    return np.where(labels > 0, labels + offset_id, 0).astype(np.uint64)


def store(uri, labels, **facts) -> str:
    """Write labels to an address and return it."""
    with create_volume(str(uri), shape=labels.shape, dtype=labels.dtype, **facts) as volume:
        volume.write(volume.box, labels)
    return str(uri)


def read(uri) -> np.ndarray:
    with open_volume(str(uri)) as volume:
        return volume.read()


def twin(a, b, options: ConsensusOptions) -> np.ndarray:
    """What the slow twin makes of two arrays."""
    return consensus(
        a,
        b,
        splits=options.split_components,
        min_size=options.min_size,
        split_min_size=options.split_min_size,
    )


def agreed(a, b, destination, **how: Any) -> np.ndarray:
    """Make a consensus and return its voxels."""
    return read(make_consensus(a, b, destination, **how).uri)


def stage_by_stage(
    a: LabelSource, b: LabelSource, work: Path, *, core, options: ConsensusOptions, order
) -> np.ndarray:
    """Do the tasks of every stage in an order of one's own; no receipts, no destination."""
    overlay, _ = lay_over(a, b)
    plan = BlockPlan(box=overlay.box, core=core, margin=(0, 0, 0))
    tables = ConsensusTables(address=str(work), plan=plan)
    target = str(work / "labels.zarr")
    with create_volume(
        target, shape=plan.box.shape, dtype=np.uint64, offset=plan.box.start, chunks=core
    ):
        pass
    tasks = [
        BlockTask(
            overlay=overlay,
            tables=tables,
            block=block,
            splits=options.split_components,
            target=target,
        )
        for block in plan
    ]
    shuffled = [tasks[at] for at in order(len(tasks))]
    counts = {task.block.index: find_pieces_task(task) for task in shuffled}
    if options.split_components:
        for task in reversed(shuffled):
            find_touching_task(task)
    gathering = Gathering(
        tables=tables,
        counts=[counts[index] for index in range(len(plan))],
        progress=None,
        should_stop=lambda: False,
    )
    cleaned = [
        clean(
            CleanTask(
                gathering=gathering,
                side=side,
                splits=options.split_components,
                min_size=options.min_size,
            )
        )
        for side in SIDES
    ]
    number_pairs(
        PairTask(
            gathering=gathering,
            largest_a=cleaned[0]["largest_id"],
            split_min_size=options.split_min_size,
        )
    )
    for task in shuffled:
        write_consensus_task(task)
    close_source()
    return read(target)


def over(labels, *, start, ratio, box: Box) -> np.ndarray:
    """What labels with voxels `ratio` times as long, whose first is at `start`, say in a box."""
    found = np.zeros(box.shape, labels.dtype)
    for place in itertools.product(*(range(edge) for edge in box.shape)):
        own = tuple(
            (at + low) // edge - first
            for at, low, edge, first in zip(place, box.start, ratio, start, strict=True)
        )
        if all(0 <= at < edge for at, edge in zip(own, labels.shape, strict=True)):
            found[place] = labels[own]
    return found
