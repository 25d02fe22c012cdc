"""How long partitions, the index of centres, draws and the historic coordinates take.

Wall seconds are the best of several, because other programs may keep the cores busy;
processor seconds tell the work. Load and peak memory are told as Linux tells them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from floodem.labels.partitions import BlockRuns
from floodem.legacy.records.balanced import write_tfrecord
from floodem.legacy.records.gzip_stream import LEVEL
from floodem.training.configuration.options import DEFAULT_THRESHOLDS
from floodem.training.coordinates.partition_volume import partition
from floodem.training.coordinates.partitioning import Partitioning
from floodem.training.coordinates.samplers import make_sampler
from floodem.training.coordinates.sampling import gathered, sample
from floodem.volumes import open_volume
from floodem.volumes.parallel import usable_threads

AIM_S = 2.5
AIM_NS_A_RECORD = 550
ROUNDS = 5
DRAWS = 2000
MIN_SIZE = 10_000

DATA = Path(os.environ.get("FLOODEM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

PEAK = """
import sys
from pathlib import Path
from floodem.cli.main import main
from floodem.legacy import tfrecord_writer
from floodem.training.coordinates import partition_volume, sampling

def peak_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak_kb()
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print(before, peak_kb())
"""


def run() -> None:
    """Print the four tables; they need the shared SNEMI3D labels."""
    labels = DATA / "snemi3d" / "segment"
    if not labels.is_dir():
        print(f"no labels at {labels}: set FLOODEM_DATA to the folder with the shared data")
        return
    print(f"load before: {os.getloadavg()[0]:.1f}; aim {AIM_S} s on two cores")
    with tempfile.TemporaryDirectory() as folder:
        partitions(labels, Path(folder))
        coordinates(f"{Path(folder) / 'af.h5'}@af", Path(folder))


def partitions(labels: Path, folder: Path) -> None:
    """Print seconds from address to address, then what every method would need."""
    print(f"{'radius z,y,x':14} {'threads':>7} {'seconds':>8} {'CPU s':>6} {'peak MB':>8}")
    for radius in ((12, 24, 24), (24, 24, 24)):
        by = Partitioning(thresholds=DEFAULT_THRESHOLDS, radius=radius, min_size=MIN_SIZE)
        text = ",".join(map(str, radius))
        for threads in sorted({1, usable_threads()}):
            wall, cpu = best(
                lambda by=by, threads=threads: partition(
                    labels, f"{folder / 'af.h5'}@af", by=by, threads=threads, overwrite=True
                )
            )
            peak = peak_mb(
                "partition",
                str(labels),
                f"{folder / 'peak.h5'}@af",
                "--overwrite",
                *("--lom-radius", text, "--threads", str(threads)),
            )
            print(f"{text:14} {threads:7} {wall:8.2f} {cpu:6.2f} {peak:8.0f}")
    with open_volume(labels) as volume:
        print(f"floor: reading the labels {best(volume.read)[1]:.2f} CPU s")
        array = volume.read()
    runs = BlockRuns(array)
    groups = np.flatnonzero((runs.ids > 0) & (runs.voxels >= MIN_SIZE))
    numbers = runs.numbered(groups)
    boxes = [runs.of_group(int(group)).box for group in groups]

    def compare() -> None:
        for number, box in enumerate(boxes):
            np.count_nonzero(numbers[box.slices()] == number + 1)

    total = sum(box.size for box in boxes)
    print(
        f"floor: looking once at {total / 1e6:.0f} million voxels of {len(boxes)} bounding boxes "
        f"{best(compare)[1]:.2f} CPU s"
    )


def coordinates(uri: str, folder: Path) -> None:
    """Print seconds for the index, microseconds a draw, nanoseconds a record."""
    margin = (12, 24, 24)
    wall, cpu = best(
        lambda: sample({"train": uri}, folder / "index.npz", margin=margin, overwrite=True)
    )
    size = (folder / "index.npz").stat().st_size
    print(f"index: {wall:.2f} s, {cpu:.2f} CPU s, {size / 1e6:.1f} MB")
    index = sample({"train": uri}, folder / "index.npz", margin=margin, overwrite=True)
    for name in ("balanced", "uniform"):
        sampler = make_sampler(name, index, seed=0, weights={}, background=False)
        wall, _ = best(lambda sampler=sampler: [sampler(number) for number in range(DRAWS)])
        print(f"draw, {name}: {wall / DRAWS * 1e6:.0f} us")
    target = folder / "coordinates"
    counts = []

    def write() -> None:
        with gathered({"train": uri}, beside=target, margin=margin) as index:
            counts.append(write_tfrecord(index, target, overwrite=True).records)

    wall, cpu = best(write, rounds=2)
    records = counts[0]
    peak = peak_mb(
        "sample", f"train={uri}", str(target), "--tfrecord", "--margin", "12,24,24", "--overwrite"
    )
    print(
        f"TFRecord: {records:,} records, {wall / records * 1e9:.0f} ns each (aim "
        f"{AIM_NS_A_RECORD}), {cpu / records * 1e9:.0f} CPU ns, {peak:.0f} MB beside imports, "
        f"{target.stat().st_size / records:.1f} bytes each"
    )
    print(f"floor: deflating them {deflating(target):.0f} CPU ns each")


def deflating(target: Path) -> float:
    """Return the nanoseconds that zlib takes for each record, at the level that is used."""
    unpacked = zlib.decompressobj(31).decompress(target.read_bytes(), 2**23)
    size = int.from_bytes(unpacked[:8], "little") + 16
    count = len(unpacked) // size

    def deflate() -> None:
        compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -15, 9)
        compressor.compress(unpacked)
        compressor.flush()

    return best(deflate)[1] / count * 1e9


def best(work: Callable[[], object], *, rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the least wall seconds and the least processor seconds of several runs."""
    took = []
    for _ in range(rounds):
        began, worked = time.perf_counter(), time.process_time()
        work()
        took.append((time.perf_counter() - began, time.process_time() - worked))
    return min(wall for wall, _ in took), min(cpu for _, cpu in took)


def peak_mb(*arguments: str) -> float:
    """Return the peak memory of a command beyond what its imports take, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True
    )
    before, after = map(int, ended.stdout.splitlines()[-1].split())
    return (after - before) / 1e3
