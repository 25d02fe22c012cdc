"""What tests of the output share: a volume cut into blocks with ids of their own, and mappings."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.destination import LabelDestination
from floodem.assembly.output_levels import level_tasks, write_level_task
from floodem.assembly.place import Place
from floodem.assembly.placing import finish
from floodem.assembly.writing import MAPPING_VERSION, write_core_task, write_tasks
from floodem.geometry import Box, VoxelSize
from floodem.volumes.servers.transport import open_store

PLAN = BlockPlan(box=Box((3, -5, 10), (27, 15, 40)), core=(12, 10, 20), margin=(2, 2, 2))
SIZE = VoxelSize(30, 6, 6)


def truth(box: Box = PLAN.box, *, seed: int = 5) -> np.ndarray:
    """Coarse blobs with ids beyond 32 bits; one corner is background."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 9, [-(-n // 4) for n in box.shape]).astype(np.uint64)
    fine = np.kron(coarse, np.ones((4, 4, 4), np.uint64))[tuple(slice(n) for n in box.shape)]
    found = np.where(fine > 0, fine + 2**40, 0).astype(np.uint64)
    found[: box.shape[0] // 2, : box.shape[1] // 2, : 2 * box.shape[2] // 3] = 0
    return found


def fill_blocks(store: BlockStore, labels: np.ndarray) -> None:
    """Write what floods and stitching would have left, were this their result."""
    for block in store.plan:
        inside = labels[block.halo.slices(origin=store.plan.box.start)]
        ids, local = np.unique(inside, return_inverse=True)
        if ids[0] != 0:
            ids, local = np.concatenate([[0], ids]).astype(np.uint64), local + 1
        count = len(ids) - 1
        store.write(block, local.reshape(inside.shape).astype(np.uint32), table=table(count))
        write_mapping(store, block, ids)


def write_mapping(store: BlockStore, block: Block, ids: np.ndarray) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, version=np.int64(MAPPING_VERSION), ids=ids)
    open_store(store.address).write(f"mapping/{block.key}.npz", packed.getvalue())


def table(count: int) -> SegmentTable:
    return SegmentTable(
        carried=np.zeros(0, np.uint64),
        voxels=np.ones(count, np.int64),
        core_voxels=np.ones(count, np.int64),
        starts=np.zeros((count, 3), np.int64),
        calls=np.ones(count, np.int64),
        is_cut_short=np.zeros(count, bool),
    )


def made(
    uri: str | Path, *, plan: BlockPlan = PLAN, **options
) -> tuple[LabelDestination, BlockStore]:
    """A destination that is created, and the blocks for it."""
    destination = LabelDestination.choose(str(uri), plan=plan, voxel_size=SIZE, **options)
    store = BlockStore(address=destination.work, plan=plan)
    fill_blocks(store, truth(plan.box))
    destination.create()
    return destination, store


def write_all(destination: LabelDestination, store: BlockStore) -> list[dict]:
    return [write_core_task(task.argument) for task in write_tasks(destination, store=store)]


def write_levels(destination: LabelDestination) -> list[list[dict]]:
    return [
        [write_level_task(task.argument) for task in level_tasks(destination, level)]
        for level in range(1, 1 + len(destination.factors))
    ]


def complete(uri: str | Path, **options) -> LabelDestination:
    """Labels written, with levels, and put into place."""
    destination, store = made(uri, **options)
    write_all(destination, store)
    write_levels(destination)
    finish(destination)
    return destination


def files(folder: str | Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


SMALL = BlockPlan(box=Box((3, -5, 10), (15, 15, 30)), core=(12, 10, 10), margin=(2, 2, 2))


def write_small(uri: str) -> None:
    """Write the cores of a small plan; in a process that is killed, for example."""
    destination = LabelDestination.choose(uri, plan=SMALL, voxel_size=SIZE, levels=0)
    write_all(destination, BlockStore(address=destination.work, plan=SMALL))


def go_on(uri: str, *, overwrite: str = "") -> None:
    """Do all that is left to do after the blocks; in a process that is killed, for example."""
    destination = LabelDestination.choose(
        uri, plan=PLAN, voxel_size=SIZE, overwrite=bool(overwrite)
    )
    destination.create()
    if destination.place() is Place.GROWING:
        write_all(destination, BlockStore(address=destination.work, plan=PLAN))
        write_levels(destination)
    finish(destination)
