"""Commands that are stopped, killed or started twice leave nothing that is not what it seems."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from bright import bright_tubes
from floodem.volumes import open_volume
from refusals import (
    INTERRUPTED,
    OPTIONS,
    STOPPED,
    everything_in,
    floodem,
    lay_out,
    leftovers,
    refused,
    require_sentence,
    results,
    segment,
    signals_at,
)

LONG = (37, 74, 220)
"""About three seconds of flooding."""
TIMEOUT_S = 120
COMMAND = ("segment", "long.npy", "seg.zarr", *OPTIONS, "--checkpoint-seconds", "0.05")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "floodem", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments) -> None:
    """Run a long command in a process of its own, where no shapes are checked."""
    with start(*arguments) as process:
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err


def wait_until(process: subprocess.Popen, is_so) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict:
    """The results of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("expected")
    lay_out(folder)
    np.save(folder / "long.npy", bright_tubes(LONG)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finish(*COMMAND)
        return results("seg.zarr", "seg.zarr.floodem")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_a_run_which_no_other_may_join_and_the_same_command_goes_on(
    number, expected
):
    np.save("long.npy", bright_tubes(LONG)[0])
    with start(*COMMAND) as process:
        wait_until(process, Path("seg.zarr.floodem/run.json").exists)
        second = floodem(*COMMAND)
        require_sentence(second, "another process is working on seg.zarr", "wait for it")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == STOPPED, err
    lines = err.splitlines()  # of progress, too, where it takes longer than two seconds
    assert "stopping: saving the state..." in lines
    last = lines[-1]
    assert last.startswith("stopped, all is saved, ")
    assert last.endswith("run the same command again to go on")
    assert out == ""
    assert not Path("seg.zarr").exists()
    assert leftovers(Path()) == []
    finish(*COMMAND)
    assert "resumed: " in Path("seg.zarr.floodem/log.txt").read_text(encoding="utf-8")
    assert results("seg.zarr", "seg.zarr.floodem") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_second_signal_interrupts_at_once(number):
    assert segment("em.npy", "whole.zarr").code == 0
    with signals_at(300, number=number), signals_at(300, number=number):
        ended = segment("em.npy", "seg.zarr")
    assert ended.code == STOPPED
    *_, stopping, sentence = ended.err.splitlines()  # a note on the voxel size comes first
    assert stopping == "stopping: saving the state..."
    assert sentence.startswith("interrupted; what was saved last is kept")
    assert leftovers(Path()) == []
    assert segment("em.npy", "seg.zarr").code == 0
    assert results("seg.zarr", "seg.zarr.floodem") == results("whole.zarr", "whole.zarr.floodem")


def test_ctrl_c_while_results_are_written_lets_them_be_finished(monkeypatch):
    from floodem.flooding import results as writing

    write_core = writing._write_core

    def signal_and_go_on(chunks, shape):
        signal.raise_signal(signal.SIGINT)
        return write_core(chunks, shape)

    monkeypatch.setattr(writing, "_write_core", signal_and_go_on)
    ended = segment("em.npy", "seg.zarr")
    assert ended.code == 0
    assert "6 segments" in ended.out


def test_ctrl_c_in_other_commands_ends_them_at_once(monkeypatch):
    from floodem.volumes import stored

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(stored.StoredVolume, "_finish", interrupt)
    before = everything_in(Path())
    ended = floodem("convert", "em.npy", "copy.npz")
    assert ended.code == INTERRUPTED
    assert ended.err == "stopped by Ctrl-C; run the same command again to start over\n"
    assert everything_in(Path()) == before


def test_signal_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert segment("em.npy", "seg.zarr").code == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("destination", ["copy.zarr", "mine.h5@copy", "copy.npz", "copy.tif"])
def test_a_killed_convert_leaves_nothing_that_passes_for_whole(destination):
    array = np.random.default_rng(1).integers(0, 2**32, (30, 400, 400), np.uint32)
    np.save("noise.npy", array)
    with h5py.File("mine.h5", "w") as file:
        file["raw"] = np.arange(5)
    before = everything_in(Path())
    command = ("convert", "noise.npy", destination)
    record = f"{destination}.floodem"
    with start(*command) as process:
        wait_until(process, Path(record, "running", "conversion.json").exists)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    after = everything_in(Path())
    assert before.items() <= after.items()
    assert all(name.startswith((".", record)) for name in after.keys() - before.keys())
    assert "conversion.json" not in {path.name for path in Path(record).iterdir()}
    assert floodem(*command).code == 0
    with open_volume(destination) as copy:
        np.testing.assert_array_equal(copy.read(), array)


def test_a_failing_overwrite_keeps_what_convert_had_made():
    np.save("noise.npy", np.full((4, 5, 6), -1, np.int16))
    for destination in ("copy.zarr", "copy.h5@a", "copy.npz"):
        assert floodem("convert", "em.npy", destination).code == 0
        arguments = ("convert", "noise.npy", destination, "--dtype", "uint8")
        refused(*arguments, says=("exists already" if "@" not in destination else "holds a",))
        refused(*arguments, "--overwrite", says=("-1", "choose a wider type"))
