"""A run over many blocks survives whatever happens to it, and repeats no more than it must."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cut_runs import command, labels_of, times_begun, write_inputs
from floodem.assembly.preparation import FLOOD_SLOTS

SHAPE = (51, 60, 96)
BLOCKS = 27
CUT = ("--block", "17,20,32", "--halo", "8,10,12", "--checkpoint-seconds", "0.2")
LONGEST_LIFE_S = 14.0
TIMEOUT_S = 300

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def expected(folder):
    write_inputs(folder, shape=SHAPE)
    whole = subprocess.run(
        command(folder, folder / "whole.zarr", *CUT), capture_output=True, text=True, check=False
    )
    assert whole.returncode == 0, whole.stderr
    assert f"in {BLOCKS} blocks" in whole.stdout
    return labels_of(folder / "whole.zarr")


def kill_often(line: list[str], moments: random.Random, *, kills: int) -> int:
    """Start a command again and again and kill all its processes; let the last one end."""
    killed = 0
    while killed < kills:
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(3.0, LONGEST_LIFE_S))
        if process.poll() is not None:
            assert process.returncode == 0
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT_S)
        killed += 1
    last = subprocess.run(line, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert last.returncode == 0, last.stderr.decode()
    return killed


@pytest.mark.parametrize(
    ("repetition", "workers"),
    [(0, 1), *(pytest.param(n, 1 + n % 2, marks=pytest.mark.slow) for n in range(1, 20))],
)
def test_random_kills_end_in_the_same_volume_and_cost_the_blocks_in_flight(
    folder, expected, repetition, workers
):
    destination = folder / f"seg-{repetition}.zarr"
    line = command(folder, destination, *CUT, "--workers", str(workers))
    killed = kill_often(line, random.Random(repetition), kills=4)
    np.testing.assert_array_equal(labels_of(destination), expected)
    begun = times_begun(Path(f"{destination}.floodem"))
    assert len(begun) == BLOCKS
    assert sum(begun.values()) - BLOCKS <= killed * workers * FLOOD_SLOTS


def test_a_second_run_to_the_same_destination_is_refused(folder, expected):
    destination = folder / "two.zarr"
    first = subprocess.Popen(command(folder, destination, *CUT), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not (folder / "two.zarr.floodem" / "receipts" / "floods").exists():
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.05)
        second = subprocess.run(
            command(folder, destination, *CUT), capture_output=True, text=True, check=False
        )
        assert second.returncode == 3
        assert "another process is working on" in second.stderr
        assert first.wait(TIMEOUT_S) == 0
    finally:
        first.kill()
        first.wait(TIMEOUT_S)
    np.testing.assert_array_equal(labels_of(destination), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_of_a_cluster_killed_at_random_cost_the_blocks_in_flight(folder, expected, seed):
    destination = folder / f"cluster-{seed}.zarr"
    line = command(folder, destination, *CUT, "--cluster", "local:2")
    moments = random.Random(seed)
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    kills = 0
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(3, 6))
        workers = _workers(process.pid)
        has_begun = any(Path(f"{destination}.floodem").glob("receipts/floods/*.json"))
        if workers and has_begun and kills < 3:
            os.kill(moments.choice(workers), signal.SIGKILL)
            kills += 1
    assert process.returncode == 0
    assert kills
    np.testing.assert_array_equal(labels_of(destination), expected)
    begun = times_begun(Path(f"{destination}.floodem"))
    assert sum(begun.values()) - BLOCKS <= kills * 2 * FLOOD_SLOTS


def _workers(parent: int) -> list[int]:
    """Return the processes in which tasks run: children that Python spawned."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    found = []
    for row in listed.splitlines()[1:]:
        pid, above, line = row.split(None, 2)
        if int(above) == parent and "spawn_main" in line:
            found.append(int(pid))
    return found


def _dask(*words: str) -> subprocess.Popen:
    program = Path(sys.executable).with_name("dask")
    return subprocess.Popen(
        [str(program), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_a_scheduler_killed_and_started_again_costs_the_blocks_in_flight(folder, expected):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    destination = folder / "scheduler.zarr"
    started: list[subprocess.Popen] = []

    def start() -> None:
        words = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        started.append(_dask("scheduler", *words))
        for _ in range(2):
            more = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard")
            started.append(_dask("worker", address, *more))

    def kill() -> None:
        while started:
            process = started.pop()
            process.kill()
            process.wait(TIMEOUT_S)

    try:
        start()
        line = command(folder, destination, *CUT, "--cluster", address, "--insecure")
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + TIMEOUT_S
        while not any(Path(f"{destination}.floodem").glob("receipts/floods/*.json")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        kill()
        start()
        assert process.wait(TIMEOUT_S) == 0
    finally:
        kill()
        process.kill()
        process.wait(TIMEOUT_S)
    np.testing.assert_array_equal(labels_of(destination), expected)
    begun = times_begun(Path(f"{destination}.floodem"))
    assert sum(begun.values()) - BLOCKS <= 2 * FLOOD_SLOTS
