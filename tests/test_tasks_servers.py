"""Receipts and leases on servers: written once, whatever goes wrong between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import task_cases
from floodem.cluster import Crew, Task, leases, run_tasks
from floodem.cluster.holding import holding
from floodem.cluster.lease_holder import Holder
from floodem.cluster.receipts import Receipts, identity_digest
from floodem.errors import (
    RunConflictError,
    StoppedError,
    StorageError,
    VolumeFormatError,
)
from servers.base import LOST, RESET, STALL, TRUNCATE, Fault
from task_cases import IDENTITY, tasks_for, times_done

SQUARES = [{"square": number**2} for number in range(6)]


@pytest.fixture(autouse=True)
def environment(no_servers, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES_AFTER_S", 1.5)
    monkeypatch.setattr(leases, "RENEWED_EVERY_S", 0.2)
    monkeypatch.setattr(leases, "LOOKED_EVERY_S", 0.05)


@pytest.fixture
def work(bucket):
    return {"receipts": f"{bucket.root}/work/receipts", "identity": IDENTITY}


@pytest.mark.parametrize("workers", [1, 2])
def test_receipts_lie_on_the_server_and_nothing_is_done_again(tmp_path, bucket, work, workers):
    tasks = tasks_for(tmp_path, 6)
    for _ in range(2):
        assert run_tasks(task_cases.note_down, tasks, crew=Crew(workers=workers), **work) == SQUARES
    assert times_done(tmp_path) == dict.fromkeys(range(6), 1)
    assert sorted(bucket.objects) == [f"work/receipts/task-{number}.json" for number in range(6)]


def test_many_receipts_are_read_at_once_and_those_of_others_are_refused(tmp_path, bucket, work):
    receipts = Receipts(work["receipts"], identity_digest(IDENTITY))
    for number in range(150):
        receipts.write(f"task-{number}", {"square": number})
    found = receipts.read_all(f"task-{number}" for number in range(200))
    assert found == {f"task-{number}": {"square": number} for number in range(150)}
    assert receipts.missing(["task-149", "task-150"]) == {"task-150"}
    with pytest.raises(RunConflictError, match=f"{bucket.root}/work/receipts holds work"):
        run_tasks(
            task_cases.note_down,
            tasks_for(tmp_path, 3),
            receipts=work["receipts"],
            identity={"threshold": 0.7},
        )


def of_writes(bucket, kind, *, name="", **options):
    """Let writes go wrong; Google's name what they write in the query and not in the path."""
    if bucket.root.startswith("s3"):
        return Fault(kind, method="PUT", inside=name, **options)
    return Fault(kind, method="POST", inside="upload", **options)


@pytest.mark.parametrize("kind", [503, RESET, LOST, TRUNCATE])
def test_reads_that_go_wrong_cost_no_task(tmp_path, bucket, work, kind):
    tasks = tasks_for(tmp_path, 6)
    for _ in range(2):
        bucket.faults = [Fault(kind, times=2, inside="task-3", method="GET")]
        assert run_tasks(task_cases.note_down, tasks, **work) == SQUARES
        assert bucket.faults[0].done >= 1
    assert times_done(tmp_path) == dict.fromkeys(range(6), 1)


@pytest.mark.parametrize("kind", [503, 409, RESET, LOST])
def test_writes_that_go_wrong_cost_no_task_and_double_none(tmp_path, bucket, work, kind):
    bucket.faults = [of_writes(bucket, kind, name="task-", times=2, skip=3)]
    assert run_tasks(task_cases.note_down, tasks_for(tmp_path, 6), **work) == SQUARES
    assert bucket.faults[0].done == 2
    assert times_done(tmp_path) == dict.fromkeys(range(6), 1)
    assert len(bucket.objects) == 6


def test_a_server_that_stalls_is_asked_again(tmp_path, bucket, work, monkeypatch):
    stalled = Fault(STALL, times=2, inside="task-2")
    bucket.faults = [stalled]
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from task_cases import *\n"
        "from floodem.cluster import run_tasks\n"
        "print(run_tasks(note_down, tasks_for(sys.argv[1], 6), receipts=sys.argv[2],\n"
        "                identity=IDENTITY))"
    )
    # A process of its own, as tensorstore reads the patience of its connections only once.
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "6")
    environment = {name: value for name, value in os.environ.items() if "_CURL_" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), work["receipts"]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout.strip() == str(SQUARES), ended.stderr
    assert stalled.done == 2


def test_a_server_that_denies_is_named_without_secrets(tmp_path, bucket, work):
    bucket.faults = [Fault(403, times=1000)]
    with pytest.raises(StorageError, match="denies access"):
        run_tasks(task_cases.note_down, tasks_for(tmp_path, 2), **work)
    assert times_done(tmp_path) == {}


def test_signed_queries_never_reach_receipts(bucket, work, tmp_path):
    receipts = Receipts(work["receipts"], "digest")
    told = receipts.write("a", {"uri": "https://me:word@host/em?X-Amz-Signature=secret"})
    assert told == {"uri": "https://host/em"}
    assert b"secret" not in b"".join(bucket.objects.values())
    assert b"word" not in b"".join(bucket.objects.values())


def test_a_web_address_is_refused_as_a_place_for_receipts(web, tmp_path):
    with pytest.raises(StorageError, match="cannot be written"):
        run_tasks(
            task_cases.note_down,
            tasks_for(tmp_path, 2),
            receipts=f"{web.address}/work",
            identity=IDENTITY,
        )


@pytest.mark.parametrize("where", ["disk", "server"])
def test_the_first_of_two_that_do_one_task_wins_and_its_result_is_given(
    tmp_path, bucket, work, where
):
    place = work["receipts"] if where == "server" else str(tmp_path / "receipts")
    first = Receipts(place, identity_digest(IDENTITY))
    tasks = [Task(key=key, argument=(first, key)) for key in ("a", "b")]
    found = run_tasks(task_cases.write_result_twice, tasks, receipts=place, identity=IDENTITY)
    assert found == [{"seconds": 1}, {"seconds": 1}]
    assert first.read("a") == {"seconds": 1}
    other = Receipts(place, "other")
    with pytest.raises(RunConflictError, match="other options"):
        other.write("a", {"seconds": 3})


def test_of_many_that_write_one_receipt_at_once_all_are_told_the_same(tmp_path, bucket, work):
    for place in (work["receipts"], str(tmp_path / "receipts")):
        Path(tmp_path, "receipts").mkdir(exist_ok=True)
        told: list[Any] = []
        start = threading.Barrier(8)

        def write(number, place=place, told=told, start=start):
            receipts = Receipts(place, "digest")
            start.wait()
            told.append(receipts.write("a", {"who": number}))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 8
        assert all(one == told[0] == Receipts(place, "digest").read("a") for one in told)
    assert [path.name for path in (tmp_path / "receipts").iterdir()] == ["a.json"]


def test_a_damaged_receipt_on_a_server_is_named(bucket, work, tmp_path):
    bucket.put("work/receipts/task-0.json", b"{")
    with pytest.raises(VolumeFormatError, match=f"{bucket.root}/work/receipts/task-0.json"):
        run_tasks(task_cases.note_down, tasks_for(tmp_path, 1), **work)


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from task_cases import IDENTITY, slowly, tasks_for
from floodem.cluster import Crew, run_tasks
if __name__ == "__main__":
    run_tasks(slowly, tasks_for(sys.argv[1], 30), receipts=sys.argv[2], identity=IDENTITY,
              crew=Crew(workers=2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a dead process is watched minutes")
def test_a_killed_run_goes_on_at_once_on_the_same_machine(tmp_path, bucket, work):
    script = tmp_path / "script.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    command = [sys.executable, str(script), str(tmp_path), work["receipts"]]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while len(times_done(tmp_path)) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert "work/receipts/lock" in bucket.objects
    kept = sum(name.endswith(".json") for name in bucket.objects)
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=120)
    assert time.monotonic() - began < 60  # a lease of another machine is watched for 180 s
    done = times_done(tmp_path)
    assert set(done) == set(range(30))
    assert sum(done.values()) - 30 <= 2 + 2  # in flight when it was killed, or a moment after
    assert kept >= 4
    assert "work/receipts/lock" not in bucket.objects


def stranger(**values):
    """Return the lease of a process on another machine."""
    return Holder(host="elsewhere", process=1, token="theirs", started="2026-01-01", **values)


@pytest.fixture
def place(bucket):
    return f"{bucket.root}/work"


def hold(place, **options):
    return holding(place, crew=Crew(), what="the work", **options)


def test_a_lease_that_stays_as_it_is_is_taken_over_after_its_time_and_not_before(bucket, place):
    bucket.put("work/lock", stranger().encoded())
    began, notices = time.monotonic(), []
    with hold(place, notice=notices.append):
        waited = time.monotonic() - began
        assert Holder.parse(bucket.objects["work/lock"]).process == os.getpid()
    assert 1.5 <= waited < 10
    (notice,) = notices
    assert notice.startswith("the work was worked on by process 1 on elsewhere, since 2026-01-01")
    assert bucket.objects == {}


def test_a_lease_that_changes_is_of_somebody_alive_who_is_named(bucket, place):
    bucket.put("work/lock", stranger().encoded())
    timer = threading.Timer(0.5, bucket.put, ("work/lock", stranger(beats=1).encoded()))
    timer.start()
    with (
        pytest.raises(RunConflictError, match="process 1 on elsewhere, since 2026-01-01"),
        hold(place),
    ):
        pass
    assert Holder.parse(bucket.objects["work/lock"]).beats == 1


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"host": 1}', b"\xff", stranger(version=9).encoded()]
)
def test_a_lease_that_cannot_be_read_counts_as_somebodys_until_it_expires(bucket, place, data):
    bucket.put("work/lock", data)
    began = time.monotonic()
    with hold(place):
        assert time.monotonic() - began >= 1.5


def test_a_released_lease_is_taken_at_once(bucket, place, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES_AFTER_S", 60.0)
    bucket.put("work/lock", stranger(is_released=True).encoded())
    began = time.monotonic()
    with hold(place):
        assert time.monotonic() - began < 20


def test_who_waits_for_a_lease_can_be_stopped(bucket, place):
    bucket.put("work/lock", stranger().encoded())
    with pytest.raises(StoppedError, match="waiting"), hold(place, should_stop=lambda: True):
        pass


def test_a_lease_is_renewed_while_it_is_held(bucket, place):
    with hold(place) as held:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if json.loads(bucket.objects["work/lock"])["beats"] >= 3:
                break
            time.sleep(0.05)
        assert json.loads(bucket.objects["work/lock"])["beats"] >= 3
        assert not held.is_lost()


@pytest.mark.parametrize("kind", [503, RESET, LOST])
def test_answers_that_are_lost_lose_no_lease(bucket, place, kind, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES_AFTER_S", 10.0)
    bucket.faults = [of_writes(bucket, kind, name="lock", times=2, skip=1)]
    with hold(place) as held:
        deadline = time.monotonic() + 30
        while bucket.faults[0].times and time.monotonic() < deadline:
            time.sleep(0.05)
        held.require()
    assert bucket.objects == {}


def test_a_lease_that_somebody_removed_is_written_again(bucket, place):
    with hold(place) as held:
        with bucket.lock:
            bucket.objects.pop("work/lock")
        deadline = time.monotonic() + 30
        while "work/lock" not in bucket.objects and time.monotonic() < deadline:
            time.sleep(0.05)
        held.require()
        assert Holder.parse(bucket.objects["work/lock"]).process == os.getpid()


def test_a_lease_that_was_taken_over_stops_the_run_at_the_next_task(tmp_path, bucket, work):
    lock = "work/receipts/lock"

    def take_over(done, total):
        if done == 1:
            with bucket.lock:
                bucket.put(lock, stranger().encoded())
            time.sleep(1.0)

    tasks = tasks_for(tmp_path, 20)
    with pytest.raises(RunConflictError, match="another process took over"):
        run_tasks(task_cases.note_down, tasks, progress=take_over, **work)
    assert len(times_done(tmp_path)) == 1
    assert Holder.parse(bucket.objects[lock]).token == "theirs"


def test_a_lease_that_cannot_be_renewed_stops_the_run(tmp_path, bucket, work, monkeypatch):
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "0.5")

    def cut_off(done, total):
        if done == 1:
            bucket.faults = [of_writes(bucket, 503, name="lock", times=10**6)]
            time.sleep(2.0)

    with pytest.raises(RunConflictError, match="could not be renewed"):
        run_tasks(task_cases.note_down, tasks_for(tmp_path, 20), progress=cut_off, **work)
    assert len(times_done(tmp_path)) == 1


def test_of_several_that_wait_for_one_lease_one_gets_it(bucket, place):
    bucket.put("work/lock", stranger().encoded())
    ended: list[str] = []
    inside = threading.Semaphore(1)

    def take():
        try:
            with hold(place):
                assert inside.acquire(blocking=False)
                time.sleep(1.0)
                inside.release()
                ended.append("held")
        except RunConflictError:
            ended.append("refused")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["held", "refused", "refused", "refused"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its boot")
def test_a_dead_process_of_this_machine_is_known_to_be_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    here = Holder.ours()
    assert not here.is_gone()
    assert replace(here, process=process.pid).is_gone()
    assert not replace(here, process=process.pid, machine="another boot").is_gone()
