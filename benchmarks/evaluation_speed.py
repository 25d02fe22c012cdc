"""How fast two label volumes are scored block by block, against scores of arrays in memory.

The published segmentation of the FIB-25 sample and its truth, 250^3 voxels, repeated
two or three times along each axis with ids of their own, as zarr with chunks of 64^3. Each case
runs in a process of its own, so that memory is that case's alone. Run as a script it also
writes the tables to benchmarks/results/evaluation.md.
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

import h5py
import numpy as np
from mesh_speed import cpu_seconds

from floodem.cluster import Crew
from floodem.evaluation import comparison, evaluate
from floodem.evaluation.alignment import align
from floodem.geometry import Box
from floodem.volumes import create_volume, open_volume
from floodem.volumes.parallel import usable_threads

EDGE = 250
REPEATS = (1, 2, 3)
ROUNDS = 3
CHUNKS = (64, 64, 64)

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("FLOODEM_DATA", HERE.parents[1] / "shared" / "data"))
RESULTS = HERE / "results" / "evaluation.md"


def run() -> None:
    """Print the tables; they need the shared FIB-25 sample."""
    for line in lines():
        print(line)


def lines() -> Iterator[str]:
    """Measure and give the lines of the results."""
    if not (DATA / "fib25" / "groundtruth.h5").is_file():
        yield f"no data at {DATA / 'fib25'}: set FLOODEM_DATA to the folder with the shared data"
        return
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}; "
        f"load before {os.getloadavg()[0]:.1f}. Medians of {ROUNDS}, in turn."
    )
    yield ""
    yield (
        "| voxels | what | seconds | CPU s | M voxels/s | of the floor's time | of its CPU s | "
        "memory (MB) |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for repeats in REPEATS:
        with tempfile.TemporaryDirectory() as folder:
            # Peaks of memory are inherited, so this process makes no arrays itself.
            command = [sys.executable, __file__, "--make", str(repeats), "--folder", folder]
            subprocess.run(command, check=True)
            yield from rows(folder, (EDGE * repeats) ** 3)
    yield ""
    yield (
        "Memory: the largest process. In memory the time to read the volumes is not counted. The "
        "worst mistakes take up to three passes more over the blocks that hold them. Load after "
        f"{os.getloadavg()[0]:.1f}: with more than there are cores, CPU seconds tell more than the "
        "clock, and a second process gains nothing."
    )


def rows(folder: str, voxels: int) -> Iterator[str]:
    """Give one line for each case."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for _, name in itertools.product(range(ROUNDS), CASES):
        command = [sys.executable, __file__, "--case", name, "--folder", folder]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took[name].append(json.loads(printed.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in took.items()
    }
    floor = medians[FLOOR]
    for name, found in medians.items():
        seconds, cpu = found["seconds"], found["cpu"]
        yield (
            f"| {voxels / 1e6:.0f} M | {name} | {seconds:.2f} | {cpu:.2f} | "
            f"{voxels / 1e6 / seconds:.1f} | {seconds / floor['seconds']:.1f} | "
            f"{cpu / floor['cpu']:.1f} | {found['megabytes']:.0f} |"
        )


def make(folder: Path, repeats: int) -> None:
    """Write the sample several times along each axis, every time with ids of its own."""
    with np.load(DATA / "fib25" / "sample-training2.npz", allow_pickle=False) as archive:
        segmentation = archive["segmentation"].astype(np.uint64)
    with h5py.File(DATA / "fib25" / "groundtruth.h5") as file:
        truth = file["bodies"][:].astype(np.uint64)
    for name, labels in (("seg", segmentation), ("truth", truth)):
        step = int(labels.max()) + 1
        with create_volume(
            f"zarr3://{folder}/{name}.zarr",
            shape=tuple(edge * repeats for edge in labels.shape),
            dtype=np.uint64,
            chunks=CHUNKS,
        ) as volume:
            for number, place in enumerate(itertools.product(range(repeats), repeat=3)):
                start = tuple(at * edge for at, edge in zip(place, labels.shape, strict=True))
                part = np.where(labels == 0, 0, labels + np.uint64(number * step))
                volume.write(Box.from_shape(labels.shape, start=start), part)


def _uris(folder: str) -> tuple[str, str]:
    return f"zarr3://{folder}/seg.zarr", f"zarr3://{folder}/truth.zarr"


def _floor(folder: str) -> Callable[[], object]:
    def compare() -> int:
        seg, truth = _uris(folder)
        with open_volume(seg) as first, open_volume(truth) as second:
            whole = align(first, second, box=None, border=(0, 0, 0))
            return sum(int(np.count_nonzero(np.equal(*whole.read(one)))) for one in whole.blocks)

    return compare


def _in_memory(folder: str) -> Callable[[], object]:
    arrays = []
    for uri in _uris(folder):
        with open_volume(uri) as volume:
            arrays.append(volume.read())
    whole = arrays[0].size
    return lambda: evaluate(*arrays, worst=0, block_voxels=whole)


def _blockwise(*, workers: int, worst: int = 0, has_work: bool = False) -> object:
    def prepare(folder: str) -> Callable[[], object]:
        comparison.PAYS_VOXELS = 0
        work = Path(tempfile.mkdtemp(dir=folder)) if has_work else None
        crew = Crew(workers=workers)
        return lambda: evaluate(*_uris(folder), worst=worst, crew=crew, work=work)

    return prepare


FLOOR = "floor: both read, and compared once"
CASES = {
    FLOOR: _floor,
    "two arrays in memory": _in_memory,
    "blocks, in this process": _blockwise(workers=1),
    "blocks, tables in a work folder": _blockwise(workers=1, has_work=True),
    "blocks, 2 processes": _blockwise(workers=2),
    "blocks, in this process, 10 worst of each": _blockwise(workers=1, worst=10),
    "blocks, 2 processes, 10 worst of each": _blockwise(workers=2, worst=10),
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
    parser.add_argument("--make", type=int)
    asked = parser.parse_args()
    if asked.make is not None:
        make(Path(asked.folder), asked.make)
        sys.exit(0)
    if asked.case is not None:
        one(asked.case, asked.folder)
        sys.exit(0)
    found = list(lines())
    print("\n".join(found))
    if len(found) > 1:
        text = ["# Scores of large volumes", "", "`python benchmarks/evaluation_speed.py`, "]
        text[-1] += found[0]
        RESULTS.write_text("\n".join([*text, *found[1:], ""]), encoding="utf-8", newline="\n")
