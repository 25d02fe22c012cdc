"""A damaged record of a run ends in one sentence, and in no result that nobody made."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from floodem.files import exclusive
from refusals import (
    OPTIONS,
    STOPPED,
    floodem,
    lay_out,
    leftovers,
    refused,
    results,
    segment,
    signals_at,
)

RECORD = Path("seg.zarr.floodem")
CHECKPOINT = RECORD / "checkpoint.npz"
RUN = RECORD / "run.json"
RECEIPT = RECORD / "receipts" / "0-24_0-40_0-64.json"
COMMAND = ("segment", "em.npy", "seg.zarr", *OPTIONS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders with a stopped run and with a finished one, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    for name, stops in (("stopped", (300,)), ("finished", ())):
        (folder / name).mkdir()
        lay_out(folder / name)
        with pytest.MonkeyPatch.context() as patch, signals_at(*stops):
            patch.chdir(folder / name)
            assert segment("em.npy", "seg.zarr").code == (STOPPED if stops else 0)
    return folder


@pytest.fixture
def use(made, tmp_path, monkeypatch):
    """Copy one of the folders and work there."""

    def copy(name):
        shutil.copytree(made / name, tmp_path / "here")
        monkeypatch.chdir(tmp_path / "here")

    return copy


def change_arrays(**changes):
    def change(content):
        with np.load(io.BytesIO(content)) as saved:
            arrays = {name: saved[name] for name in saved.files}
        arrays.update(changes)
        changed = io.BytesIO()
        np.savez(changed, **arrays)
        return changed.getvalue()

    return change


def change_state(**changes):
    def change(content):
        with np.load(io.BytesIO(content)) as saved:
            state = json.loads(saved["state"].tobytes())
        text = json.dumps({**state, **changes}).encode()
        return change_arrays(state=np.frombuffer(text, np.uint8))(content)

    return change


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "other": lambda content: b"not what it was\n" * 9,
}
CHECKPOINT_DAMAGES = {
    **DAMAGES,
    "a flipped bit": flip_a_bit,
    "no state": change_arrays(state=np.frombuffer(b"[1]", np.uint8)),
    "version": change_state(version=99),
    "seed beyond the last": change_state(next_seed=10**9),
    "seed before the first": change_state(next_seed=-5),
    "seed as a word": change_state(next_seed="first"),
    "counters": change_state(counters=3),
    "origins": change_state(origins=[3]),
    "an origin": change_state(origins={"1": {"start": [1, 2, 3], "end": "tired"}}),
    "overlaps": change_state(overlaps={"1": 3}),
    "flood": change_state(flood={"seed": [1, 2, 3]}),
    "shape": change_arrays(segmentation=np.zeros((3, 3, 3), np.uint32)),
    "type": change_arrays(segmentation=np.zeros((24, 40, 64))),
    "seeds": change_arrays(seeds=np.zeros((5, 2), np.int64)),
    "outcomes": change_arrays(outcomes=np.zeros(5, np.uint8)),
    "objects": change_arrays(seeds=np.array([object()], dtype=object)),
}


@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGES.values(), ids=CHECKPOINT_DAMAGES.keys())
def test_a_damaged_checkpoint_is_refused_and_overwrite_begins_again(use, damage):
    use("stopped")
    CHECKPOINT.write_bytes(damage(CHECKPOINT.read_bytes()))
    refused(*COMMAND, says=("checkpoint.npz", "--overwrite"))
    assert floodem(*COMMAND, "--overwrite").code == 0
    assert not CHECKPOINT.exists()


RUN_DAMAGES = {
    **DAMAGES,
    "a list": lambda content: b"[1]",
    "brackets": lambda content: b"[" * 100_000,
    "no identity": lambda content: b'{"version": 1}',
    "identity": lambda content: b'{"version": 1, "identity": [1]}',
    "version": lambda content: b'{"version": 7}',
    "no text": lambda content: b"\xff\xfe",
}


@pytest.mark.parametrize("name", ["stopped", "finished"])
@pytest.mark.parametrize("damage", RUN_DAMAGES.values(), ids=RUN_DAMAGES.keys())
def test_a_damaged_run_file_is_refused(use, name, damage):
    use(name)
    RUN.write_bytes(damage(RUN.read_bytes()))
    refused(*COMMAND, says=("run.json", "begin again with --overwrite", "another destination"))


RECEIPT_DAMAGES = {
    **DAMAGES,
    "no summary": lambda content: b'{"version": 1}',
    "empty summary": lambda content: b'{"version": 1, "summary": {}}',
    "version": lambda content: b'{"version": 7, "summary": {}}',
}


@pytest.mark.parametrize("damage", RECEIPT_DAMAGES.values(), ids=RECEIPT_DAMAGES.keys())
def test_a_damaged_receipt_is_refused_and_overwrite_begins_again(use, damage):
    use("finished")
    RECEIPT.write_bytes(damage(RECEIPT.read_bytes()))
    refused(*COMMAND, says=(RECEIPT.name, "begin again with --overwrite"))
    assert floodem(*COMMAND, "--overwrite").code == 0


@pytest.mark.parametrize("path", [RUN, RECEIPT, RECORD / "receipts"], ids=lambda path: path.name)
def test_a_record_with_folders_for_files_or_files_for_folders_is_refused(use, path):
    use("finished")
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("no folder", encoding="utf-8")
    else:
        path.unlink()
        path.mkdir()
    refused(*COMMAND, says=(path.name,))


def test_a_checkpoint_without_its_run_is_not_taken_for_one(use):
    """It may have been begun with other options, which only run.json knows."""
    use("stopped")
    RUN.unlink()
    assert floodem(*COMMAND, "--box", "0:24,0:40,0:60").code == 0
    assert "resumed" not in (RECORD / "log.txt").read_text(encoding="utf-8")


def test_a_result_whose_record_is_gone_is_not_ours(use):
    use("finished")
    shutil.rmtree(RECORD)
    refused(*COMMAND, says=("seg.zarr exists already", "--overwrite"))


@pytest.mark.parametrize("lost", ["seg.zarr", "receipts", "both"])
def test_what_was_lost_of_a_finished_run_is_made_again(use, lost):
    use("finished")
    whole = results("seg.zarr", str(RECORD))
    if lost != "receipts":
        shutil.rmtree("seg.zarr")
    if lost != "seg.zarr":
        RECEIPT.unlink()
    assert floodem(*COMMAND).code == 0
    assert results("seg.zarr", str(RECORD)) == whole


def test_a_damaged_result_is_refused_and_overwrite_begins_again(use):
    use("finished")
    Path("seg.zarr/.zarray").write_text("{}", encoding="utf-8")
    refused(*COMMAND, says=("seg.zarr", "damaged"))
    assert floodem(*COMMAND, "--overwrite").code == 0


def test_what_killed_processes_left_is_removed(use):
    use("stopped")
    for name in (".checkpoint.npz.99999.partial", "receipts/.0.json.99999.partial", "begin.npz"):
        (RECORD / name).parent.mkdir(exist_ok=True)
        (RECORD / name).write_bytes(b"half")
    assert floodem(*COMMAND).code == 0
    assert leftovers(Path()) == []
    assert not (RECORD / "begin.npz").exists()


@pytest.mark.parametrize("name", ["stopped", "finished"])
def test_a_destination_that_another_process_holds_is_refused(use, name):
    use(name)
    with exclusive(RECORD / "lock", what="seg.zarr"):
        refused(*COMMAND, says=("another process is working on seg.zarr", "wait for it"))
        refused(*COMMAND, "--overwrite", says=("another process is working on seg.zarr",))
