"""Volumes cut into blocks as if flooded without a mistake, for tests of stitching."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from hypothesis import strategies as st

from array_volume import ArrayVolume
from floodem.assembly.agreement import JoinRule
from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.numbering import number_segments
from floodem.assembly.pairs import PairTask, compare_block_task
from floodem.assembly.writing import read_mapping
from floodem.geometry import Box
from floodem.labels import components

EXACT = JoinRule(min_shared=1)


class BlocksInMemory(BlockStore):
    """Labels and tables of blocks in memory; what stitching writes goes to the address."""

    __slots__ = ()
    kept: ClassVar[dict[tuple[str, str], tuple[np.ndarray, SegmentTable]]] = {}

    def write(self, block, labels, *, table):
        self.kept[self.address, block.key] = (labels, table)

    def open_labels(self, block):
        labels, table = self.kept[self.address, block.key]
        assert len(table), "a block without segments has no labels"
        return ArrayVolume(labels, offset=block.halo.start)

    def read_table(self, block):
        return self.kept[self.address, block.key][1]


def segment_table(labels, block, carried=()):
    """Return the table of labels 1 to n of a block's halo."""
    count = int(labels.max(initial=len(carried)))
    core = labels[block.core.slices(origin=block.halo.start)]
    new = count - len(carried)
    return SegmentTable(
        carried=np.array(carried, np.uint64),
        voxels=np.bincount(labels.ravel(), minlength=count + 1)[1:],
        core_voxels=np.bincount(core.ravel(), minlength=count + 1)[1:],
        starts=np.tile(np.array(block.halo.start, np.int64), (new, 1)),
        calls=np.zeros(new, np.int64),
        is_cut_short=np.zeros(new, np.bool_),
    )


def flooded(truth, block, *, origin, rng, carried=()):
    """Return a block's labels and what it carries: parts of objects in its halo, in any order.

    Objects whose ids are among `carried` come whole, under one label.
    """
    truth = truth[block.halo.slices(origin=origin)]
    outside = rng.permutation([one for one in np.unique(truth).tolist() if one in carried])
    is_new = ~np.isin(truth, [0, *carried])
    parts, count = components(np.where(is_new, truth, 0), connectivity=26)
    order = np.concatenate([[0], rng.permutation(count) + 1 + len(outside)])
    labels = order[parts]
    for number, one in enumerate(outside, start=1):
        labels[truth == one] = number
    return labels.astype(np.uint32), tuple(outside)


def write_blocks(store, labels_of, *, carried_of=lambda block: ()):
    """Write every block's labels; return what their floods would have returned."""
    results = []
    for block in store.plan:
        labels, carried = labels_of(block), carried_of(block)
        table = segment_table(labels, block, carried)
        store.write(block, labels, table=table)
        results.append({"segments": len(table), "carried": len(carried)})
    return results


def cut(truth, plan, *, folder, seed=0, carried=(), store_class=BlocksInMemory):
    """Flood all blocks of a volume of true labels; return the store and the floods' results."""
    store = store_class(address=str(folder), plan=plan)
    rng = np.random.default_rng(seed)
    made = {
        block.key: flooded(truth, block, origin=plan.box.start, rng=rng, carried=carried)
        for block in plan
    }
    return store, write_blocks(
        store,
        lambda block: made[block.key][0],
        carried_of=lambda block: made[block.key][1],
    )


def stitch(store, floods, *, rule=EXACT, order=None, scratch=None):
    """Compare all blocks, in any order, and number them."""
    blocks = list(store.plan)
    for index in range(len(blocks)) if order is None else order:
        compare_block_task(PairTask(store=store, block=blocks[index], rule=rule))
    return number_segments(
        store, floods=floods, scratch=scratch or Path(store.address).parent / "scratch"
    )


def final_volume(store):
    """Put the cores together."""
    whole = np.zeros(store.plan.box.shape, np.uint64)
    for block in store.plan:
        ids = read_mapping(store, block)
        if len(ids) == 1:
            continue
        labels = store.open_labels(block).read(block.core)
        whole[block.core.slices(origin=store.plan.box.start)] = ids[labels]
    return whole


def require_bijection(found, expected):
    """Fail unless two labelings are the same but for their numbers, background aside."""
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)) | {(0, 0)}
    assert len({a for a, _ in pairs}) == len(pairs), "something was merged"
    assert len({b for _, b in pairs}) == len(pairs), "something was split or lost"


@st.composite
def plans(draw, box: Box):
    """Draw any cut of a box, odd ones included, and a trim that leaves all zones."""
    # Up to 5 blocks along an axis are as telling as more, and a core of 1 has no halo.
    core = tuple(draw(st.integers(max(2, size // 4), size + 2)) for size in box.shape)
    least = tuple(draw(st.integers(1, edge)) for edge in core)
    margin = tuple(draw(st.integers(1, edge // 2)) for edge in core)
    plan = BlockPlan(box=box, core=core, margin=margin, least=least)
    is_cut = [count > 1 for count in plan.grid]
    trim = tuple(
        draw(st.integers(0, edge - 1 if cut else 5))
        for edge, cut in zip(margin, is_cut, strict=True)
    )
    if not draw(st.booleans()):
        # Where there is one block, a halo has nothing to show.
        margin = tuple(edge if cut else 0 for edge, cut in zip(margin, is_cut, strict=True))
    return BlockPlan(box=box, core=core, margin=margin, least=least), trim


@st.composite
def volumes(draw):
    """Draw true labels: blobs that touch, branches that come back, tubes, or noise."""
    shape = tuple(draw(st.integers(1, 13)) for _ in range(3))
    make = draw(st.sampled_from([blobs, tubes, noise]))
    truth = make(shape, np.random.default_rng(draw(st.integers(0, 2**32))))
    start = tuple(draw(st.integers(-20, 20)) for _ in range(3))
    return truth, Box.from_shape(shape, start=start)


def blobs(shape, rng):
    """Grow objects around points until they touch, here and there with a gap."""
    points = rng.uniform(0, 1, (rng.integers(1, 9), 3)) * shape
    away = np.linalg.norm(np.indices(shape).reshape(3, -1).T[:, None] - points, axis=2)
    near = np.sort(away, axis=1)
    labels = away.argmin(axis=1) + 1
    labels[near[:, 0] > rng.uniform(2, 9)] = 0
    if len(points) > 1:
        labels[near[:, 1] - near[:, 0] < rng.uniform(0, 1.5)] = 0
    return labels.reshape(shape)


def tubes(shape, rng):
    """Let thin objects wander: they leave blocks, come back, touch and cross corners."""
    labels = np.zeros(shape, np.int64)
    for number in range(1, rng.integers(2, 6)):
        here = [int(rng.integers(0, size)) for size in shape]
        step = rng.integers(-1, 2, 3)
        for _ in range(rng.integers(2, 60)):
            if labels[tuple(here)] == 0:
                labels[tuple(here)] = number
            if rng.random() < 0.3:
                step = rng.integers(-1, 2, 3)
            here = [min(max(a + b, 0), n - 1) for a, b, n in zip(here, step, shape, strict=True)]
    return labels


def noise(shape, rng):
    """Label every voxel by chance."""
    return rng.integers(0, rng.integers(2, 5), shape)


def swapped(verdict: str) -> str:
    """Return a verdict as the other block sees it."""
    return {"little of A": "little of B", "little of B": "little of A"}.get(verdict, verdict)
