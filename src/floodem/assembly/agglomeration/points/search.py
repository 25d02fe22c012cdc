"""All decision points of a segmentation: an array or an address in, one table out.

::

    sizes -> which are too small      (only with a least size)
    contacts (blocks) -> gathered: the smallest distance of each pair, the centroid of its
                         ties in all blocks, the tie nearest to it -> points.npz

Each stage has its receipts below ``WORK/receipts/points``; what is complete is not done again.
How the volume is cut, and who does the blocks, does not change the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from floodem.assembly.agglomeration.points.blocks import (
    BlockTask,
    PointBlocks,
    contacts_of,
    count_sizes_task,
    find_contacts_task,
    without_small,
    write_small_ids,
)
from floodem.assembly.agglomeration.points.centroids import PairCounter, Pairs, nearest_to_centroids
from floodem.assembly.agglomeration.points.contacts import Contacts, nothing
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.assembly.agglomeration.points.points import DecisionPoints, PointOptions
from floodem.assembly.blocks import BlockPlan
from floodem.cluster import ALONE, Crew, Task, run_tasks
from floodem.cluster.task import TaskFunction
from floodem.errors import GeometryError, StoppedError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels import require_labels
from floodem.labels.runs import Labels
from floodem.progress import Progress, ProgressListener
from floodem.shapes.source import LabelSource, block_edges, close_source
from floodem.volumes.parallel import in_order
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

BLOCK_VOXELS = 2**24
"""Voxels of a core, unless a block is given."""

POINTS_FILE = "points/points.npz"

_AT_ONCE = 4
_AHEAD = 8
"""Tables read at once, and before they are needed: most of that time is waiting."""

_PASSES = 2


def find_points_of(
    segmentation: Labels,
    *,
    voxel_size: VoxelSize,
    max_distance_nm: float,
    min_size: int = 0,
) -> DecisionPoints:
    """Return the decision points of an array of labels.

    Parameters
    ----------
    segmentation
        Labels z, y, x; 0 is empty space. What lies outside is no segment.
    voxel_size
        Compared in whole picometres.
    max_distance_nm
        How far segments grow into empty space.
    min_size
        Segments of fewer voxels count as empty space.

    Returns
    -------
    DecisionPoints
        One point for each pair of segments that touch when they are grown (see
        `floodem.assembly.agglomeration.points.growing` and `contacts`); positions count from the
        array's first voxel.

    Raises
    ------
    LabelError
        When the array holds no labels.
    OptionError
        When a number is out of range.
    """
    options = PointOptions(max_distance_nm=max_distance_nm, min_size=min_size)
    require_labels(segmentation, what="the segmentation")
    lengths = Lengths.of(voxel_size, max_distance_nm=options.max_distance_nm)
    labels = segmentation.astype(f"u{segmentation.dtype.itemsize}", copy=False)
    z, y, x = labels.shape
    contacts = contacts_of(
        without_small(labels, min_size=options.min_size),
        core=Box.from_shape((z, y, x)),
        start=(0, 0, 0),
        shape=(z, y, x),
        lengths=lengths,
    )
    pairs = Pairs.of(contacts, shape=(z, y, x))
    ties = nearest_to_centroids([contacts], pairs=pairs, shape=(z, y, x), lengths=lengths)
    return _as_points(ties, box=Box.from_shape((z, y, x)))


def find_decision_points(
    segmentation: LabelSource,
    *,
    work: str,
    voxel_size: VoxelSize,
    options: PointOptions | None = None,
    box: Box | None = None,
    crew: Crew = ALONE,
    block: Zyx | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DecisionPoints:
    """Find the decision points of a segmentation of any size, block by block.

    Takes memory for one block in each worker and, while points are gathered, about 150 bytes
    for each pair of segments.

    Parameters
    ----------
    segmentation
        Where it is.
    work
        Folder for what blocks leave, with which a stopped search goes on; local or s3:// or
        gs://. Workers and shards see the same one.
    voxel_size
        Compared in whole picometres.
    options
        Which places are decision points.
    box
        Search there as if nothing else were; None: everywhere.
    crew
        Who does the blocks. With a least size shards are run twice: sizes of all blocks are
        known before the first contact is sought.
    block
        Edges of a core, z, y, x; by default whole chunks of about `BLOCK_VOXELS`.

    Returns
    -------
    DecisionPoints
        As `find_points_of` gives for the whole array, with positions in the frame of the
        segmentation; neither blocks nor crew change anything.

    Raises
    ------
    GeometryError
        When the box is not inside the segmentation, or a block is not positive.
    OptionError
        When a number is out of range.
    LabelError
        When the volume holds no labels.
    RunConflictError
        When `work` is of other labels or options, or another process works there.
    ShardDoneError
        When this shard is done and others are not: the last one returns the points.
    StoppedError
        When it was told to stop.
    FloodemError
        When something cannot be read or written.
    """
    options = PointOptions() if options is None else options
    lengths = Lengths.of(voxel_size, max_distance_nm=options.max_distance_nm)
    with segmentation.open() as volume:
        plan = _cut(volume, box=box, block=block)
        identity = {
            "kind": "decision points",
            "labels": segmentation.identity(volume),
            "blocks": plan.to_json(),
            "lengths": asdict(lengths),
            "min_size": options.min_size,
        }
    search = _Search(
        blocks=PointBlocks(
            segmentation=segmentation,
            plan=plan,
            work=work,
            lengths=lengths,
            min_size=options.min_size,
        ),
        identity=identity,
        crew=crew,
        progress=progress,
        should_stop=should_stop,
    )
    try:
        if options.min_size > 1:
            search.in_blocks("sizes", count_sizes_task, says="counting sizes")
            search.once("small", _find_small)
        search.in_blocks("contacts", find_contacts_task, says="finding contacts")
        search.once("points", _gather)
    finally:
        close_source()
    uri = f"{without_secrets(work)}/{POINTS_FILE}"
    return DecisionPoints.unpack(open_store(work).read(POINTS_FILE), uri=uri)


def _cut(volume: Volume, *, box: Box | None, block: Zyx | None) -> BlockPlan:
    if box is not None and not volume.box.contains(box):
        raise GeometryError(
            f"box {box} (z,y,x) is not inside {volume.box}, where {volume.uri} has voxels: choose "
            "another one"
        )
    core = block_edges(volume, voxels=BLOCK_VOXELS) if block is None else block
    return BlockPlan(box=volume.box if box is None else box, core=core, margin=(0, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """A search that is going on, with what its stages need."""

    blocks: PointBlocks
    identity: Mapping[str, Any]
    crew: Crew
    progress: ProgressListener | None
    should_stop: Callable[[], bool]

    def in_blocks(self, name: str, function: TaskFunction, *, says: str) -> None:
        """Do a stage in all blocks."""
        tasks = [
            Task(key=block.key, argument=BlockTask(blocks=self.blocks, block=block))
            for block in self.blocks.plan
        ]
        self._run(name, function, tasks, crew=self.crew, says=says, takes_rest=False)

    def once(self, name: str, function: TaskFunction) -> None:
        """Do something once, in this process; of several shards one does it."""
        task = Task(key="all", argument=self)
        self._run(name, function, [task], crew=Crew(shard=self.crew.shard), takes_rest=True)

    def tell(self, done: int, total: int, *, says: str) -> None:
        """Report how far a stage is."""
        if self.progress is not None:
            self.progress(Progress(stage=says, done=done, total=total, unit="blocks"))

    def _run(
        self,
        name: str,
        function: TaskFunction,
        tasks: Sequence[Task],
        *,
        crew: Crew,
        takes_rest: bool,
        says: str | None = None,
    ) -> None:
        run_tasks(
            function,
            tasks,
            receipts=f"{self.blocks.work.rstrip('/')}/receipts/points/{name}",
            identity={**self.identity, "stage": name},
            crew=crew,
            progress=None
            if says is None
            else lambda done, total: self.tell(done, total, says=says),
            should_stop=self.should_stop,
            takes_rest=takes_rest,
        )


def _find_small(search: _Search) -> dict[str, Any]:
    return {"small": write_small_ids(search.blocks)}


def _gather(search: _Search) -> dict[str, Any]:
    """Make one table of those of all blocks, and keep it.

    What is near in one block may be far from what another has found of the same pair, so all
    tables are gone through twice: for the smallest distances with the sums of their ties, and
    for the ties nearest to the centroids.
    """
    blocks, done = search.blocks, 0
    total = _PASSES * len(blocks.plan)

    def tables() -> Iterator[Contacts]:
        nonlocal done
        for contacts in in_order(blocks.read_contacts, blocks.plan, threads=_AT_ONCE, ahead=_AHEAD):
            if search.should_stop():
                raise StoppedError(
                    "stopped while decision points were gathered: run the same command again to "
                    "go on"
                )
            yield contacts
            done += 1
            search.tell(done, total, says="gathering points")

    box = blocks.plan.box
    counter = PairCounter(box.shape)
    for contacts in tables():
        counter.add(contacts)
    pairs = counter.pairs()

    def best_of(found: Sequence[Contacts]) -> Contacts:
        return nearest_to_centroids(found, pairs=pairs, shape=box.shape, lengths=blocks.lengths)

    nearest: list[Contacts] = [nothing()]
    waiting = 0
    for contacts in tables():
        nearest.append(best_of([contacts]))
        waiting += len(nearest[-1])
        if waiting > 2 * len(pairs):
            nearest = [best_of(nearest)]
            waiting = len(nearest[0])
    points = _as_points(best_of(nearest), box=box)
    open_store(blocks.work).write(POINTS_FILE, points.pack())
    return {"points": len(points)}


def _as_points(ties: Contacts, *, box: Box) -> DecisionPoints:
    return DecisionPoints(
        ids_a=ties.ids_a,
        ids_b=ties.ids_b,
        positions=ties.positions(box.shape) + np.array(box.start, np.int64),
        distances_nm=ties.distances_nm,
    )
