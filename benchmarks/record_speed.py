"""Old coordinate files: records read a second, a list of centres made and drawn from."""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from floodem.legacy.records.listing import list_centres
from floodem.legacy.records.reading import CoordinateRecords, read_records
from floodem.legacy.records.writing import write_records
from floodem.training.coordinates.centre_list import CentreList

RECORDS = 4_000_000
DRAWS = 20_000
BATCH = 2**16
STRIDE = 7919
LIST = "list.npz"
CASES = {
    "historic, 1 volume": (1, False),
    "historic, 25 volumes": (25, False),
    "newer, 3 volumes": (3, True),
}


def run() -> None:
    """Print millions of records a second, plain and gzip, against what zlib alone takes."""
    print(f"{RECORDS:,} records; millions a second of processor time")
    with tempfile.TemporaryDirectory() as folder:
        for name, (volumes, is_newer) in CASES.items():
            measure(Path(folder), name, volumes=volumes, is_newer=is_newer)
        centres = CentreList.load(Path(folder, LIST))
        began = time.perf_counter()
        for number in range(DRAWS):
            centres.draw(number * STRIDE)
        print(f"one draw {(time.perf_counter() - began) / DRAWS * 1e6:.1f} us")


def measure(folder: Path, name: str, *, volumes: int, is_newer: bool) -> None:
    """Print the rates of one kind of records."""
    plain, zipped, listed = (folder / kind for kind in ("plain", "gzip", LIST))
    for path in (plain, zipped):
        some = batches(volumes, is_newer=is_newer)
        write_records(some, path, compressed=path == zipped, overwrite=True)
    rates = {
        "plain": rate(lambda: read_all(plain)),
        "gzip": rate(lambda: read_all(zipped)),
        "zlib alone": rate(lambda: unzip(zipped)),
        "list": rate(lambda: list_centres(str(zipped), listed, overwrite=True)),
    }
    told = ", ".join(f"{kind} {one / 1e6:.2f}" for kind, one in rates.items())
    print(f"{name:22} {told}; list {listed.stat().st_size / RECORDS:.1f} bytes a record")


def batches(volumes: int, *, is_newer: bool) -> Iterator[CoordinateRecords]:
    """Yield shuffled centres, always the same ones."""
    random = np.random.default_rng(0)
    names = tuple(f"validation{one}" for one in range(volumes))
    for first in range(0, RECORDS, BATCH):
        count = min(BATCH, RECORDS - first)
        more = {}
        if is_newer:
            more = {
                "labels": random.integers(0, 13, count),
                "segment_ids": random.integers(0, 2**20, count),
                "radii": random.random(count).astype(np.float32),
            }
        yield CoordinateRecords(
            names=names,
            volumes=random.integers(0, volumes, count),
            centres_xyz=random.integers(0, 520, (count, 3)),
            **more,
        )


def rate(work: Callable[[], object]) -> float:
    """Return the records a second of processor time, all threads together; the better of two."""
    seconds = []
    for _ in range(2):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return RECORDS / min(seconds)


def read_all(path: Path) -> None:
    """Read a file and look at every record."""
    assert sum(len(batch) for batch in read_records(str(path))) == RECORDS


def unzip(path: Path) -> None:
    """Decompress a file and forget it."""
    member = zlib.decompressobj(31)
    with open(path, "rb") as file:
        while block := file.read(2**20):
            member.decompress(block)
