"""How long skeletons and measures of a whole segmentation take, against distances alone.

`floodem skeletonize` and `floodem measure` on the published segmentation of the FIB-25
sample, 250^3 voxels with 254 objects. The floor is the distance transform of each object
in its box, which every TEASAR begins with.
Run as a script it also writes the table to benchmarks/results/skeletons.md.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mesh_speed import DATA, HERE, ROUNDS, VOXEL_SIZE, best
from scipy.ndimage import find_objects

from floodem.cluster import Crew
from floodem.shapes.measures.measure import Measures, measure
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import Skeletonized, SkeletonRequest
from floodem.shapes.skeletons.voxel_graph import boundary_distance
from floodem.shapes.source import LabelSource
from floodem.volumes import open_volume
from floodem.volumes.parallel import usable_threads

AIM_S = 30
RESULTS = HERE / "results" / "skeletons.md"


def run() -> None:
    """Print the tables; they need the shared FIB-25 segmentation."""
    for line in lines():
        print(line)


def lines() -> Iterator[str]:
    """Measure and give the lines of the results."""
    file = DATA / "fib25" / "sample-training2.npz"
    if not file.is_file():
        yield f"no data at {file}: set FLOODEM_DATA to the folder with the shared data"
        return
    source = LabelSource(uri=str(file))
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        + ", ".join(f"{name} {version(name)}" for name in ("scipy", "edt"))
        + f"; load before {os.getloadavg()[0]:.1f}. Best of {ROUNDS}; aim {AIM_S} s on two cores."
    )
    yield ""
    with open_volume(file) as volume:
        labels = volume.read()
    yield "| what | processes | seconds | CPU s | result |"
    yield "|---|---|---|---|---|"
    wall, cpu, count = best(lambda: distances(labels))
    yield f"| floor: distances alone | 1 | {wall:.1f} | {cpu:.1f} | {count} objects |"
    for workers in sorted({1, 2, usable_threads()}):
        wall, cpu, made = best(lambda w=workers: skeletons(source, w))
        cable = f"{len(made.ids)} skeletons, {made.lengths_nm.sum() / 1000:.1f} um of cable"
        yield f"| `floodem skeletonize` | {workers} | {wall:.1f} | {cpu:.1f} | {cable} |"
    for workers in sorted({1, 2, usable_threads()}):
        wall, cpu, found = best(lambda w=workers: measures(source, w))
        yield f"| `floodem measure` | {workers} | {wall:.1f} | {cpu:.1f} | {len(found)} objects |"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    yield ""
    yield f"Peak memory of this process, with everything above in it: {peak:.0f} MB."


def distances(labels: np.ndarray) -> int:
    """Compute how deep the voxels of each object lie; return how many objects there are."""
    boxes = find_objects(labels.astype(np.int32))
    for number, box in enumerate(boxes, start=1):
        if box is not None:
            boundary_distance(labels[box] == number, voxel_size=VOXEL_SIZE)
    return sum(box is not None for box in boxes)


def skeletons(source: LabelSource, workers: int) -> Skeletonized:
    """Skeletonise everything into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        request = SkeletonRequest(voxel_size=VOXEL_SIZE)
        return skeletonize(
            source, Path(folder) / "out", request=request, crew=Crew(workers=workers)
        )


def measures(source: LabelSource, workers: int) -> Measures:
    """Measure everything, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(
            source, voxel_size=VOXEL_SIZE, crew=Crew(workers=workers), work=Path(folder) / "work"
        )


if __name__ == "__main__":
    found = list(lines())
    print("\n".join(found))
    if len(found) > 1:
        text = ["# Skeletons", "", "`python benchmarks/skeleton_speed.py`, " + found[0]]
        text += [*found[1:], ""]
        RESULTS.write_text("\n".join(text), encoding="utf-8", newline="\n")
    sys.exit(0)
