"""How long the expected run length of 10,000 skeletons takes, against reading their blocks.

A hand-made volume of 512 x 1000 x 1000 voxels (uint64, zarr in chunks of 64^3) with 100 x 100
neurites side by side along z, each cut where chance says so, with gaps at some cuts and joined with
its neighbour now and then; their skeletons wander inside them, a node in every second section,
2.56 million in all, in a folder of precomputed skeletons. Each case runs in a process of its
own, so that memory is that case's alone. Run as a script it also writes the table to
benchmarks/results/skeleton-scores.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mesh_speed import cpu_seconds

from floodem.cluster import Crew
from floodem.evaluation.skeletons import SkeletonOptions, score_skeletons, scoring
from floodem.evaluation.skeletons.labelling import group_nodes
from floodem.evaluation.skeletons.nodes import gather_nodes
from floodem.evaluation.skeletons.reading import read_skeletons
from floodem.geometry import Box, VoxelSize
from floodem.shapes.precomputed import SkeletonInfo, write_info
from floodem.shapes.skeletons.precomputed import encode_skeleton
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.volumes import create_volume, open_volume
from floodem.volumes.parallel import usable_threads

SECTIONS, ROWS, EDGE = 512, 100, 10
SIZE = VoxelSize(30, 8, 8)
CHUNKS = (64, 64, 64)
ROUNDS = 3
CUTS, GAP, JOINED = 3, 4, 0.01

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "skeleton-scores.md"


def run() -> None:
    """Print the table."""
    for line in lines():
        print(line)


def lines() -> Iterator[str]:
    """Measure and give the lines of the results."""
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}; "
        f"load before {os.getloadavg()[0]:.1f}. Medians of {ROUNDS}, in turn."
    )
    yield ""
    yield "| what | seconds | CPU s | of the floor's CPU s | skeletons/CPU s | memory (MB) |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        # Peaks of memory are inherited, so this process makes no arrays itself.
        subprocess.run([sys.executable, __file__, "--make", "--folder", folder], check=True)
        yield from rows(folder)
    yield ""
    yield (
        f"{ROWS * ROWS:,} skeletons with {ROWS * ROWS * SECTIONS // 2:,} nodes in "
        f"{SECTIONS * (ROWS * EDGE) ** 2 / 1e6:.0f} M voxels. Floor: each block that holds a node "
        "read once in this process, nodes known. Memory: the largest process. Load after "
        f"{os.getloadavg()[0]:.1f}: with more than there are cores, CPU seconds tell more than the "
        "clock."
    )


def rows(folder: str) -> Iterator[str]:
    """Give one line for each case."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for _, name in itertools.product(range(ROUNDS), CASES):
        command = [sys.executable, __file__, "--case", name, "--folder", folder]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took[name].append(json.loads(printed.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        for name, runs in took.items()
    }
    for name, found in medians.items():
        share = found["cpu"] / medians[FLOOR]["cpu"]
        yield (
            f"| {name} | {found['seconds']:.1f} | {found['cpu']:.1f} | {share:.2f} | "
            f"{ROWS * ROWS / found['cpu']:.0f} | {found['megabytes']:.0f} |"
        )


def make(folder: Path) -> None:
    """Write the segmentation and the skeletons."""
    random = np.random.default_rng(3)
    ids = _columns(random)
    edge = ROWS * EDGE
    with create_volume(
        f"zarr3://{folder}/seg.zarr",
        shape=(SECTIONS, edge, edge),
        dtype=np.uint64,
        chunks=CHUNKS,
        voxel_size=SIZE,
    ) as volume:
        for start in range(0, SECTIONS, CHUNKS[0]):
            slab = ids[start : start + CHUNKS[0]].repeat(EDGE, axis=1).repeat(EDGE, axis=2)
            volume.write(Box.from_shape(slab.shape, start=(start, 0, 0)), slab)
    skeletons = folder / "skeletons"
    skeletons.mkdir()
    write_info(skeletons, SkeletonInfo())
    for number, (row, column) in enumerate(itertools.product(range(ROWS), repeat=2), start=1):
        (skeletons / str(number)).write_bytes(encode_skeleton(_midline(random, row, column)))


def _columns(random: np.random.Generator) -> np.ndarray:
    """Give the segment of each neurite in each section, 0 in gaps."""
    ids = np.zeros((SECTIONS, ROWS, ROWS), np.uint64)
    last = 0
    for row, column in itertools.product(range(ROWS), repeat=2):
        cuts = np.sort(random.integers(1, SECTIONS, random.integers(0, CUTS + 1)))
        pieces = np.searchsorted(cuts, np.arange(SECTIONS), side="right")
        ids[:, row, column] = last + 1 + pieces
        for cut in cuts[random.random(len(cuts)) < 0.5]:
            ids[cut : cut + GAP, row, column] = 0
        if column and random.random() < JOINED:
            ids[:, row, column] = ids[:, row, column - 1]
        last += len(cuts) + 1
    return ids


def _midline(random: np.random.Generator, row: int, column: int) -> Skeleton:
    """Wander along z within a neurite."""
    count = SECTIONS // 2
    steps = random.normal(0, 0.3, (count, 2)).cumsum(axis=0)
    across = np.clip(steps + EDGE / 2, 1, EDGE - 1) + np.array([row, column]) * EDGE
    voxels = np.column_stack([np.arange(count) * 2 + 0.5, across])
    edges = np.stack([np.arange(1, count), np.arange(count - 1)], axis=1)
    return Skeleton(
        (voxels * SIZE.zyx_nm).astype(np.float32),
        edges.astype(np.uint32),
        np.full(count, 30, np.float32),
    )


def _addresses(folder: str) -> tuple[str, str]:
    return f"zarr3://{folder}/seg.zarr", f"{folder}/skeletons"


def _floor(folder: str) -> Callable[[], object]:
    uri, skeletons = _addresses(folder)
    with open_volume(uri) as volume:
        nodes = gather_nodes(read_skeletons(skeletons), box=volume.box, voxel_size=SIZE)
        blocks = group_nodes(nodes.voxels, volume=volume)
    boxes = [
        Box(tuple(part.min(axis=0).tolist()), tuple((part.max(axis=0) + 1).tolist()))
        for part in blocks.part(0, len(blocks))
    ]

    def read() -> int:
        with open_volume(uri) as volume:
            return sum(int(volume.read(box)[0, 0, 0]) for box in boxes)

    return read


def _reading(folder: str) -> Callable[[], object]:
    _, skeletons = _addresses(folder)
    return lambda: sum(len(skeleton) for _, skeleton in read_skeletons(skeletons))


def _scoring(*, workers: int = 1, has_work: bool = False, bootstrap: int = 0) -> object:
    def prepare(folder: str) -> Callable[[], object]:
        scoring.PAYS_NODES = 0
        uri, skeletons = _addresses(folder)
        work = Path(tempfile.mkdtemp(dir=folder)) if has_work else None
        return lambda: score_skeletons(
            uri,
            skeletons,
            options=SkeletonOptions(bootstrap=bootstrap),
            crew=Crew(workers=workers),
            work=work,
        )

    return prepare


FLOOR = "floor: the nodes' blocks read"
CASES = {
    FLOOR: _floor,
    "the skeletons read": _reading,
    "scores, in this process": _scoring(),
    "scores, 1000 drawings": _scoring(bootstrap=1000),
    "scores, tasks with receipts": _scoring(has_work=True),
    "scores, 2 processes": _scoring(workers=2),
}


def one(name: str, folder: str) -> None:
    """Time one case, and print its seconds and the memory of its largest process."""
    work = CASES[name](folder)
    began, worked = time.perf_counter(), cpu_seconds()
    work()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - worked
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(one).ru_maxrss for one in who) / 1e3
    print(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": memory}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--case")
    parser.add_argument("--folder")
    parser.add_argument("--make", action="store_true")
    asked = parser.parse_args()
    if asked.make:
        make(Path(asked.folder))
        sys.exit(0)
    if asked.case is not None:
        one(asked.case, asked.folder)
        sys.exit(0)
    found = list(lines())
    print("\n".join(found))
    text = ["# Scores along skeletons", "", "`python benchmarks/erl_speed.py`, " + found[0]]
    RESULTS.write_text("\n".join([*text, *found[1:], ""]), encoding="utf-8", newline="\n")
