"""Shards share work without talking to each other, and runs that do not go together refuse."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import task_cases
from floodem.cluster import Crew, Shard, leases, run_tasks
from floodem.cluster.holding import holding, taking_rest
from floodem.errors import (
    EXIT_DONE,
    OptionError,
    RunConflictError,
    ShardDoneError,
    TasksFailedError,
)
from floodem.files import is_held
from task_cases import IDENTITY, tasks_for, times_done


def shard(text):
    return Crew(shard=Shard.parse(text))


@pytest.fixture(params=["disk", "s3", "gs"])
def place(request, tmp_path, no_servers, monkeypatch):
    """A folder, or an address of a server whose leases expire soon."""
    if request.param == "disk":
        return str(tmp_path / "work")
    monkeypatch.setattr(leases, "EXPIRES_AFTER_S", 2.0)
    monkeypatch.setattr(leases, "RENEWED_EVERY_S", 0.2)
    monkeypatch.setattr(leases, "LOOKED_EVERY_S", 0.05)
    request.getfixturevalue(request.param)
    return f"{request.param}://bucket/work"


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(OptionError, match="is no shard"):
        Shard.parse(text)


@given(count=st.integers(1, 40), tasks=st.integers(0, 200))
def test_every_task_is_of_exactly_one_shard(count, tasks):
    shards = [Shard(number=number, count=count) for number in range(1, count + 1)]
    assert all(sum(one.takes(at) for one in shards) == 1 for at in range(tasks))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_shards_in_any_order_do_all_and_the_last_one_has_all_results(tmp_path, place, order):
    tasks = tasks_for(tmp_path, 8)
    work: dict[str, Any] = {"receipts": place, "identity": IDENTITY}
    told: list[tuple[int, int]] = []
    left = 8
    for number in order[:-1]:
        own = len(range(number - 1, 8, 3))
        left -= own
        with pytest.raises(ShardDoneError, match=f"shard {number}/3 is done; {left} of") as caught:
            run_tasks(
                task_cases.note_down,
                tasks,
                crew=shard(f"{number}/3"),
                progress=lambda done, total: told.append((done, total)),
                **work,
            )
        assert told[-1] == (own, own)
        assert caught.value.exit_code == EXIT_DONE == 0
    results = run_tasks(task_cases.note_down, tasks, crew=shard(f"{order[-1]}/3"), **work)
    assert results == [{"square": number**2} for number in range(8)]
    assert times_done(tmp_path) == dict.fromkeys(range(8), 1)
    assert run_tasks(task_cases.note_down, tasks, **work) == results
    assert times_done(tmp_path) == dict.fromkeys(range(8), 1)


def test_a_run_without_shards_finishes_what_a_shard_began(tmp_path, place):
    tasks = tasks_for(tmp_path, 5)
    with pytest.raises(ShardDoneError, match="without --shard"):
        run_tasks(task_cases.note_down, tasks, receipts=place, identity=IDENTITY, crew=shard("1/2"))
    run_tasks(task_cases.note_down, tasks, receipts=place, identity=IDENTITY)
    assert times_done(tmp_path) == dict.fromkeys(range(5), 1)


def test_a_shard_tells_of_its_failures_first(tmp_path):
    with pytest.raises(TasksFailedError, match="3 of 3 tasks failed"):
        run_tasks(
            task_cases.refuse_odd,
            tasks_for(tmp_path, 6),
            receipts=tmp_path / "r",
            identity=IDENTITY,
            crew=shard("2/2"),
            keeps_going=True,
        )


def in_threads(*functions):
    """Run functions at once; return what each returned or raised."""
    results: list[Any] = [None] * len(functions)

    def run(at):
        try:
            results[at] = functions[at]()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_shards_at_once_do_each_task_once_and_one_has_all_results(tmp_path, place):
    tasks = tasks_for(tmp_path, 12)

    def run(number):
        return lambda: run_tasks(
            task_cases.slowly,
            tasks,
            receipts=place,
            identity=IDENTITY,
            crew=shard(f"{number}/3"),
        )

    ended = in_threads(run(1), run(2), run(3))
    assert times_done(tmp_path) == dict.fromkeys(range(12), 1)
    whole = [one for one in ended if isinstance(one, list)]
    assert whole
    assert all(one == [{"square": number**2} for number in range(12)] for one in whole)
    assert all(isinstance(one, list | ShardDoneError) for one in ended), ended


@pytest.mark.parametrize(
    ("first", "second", "go_together"),
    [
        (None, None, False),
        ("1/2", "1/2", False),
        ("1/2", "2/2", True),
        ("1/2", None, False),
        (None, "2/2", False),
        ("1/2", "2/3", False),
        ("1/2", "1/3", False),
    ],
)
def test_only_other_shards_of_one_count_work_side_by_side(place, first, second, go_together):
    one, two = (Crew() if text is None else shard(text) for text in (first, second))
    with holding(place, crew=one, what="the work"):
        if go_together:
            with holding(place, crew=two, what="the work"):
                pass
        else:
            with (
                pytest.raises(RunConflictError, match="another process.*working on the work"),
                holding(place, crew=two, what="the work"),
            ):
                pass
    with holding(place, crew=two, what="the work"):
        pass


def test_shards_leave_no_locks_behind(place, s3):
    with holding(place, crew=shard("1/2"), what="the work"):
        pass
    if place.startswith("s3"):
        assert not s3.objects
    else:
        # A folder stays: another shard may be about to lock a file in it.
        assert not list(Path(place).glob("*"))


def test_looking_at_a_lock_keeps_nobody_out(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    with holding(tmp_path, crew=Crew(), what="the work"):
        assert is_held(path)
    assert not is_held(path)


def test_what_follows_on_shards_is_done_by_one_of_them(tmp_path, place):
    tasks = tasks_for(tmp_path, 6)

    def run(number):
        return lambda: run_tasks(
            task_cases.slowly,
            tasks,
            receipts=place,
            identity=IDENTITY,
            crew=shard(f"{number}/3"),
            takes_rest=True,
        )

    ended = in_threads(run(1), run(2), run(3))
    assert times_done(tmp_path) == dict.fromkeys(range(6), 1)
    assert any(isinstance(one, list) for one in ended)
    for one in ended:
        if not isinstance(one, list):
            assert isinstance(one, ShardDoneError)
            assert "another one goes on" in str(one)
    late = run(2)()
    assert late == [{"square": number**2} for number in range(6)]


def test_the_rest_is_refused_to_a_run_without_shards_while_a_shard_does_it(place):
    with taking_rest(place, crew=shard("1/2"), what="the rest") as hold:
        assert hold.crew.shard is None
        with (
            pytest.raises(RunConflictError, match="another process"),
            taking_rest(place, crew=Crew(), what="the rest"),
        ):
            pass
        with (
            pytest.raises(ShardDoneError, match="shard 2/2 is done"),
            taking_rest(place, crew=shard("2/2"), what="the rest"),
        ):
            pass


SHARD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from task_cases import IDENTITY, slowly, tasks_for
from floodem.cluster import Crew, Shard, run_tasks
from floodem.errors import FloodemError
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        run_tasks(slowly, tasks_for(folder, 30), receipts=folder / "r", identity=IDENTITY,
                  crew=Crew(workers=2, shard=Shard.parse(sys.argv[2])))
    except FloodemError as error:
        print(type(error).__name__)
        sys.exit(error.exit_code)
"""


def test_a_killed_shard_goes_on_where_it_was(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SHARD.format(tests=str(Path(__file__).parent)), encoding="utf-8")

    def start(text):
        return subprocess.Popen([sys.executable, str(script), str(tmp_path), text], env=os.environ)

    killed, other = start("1/2"), start("2/2")
    deadline = time.monotonic() + 60
    while len(times_done(tmp_path)) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert other.wait(60) == 0
    again = start("1/2")
    assert again.wait(60) == 0
    done = times_done(tmp_path)
    assert set(done) == set(range(30))
    assert sum(done.values()) - 30 <= 2
    assert len(list((tmp_path / "r").glob("*.json"))) == 30
