"""How fast blocks become one id space: comparing, joining and numbering, against their floors.

Blocks of synthetic tissue, each labelled apart with a little noise at the surfaces of
objects: many of 64^3 with a halo of 16, and 8 of 256^3 with a halo of 32. The floors are
reading the same labels, and copying them in memory. Then a random graph: pairs joined
batch by batch with the array in a file, against one call of scipy's connected_components
with everything in memory. Each case runs in a process of its own. Run as a script, with
as many blocks and edges as wanted, it also writes benchmarks/results/stitching.md:

    python3 benchmarks/stitching_speed.py --blocks 10,10,10 --edges 100000000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from floodem.assembly import scratch_array as scratch
from floodem.assembly.agreement import JoinRule, compare_zone
from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.joining import BATCH, Joining, node_dtype
from floodem.assembly.numbering import number_segments
from floodem.assembly.pairs import PairTask, compare_block_task, trimmed
from floodem.assembly.scratch_array import scratch_array
from floodem.geometry import Box, Zyx
from floodem.labels import components
from floodem.volumes.parallel import usable_threads
from floodem.volumes.synthetic import SyntheticOptions, synthesize

CORE, HALO, TRIM = 64, 16, 8
LARGE_CORE, LARGE_HALO, LARGE_TRIM = 256, 32, 16
TISSUE = 160
"""Edge of the tissue that is mirrored again and again."""
DROPPED = 0.1
"""Part of the voxels at the surface of an object that a block leaves out."""

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "stitching.md"


def run() -> None:
    """Print the tables for few blocks and edges."""
    for line in lines(grid=(4, 4, 4), edges=10**7):
        print(line)


def lines(*, grid: Zyx, edges: int) -> Iterator[str]:
    """Measure and give the lines of the results."""
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}; "
        f"load before {os.getloadavg()[0]:.1f}. One process each, one run."
    )
    yield ""
    for cut in (
        {"grid": grid, "core": CORE, "halo": HALO, "trim": TRIM},
        {"grid": (2, 2, 2), "core": LARGE_CORE, "halo": LARGE_HALO, "trim": LARGE_TRIM},
    ):
        with tempfile.TemporaryDirectory() as folder:
            yield from block_lines({"folder": folder, **cut})
        yield ""
    yield from size_lines()
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from edge_lines(folder, edges)
    yield ""
    yield f"Load after {os.getloadavg()[0]:.1f}."


def block_lines(cut: dict[str, Any]) -> Iterator[str]:
    """Give one line for each stage over blocks."""
    made = case("make", **cut)
    count, core = int(np.prod(cut["grid"])), cut["core"]
    voxels = count * core**3
    yield (
        f"{count} blocks of {core}^3 with a halo of {cut['halo']}, {voxels / 1e6:.0f} million "
        f"voxels in cores and {made['voxels'] / 1e6:.0f} million in halos, {made['segments']} "
        f"segments; {cut['trim']} voxels at faces of halos do not count."
    )
    yield ""
    yield "| stage | seconds | M voxels of cores/s | of reading the labels | memory (MB) | result |"
    yield "|---|---|---|---|---|---|"
    found = {name: case(name, **cut) for name in ("copy", "read", "faces", "compare", "number")}
    for name, one in found.items():
        seconds = one["seconds"]
        yield (
            f"| {STAGES[name]} | {seconds:.2f} | {voxels / seconds / 1e6:.1f} | "
            f"{seconds / found['read']['seconds']:.2f} | {one['memory_mb']:.0f} | {one['result']} |"
        )


def size_lines() -> Iterator[str]:
    """Say how much there is to compare by size of the blocks."""
    yield "| core | halo | trim | zones of all 13 directions / core | those of 3 faces / core |"
    yield "|---|---|---|---|---|"
    for core, halo, trim in (
        (CORE, HALO, TRIM),
        (LARGE_CORE, LARGE_HALO, LARGE_TRIM),
        (512, 48, 16),
        (1024, 64, 16),
    ):
        plan = BlockPlan(box=Box.from_shape((3 * core,) * 3), core=(core,) * 3, margin=(halo,) * 3)
        middle = plan.at((1, 1, 1))
        sizes = {
            other.place: zone(plan, middle, other, trim=trim).size
            for other in plan.neighbours(middle)
        }
        faces = sum(size for place, size in sizes.items() if is_face(middle.place, place))
        yield (
            f"| {core}^3 | {halo} | {trim} | {sum(sizes.values()) / core**3:.2f} | "
            f"{faces / core**3:.2f} |"
        )


def zone(plan: BlockPlan, a: Block, b: Block, *, trim: int) -> Box:
    """Return what two blocks are compared by."""
    found = trimmed(plan, a, trim=(trim,) * 3).intersection(trimmed(plan, b, trim=(trim,) * 3))
    assert found is not None
    return found


def is_face(one: Zyx, other: Zyx) -> bool:
    """Tell whether two blocks share a face."""
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


def edge_lines(folder: str, edges: int) -> Iterator[str]:
    """Give one line for each way to join a graph."""
    yield (
        f"{edges:,} random edges over {edges // 2:,} nodes, made batch by batch of {BATCH:,}; the "
        "seconds to make them are taken off."
    )
    yield ""
    yield "| how | seconds | M edges/s | of one call | memory (MB) | of that not a file (MB) |"
    yield "|---|---|---|---|---|---|"
    whole = case("one-call", folder=folder, edges=edges)
    for name, found in (
        ("one-call", whole),
        ("streamed", case("streamed", folder=folder, edges=edges)),
    ):
        assert found["components"] == whole["components"]
        yield (
            f"| {STAGES[name]} | {found['seconds']:.1f} | {edges / found['seconds'] / 1e6:.2f} | "
            f"{found['seconds'] / whole['seconds']:.2f} | {found['memory_mb']:.0f} | "
            f"{found['own_mb']:.0f} |"
        )


def case(name: str, **options: Any) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", name, "--options", json.dumps(options)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def store_of(folder: str, *, grid: Zyx, core: int, halo: int) -> BlockStore:
    """Return where the blocks are."""
    z, y, x = (count * core for count in grid)
    plan = BlockPlan(box=Box.from_shape((z, y, x)), core=(core,) * 3, margin=(halo,) * 3)
    return BlockStore(address=f"{folder}/work", plan=plan)


def make(*, trim: int, **cut: Any) -> dict[str, Any]:
    """Write the labels and tables of all blocks: tissue that is mirrored again and again."""
    store = store_of(**cut)
    tissue = synthesize(SyntheticOptions(shape=(TISSUE,) * 3), None).labels
    floods, voxels = [], 0
    for block in store.plan:
        axes = [
            np.minimum(at % (2 * TISSUE), 2 * TISSUE - 1 - at % (2 * TISSUE))
            for at in (
                np.arange(a, b) for a, b in zip(block.halo.start, block.halo.stop, strict=True)
            )
        ]
        labels = seen(tissue[np.ix_(*axes)], np.random.default_rng(block.index))
        table = table_of(labels, block)
        store.write(block, labels, table=table)
        floods.append({"segments": len(table), "carried": 0})
        voxels += labels.size
    Path(cut["folder"], "floods.json").write_text(json.dumps(floods), encoding="ascii")
    return {"voxels": voxels, "segments": sum(flood["segments"] for flood in floods)}


def seen(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the parts of objects, less a little of their surfaces."""
    is_surface = np.zeros(truth.shape, bool)
    for axis in range(3):
        step = np.diff(truth, axis=axis) != 0
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        is_surface[tuple(low)] |= step
        is_surface[tuple(high)] |= step
    kept = np.where(is_surface & (rng.random(truth.shape) < DROPPED), 0, truth)
    return components(kept, connectivity=26)[0].astype(np.uint32)


def table_of(labels: np.ndarray, block: Block) -> SegmentTable:
    """Return the table of a block's labels."""
    count = int(labels.max())
    core = labels[block.core.slices(origin=block.halo.start)]
    return SegmentTable(
        carried=np.zeros(0, np.uint64),
        voxels=np.bincount(labels.ravel(), minlength=count + 1)[1:],
        core_voxels=np.bincount(core.ravel(), minlength=count + 1)[1:],
        starts=np.tile(np.array(block.halo.start, np.int64), (count, 1)),
        calls=np.zeros(count, np.int64),
        is_cut_short=np.zeros(count, bool),
    )


def copy(*, trim: int, **cut: Any) -> dict[str, Any]:
    """Copy as many voxels as all halos have."""
    store = store_of(**cut)
    labels = np.ones((cut["core"] + 2 * cut["halo"],) * 3, np.uint32)
    seconds = 0.0
    for block in store.plan:
        began = time.perf_counter()
        labels[tuple(slice(size) for size in block.halo.shape)].copy()
        seconds += time.perf_counter() - began
    return {"seconds": seconds, "result": ""}


def read(*, trim: int, **cut: Any) -> dict[str, Any]:
    """Read the labels of all halos."""
    store = store_of(**cut)
    began = time.perf_counter()
    for block in store.plan:
        with store.open_labels(block) as volume:
            volume.read()
    return {"seconds": time.perf_counter() - began, "result": ""}


class FacesOnly(BlockPlan):
    """A plan whose blocks have neighbours at faces alone."""

    __slots__ = ()

    def neighbours(self, block: Block) -> Iterator[Block]:
        return (other for other in super().neighbours(block) if is_face(block.place, other.place))


def faces(*, trim: int, **cut: Any) -> dict[str, Any]:
    """Compare blocks that share faces."""
    store = store_of(**cut)
    plan = FacesOnly(box=store.plan.box, core=store.plan.core, margin=store.plan.margin)
    return compare_all(BlockStore(address=store.address, plan=plan), trim=trim)


def compare(*, trim: int, **cut: Any) -> dict[str, Any]:
    """Compare all blocks, one after the other."""
    return compare_all(store_of(**cut), trim=trim)


def compare_all(store: BlockStore, *, trim: int) -> dict[str, Any]:
    """Run the tasks that compare blocks."""
    rule = JoinRule(trim=(trim,) * 3)
    tiny = np.ones((1, 1, 1), np.uint32)
    compare_zone(tiny, tiny, rule=rule, start=(0, 0, 0))  # imports what it needs
    began = time.perf_counter()
    found = [
        compare_block_task(PairTask(store=store, block=block, rule=rule)) for block in store.plan
    ]
    seconds = time.perf_counter() - began
    joined, refused, voxels = (
        sum(one[name] for one in found) for name in ("joined", "refused", "voxels")
    )
    return {
        "seconds": seconds,
        "result": f"{voxels / 1e6:.0f} M voxels of zones, {joined} pairs joined, {refused} refused",
    }


def number(*, trim: int, **cut: Any) -> dict[str, Any]:
    """Join and number all segments."""
    folder = Path(cut["folder"])
    floods = json.loads((folder / "floods.json").read_text(encoding="ascii"))
    began = time.perf_counter()
    found = number_segments(store_of(**cut), floods=floods, scratch=folder / "scratch")
    return {"seconds": time.perf_counter() - began, "result": f"{found.segments} segments"}


def batches(edges: int) -> Iterator[np.ndarray]:
    """Make the edges of the graph, the same every time."""
    for start in range(0, edges, BATCH):
        rng = np.random.default_rng(start)
        yield rng.integers(0, edges // 2, (2, min(BATCH, edges - start)))


def streamed(*, folder: str, edges: int) -> dict[str, Any]:
    """Join the graph batch by batch, with the array in a file however small it is."""
    scratch.IN_MEMORY_BYTES = 0
    nodes, seconds, own = edges // 2, 0.0, 0.0
    dtype = node_dtype(nodes)
    with scratch_array(Path(folder, "leads"), nodes, dtype=dtype, counts_up=True) as leads:
        joining = Joining(leads)
        for a, b in batches(edges):
            began = time.perf_counter()
            joining.join(a, b)
            seconds += time.perf_counter() - began
            own = max(own, status_mb("RssAnon"))
        count, began = 0, time.perf_counter()
        for start in range(0, nodes, BATCH):
            part = np.arange(start, min(start + BATCH, nodes))
            count += int(np.count_nonzero(joining.leaders(part) == part))
        seconds += time.perf_counter() - began
    return {"seconds": seconds, "components": count, "own_mb": own}


def one_call(*, folder: str, edges: int) -> dict[str, Any]:
    """Join the graph in memory."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = edges // 2
    ends = np.empty((2, edges), np.int32)
    for number, batch in enumerate(batches(edges)):
        ends[:, number * BATCH : number * BATCH + batch.shape[1]] = batch
    began = time.perf_counter()
    graph = coo_array((np.ones(edges, np.int8), (ends[0], ends[1])), shape=(nodes, nodes))
    count, _ = connected_components(graph, directed=False)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "components": int(count), "own_mb": status_mb("VmHWM")}


def status_mb(name: str) -> float:
    """Return a figure of this process' memory, in MB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024 / 1e6


STAGES = {
    "copy": "floor: copy the labels in memory",
    "read": "floor: read the labels of all halos",
    "faces": "compare, neighbours at faces alone",
    "compare": "compare, all 13 directions",
    "number": "join and number",
    "one-call": "`connected_components`, all in memory",
    "streamed": "streamed, array in a file",
}
CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "make": make,
    "copy": copy,
    "read": read,
    "faces": faces,
    "compare": compare,
    "number": number,
    "one-call": one_call,
    "streamed": streamed,
}


def main() -> int:
    """Run one case, or all of them and write the results."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--blocks", default="10,10,10")
    arguments.add_argument("--edges", type=int, default=10**8)
    arguments.add_argument("--case", choices=CASES)
    arguments.add_argument("--options", type=json.loads)
    given = arguments.parse_args()
    if given.case is not None:
        found = CASES[given.case](**given.options)
        print(json.dumps(found | {"memory_mb": status_mb("VmHWM")}))
        return 0
    z, y, x = map(int, given.blocks.split(","))
    text = ["# Stitching", "", *lines(grid=(z, y, x), edges=given.edges)]
    RESULTS.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
