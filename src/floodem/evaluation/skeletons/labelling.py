"""In which segment each node lies: voxels of nodes in, ids of segments out, block by block.

Nodes are grouped by the blocks of whole chunks that hold them, and of each block the smallest box
around its nodes is read. In this process one block after the other; as tasks by whatever crew,
which leave their part in the work folder::

    WORK/skeletons-DIGEST/KEY.npy     segments of the nodes of some blocks
    WORK/skeletons-DIGEST/receipts/   one receipt for each of them

Memory holds all nodes and one block for each worker.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from floodem.cluster import Crew, Task, run_tasks
from floodem.cluster.receipts import identity_digest
from floodem.errors import StoppedError, VolumeFormatError
from floodem.evaluation.grid import BlockGrid, chunk_grid
from floodem.geometry import Box
from floodem.labels import require_labels
from floodem.progress import Progress, ProgressListener
from floodem.shapes.source import LabelSource, close_source, opened_source
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

BLOCK_VOXELS = 2**22
"""At 64 bits 34 MB; blocks this small are often empty of nodes, and then not read."""

VERSION = 1

_LEAST_BLOCKS = 8
"""A task reads at least so many blocks, as a receipt takes longer than a small block."""

_MOST_TASKS = 10_000

_STAGE = "look up nodes"

Voxels = Int64[np.ndarray, "nodes 3"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NodeBlocks:
    """Nodes grouped by the blocks they lie in.

    Attributes
    ----------
    voxels
        Of the nodes, block by block.
    starts
        First row of each block, and the number of nodes at the end.
    order
        Where each row stood before.
    """

    voxels: Int64[np.ndarray, "nodes 3"]
    starts: Int64[np.ndarray, "ends"]
    order: Int64[np.ndarray, "nodes"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, first: int, stop: int) -> list[Voxels]:
        """Return the nodes of some blocks, one array for each."""
        ends = zip(self.starts[first:stop], self.starts[first + 1 : stop + 1], strict=True)
        return [self.voxels[low:high] for low, high in ends]

    def spread(self, found: UInt64[np.ndarray, "nodes"]) -> UInt64[np.ndarray, "nodes"]:
        """Return what was found block by block in the order of the nodes."""
        spread = np.empty_like(found)
        spread[self.order] = found
        return spread


def group_nodes(
    voxels: Int64[np.ndarray, "nodes 3"], *, volume: Volume, block_voxels: int | None = None
) -> NodeBlocks:
    """Group nodes by blocks of whole chunks.

    Parameters
    ----------
    voxels
        All inside the volume, z, y, x in its frame.
    block_voxels
        About how many voxels are read at once.
    """
    grid = chunk_grid(
        volume.box, chunks=volume.chunks, first=volume.offset, limit=block_voxels or BLOCK_VOXELS
    )
    numbers = _block_numbers(voxels, grid)
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    return NodeBlocks(
        voxels=voxels[order], starts=np.append(starts, len(voxels)).astype(np.int64), order=order
    )


def _block_numbers(voxels: Voxels, grid: BlockGrid) -> Any:
    z, y, x = ((voxels - np.array(grid.origin)) // np.array(grid.edge)).T
    _, rows, columns = grid.counts
    return (z * rows + y) * columns + x


def segments_at(volume: Volume, voxels: Int64[np.ndarray, "nodes 3"]) -> Any:
    """Return the labels at voxels of one block, uint64, reading the smallest box around them.

    Raises
    ------
    LabelError
        When the volume holds no labels.
    """
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    (z0, y0, x0), (z1, y1, x1) = low.tolist(), high.tolist()
    labels = volume.read(Box((z0, y0, x0), (z1, y1, x1)))
    require_labels(labels, what=f"the segmentation {volume.uri}")
    return labels[tuple((voxels - low).T)].astype(np.uint64)


def look_up_here(
    volume: Volume,
    blocks: NodeBlocks,
    *,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
) -> UInt64[np.ndarray, "nodes"]:
    """Return the segment of each node, 0 for none, reading an open volume in this process.

    Raises
    ------
    StoppedError
        When it was told to stop.
    """
    found = []
    for done, voxels in enumerate(blocks.part(0, len(blocks)), start=1):
        if should_stop():
            raise StoppedError("stopped before all nodes were looked up: run it again")
        found.append(segments_at(volume, voxels))
        _tell(progress, done, len(blocks))
    return blocks.spread(np.concatenate(found))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookUpTask:
    """Nodes of some blocks, to be looked up, and where the answer goes."""

    source: LabelSource
    voxels: list[Voxels]
    folder: str
    name: str


def look_up_task(task: LookUpTask) -> dict[str, Any]:
    """Look up nodes, and keep their segments.

    Raises
    ------
    LabelError
        When the volume holds no labels.
    StorageError, VolumeFormatError
        When something cannot be read or written.
    """
    volume = opened_source(task.source)
    found = np.concatenate([segments_at(volume, voxels) for voxels in task.voxels])
    packed = io.BytesIO()
    np.save(packed, found)
    open_store(task.folder).write(task.name, packed.getvalue())
    return {"nodes": len(found)}


def look_up_in_tasks(
    source: LabelSource,
    blocks: NodeBlocks,
    *,
    work: str,
    identity: Mapping[str, Any],
    crew: Crew,
    takes_rest: bool,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
) -> UInt64[np.ndarray, "nodes"]:
    """Return the segment of each node, looked up by a crew.

    Parameters
    ----------
    identity
        What the segmentation and the nodes are, as JSON values.
    takes_rest
        Whether this follows on work that shards shared.

    Raises
    ------
    FloodemError
        See `floodem.cluster.run_tasks`.
    """
    made_of = {"kind": "segments of nodes", "version": VERSION, **identity}
    folder = f"{work}/skeletons-{identity_digest(made_of)[:16]}"
    tasks = list(_tasks(source, blocks, folder))
    try:
        run_tasks(
            look_up_task,
            tasks,
            receipts=f"{folder}/receipts",
            identity=made_of,
            crew=crew,
            progress=lambda done, total: _tell(progress, done, total),
            should_stop=should_stop,
            takes_rest=takes_rest,
        )
    finally:
        close_source()
    parts = [_read_part(task.argument) for task in tasks]
    return blocks.spread(np.concatenate(parts))


def _tasks(source: LabelSource, blocks: NodeBlocks, folder: str) -> Iterator[Task]:
    step = max(_LEAST_BLOCKS, math.ceil(len(blocks) / _MOST_TASKS))
    for number, first in enumerate(range(0, len(blocks), step)):
        key = f"{number:06}"
        voxels = blocks.part(first, min(first + step, len(blocks)))
        argument = LookUpTask(source=source, voxels=voxels, folder=folder, name=f"{key}.npy")
        yield Task(key=key, argument=argument)


def _read_part(task: LookUpTask) -> Any:
    packed = open_store(task.folder).read(task.name)
    wanted = sum(len(voxels) for voxels in task.voxels)
    try:
        found = None if packed is None else np.load(io.BytesIO(packed), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        found = None
    is_one = isinstance(found, np.ndarray) and found.dtype == np.uint64
    if found is None or not is_one or found.shape != (wanted,):
        raise VolumeFormatError(
            f"{task.folder}/{task.name} does not hold the segments of {wanted} nodes: remove "
            f"{task.folder}, and run the same command again"
        )
    return found


def _tell(progress: ProgressListener | None, done: int, total: int) -> None:
    if progress is not None:
        progress(Progress(stage=_STAGE, done=done, total=total, unit="blocks"))
