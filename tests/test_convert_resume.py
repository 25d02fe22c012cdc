"""A conversion that was stopped: what stays, what goes on, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions import CHUNKED, RESUMABLE, WHOLE, After, contents, options_for, uris
from floodem.errors import (
    DestinationExistsError,
    LabelError,
    RunConflictError,
    StoppedError,
    StorageError,
)
from floodem.files import exclusive
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes import (
    convert,
    create_volume,
    open_volume,
    verify,
)
from floodem.volumes.chunked import volume as chunked_volume
from floodem.volumes.conversion import block_plan
from floodem.volumes.conversion.destination import work_place
from floodem.volumes.conversion.journal import LocalJournal
from floodem.volumes.conversion.receipts import Receipt, read_line, receipt_for
from floodem.volumes.conversion.record import ConversionRecord, Status
from floodem.volumes.location import parse_location
from floodem.volumes.staging import Staged
from volume_cases import Case

SHAPE: Zyx = (8, 9, 10)
SIZE = VoxelSize(30, 6, 4)
ARRAY = (np.arange(720, dtype=np.uint16) % 251).astype(np.uint8).reshape(SHAPE)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 150)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "em.h5"
    with create_volume(
        path, shape=SHAPE, dtype="uint8", voxel_size=SIZE, offset=(5, 0, -3), chunks=(2, 3, 4)
    ) as new:
        new.write(new.box, ARRAY)
    return path


def stop_after(questions: int, source: Any, to: str, **options: Any) -> str:
    with pytest.raises(StoppedError) as stop:
        convert(source, to, threads=1, should_stop=After(questions), **options)
    return str(stop.value)


# --- going on ------------------------------------------------------------------------


@pytest.mark.parametrize("questions", [2, 4, 7])
@pytest.mark.parametrize("case", RESUMABLE, ids=str)
def test_a_stopped_conversion_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, source: Path, case: Case, questions: int
) -> None:
    options = options_for(case)
    whole, _ = uris(tmp_path / "whole", case)
    convert(source, whole, **options)
    to, record = uris(tmp_path / "to", case)
    said = stop_after(questions, source, to, **options)
    assert said.endswith("run the same command again to go on")
    assert (record / "running" / "receipts.txt").stat().st_size > 0
    assert not work_place(parse_location(to)).with_name(Path(to).name).exists()
    made = convert(source, to, **options)
    assert made.resumed_blocks > 0
    assert not made.was_finished
    assert contents(tmp_path / "to") == contents(tmp_path / "whole")
    assert sorted(os.listdir(record)) == ["conversion.json", "lock", "receipts.txt"]
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)


@pytest.mark.parametrize("case", CHUNKED, ids=str)
def test_what_has_a_receipt_is_not_written_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    to, _ = uris(tmp_path / "to", case)
    options = options_for(case)
    written: list[Box] = []
    write = chunked_volume.ChunkedVolume._write

    def note(self: Any, box: Box, array: Any) -> None:
        written.append(box)
        write(self, box, array)

    monkeypatch.setattr(chunked_volume.ChunkedVolume, "_write", note)
    stop_after(4, source, to, **options)
    assert len(written) > 3
    convert(source, to, threads=1, **options)
    assert len(set(written)) == len(written)
    assert sum(box.size for box in written) == ARRAY.size


@pytest.mark.parametrize("questions", [3, 12, 30])
def test_pyramids_and_new_labels_go_on_as_well(
    tmp_path: Path, source: Path, questions: int
) -> None:
    options: dict[str, Any] = {"chunks": (2, 3, 4), "pyramid": 2, "relabel": True}
    convert(source, tmp_path / "whole" / "to.zarr", **options)
    stop_after(questions, source, str(tmp_path / "to" / "to.zarr"), **options)
    made = convert(source, tmp_path / "to" / "to.zarr", **options)
    assert made.labels == 250
    assert contents(tmp_path / "to") == contents(tmp_path / "whole")
    first, second = (
        (tmp_path / name / "to.zarr.floodem" / "relabel.csv").read_text()
        for name in ("to", "whole")
    )
    assert first == second


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_files_written_as_a_whole_begin_again_and_leave_nothing(
    tmp_path: Path, source: Path, case: Case
) -> None:
    to, record = uris(tmp_path / "to", case)
    dtype = "int16" if case.name == "mrc" else None
    said = stop_after(1, source, to, dtype=dtype)
    assert "the same command begins again" in said
    assert not (tmp_path / "to").exists()
    assert convert(source, to, dtype=dtype).resumed_blocks == 0
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)
    assert sorted(os.listdir(record)) == ["conversion.json", "lock", "receipts.txt"]


def test_a_finished_conversion_is_not_repeated_unless_asked(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to.zarr"
    assert not convert(source, to).was_finished
    before = contents(tmp_path)
    assert convert(source, to).was_finished
    assert contents(tmp_path) == before
    assert not convert(source, to, overwrite=True).was_finished


def test_a_finished_record_of_something_else_does_not_count(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to.zarr"
    convert(source, to)
    with create_volume(to, shape=(1, 2, 3), dtype="uint8", overwrite=True):
        pass
    with pytest.raises(DestinationExistsError):
        convert(source, to)


# --- conflicts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "uint16"}, "was begun with --dtype uint8, now uint16"),
        (
            {"box": Box((5, 0, -3), (6, 1, 0))},
            "was begun without --box, now with --box 5:6,0:1,-3:0",
        ),
        ({"chunks": (4, 4, 4)}, "was begun with --chunks 2,3,4, now 4,4,4"),
        ({"chunks": None}, "was begun with --chunks 2,3,4, now without"),
        ({"channel": 0}, "was begun without --channel, now with --channel 0"),
        ({"pyramid": 1}, "was begun with --pyramid 2, now 1"),
        ({"voxel_size": VoxelSize(20, 10, 2.5)}, "--voxel-size 10,10,10, now 20,10,2.5"),
        ({"relabel": True}, "was begun without --relabel, now with it"),
    ],
)
def test_other_options_are_refused_and_overwrite_begins_again(
    tmp_path: Path, source: Path, changes: dict, says: str
) -> None:
    to = str(tmp_path / "to.zarr")
    options: dict[str, Any] = {
        "chunks": (2, 3, 4),
        "dtype": "uint8",
        "pyramid": 2,
        "voxel_size": VoxelSize(10, 10, 10),
    }
    stop_after(3, source, to, **options)
    before = contents(tmp_path)
    with pytest.raises(RunConflictError) as conflict:
        convert(source, to, **{**options, **changes})
    assert says in str(conflict.value)
    assert "begin again with --overwrite" in str(conflict.value)
    assert contents(tmp_path) == before
    assert convert(source, to, **{**options, **changes}, overwrite=True).resumed_blocks == 0


def test_a_changed_source_is_refused(tmp_path: Path, source: Path) -> None:
    to = str(tmp_path / "to.zarr")
    stop_after(3, source, to, chunks=(2, 3, 4))
    os.utime(source, ns=(1, 1))
    with pytest.raises(RunConflictError, match="em.h5, whose files have changed since: "):
        convert(source, to, chunks=(2, 3, 4))


@pytest.mark.parametrize("name", ["src.zarr", "sections"])
def test_a_changed_chunk_or_section_of_the_source_is_noticed(
    tmp_path: Path, source: Path, name: str
) -> None:
    prefix = "" if "." in name else "png://"
    first = f"{prefix}{tmp_path / name}"
    convert(source, first, **({"chunks": (2, 3, 4)} if "." in name else {}))
    to = str(tmp_path / "to.zarr")
    stop_after(3, first, to, chunks=(2, 3, 4))
    changed = max(path for path in (tmp_path / name).rglob("*") if path.is_file())
    os.utime(changed, ns=(1, 1))
    with pytest.raises(RunConflictError, match="whose files have changed since: "):
        convert(first, to, chunks=(2, 3, 4))


def test_two_runs_on_one_destination_refuse_each_other(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "to.zarr.floodem"
    folder.mkdir()
    with (
        exclusive(folder / "lock", what="to.zarr"),
        pytest.raises(RunConflictError, match="another process is working on"),
    ):
        convert(source, tmp_path / "to.zarr")


def test_a_stopped_overwrite_keeps_what_is_there_until_it_is_complete(
    tmp_path: Path, source: Path
) -> None:
    to = str(tmp_path / "to.zarr")
    convert(source, to, chunks=(2, 3, 4))
    before = contents(tmp_path / "to.zarr")
    options = {"chunks": (2, 3, 5), "dtype": "uint16"}
    said = stop_after(3, source, to, overwrite=True, **options)
    assert said.endswith("run the same command again without --overwrite to go on")
    assert contents(tmp_path / "to.zarr") == before
    assert convert(source, to, **options).resumed_blocks > 0
    with open_volume(to) as copy:
        assert copy.dtype == np.uint16
        np.testing.assert_array_equal(copy.read(), ARRAY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["em.h5", "to.zarr", "to.zarr.floodem"]


# --- what fails ----------------------------------------------------------------------


def test_what_would_fail_again_leaves_nothing(tmp_path: Path, source: Path) -> None:
    wide = tmp_path / "wide.npy"
    np.save(wide, np.where(np.arange(720).reshape(SHAPE) < 700, 3, 300).astype(np.uint16))
    with pytest.raises(LabelError, match="300 do not fit"):
        convert(wide, tmp_path / "to.zarr", dtype="uint8", chunks=(2, 3, 4), threads=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["em.h5", "wide.npy"]


def test_a_full_disk_keeps_what_is_written(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = chunked_volume.ChunkedVolume._write
    left = [3]

    def fill_up(self: Any, box: Box, array: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("cannot write to.zarr: no space left; free some space")
        write(self, box, array)

    with monkeypatch.context() as patch:
        patch.setattr(chunked_volume.ChunkedVolume, "_write", fill_up)
        with pytest.raises(StorageError, match=r"free some space; what is written is kept, run"):
            convert(source, tmp_path / "to.zarr", chunks=(2, 3, 4), threads=1)
    assert convert(source, tmp_path / "to.zarr", chunks=(2, 3, 4)).resumed_blocks == 3


def test_a_block_that_reads_back_otherwise_is_reported_and_written_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = str(tmp_path / "to.zarr")
    write = chunked_volume.ChunkedVolume._write
    first = [True]

    def flip(self: Any, box: Box, array: Any) -> None:
        write(self, box, array + 1 if first[0] else array)
        first[0] = False

    monkeypatch.setattr(chunked_volume.ChunkedVolume, "_write", flip)
    with pytest.raises(StorageError, match=r"1 blocks of .* level 0, box 5:7,0:3,-3:"):
        convert(source, to, chunks=(2, 3, 4), threads=1)
    assert not Path(to).exists()
    made = convert(source, to, chunks=(2, 3, 4), threads=1)
    assert made.resumed_blocks == made.blocks - 1
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)


def test_chunks_lost_between_two_runs_are_written_again(tmp_path: Path, source: Path) -> None:
    to = str(tmp_path / "to.zarr")
    stop_after(9, source, to, chunks=(2, 3, 4))
    work = work_place(parse_location(to))
    lost = max(path for path in work.rglob("*") if path.is_file() and path.name[0] != ".")
    lost.unlink()
    with pytest.raises(StorageError, match="read back otherwise"):
        convert(source, to, chunks=(2, 3, 4))
    convert(source, to, chunks=(2, 3, 4))
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)


def test_without_its_work_place_a_conversion_begins_again(tmp_path: Path, source: Path) -> None:
    to = str(tmp_path / "to.zarr")
    stop_after(9, source, to, chunks=(2, 3, 4))
    work = work_place(parse_location(to))
    work.rename(tmp_path / "elsewhere")
    assert convert(source, to, chunks=(2, 3, 4)).resumed_blocks == 0


# --- dying at the end ----------------------------------------------------------------


class Died(BaseException):
    """Stands for a kill: nothing is cleaned up after it."""


@pytest.mark.parametrize("is_resumed", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("moment", ["before the swap", "after the swap", "before the record"])
@pytest.mark.parametrize("case", [CHUNKED[0], RESUMABLE[-1]], ids=str)
def test_dying_at_the_end_is_made_good(
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
    moment: str,
    overwrite: bool,
    is_resumed: bool,
) -> None:
    to, record = uris(tmp_path / "to", case)
    options = options_for(case)
    if overwrite:
        convert(source, to, box=Box((5, 0, -3), (7, 9, 7)))
    if is_resumed:
        stop_after(3, source, to, overwrite=overwrite, **options)

    def die(*args: Any, **named: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        if moment == "before the swap":
            patch.setattr(Staged, "_swap_folder", die)
        elif moment == "after the swap":
            patch.setattr(Staged, "_remove", die)
        else:
            patch.setattr(ConversionRecord, "finish", die)
        with pytest.raises(Died):
            convert(source, to, overwrite=overwrite and not is_resumed, **options)
    assert verify(to).is_whole
    assert json.loads((record / "running" / "conversion.json").read_text())["status"] == (
        Status.COMMITTING
    )
    made = convert(source, to, **options)
    assert made.resumed_blocks == made.blocks
    assert json.loads((record / "conversion.json").read_text())["status"] == Status.DONE
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)
    assert sorted(os.listdir(record)) == ["conversion.json", "lock", "receipts.txt"]
    assert not any("converting" in name for name in os.listdir(Path(record).parent))


# --- receipts ------------------------------------------------------------------------


def some_receipts() -> list[Receipt]:
    return [
        receipt_for(
            ARRAY[:2] + abs(z),
            level=z % 2,
            box=Box.from_shape((2, 9, 10), start=(z, 0, -4)),
            chunks=c,
        )
        for z, c in ((-4, (2, 9, 10)), (7, (2, 3, 4)), (20, (1, 9, 10)))
    ]


def test_receipts_come_back_from_their_lines() -> None:
    for receipt in some_receipts():
        assert read_line(receipt.line().rstrip("\n")) == receipt
    assert len(some_receipts()[1].cells_in((2, 3, 4))) == 9
    assert some_receipts()[0].cells_in((2, 9, 10)) == []


def test_a_journal_cut_at_any_byte_keeps_all_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "receipts.txt"
    receipts = some_receipts()
    with contextlib.closing(LocalJournal(path)) as journal:
        for receipt in receipts:
            journal.add(receipt)
    whole = path.read_bytes()
    ends = [len(receipts[0].line()), len(receipts[0].line() + receipts[1].line()), len(whole)]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = sum(length >= end - 1 for end in ends)  # the line feed says nothing
        assert len(LocalJournal(path).read()) == kept
        with contextlib.closing(LocalJournal(path)) as journal:
            journal.add(receipts[2])
        found = LocalJournal(path).read()
        assert found[receipts[2].key] == receipts[2]
        assert len(found) == max(kept, 1) + (kept in {1, 2})


def test_a_changed_bit_in_a_line_makes_it_none(tmp_path: Path) -> None:
    line = some_receipts()[1].line().rstrip("\n").encode()
    for at in range(len(line)):
        changed = bytearray(line)
        changed[at] ^= 1
        assert read_line(changed.decode("ascii", errors="replace")) in {
            None,
            read_line(line.decode()),
        }
        if changed[at : at + 1].lower() != line[at : at + 1].lower():
            assert read_line(changed.decode("ascii", errors="replace")) is None


def test_a_revoked_receipt_is_gone_until_it_is_written_anew(tmp_path: Path) -> None:
    first, second, _ = some_receipts()
    with contextlib.closing(LocalJournal(tmp_path / "receipts.txt")) as journal:
        journal.add(first)
        journal.add(second)
        journal.revoke(first)
        assert list(journal.read()) == [second.key]
        journal.add(first)
        assert len(journal.read()) == 2


# --- damaged records -----------------------------------------------------------------


GOOD = {"box": "0:1,0:1,0:1", "block": [1, 1, 1], "chunks": [1, 1, 1]}
MADE = {
    "format": "zarr",
    "dtype": "uint8",
    "is_lossy": False,
    "replaces": False,
    "labels": None,
    "levels": [GOOD],
}


def record_with(**made: Any) -> str:
    return json.dumps({"version": 1, "status": "running", "identity": {}, "made": {**MADE, **made}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2}',
        '{"version": 1, "status": "x"}',
        "[" * 100_000,
        record_with(levels=[]),
        record_with(levels=[{**GOOD, "box": "0:1"}]),
        record_with(levels=[{**GOOD, "box": "0:0,0:1,0:1"}]),
        record_with(levels=[{**GOOD, "block": [1, 0, 1]}]),
        record_with(levels=[{**GOOD, "chunks": None}]),
        record_with(replaces=None),
        record_with(dtype=7),
    ],
)
def test_a_damaged_record_is_refused_and_overwrite_begins_again(
    tmp_path: Path, source: Path, text: str
) -> None:
    to = str(tmp_path / "to.zarr")
    stop_after(3, source, to, chunks=(2, 3, 4))
    (tmp_path / "to.zarr.floodem" / "running" / "conversion.json").write_text(text)
    with pytest.raises(RunConflictError, match=r"conversion.json .*begin again with --overwrite"):
        convert(source, to, chunks=(2, 3, 4))
    assert convert(source, to, chunks=(2, 3, 4), overwrite=True).resumed_blocks == 0
