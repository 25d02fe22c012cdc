"""Tasks are done once each, whatever interrupts them, in one process or in several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from floodem.cluster import Crew, Task, run_tasks
from floodem.errors import (
    LabelError,
    OptionError,
    ResourceError,
    RunConflictError,
    StoppedError,
    VolumeFormatError,
)
from task_cases import IDENTITY, is_running, note_down, tasks_for, times_done


def refuse(argument):
    if argument == 2:
        raise LabelError("label -1 is negative")
    return {}


def die(argument):
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_and_results_come_in_the_order_of_the_tasks(tmp_path, workers):
    told = []
    results = run_tasks(
        note_down,
        tasks_for(tmp_path, 7),
        receipts=tmp_path / "receipts",
        identity=IDENTITY,
        crew=Crew(workers=workers),
        progress=lambda done, total: told.append((done, total)),
    )
    assert results == [{"square": number**2} for number in range(7)]
    assert times_done(tmp_path) == dict.fromkeys(range(7), 1)
    assert told == [(done, 7) for done in range(8)]


def test_several_workers_are_processes_of_their_own(tmp_path):
    run_tasks(
        note_down,
        tasks_for(tmp_path, 6),
        receipts=tmp_path / "receipts",
        identity=IDENTITY,
        crew=Crew(workers=2),
    )
    who = {log.read_text(encoding="ascii").strip() for log in tmp_path.glob("*.log")}
    assert str(os.getpid()) not in who


def test_what_has_a_receipt_is_not_done_again(tmp_path):
    def run(count):
        return run_tasks(
            note_down,
            tasks_for(tmp_path, count),
            receipts=tmp_path / "receipts",
            identity=IDENTITY,
        )

    run(3)
    assert run(5) == [{"square": number**2} for number in range(5)]
    assert times_done(tmp_path) == dict.fromkeys(range(5), 1)


def test_receipts_of_other_work_are_refused_and_stay(tmp_path):
    work = {"receipts": tmp_path / "receipts"}
    run_tasks(note_down, tasks_for(tmp_path, 2), identity=IDENTITY, **work)
    with pytest.raises(RunConflictError, match="other options"):
        run_tasks(note_down, tasks_for(tmp_path, 3), identity={"threshold": 0.7}, **work)
    assert times_done(tmp_path) == {0: 1, 1: 1}
    run_tasks(note_down, tasks_for(tmp_path, 2), identity=IDENTITY, **work)


def test_the_order_of_an_identitys_keys_means_nothing(tmp_path):
    work = {"receipts": tmp_path / "receipts"}
    run_tasks(note_down, tasks_for(tmp_path, 1), identity={"a": 1, "b": 2}, **work)
    run_tasks(note_down, tasks_for(tmp_path, 1), identity={"b": 2, "a": 1}, **work)
    assert times_done(tmp_path) == {0: 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_told_to_stop_it_finishes_what_is_begun_and_goes_on_later(tmp_path, workers):
    work = {"receipts": tmp_path / "receipts", "identity": IDENTITY, "crew": Crew(workers=workers)}
    tasks = tasks_for(tmp_path, 12)
    with pytest.raises(StoppedError, match="of 12 tasks"):
        run_tasks(note_down, tasks, should_stop=lambda: len(times_done(tmp_path)) >= 2, **work)
    assert 2 <= len(times_done(tmp_path)) < 12
    assert run_tasks(note_down, tasks, **work)[11] == {"square": 121}
    assert times_done(tmp_path) == dict.fromkeys(range(12), 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_refusal_of_a_task_reaches_the_caller_as_it_is(tmp_path, workers):
    tasks = [Task(key=str(number), argument=number) for number in range(5)]
    with pytest.raises(LabelError, match="label -1 is negative"):
        run_tasks(
            refuse,
            tasks,
            receipts=tmp_path / "receipts",
            identity=IDENTITY,
            crew=Crew(workers=workers),
        )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_worker_is_told_in_one_sentence(tmp_path):
    tasks = [Task(key=str(number), argument=number) for number in range(4)]
    with pytest.raises(ResourceError, match="fewer workers"):
        run_tasks(
            die, tasks, receipts=tmp_path / "receipts", identity=IDENTITY, crew=Crew(workers=2)
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 9}'])
def test_a_damaged_receipt_is_named(tmp_path, content):
    (tmp_path / "task-0.json").write_text(content, encoding="utf-8")
    with pytest.raises(VolumeFormatError, match="task-0.json"):
        run_tasks(note_down, tasks_for(tmp_path, 1), receipts=tmp_path, identity=IDENTITY)


@pytest.mark.parametrize("key", ["", "../a", "a/b", "a b", "a.json"])
def test_a_key_that_is_no_file_name_is_refused(tmp_path, key):
    with pytest.raises(OptionError, match="task key"):
        run_tasks(
            note_down, [Task(key=key, argument=0)], receipts=tmp_path / "r", identity=IDENTITY
        )


def test_two_tasks_of_one_key_and_no_worker_are_refused(tmp_path):
    twice = [Task(key="a", argument=0), Task(key="a", argument=1)]
    with pytest.raises(OptionError, match="one key"):
        run_tasks(note_down, twice, receipts=tmp_path / "r", identity=IDENTITY)
    with pytest.raises(OptionError, match="0 workers"):
        Crew(workers=0)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from task_cases import IDENTITY, wait_long, tasks_for
from floodem.cluster import Crew, run_tasks
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_tasks(wait_long, tasks_for(folder, 4), receipts=folder / "r", identity=IDENTITY,
              crew=Crew(workers=2))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_workers_end_with_a_killed_parent_and_finished_tasks_keep_their_receipts(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "3.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    workers = {int(path.read_text(encoding="ascii")) for path in tmp_path.glob("*.pid")}
    assert len(workers) >= 2
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    receipts = sorted(path.name for path in (tmp_path / "r").glob("*.json"))
    assert receipts == ["task-0.json", "task-1.json"]
    assert json.loads((tmp_path / "r" / "task-0.json").read_text(encoding="utf-8"))["result"] == {}


GROUP = """
import os, signal, sys, threading
sys.path.insert(0, {tests!r})
from pathlib import Path
from task_cases import IDENTITY, slow_square
from floodem.cluster import Crew, Task, run_tasks
from floodem.errors import StoppedError
if __name__ == "__main__":
    asked = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    def tell(done, total):
        if done == 1:
            os.killpg(os.getpgid(0), signal.SIGTERM)
    tasks = [Task(key=str(number), argument=number) for number in range(8)]
    try:
        run_tasks(slow_square, tasks, receipts=Path(sys.argv[1]), identity=IDENTITY,
                  crew=Crew(workers=2), progress=tell, should_stop=lambda: bool(asked))
    except StoppedError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups of signals")
def test_a_signal_to_all_processes_stops_politely(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GROUP.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "r")],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "run the same command again to go on" in ended.stdout, ended.stderr
