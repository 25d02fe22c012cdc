"""The result of a cut run is held against what its tasks said that they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assembly_cases import PLAN, SIZE, made, truth
from conversions import After
from floodem.assembly.destination import LabelDestination
from floodem.assembly.output_levels import level_tasks, write_level_task
from floodem.assembly.placing import finish
from floodem.assembly.run_record import RunRecord
from floodem.assembly.verification import CUT, destination_of, is_cut_run, verify_cut_run
from floodem.assembly.writing import write_core_task, write_tasks
from floodem.cluster import run_tasks
from floodem.errors import RunConflictError, StoppedError
from floodem.flooding.run_folder import RunStatus
from floodem.volumes import open_volume
from floodem.volumes.servers.transport import open_store


def finished(uri: str, **options: Any) -> LabelDestination:
    """Do all stages behind the floods as a run does."""
    destination = LabelDestination.choose(uri, plan=PLAN, voxel_size=SIZE, **options)
    record = RunRecord(uri)
    plan = {**destination.to_json(), CUT: PLAN.to_json()}
    record.begin({"model": "m"}, plan=plan, about={}, replaces=False)
    destination, store = made(uri, **options)
    receipts = f"{record.address}/receipts"
    run_tasks(
        write_core_task,
        write_tasks(destination, store=store),
        receipts=f"{receipts}/labels",
        identity={},
    )
    for level in range(1, 1 + len(destination.factors)):
        run_tasks(
            write_level_task,
            level_tasks(destination, level),
            receipts=f"{receipts}/level-{level}",
            identity={},
        )
    finish(destination)
    record.state(RunStatus.DONE, summary={"segments": 9})
    return destination


@pytest.fixture(params=["seg.zarr", "seg.h5", "seg.npy", "precomputed://seg", "s3"])
def uri(request: Any, tmp_path: Path, no_servers: None) -> str:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return "zarr://s3://bucket/seg"
    format_, separator, path = request.param.rpartition("://")
    return f"{format_}{separator}{tmp_path / path}"


def test_what_a_cut_run_has_written_is_whole(uri):
    finished(uri)
    assert is_cut_run(uri)
    seen: list[float] = []
    check = verify_cut_run(uri, progress=lambda progress: seen.append(progress.done))
    assert check.is_whole
    assert check.segments == 9
    assert check.box == PLAN.box
    assert seen[-1] == PLAN.box.size


@pytest.mark.parametrize("level", [0, 1])
def test_changed_labels_are_found_on_every_level(tmp_path, level):
    uri = f"{tmp_path}/seg.zarr"
    finished(uri, levels=1)
    with open_volume(uri, level=level, writable=True) as labels:
        array = labels.read()
        array[-1, -1, -1] += 1
        labels.write(labels.box, array)
    (damage,) = verify_cut_run(uri).damages
    assert damage.startswith(f"level {level}, box ")
    assert damage.endswith("holds other labels than were written")


def test_missing_receipts_and_unreadable_chunks_are_named(tmp_path):
    uri = f"{tmp_path}/seg.zarr"
    finished(uri, levels=0)
    (tmp_path / "seg.zarr.floodem" / "receipts" / "labels" / "0000-0000-0000.json").write_text("{")
    (tmp_path / "seg.zarr" / "1" / "1" / "1").write_bytes(b"no zstd")
    damages = verify_cut_run(uri).damages
    assert len(damages) == 2
    assert "receipts/labels/0000-0000-0000.json is missing or damaged" in damages[0]
    assert damages[1].startswith("level 0, box 15:27,5:15,30:40 (z,y,x): cannot read")


def test_a_run_that_is_not_finished_is_not_verified(tmp_path):
    uri = f"{tmp_path}/seg.zarr"
    assert not is_cut_run(uri)
    finished(uri)
    RunRecord(uri).state(RunStatus.WRITING)
    with pytest.raises(RunConflictError, match="is not finished: run the same"):
        verify_cut_run(uri)


def test_a_check_can_be_stopped(tmp_path):
    uri = f"{tmp_path}/seg.zarr"
    finished(uri)
    with pytest.raises(StoppedError, match="before everything was checked"):
        verify_cut_run(uri, should_stop=After(2))


def test_a_destination_comes_back_from_its_record(tmp_path):
    uri = f"{tmp_path}/seg.zarr"
    destination = finished(uri, levels=2)
    values = RunRecord(uri).read()
    assert values is not None
    again = destination_of(uri, values["plan"])
    assert (again.plan, again.factors, again.chunks) == (PLAN, destination.factors, (12, 10, 20))
    for broken in ({}, {**values["plan"], CUT: 5}, {**values["plan"], "levels": [[1]]}):
        with pytest.raises(RunConflictError, match="its plan"):
            destination_of(uri, broken)


def test_labels_are_those_that_were_written(tmp_path):
    """The twin of the checks above, which compare checksums alone."""
    uri = f"{tmp_path}/seg.h5"
    destination = finished(uri)
    with open_volume(uri) as labels:
        np.testing.assert_array_equal(labels.read(), truth())
    assert open_store(destination.work).names("receipts/labels/")
