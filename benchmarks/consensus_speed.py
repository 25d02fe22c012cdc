"""How fast two segmentations become their consensus, against just reading both.

Synthetic tissue, mirrored again and again, and the same shifted by a few voxels with some
objects merged; both in chunks of 64^3 as uint64. Then the stages of one process alone, with
a million pieces and a million pairs. Each case runs in a process of its own, and its
processor time is told as well, which other programs disturb less. Run as a script, with as
large an edge as wanted, it also writes benchmarks/results/consensus.md:

    python3 benchmarks/consensus_speed.py --edge 512
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

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.consensus import ConsensusOptions, make_consensus
from floodem.assembly.consensus.gathering import (
    CleanTask,
    Gathering,
    PairTask,
    clean,
    number_pairs,
)
from floodem.assembly.consensus.pieces import PieceTable
from floodem.assembly.consensus.tables import ConsensusTables, Overlaps, Touching
from floodem.geometry import Box, VoxelSize, tiles
from floodem.volumes import create_volume, open_volume
from floodem.volumes.parallel import usable_threads
from floodem.volumes.synthetic import SyntheticOptions, synthesize

TISSUE = 160
"""Edge of the tissue that is mirrored."""
SHIFT = 5
"""Voxels by which the second segmentation is shifted."""
MERGED = 3
"""Every so many objects of the second one are merged with the next."""
BLOCK = 256
PIECES_PER_BLOCK = 5_000

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "consensus.md"


def run() -> None:
    """Print the tables for small volumes and few pieces."""
    for line in lines(edge=256, pieces=200_000):
        print(line)


def lines(*, edge: int, pieces: int) -> Iterator[str]:
    """Measure and give the lines of the results."""
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}; "
        f"load before {os.getloadavg()[0]:.1f}. One process each, one run."
    )
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        made = case("make", folder=folder, edge=edge)
        yield (
            f"Two volumes of {edge}^3 voxels with {made['a']:,} and {made['b']:,} objects, uint64 "
            f"in chunks of 64^3, {made['bytes'] / 1e6:.0f} MB on disk."
        )
        yield ""
        yield "| what | seconds | processor s | M voxels/s | of reading | memory (MB) | segments |"
        yield "|---|---|---|---|---|---|---|"
        floor = case("read", folder=folder, block=BLOCK)
        yield row("floor: read both, 256^3 at once", floor, floor=floor, voxels=edge**3)
        for says, how in (
            ("blocks of 256^3", {}),
            ("blocks of 128^3", {"block": 128}),
            ("blocks of 256^3, `--no-split`", {"splits": False}),
        ):
            found = case("consensus", folder=folder, **{"block": BLOCK, "splits": True} | how)
            yield row(says, found, floor=floor, voxels=edge**3)
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from table_lines(folder, pieces=pieces)
    yield ""
    yield f"Load after {os.getloadavg()[0]:.1f}."


def row(says: str, found: dict[str, Any], *, floor: dict[str, Any], voxels: int) -> str:
    """Give one line of the table of voxels."""
    return (
        f"| {says} | {found['seconds']:.1f} | {found['cpu']:.1f} | "
        f"{voxels / found['seconds'] / 1e6:.1f} | {found['cpu'] / floor['cpu']:.1f} | "
        f"{found['memory_mb']:.0f} | {found.get('segments', '')} |"
    )


def table_lines(folder: str, *, pieces: int) -> Iterator[str]:
    """Give the lines about the stages of one process."""
    case("fill", folder=folder, pieces=pieces)
    idle = case("idle")
    yield (
        f"What one process does with all tables: {pieces:,} pieces in blocks of "
        f"{PIECES_PER_BLOCK:,}, half of them joined with the next, and {pieces:,} pairs. "
        f"Python and what is imported take {idle['memory_mb']:.0f} MB, which is taken off."
    )
    yield ""
    yield "| stage | seconds | processor s | MB for each million |"
    yield "|---|---|---|---|"
    for name, says in (("clean", "ids of pieces"), ("pair", "ids of pairs")):
        found = case(name, folder=folder, pieces=pieces)
        more = (found["memory_mb"] - idle["memory_mb"]) / (pieces / 1e6)
        yield f"| {says} | {found['seconds']:.1f} | {found['cpu']:.1f} | {more:.0f} |"


def case(name: str, **options: Any) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", name, "--options", json.dumps(options)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Do something, and tell what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
    }


def make(*, folder: str, edge: int) -> dict[str, Any]:
    """Write both segmentations."""
    tissue = synthesize(SyntheticOptions(shape=(TISSUE,) * 3), None).labels
    merged = np.arange(int(tissue.max()) + 1, dtype=np.uint64)
    merged[1 + MERGED :: MERGED] -= np.uint64(1)
    counts = {}
    for name, shift, names in (("a", 0, None), ("b", SHIFT, merged)):
        seen: set[int] = set()
        with create_volume(
            f"{folder}/{name}.zarr",
            shape=(edge,) * 3,
            dtype=np.uint64,
            voxel_size=VoxelSize(10, 10, 10),
            chunks=(64, 64, 64),
        ) as volume:
            for tile in tiles(volume.box, core=(64, 64, 64)):
                labels = tissue[np.ix_(*(mirrored(tile.core, axis, shift) for axis in range(3)))]
                # Copies that the mirror makes are objects of their own, unless they touch.
                found = labels.astype(np.uint64) if names is None else names[labels]
                volume.write(tile.core, found)
                seen.update(np.unique(found).tolist())
        counts[name] = len(seen - {0})
    stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {**counts, "bytes": stored}


def mirrored(box: Box, axis: int, shift: int) -> np.ndarray:
    """Return the tissue's voxels that lie along one edge of a box."""
    at = (np.arange(box.start[axis], box.stop[axis]) + shift) % (2 * TISSUE)
    return np.minimum(at, 2 * TISSUE - 1 - at)


def read(*, folder: str, block: int) -> dict[str, Any]:
    """Read both segmentations once."""

    def work() -> None:
        with open_volume(f"{folder}/a.zarr") as a, open_volume(f"{folder}/b.zarr") as b:
            for tile in tiles(a.box, core=(block,) * 3):
                a.read(tile.core)
                b.read(tile.core)

    return timed(work)[1]


def consensus(*, folder: str, block: int, splits: bool) -> dict[str, Any]:
    """Make the consensus in this process."""
    made, took = timed(
        lambda: make_consensus(
            f"{folder}/a.zarr",
            f"{folder}/b.zarr",
            f"{folder}/out-{block}-{splits}.zarr",
            options=ConsensusOptions(split_components=splits),
            block=(block,) * 3,
            levels=0,
        )
    )
    return {**took, "segments": made.segments}


def gathering(*, folder: str, pieces: int) -> Gathering:
    """Return the tables of many blocks in a row."""
    blocks = pieces // PIECES_PER_BLOCK
    edge = 2 * PIECES_PER_BLOCK
    plan = BlockPlan(box=Box.from_shape((1, 1, blocks * edge)), core=(1, 1, edge), margin=(0, 0, 0))
    return Gathering(
        tables=ConsensusTables(address=folder, plan=plan),
        counts=[{"pieces_a": PIECES_PER_BLOCK, "pieces_b": PIECES_PER_BLOCK}] * blocks,
        progress=None,
        should_stop=lambda: False,
    )


def fill(*, folder: str, pieces: int) -> dict[str, Any]:
    """Write tables of pieces, of which many touch, and of overlaps."""
    found = gathering(folder=folder, pieces=pieces)
    rng = np.random.default_rng(0)
    numbers = np.arange(1, PIECES_PER_BLOCK + 1, dtype=np.uint32)
    for block in found.tables.plan:
        table = PieceTable(
            objects=numbers.astype(np.uint64) + np.uint64(2**33),
            voxels=np.ones(PIECES_PER_BLOCK, np.int64),
            firsts=block.core.start[2] + np.arange(PIECES_PER_BLOCK),
        )
        near = rng.choice(numbers, PIECES_PER_BLOCK // 2, replace=False)
        following = [after for _, after in found.tables.following(block)]
        touching = [
            Touching(pieces=near, neighbours=np.full(len(near), one.index), theirs=near)
            for one in following
        ]
        for side in ("a", "b"):
            found.tables.write_pieces(side, block, table)
            found.tables.write_touching(side, block, touching)
            ids = numbers.astype(np.uint64) + np.uint64(block.index * PIECES_PER_BLOCK)
            found.tables.write_ids(side, block, ids)
        found.tables.write_overlaps(
            block, Overlaps(a=numbers, b=numbers, voxels=np.ones(PIECES_PER_BLOCK, np.int64))
        )
    return {}


def clean_all(*, folder: str, pieces: int) -> dict[str, Any]:
    """Give all pieces their ids."""
    task = CleanTask(
        gathering=gathering(folder=folder, pieces=pieces), side="a", splits=True, min_size=2
    )
    return timed(lambda: clean(task))[1]


def pair_all(*, folder: str, pieces: int) -> dict[str, Any]:
    """Give all pairs their ids."""
    task = PairTask(
        gathering=gathering(folder=folder, pieces=pieces), largest_a=2**40, split_min_size=0
    )
    return timed(lambda: number_pairs(task))[1]


def idle() -> dict[str, Any]:
    """Do nothing but import what is needed."""
    import scipy.sparse.csgraph  # noqa: F401 - what joining imports

    return {}


def peak_mb() -> float:
    """Return the most memory that this process had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "make": make,
    "read": read,
    "consensus": consensus,
    "fill": fill,
    "clean": clean_all,
    "pair": pair_all,
    "idle": idle,
}


def main() -> int:
    """Run one case, or all of them and write the results."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--edge", type=int, default=512)
    arguments.add_argument("--pieces", type=int, default=1_000_000)
    arguments.add_argument("--case", choices=CASES)
    arguments.add_argument("--options", type=json.loads)
    given = arguments.parse_args()
    if given.case is not None:
        found = CASES[given.case](**given.options)
        print(json.dumps(found | {"memory_mb": peak_mb()}))
        return 0
    text = ["# Consensus", "", *lines(edge=given.edge, pieces=given.pieces)]
    RESULTS.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
