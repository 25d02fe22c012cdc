"""What `run_tasks` costs beside the tasks: 1000 tasks that do nothing, and receipts read again.

Each task leaves a receipt, which is a file that is synced to the disk; so the ruler is
writing as many such files and nothing else. Python's own pool of processes does the
same work, to set ours against; it tells nobody whose worker died.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from timing import interleaved

from floodem.cluster import Crew, Task, run_tasks
from floodem.cluster.receipts import Receipts, identity_digest

TASKS = 1000
WORKERS = 2
ROUNDS = 3
KEPT = 20_000
IDENTITY = {"kind": "benchmark"}


def nothing(number: int) -> dict[str, Any]:
    """Do nothing."""
    return {"number": number}


def leave_receipt(receipts: Receipts, number: int) -> None:
    """Write a receipt as a task does."""
    receipts.write(str(number), {"number": number})


def run() -> None:
    """Print milliseconds a task, and seconds to read the receipts of many."""
    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / str(number) for number in range(10**6))
        print_overhead(lambda: next(places))
        print_reading(next(places))


def print_overhead(place: Callable[[], Path]) -> None:
    tasks = [Task(key=str(number), argument=number) for number in range(TASKS)]

    def alone() -> None:
        receipts = Receipts(str(place()), identity_digest(IDENTITY))
        for number in range(TASKS):
            leave_receipt(receipts, number)

    def by(crew: Crew, count: int = TASKS) -> Callable[[], object]:
        return lambda: run_tasks(
            nothing, tasks[:count], receipts=place(), identity=IDENTITY, crew=crew
        )

    def pool(count: int = TASKS) -> Callable[[], object]:
        def do() -> None:
            receipts = Receipts(str(place()), identity_digest(IDENTITY))
            spawning = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(WORKERS, mp_context=spawning) as workers:
                for future in [
                    workers.submit(leave_receipt, receipts, number) for number in range(count)
                ]:
                    future.result()

        return do

    processes = Crew(workers=WORKERS)
    dask = Crew(cluster=f"local:{WORKERS}")
    seconds = interleaved(
        {
            "receipts alone": alone,
            "this process": by(Crew()),
            "2 threads of it": by(Crew(slots=2)),
            "2 processes, started": by(processes, 2),
            "2 processes": by(processes),
            "Dask, 2 workers here, started": by(dask, 2),
            "Dask, 2 workers here": by(dask),
            "Python's pool of 2, started": pool(2),
            "Python's pool of 2": pool(),
        },
        rounds=ROUNDS,
    )
    ruler = seconds["receipts alone"] / TASKS * 1e3
    print(f"{'1000 empty tasks by':28} {'ms a task':>10} {'of a receipt':>13} {'start s':>8}")
    for name, took in seconds.items():
        if name.endswith("started"):
            continue
        start = seconds.get(f"{name}, started", 0.0)
        each = (took - start) / TASKS * 1e3
        print(f"{name:28} {each:10.2f} {each / ruler:13.2f} {start:8.2f}")


def print_reading(place: Path) -> None:
    receipts = Receipts(str(place), identity_digest(IDENTITY))
    place.mkdir()
    receipts.write("0", {"number": 0})
    text = (place / "0.json").read_text(encoding="utf-8")
    for number in range(1, KEPT):  # unsynced, as only reading is measured
        (place / f"{number}.json").write_text(text, encoding="utf-8")
    began = time.perf_counter()
    assert len(receipts.read_all(str(number) for number in range(KEPT))) == KEPT
    took = time.perf_counter() - began
    print(f"{KEPT:,} receipts listed and read: {took:.2f} s, {took / KEPT * 1e5:.1f} s for 100,000")
