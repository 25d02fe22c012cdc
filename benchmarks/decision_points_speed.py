"""How fast decision points are found, against reading the labels and a bare distance transform.

The published FIB-25 segmentation, in which most segments touch, and synthetic tissue whose
objects lost two voxels at their surfaces, so that all lie in gaps; both at voxels of 10 nm and
of 30 x 6 x 6. Then the whole search in blocks, by cores of different edges. Each case runs in a
process of its own on one core, and CPU seconds are counted. Last, how many points there are by
the largest distance and the least size, and how many of the joins that truth asks for they
offer. Run as a script it also writes benchmarks/results/decision-points.md:

    python3 benchmarks/decision_points_speed.py
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
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from floodem.assembly.agglomeration.points.contacts import find_contacts
from floodem.assembly.agglomeration.points.growing import grow
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.assembly.agglomeration.points.points import PointOptions
from floodem.assembly.agglomeration.points.search import find_decision_points, find_points_of
from floodem.geometry import Box, VoxelSize
from floodem.labels import contingency
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume, open_volume
from floodem.volumes.parallel import usable_threads
from floodem.volumes.synthetic import SyntheticOptions, synthesize

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "decision-points.md"
DATA = Path(os.environ.get("FLOODEM_DATA", HERE.parents[1] / "shared" / "data")) / "fib25"

EDGE, LOST = 160, 2
"""Edge of the tissue, and how many voxels its objects lose at their surfaces."""

SIZES = {"10,10,10": VoxelSize(10, 10, 10), "30,6,6": VoxelSize(30, 6, 6)}
DISTANCES = (0, 10, 20, 30, 50, 70, 100)
LEAST = (0, 2000, 5000, 10000)
CORES = (64, 128)


def run() -> None:
    """Print the tables."""
    for line in lines():
        print(line)


def lines() -> Iterator[str]:
    """Measure and give the lines of the results."""
    yield (
        f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, "
        f"{usable_threads()} cores, Python {platform.python_version()}, numpy {np.__version__}; "
        f"load before {os.getloadavg()[0]:.1f}. One process each, one run, CPU seconds."
    )
    kinds = [kind for kind in MAKERS if kind != "published" or DATA.is_dir()]
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            made = case("make", folder=folder, kind=kind)
            yield ""
            yield (
                f"{NAMES[kind]}: {made['voxels'] / 1e6:.1f} million voxels, {made['segments']} "
                f"segments, {made['empty']:.0%} empty; largest distance "
                f"{PointOptions().max_distance_nm:g} nm."
            )
            yield ""
            yield from speed_lines(folder, kind, voxels=made["voxels"])
    if DATA.is_dir():
        yield ""
        yield from point_lines()
    yield ""
    yield f"Load after {os.getloadavg()[0]:.1f}."


def speed_lines(folder: str, kind: str, *, voxels: int) -> Iterator[str]:
    """Give one line for each part of the work, and for each cut."""
    yield "| part | voxels (nm) | seconds | M voxels/s | bytes a voxel | result |"
    yield "|---|---|---|---|---|---|"
    cases = [("read", "10,10,10", {}), ("transform", "10,10,10", {})]
    cases += [(name, size, {}) for size in SIZES for name in ("grow", "contacts", "whole")]
    cases += [("blocks", "10,10,10", {"core": core}) for core in CORES]
    for name, size, how in cases:
        found = case(name, folder=folder, kind=kind, size=size, **how)
        what = STAGES[name] + (f", cores of {how['core']}^3" if how else "")
        yield (
            f"| {what} | {size} | {found['seconds']:.2f} | {voxels / found['seconds'] / 1e6:.1f} | "
            f"{found['bytes'] / voxels:.0f} | {found['result']} |"
        )


def point_lines() -> Iterator[str]:
    """Say how many points there are, and what they offer."""
    found = case("counts")
    yield (
        f"Points of the published segmentation, voxels of 10 nm. Of its {found['segments']} "
        f"segments {found['joins']} would have to be joined to others so that those with most of "
        "their voxels in one true object are one; a point can be right when both of its segments "
        "have."
    )
    yield ""
    yield "| largest distance (nm) | least size | points | can be right | joins offered |"
    yield "|---|---|---|---|---|"
    for row in found["rows"]:
        yield "| " + " | ".join(f"{value:g}" for value in row) + " |"


def case(name: str, **options: Any) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", name, "--options", json.dumps(options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def source(folder: str, kind: str) -> LabelSource:
    """Return where the labels of a case are."""
    return LabelSource(uri=f"{folder}/{kind}.zarr")


def published() -> np.ndarray:
    """Return the published segmentation."""
    with open_volume(DATA / "sample-training2.npz") as volume:
        return volume.read().astype(np.uint64)


def tissue() -> np.ndarray:
    """Return objects that lost voxels at their surfaces."""
    labels = synthesize(SyntheticOptions(shape=(EDGE,) * 3), None).labels.astype(np.uint64)
    low = ndimage.minimum_filter(labels, 2 * LOST + 1)
    high = ndimage.maximum_filter(labels, 2 * LOST + 1)
    return np.where(low == high, labels, 0)


def make(*, folder: str, kind: str) -> dict[str, Any]:
    """Write the labels of a case."""
    labels = MAKERS[kind]()
    with create_volume(
        source(folder, kind).uri, shape=labels.shape, dtype=np.uint64, chunks=(64, 64, 64)
    ) as volume:
        volume.write(volume.box, labels)
    return {
        "voxels": labels.size,
        "segments": len(np.unique(labels)) - 1,
        "empty": float((labels == 0).mean()),
    }


def measured(
    function: Callable[[], Any], *, says: Callable[[Any], str] = lambda _: ""
) -> dict[str, Any]:
    """Return what a call takes: CPU seconds, and memory beside what was there before."""
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    began = time.process_time()
    result = function()
    seconds = time.process_time() - began
    return {
        "seconds": seconds,
        "bytes": status_bytes("VmHWM") - before,
        "result": says(result),
    }


def status_bytes(name: str) -> int:
    """Return a figure of this process' memory."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def read(*, folder: str, kind: str, size: str) -> dict[str, Any]:
    """Read the labels once."""
    with source(folder, kind).open() as volume:
        return measured(volume.read)


def transform(*, folder: str, kind: str, size: str) -> dict[str, Any]:
    """Take the bare distance transform."""
    labels, sampling = loaded(folder, kind), SIZES[size].zyx_nm
    return measured(lambda: ndimage.distance_transform_edt(labels == 0, sampling=sampling))


def growing(*, folder: str, kind: str, size: str) -> dict[str, Any]:
    """Grow the segments of one array."""
    labels, lengths = loaded(folder, kind), lengths_of(size)
    return measured(
        lambda: grow(labels, lengths=lengths),
        says=lambda grown: f"{np.mean(grown.labels == 0):.1%} stay empty",
    )


def touching(*, folder: str, kind: str, size: str) -> dict[str, Any]:
    """Find where grown segments touch."""
    labels, lengths = loaded(folder, kind), lengths_of(size)
    grown = grow(labels, lengths=lengths)
    return measured(
        lambda: find_contacts(
            grown,
            core=Box.from_shape(labels.shape),
            start=(0, 0, 0),
            shape=labels.shape,
            lengths=lengths,
        ),
        says=lambda found: f"{len(found)} ties",
    )


def whole(*, folder: str, kind: str, size: str) -> dict[str, Any]:
    """Find the decision points of one array."""
    labels, far = loaded(folder, kind), PointOptions().max_distance_nm
    return measured(
        lambda: find_points_of(labels, voxel_size=SIZES[size], max_distance_nm=far),
        says=lambda points: f"{len(points)} points",
    )


def blocks(*, folder: str, kind: str, size: str, core: int) -> dict[str, Any]:
    """Find the decision points in blocks, reading and tables included."""
    return measured(
        lambda: find_decision_points(
            source(folder, kind),
            work=f"{folder}/work-{kind}-{core}",
            voxel_size=SIZES[size],
            block=(core, core, core),
        ),
        says=lambda points: f"{len(points)} points",
    )


def counts() -> dict[str, Any]:
    """Count points by distance and least size."""
    import h5py

    labels = published()
    with h5py.File(DATA / "groundtruth.h5") as file:
        table = contingency(labels, file["bodies"][:])
    table = table.select((table.ids_a != 0) & (table.ids_b != 0))
    order = np.lexsort((-table.counts, table.ids_a))
    ids, firsts = np.unique(table.ids_a[order], return_index=True)
    body = np.zeros(int(labels.max()) + 1, np.uint64)
    body[ids] = table.ids_b[order][firsts]
    cases = [(far, 0) for far in DISTANCES]
    cases += [(PointOptions().max_distance_nm, size) for size in LEAST[1:]]
    rows = []
    for far, size in cases:
        points = find_points_of(
            labels, voxel_size=SIZES["10,10,10"], max_distance_nm=far, min_size=size
        )
        a, b = points.ids_a.astype(np.int64), points.ids_b.astype(np.int64)
        is_right = (body[a] == body[b]) & (body[a] != 0)
        graph = coo_array((is_right[is_right], (a[is_right], b[is_right])), shape=(len(body),) * 2)
        joins = len(body) - connected_components(graph, directed=False)[0]
        rows.append((far, size, len(points), int(is_right.sum()), int(joins)))
    return {
        "segments": len(np.unique(labels)) - 1,
        "joins": len(ids) - len(np.unique(body[ids])),
        "rows": rows,
    }


def loaded(folder: str, kind: str) -> np.ndarray:
    """Return the labels of a case."""
    with source(folder, kind).open() as volume:
        return volume.read()


def lengths_of(size: str) -> Lengths:
    """Return the lengths of a case."""
    return Lengths.of(SIZES[size], max_distance_nm=PointOptions().max_distance_nm)


NAMES = {
    "published": "The published FIB-25 segmentation",
    "tissue": f"Tissue, {LOST} voxels lost at surfaces",
}
MAKERS: dict[str, Callable[[], np.ndarray]] = {"published": published, "tissue": tissue}
STAGES = {
    "read": "floor: read the labels",
    "transform": "floor: `distance_transform_edt`",
    "grow": "grow",
    "contacts": "contacts of what has grown",
    "whole": "points of an array",
    "blocks": "points in blocks",
}
CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "make": make,
    "read": read,
    "transform": transform,
    "grow": growing,
    "contacts": touching,
    "whole": whole,
    "blocks": blocks,
    "counts": counts,
}


def main() -> int:
    """Run one case, or all of them and write the results."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--case", choices=CASES)
    arguments.add_argument("--options", type=json.loads)
    given = arguments.parse_args()
    if given.case:
        print(json.dumps(CASES[given.case](**given.options)))
        return 0
    kept = RESULTS.read_text(encoding="utf-8").partition("\n\n20")[0] if RESULTS.exists() else ""
    found = [kept, ""]
    for line in lines():
        print(line, flush=True)
        found.append(line)
    text = "\n".join([*found, ""])
    RESULTS.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
