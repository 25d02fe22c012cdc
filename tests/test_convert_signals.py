"""Ctrl-C and SIGTERM during `floodem convert`: what can go on says so, what cannot is removed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conversions import contents
from floodem.volumes import open_volume

STOPPED, INTERRUPTED = 4, 130
TIMEOUT_S = 60
SHAPE = (64, 400, 400)
SLOWED = """
import sys, time
from floodem.cli.main import main
from floodem.volumes.arrays import npz
from floodem.volumes.chunked import volume as chunked_volume
from floodem.volumes.conversion import block_plan
block_plan.BLOCK_BYTES = 2**20
block_plan.MEMORY_BYTES = 2**20
for kind in (chunked_volume.ChunkedVolume, npz.NewNpzVolume):
    def slow(self, box, array, write=kind._write):
        time.sleep(0.05)
        write(self, box, array)
    kind._write = slow
main(sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows sends no signal to one process alone"
)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("em.npy", np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8))


def converting(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SLOWED, "convert", "em.npy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def send(process: subprocess.Popen, number: int, to: str) -> tuple[int, str]:
    """Send a signal once the first receipt is there; return how the process ended."""
    receipts = Path(f"{to}.floodem", "running", "receipts.txt")
    deadline = time.monotonic() + TIMEOUT_S
    while not receipts.exists() or not receipts.stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_a_conversion_and_the_same_command_goes_on(number: int) -> None:
    with converting("to.zarr") as process:
        code, err = send(process, number, "to.zarr")
    assert code == STOPPED, err
    assert "stopping: finishing the blocks in work..." in err.splitlines()
    assert err.splitlines()[-1].endswith("run the same command again to go on")
    assert not Path("to.zarr").exists()
    with converting("to.zarr") as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    assert out.startswith("to.zarr: 64 x 400 x 400")
    with open_volume("to.zarr") as copy:
        np.testing.assert_array_equal(copy.read(), np.load("em.npy"))


def test_a_stopped_overwrite_is_told_how_to_go_on() -> None:
    with converting("to.zarr", "--overwrite") as process:
        code, err = send(process, signal.SIGINT, "to.zarr")
    assert code == STOPPED
    assert err.splitlines()[-1].endswith("same command again without --overwrite to go on")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, INTERRUPTED)]
)
def test_a_signal_ends_what_is_written_as_a_whole_and_leaves_nothing(
    number: int, code: int
) -> None:
    before = contents(Path())
    with converting("to.npz") as process:
        ended, err = send(process, number, "to.npz")
    assert (ended, err.splitlines()[-1]) == (
        code,
        "stopped by Ctrl-C; run the same command again to start over",
    )
    assert contents(Path()) == before
    assert sorted(path.name for path in Path().iterdir()) == ["em.npy"]
