"""How long meshes of a whole segmentation take, against marching cubes alone.

`floodem mesh` on the published segmentation of the FIB-25 sample, 250^3 voxels with 254
objects: block by block, simplified, at least three levels of detail, encoded with Draco.
Run as a script it also writes the table to benchmarks/results/meshes.md.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from floodem.cluster import Crew
from floodem.geometry import VoxelSize
from floodem.shapes.meshes.job import MeshResult, mesh_segmentation
from floodem.shapes.meshes.marching import marching_cubes
from floodem.shapes.meshes.options import MeshOptions
from floodem.volumes import open_volume
from floodem.volumes.parallel import usable_threads

AIM_S = 20
ROUNDS = 3
VOXEL_SIZE = VoxelSize(10, 10, 10)

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("FLOODEM_DATA", HERE.parents[1] / "shared" / "data"))
RESULTS = HERE / "results" / "meshes.md"


def run() -> None:
    """Print the tables; they need the shared FIB-25 segmentation."""
    for line in lines():
        print(line)


def lines() -> Iterator[str]:
    """Measure and give the lines of the results."""
    segmentation = DATA / "fib25" / "sample-training2.npz"
    if not segmentation.is_file():
        yield f"no data at {segmentation}: set FLOODEM_DATA to the folder with the shared data"
        return
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        + ", ".join(f"{name} {version(name)}" for name in ("zmesh", "pyfqmr", "DracoPy"))
        + f"; load before {os.getloadavg()[0]:.1f}. Best of {ROUNDS}; aim {AIM_S} s on two cores."
    )
    yield ""
    with open_volume(segmentation) as volume:
        labels = volume.read()
    wall, cpu, faces = best(lambda: raw_faces(labels))
    yield "| what | processes | seconds | CPU s | triangles by level | MB |"
    yield "|---|---|---|---|---|---|"
    yield f"| floor: marching cubes alone | 1 | {wall:.2f} | {cpu:.2f} | {faces:,} | |"
    for workers, is_sharded in ((1, False), (2, False), (2, True)):
        options = MeshOptions(voxel_size=VOXEL_SIZE, is_sharded=is_sharded)
        wall, cpu, made = best(lambda o=options, w=workers: meshes(segmentation, o, w))
        levels = ", ".join(f"{count:,}" for count in made.triangles)
        kind = "sharded" if is_sharded else "two files an object"
        yield (
            f"| `floodem mesh`, {kind} | {workers} | {wall:.1f} | {cpu:.1f} | {levels} | "
            f"{made.bytes / 1e6:.1f} |"
        )
    peaks = [
        resource.getrusage(who).ru_maxrss / 1e3
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    yield ""
    yield (
        f"Peak memory: {peaks[0]:.0f} MB in the process that also holds the whole volume, "
        f"{peaks[1]:.0f} MB in the largest worker. Load after {os.getloadavg()[0]:.1f}: with more "
        "than there are cores, seconds tell as much about others as about this."
    )


def raw_faces(labels: np.ndarray) -> int:
    """Return how many triangles marching cubes makes of all objects."""
    return sum(len(faces) for _, _, faces in marching_cubes(np.pad(labels, 1)))


def meshes(segmentation: Path, options: MeshOptions, workers: int) -> MeshResult:
    """Mesh everything into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return mesh_segmentation(
            segmentation, Path(folder) / "meshes", options=options, crew=Crew(workers=workers)
        )


def best(work: Callable[[], object]) -> tuple[float, float, object]:
    """Return the least wall and processor seconds of several runs, and what came out."""
    took, result = [], None
    for _ in range(ROUNDS):
        began, worked = time.perf_counter(), cpu_seconds()
        result = work()
        took.append((time.perf_counter() - began, cpu_seconds() - worked))
    return min(wall for wall, _ in took), min(cpu for _, cpu in took), result


def cpu_seconds() -> float:
    """Return what this process and those that it has started and outlived have computed."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


if __name__ == "__main__":
    found = list(lines())
    print("\n".join(found))
    if len(found) > 1:
        text = ["# Meshes", "", "`python benchmarks/mesh_speed.py`, " + found[0], *found[1:], ""]
        RESULTS.write_text("\n".join(text), encoding="utf-8", newline="\n")
    sys.exit(0)
