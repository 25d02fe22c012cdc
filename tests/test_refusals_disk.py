"""A full or read-only disk ends in one sentence, and with space again the same command goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from bright import bright_tubes
from floodem.flooding import drive
from floodem.flooding import results as writing
from floodem.flooding.run_folder import RunFolder
from reference.tf_bundle import conv_stack_variables, write_bundle
from refusals import (
    OPTIONS,
    everything_in,
    floodem,
    lay_out,
    leftovers,
    refused,
    require_sentence,
    results,
    segment,
)

NO_SPACE = "No space left on device"
READ_ONLY = "Read-only file system"
DISK_BYTES = 6 * 2**20


def mount(*words) -> None:
    try:
        done = subprocess.run(["mount", *words], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.decode().strip()}")


@pytest.fixture
def disk(tmp_path, monkeypatch) -> Iterator[Path]:
    """A small disk with an image and a model; the working directory is on it."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "floodem-test", str(path))
    try:
        lay_out(path)
        monkeypatch.chdir(path)
        yield path
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path, *, but: int = 0) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - but)


@contextlib.contextmanager
def full_disk_before(disk: Path, place: tuple[object, str], *, call: int) -> Iterator[None]:
    """Fill the disk just before a function is called for the n-th time."""
    owner, name = place
    function, calls = getattr(owner, name), itertools.count(1)

    def fill_and_call(*positional, **named):
        if next(calls) == call:
            fill(disk)
        return function(*positional, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, fill_and_call)
        yield


def make_destination(name: str) -> str:
    """Return an address; for HDF5 in a file that holds other data."""
    if name == "h5":
        with h5py.File("mine.h5", "w") as file:
            file["raw"] = bright_tubes()[0]
            file["notes"] = np.arange(5)
        return "mine.h5@labels"
    return f"seg.{name}"


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict:
    """The results of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("expected")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert segment("em.npy", "seg.zarr").code == 0
        return results("seg.zarr", "seg.zarr.floodem")


STAGES = {
    "first checkpoint": ((drive, "save_checkpoint"), 1),
    "begin of the record": ((RunFolder, "write_run"), 1),
    "later checkpoint": ((drive, "save_checkpoint"), 40),
    "end of the flood": ((RunFolder, "write_run"), 2),
    "creation of the labels": ((writing, "_create"), 2),
    "labels": ((writing, "_write_core"), 1),
    "origins": ((RunFolder, "write_json"), 3),
    "overlaps": ((RunFolder, "write_json"), 4),
    "seeds": ((writing, "write_text"), 1),
    "end of the record": ((RunFolder, "write_run"), 3),
    "receipt": ((RunFolder, "write_receipt"), 1),
}
NOTHING_YET = {"first checkpoint", "begin of the record"}
LABELS_WRITTEN = {"origins", "overlaps", "seeds", "end of the record", "receipt"}
LABELS = {"creation of the labels", "labels"}


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *((stage, name) for stage in STAGES if stage in LABELS for name in ("zarr", "h5", "npz")),
        *((stage, "zarr") for stage in STAGES if stage not in LABELS),
    ],
)
def test_a_disk_that_fills_up_is_survived_at_every_stage(disk, expected, stage, name):
    destination = make_destination(name)
    before = everything_in(disk)
    place, call = STAGES[stage]
    seconds = "0" if stage == "later checkpoint" else "60"
    command = ("em.npy", destination, "--checkpoint-seconds", seconds)
    with full_disk_before(disk, place, call=call):
        ended = segment(*command)
    sentence = require_sentence(ended, destination.partition("@")[0])
    assert NO_SPACE in sentence or "0.00 MB are free" in sentence
    goes_on = "what was computed is saved, and the same command goes on"
    assert (goes_on in ended.err) is (stage not in NOTHING_YET)

    (disk / "filler").unlink()
    after = everything_in(disk)
    assert leftovers(disk) == []
    record = f"{destination}.floodem"
    if stage in NOTHING_YET:
        assert after == before
    elif stage not in LABELS_WRITTEN:
        assert {k: v for k, v in after.items() if not k.startswith(record)} == before
    assert segment(*command).code == 0
    assert results(destination, record) == expected
    assert not (disk / record / "checkpoint.npz").exists()
    kept = {name: content for name, content in before.items() if name != "mine.h5"}
    assert {name: everything_in(disk)[name] for name in kept} == kept
    if name == "h5":
        with h5py.File("mine.h5") as file:
            assert set(file) == {"labels", "notes", "raw"}
            np.testing.assert_array_equal(file["raw"], bright_tubes()[0])


@pytest.mark.parametrize("stage", ["first checkpoint", "begin of the record"])
def test_an_overwriting_run_that_finds_no_space_keeps_the_labels(disk, stage):
    assert segment("em.npy", "seg.zarr").code == 0
    before = everything_in(disk)
    place, call = STAGES[stage]
    command = ("em.npy", "seg.zarr", "--pad", "0.1", "--overwrite")
    with full_disk_before(disk, place, call=call):
        require_sentence(segment(*command), NO_SPACE)
    (disk / "filler").unlink()
    after = everything_in(disk)
    if stage == "first checkpoint":
        assert after == before
    kept = {name for name in before if not name.startswith("seg.zarr.floodem")}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert segment(*command).code == 0


def test_too_little_space_is_said_before_anything_is_read(disk):
    fill(disk, but=100_000)
    sentence = refused(
        *("segment", "em.npy", "seg.zarr", *OPTIONS),
        says=("box 0:24,0:40,0:64 needs 1.60 MB", "0.10 MB are free", "free some space"),
    )
    assert "seg.zarr" in sentence


@pytest.mark.parametrize("destination", ["copy.zarr", "copy.h5", "copy.npz", "mine.h5@more"])
def test_a_full_disk_stops_convert_without_leaving_anything(disk, destination):
    rng = np.random.default_rng(1)
    np.save("noise.npy", rng.integers(0, 2**63, (40, 50, 60)))
    make_destination("h5")
    fill(disk, but=300_000)
    refused("convert", "noise.npy", destination, says=(destination, "free"))


def test_a_full_disk_stops_import_model_without_leaving_anything(disk):
    write_bundle(Path("model.ckpt-7"), conv_stack_variables(depth=3, features=8))
    fill(disk)
    refused(*import_model("new/m.safetensors"), says=("m.safetensors", NO_SPACE))


def import_model(destination: str) -> tuple[str, ...]:
    return (
        *("import-model", "model.ckpt-7", destination, "--fov", "17,33,33", "--deltas", "4,8,8"),
        *("--image-mean", "131", "--image-stddev", "62", "--voxel-size", "30,6,6"),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file sizes")
@pytest.mark.parametrize(
    ("destination", "limit", "says"),
    [
        ("seg.zarr", 100_000, ("seg.zarr.floodem/", "File too large")),
        ("seg.npy", 400_000, ("seg.npy", "File too large")),
        ("mine.h5@labels", 900_000, ("mine.h5", "File too large")),
    ],
)
def test_a_limit_on_file_sizes_is_survived(tmp_path, monkeypatch, destination, limit, says):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    with h5py.File("mine.h5", "w") as file:
        file["raw"] = np.random.default_rng(1).integers(0, 255, 10**6, np.uint8)
    before = everything_in(tmp_path)
    script = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'floodem', *sys.argv[1:]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "segment", "em.npy", destination, *OPTIONS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    (line,) = (said for said in done.stderr.splitlines() if not said.startswith("note: "))
    assert line.startswith("error: ")
    assert all(words in line for words in says), line
    assert everything_in(tmp_path) == before
    assert segment("em.npy", destination).code == 0


@pytest.fixture
def read_only(disk) -> Path:
    """The small disk, read-only; beside it a writable folder, which is the working directory."""
    make_destination("h5")
    write_bundle(Path("model.ckpt-7"), conv_stack_variables(depth=1, features=2))
    os.chdir("..")
    mount("-o", "remount,ro", str(disk))
    return disk


@pytest.mark.parametrize(
    "command",
    [
        ("segment", "disk/em.npy", "disk/seg.zarr"),
        ("segment", "disk/em.npy", "disk/mine.h5@labels"),
        ("segment", "disk/em.npy", "disk/new/seg.npz"),
        ("segment", "disk/em.npy", "seg.zarr", "--probabilities", "disk/p.zarr"),
        ("segment", "disk/em.npy", "seg.zarr", "--probabilities", "disk/mine.h5@p"),
        ("convert", "disk/em.npy", "disk/copy.zarr"),
        ("convert", "disk/em.npy", "disk/mine.h5@copy"),
        ("convert", "disk/em.npy", "disk/new/copy.npz"),
        ("import-model", "disk/model.ckpt-7", "disk/m2.safetensors"),
        ("import-model", "disk/model.ckpt-7", "disk/new/m2.safetensors"),
    ],
    ids=" ".join,
)
def test_a_read_only_target_is_refused(read_only, command):
    options = {
        "segment": ("--model", "disk/m.safetensors", *OPTIONS[2:]),
        "convert": (),
        "import-model": import_model("")[3:],
    }
    target = next(word for word in reversed(command) if word.startswith("disk/"))
    says = (target.partition("@")[0].rpartition("/")[0], READ_ONLY, "check the address, the rights")
    refused(*command, *options[command[0]], says=says)


def test_inputs_may_be_on_a_read_only_disk(read_only):
    options = ("--model", "disk/m.safetensors", *OPTIONS[2:])
    assert floodem("segment", "disk/mine.h5@raw", "seg.zarr", *options).code == 0
    assert floodem("convert", "disk/mine.h5@raw", "copy.zarr").code == 0
    assert floodem("import-model", "disk/model.ckpt-7", *import_model("m2")[2:]).code == 0
