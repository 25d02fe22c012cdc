"""All objects of a volume counted, block by block: a volume comes in, one table goes out.

Each block is read with a rim of its neighbours (as far as crossings reach), counted
(`floodem.shapes.measures.counting`) and added up. Memory holds one block for
each worker, the table, and for a moment the tables that are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.cluster import ALONE, Crew, Task, run_tasks
from floodem.cluster.sharing import share_rest
from floodem.errors import StoppedError
from floodem.files import making_folders
from floodem.geometry import Tile, tiles
from floodem.labels import require_labels
from floodem.progress import Progress, ProgressListener
from floodem.shapes.measures.counting import count_objects, reach
from floodem.shapes.measures.surface import Columns
from floodem.shapes.measures.table import ObjectTable
from floodem.shapes.source import LabelSource, block_edges, close_source, opened_source
from floodem.volumes.volume import Volume

BLOCK_VOXELS = 2**23
"""With labels of 64 bits, rows and runs a block of this size takes up to half a gigabyte."""

STAGE = "counting objects"

_MERGE_ROWS = 2**20
"""Tables of blocks wait until they have so many rows together, or as many as their sum."""


def blocks_of(
    volume: Volume, *, directions: Columns, block_voxels: int | None = None
) -> list[Tile]:
    """Cut a volume into blocks whose halos hold every pair of voxels that they answer for."""
    core = block_edges(volume, voxels=block_voxels or BLOCK_VOXELS)
    return list(tiles(volume.box, core=core, margin=reach(directions)))


def count_volume(
    volume: Volume,
    *,
    directions: Columns = (),
    block_voxels: int | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ObjectTable:
    """Count all objects of an open volume in this process.

    Parameters
    ----------
    block_voxels
        About how many voxels are looked at together; the counts do not depend on it.

    Raises
    ------
    LabelError
        When it holds no labels.
    StoppedError
        When it was told to stop.
    """
    found = blocks_of(volume, directions=directions, block_voxels=block_voxels)

    def tables() -> Iterable[ObjectTable]:
        for done, tile in enumerate(found):
            _tell(progress, done, len(found))
            if should_stop():
                raise StoppedError(f"stopped after {done} of {len(found)} blocks of {volume.uri}")
            yield _count(volume, tile, directions)
        _tell(progress, len(found), len(found))

    return _total(tables(), groups=len(directions))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    source: LabelSource
    tile: Tile
    directions: Columns
    table: Path


def count_source(
    source: LabelSource,
    volume: Volume,
    *,
    work: Path,
    identity: Mapping[str, Any],
    directions: Columns = (),
    crew: Crew = ALONE,
    takes_rest: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ObjectTable:
    """Count all objects in several processes, going on where an earlier run stopped.

    Parameters
    ----------
    volume
        What `source` opens.
    work
        Folder for tables and receipts of the blocks.
    identity
        What the labels are (`LabelSource.identity`).
    crew
        Who counts.
    takes_rest
        Whether this follows on shared work, so that a shard does what others left.

    Raises
    ------
    LabelError
        When the volume holds no labels.
    RunConflictError
        When `work` is of other labels.
    ShardDoneError
        When this shard has done its part and others have not.
    StoppedError
        When it was told to stop.
    """
    found = blocks_of(volume, directions=directions)
    work = work.absolute()  # workers may be elsewhere
    tables = [work / f"{number}.npy" for number in range(len(found))]
    tasks = [
        Task(
            key=str(number),
            argument=_Block(source=source, tile=tile, directions=directions, table=table),
        )
        for number, (tile, table) in enumerate(zip(found, tables, strict=True))
    ]
    made_from = {
        "kind": "objects",
        "block": list(found[0].core.shape) if found else [],
        "directions": [[list(step) for step in group] for group in directions],
        **identity,
    }

    def run(who: Crew) -> Any:
        return run_tasks(
            _count_block,
            tasks,
            receipts=work / "receipts",
            identity=made_from,
            crew=who,
            progress=lambda done, total: _tell(progress, done, total),
            should_stop=should_stop,
        )

    try:
        with making_folders(work, is_shared=crew.shard is not None):
            share_rest(run, crew=crew) if takes_rest else run(crew)
    finally:
        close_source()
    read = (ObjectTable.read(table, groups=len(directions)) for table in tables)
    return _total(read, groups=len(directions))


def _count_block(block: _Block) -> dict[str, Any]:
    table = _count(opened_source(block.source), block.tile, block.directions)
    table.write(block.table)
    return {"objects": len(table)}


def _count(volume: Volume, tile: Tile, directions: Columns) -> ObjectTable:
    labels = volume.read(tile.halo)
    require_labels(labels, what=volume.uri)
    return count_objects(labels, halo=tile.halo, core=tile.core, directions=directions)


def _total(tables: Iterable[ObjectTable], *, groups: int) -> ObjectTable:
    total, waiting, rows = ObjectTable.empty(groups=groups), list[ObjectTable](), 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        if rows > max(_MERGE_ROWS, len(total)):
            total, waiting, rows = ObjectTable.total([total, *waiting]), [], 0
    return ObjectTable.total([total, *waiting])


def _tell(progress: ProgressListener | None, done: int, total: int) -> None:
    if progress is not None:
        progress(Progress(stage=STAGE, done=done, total=total, unit="blocks"))
