"""Blocks that are stopped, killed or late: they go on where they were, and end the same."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bright import bright_model, bright_tubes
from flood_cases import SHAPE, SMALL, flood_tasks, read_labels, record
from floodem.assembly import floods
from floodem.assembly.floods import FloodTask, flood_block_task
from floodem.assembly.sources import close_sources
from floodem.cluster import Crew, Task, run_tasks
from floodem.cluster.context import TaskContext, entering
from floodem.errors import FloodemError, StoppedError, TasksFailedError
from floodem.flooding.masks import parse_mask
from floodem.flooding.predictor import Predictor
from floodem.flooding.request import SegmentRequest

REQUEST = SegmentRequest(options=SMALL, device="cpu")
AT_EVERY_STEP = dataclasses.replace(REQUEST, checkpoint_seconds=0.0)
TIMEOUT_S = 60
PARTS = ("masks", "reading", "seeds", "waiting", "flooding", "writing")


@pytest.fixture(autouse=True)
def _closed():
    yield
    close_sources()


def left_by(task: FloodTask, made):
    """Return everything that must not depend on how often a block was interrupted."""
    origins = record(task, "origins.json")["origins"]
    for origin in origins.values():
        del origin["seconds"]
    table = task.store.read_table(task.block)
    return {
        "labels": read_labels(task).tolist(),
        "table": {
            field.name: getattr(table, field.name).tolist() for field in dataclasses.fields(table)
        },
        "origins": origins,
        "overlaps": record(task, "overlaps.json"),
        "seeds": record(task, "seeds.csv"),
        "made": {
            name: made[name]
            for name in ("segments", "carried", "covered", "core_covered", "counters")
        },
        "image": made["image_sha256"],
    }


def names_in(task: FloodTask):
    return sorted(path.name for path in (Path(task.store.address) / "blocks").iterdir())


def stopping_after(steps: int) -> TaskContext:
    """Return a context that tells a task to stop after so many network calls or moves."""
    asked = iter(range(steps))
    return TaskContext(asks=lambda: next(asked, None) is None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a block leaves that nobody interrupts."""
    task = flood_tasks(tmp_path_factory.mktemp("whole"))[1]
    return left_by(task, flood_block_task(task))


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.lists(st.integers(1, 80), min_size=1, max_size=5))
def test_a_block_stopped_anywhere_goes_on_and_ends_the_same(tmp_path_factory, whole, stops):
    task = flood_tasks(tmp_path_factory.mktemp("stopped"))[1]
    was_stopped = False
    for steps in stops:
        try:
            with entering(stopping_after(steps)):
                flood_block_task(task)
        except StoppedError as stopped:
            was_stopped = True
            assert "all is saved" in str(stopped)  # noqa: PT017 - some are not stopped
            assert f"{task.block.key}.checkpoint.npz" in names_in(task)
        else:
            break
    assert left_by(task, flood_block_task(task)) == whole
    assert not any("checkpoint" in name for name in names_in(task))
    assert was_stopped is ("resumed: " in record(task, "log"))


def test_a_stop_is_logged(tmp_path):
    task = flood_tasks(tmp_path)[1]
    with entering(stopping_after(5)), pytest.raises(StoppedError):
        flood_block_task(task)
    assert "stopped: " in record(task, "log")
    assert "Z done: " not in record(task, "log")


KILLED = """
import pickle, sys
from floodem.assembly import floods
from floodem.assembly.floods import flood_block_task
from floodem.flooding.predictor import Predictor

predict, calls = Predictor.predict, 0

def slowly(self, *arguments):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        print("flooding", flush=True)
        sys.stdin.read()
    return predict(self, *arguments)

Predictor.predict = slowly
flood_block_task(pickle.load(open(sys.argv[1], "rb")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_block_goes_on_from_its_checkpoint_and_ends_the_same(tmp_path, whole):
    task = flood_tasks(tmp_path, request=AT_EVERY_STEP)[1]
    (tmp_path / "task").write_bytes(pickle.dumps(task))
    for calls in (3, 40):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "task"), str(calls)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "flooding\n"
            os.kill(process.pid, signal.SIGKILL)
        assert f"{task.block.key}.checkpoint.npz" in names_in(task)
    made = flood_block_task(task)
    assert left_by(task, made) == whole
    log = record(task, "log")
    assert (log.count("begun on"), log.count("resumed: "), log.count("Z done: ")) == (3, 2, 1)


@pytest.mark.parametrize("what", ["options", "model", "image", "masks"])
def test_a_checkpoint_of_something_else_is_never_taken(tmp_path, what):
    other = dataclasses.replace(SMALL, segment_threshold=0.7)
    changed = {
        "options": {"request": dataclasses.replace(REQUEST, options=other)},
        "model": {"model": bright_model(depth=2)},
        "image": {"image": bright_tubes(SHAPE)[0] // 2 + 60},
        "masks": {"request": dataclasses.replace(REQUEST, masks=[parse_mask("where: y < 215")])},
    }[what]
    before = flood_tasks(tmp_path)[1]
    with entering(stopping_after(60)), pytest.raises(StoppedError):
        flood_block_task(before)
    (tmp_path / "other").mkdir()
    (tmp_path / "fresh").mkdir()
    task = flood_tasks(tmp_path / "other", **changed)[1]
    fresh = flood_tasks(tmp_path / "fresh", **changed)[1]
    there = Path(task.store.address) / "blocks"
    there.mkdir(parents=True)
    name = f"{task.block.key}.checkpoint.npz"
    (there / name).write_bytes((Path(before.store.address) / "blocks" / name).read_bytes())
    made = flood_block_task(task)
    assert left_by(task, made) == left_by(fresh, flood_block_task(fresh))
    assert "the checkpoint is not taken" in record(task, "log")


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_damaged_checkpoint_is_not_taken(tmp_path, whole, kept):
    task = flood_tasks(tmp_path)[1]
    with entering(stopping_after(60)), pytest.raises(StoppedError):
        flood_block_task(task)
    checkpoint = task.checkpoint()
    assert checkpoint is not None
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    assert left_by(task, flood_block_task(task)) == whole
    assert "the checkpoint is not taken" in record(task, "log")


def test_a_block_that_takes_too_long_fails_and_goes_on_under_a_larger_limit(tmp_path, whole):
    task = flood_tasks(tmp_path)[1]
    late = dataclasses.replace(task, time_limit_s=1e-6)
    with pytest.raises(FloodemError, match="limit of a block.*smaller blocks.*--max-calls") as told:
        flood_block_task(late)
    assert not isinstance(told.value, StoppedError)
    assert "failed: " in record(task, "log")
    with pytest.raises(FloodemError, match="limit of a block"):
        flood_block_task(late)
    generous = dataclasses.replace(task, time_limit_s=1000.0)
    assert left_by(task, flood_block_task(generous)) == whole
    assert "resumed: " in record(task, "log")


def test_the_limit_counts_what_was_flooded_before_a_stop(tmp_path):
    task = flood_tasks(tmp_path)[1]
    slow = TaskContext(asks=stopping_after(4).asks, tells=lambda values: time.sleep(0.1))
    with entering(slow), pytest.raises(StoppedError):
        flood_block_task(dataclasses.replace(task, time_limit_s=1000.0))
    told = []
    late = pytest.raises(FloodemError, match="limit of a block")
    with entering(TaskContext(tells=told.append)), late:
        flood_block_task(dataclasses.replace(task, time_limit_s=0.35))
    assert sum("voxels" in values for values in told) == 1


@pytest.mark.usefixtures("no_servers")
def test_on_a_server_there_are_no_checkpoints_and_a_stop_says_so(tmp_path, s3, whole):
    task = flood_tasks(tmp_path, work="s3://bucket/seg.zarr.floodem", request=AT_EVERY_STEP)[1]
    with entering(stopping_after(60)), pytest.raises(StoppedError, match="nothing of the block"):
        flood_block_task(task)
    assert not any("checkpoint" in name for name in s3.objects)
    made = flood_block_task(task)
    assert read_labels(task).tolist() == whole["labels"]
    assert made["counters"] == whole["made"]["counters"]
    names = {name.rpartition("/")[2] for name in s3.objects if "/blocks/" in name}
    expected = {f"{task.block.key}.{ending}" for ending in ("npz", "origins.json", "log")}
    assert names >= expected


class Turns:
    """Two tasks in two threads of a process, and what they tell in order."""

    def __init__(self):
        self.told: list[tuple[int, str]] = []
        self.reached = {(at, part): threading.Event() for at in (0, 1) for part in PARTS}

    def run(self, tasks, *, waits):
        """Do both tasks; at `(task, part)` a task waits until the other has reached a part."""

        def listener(at):
            def tell(values):
                part = values["part"]
                if self.reached[at, part].is_set():
                    return
                self.told.append((at, part))
                self.reached[at, part].set()
                if (at, part) in waits:
                    assert self.reached[waits[at, part]].wait(TIMEOUT_S), "the other cannot go on"

            return tell

        def do(at):
            with entering(TaskContext(tells=listener(at))):
                return flood_block_task(tasks[at])

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(do, 0)
            assert self.reached[0, "flooding"].wait(TIMEOUT_S)
            second = threads.submit(do, 1)
            return [first.result(TIMEOUT_S), second.result(TIMEOUT_S)]


def test_one_block_reads_and_seeks_while_the_other_floods_and_floods_while_it_writes(tmp_path):
    tasks = flood_tasks(tmp_path)
    turns = Turns()
    # The first floods until the second waits for its turn, and writes until the second floods.
    made = turns.run(
        tasks, waits={(0, "flooding"): (1, "waiting"), (0, "writing"): (1, "flooding")}
    )
    told = turns.told
    assert told.index((0, "flooding")) < told.index((1, "reading"))
    assert told.index((1, "seeds")) < told.index((0, "writing")) < told.index((1, "writing"))
    assert made[1]["seconds"]["waiting"] > 0
    for task, one in zip(tasks, made, strict=True):
        again = flood_tasks(tmp_path, work=str(tmp_path / "again.floodem"))[task.block.index]
        assert left_by(task, one) == left_by(again, flood_block_task(again))


def test_two_blocks_of_a_process_never_flood_at_once(tmp_path, monkeypatch):
    at_work, most, predict = [], [], Predictor.predict

    def predicting(self, *arguments):
        at_work.append(threading.get_ident())
        time.sleep(0.002)
        most.append(len(set(at_work)))
        at_work.remove(threading.get_ident())
        return predict(self, *arguments)

    monkeypatch.setattr(Predictor, "predict", predicting)
    with ThreadPoolExecutor(2) as threads:
        assert len(list(threads.map(flood_block_task, flood_tasks(tmp_path)))) == 2
    assert max(most) == 1


def test_a_block_that_waits_for_its_turn_hears_a_stop(tmp_path):
    task = flood_tasks(tmp_path)[0]
    stopped = pytest.raises(StoppedError, match="before its turn")
    with floods._flooding, entering(TaskContext(asks=lambda: True)), stopped:
        flood_block_task(task)
    assert flood_block_task(task)["segments"] > 0


def test_a_failed_block_lets_the_next_flood(tmp_path, monkeypatch):
    first, second = flood_tasks(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "predict", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flood_block_task(first)
    assert "failed: ZeroDivisionError" in record(first, "log")
    assert flood_block_task(second)["segments"] > 0
    assert json.dumps(flood_block_task(first))
    assert np.count_nonzero(read_labels(first))


def test_a_checkpoint_that_breaks_off_half_way_leaves_nothing_behind(tmp_path, whole):
    task = flood_tasks(tmp_path)[1]
    with entering(stopping_after(60)), pytest.raises(StoppedError):
        flood_block_task(task)
    checkpoint = task.checkpoint()
    assert checkpoint is not None
    with np.load(checkpoint) as saved:
        arrays = dict(saved)
    state = json.loads(arrays["state"].tobytes())
    del state["overlaps"]
    arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    np.savez(checkpoint, **arrays)
    assert left_by(task, flood_block_task(task)) == whole
    assert "the checkpoint is not taken" in record(task, "log")


def test_a_run_does_two_blocks_at_a_time_and_goes_on_past_a_block_that_fails(tmp_path):
    image = bright_tubes(SHAPE)[0].astype(np.float32)
    image[0, 0, -1] = np.nan
    cases = flood_tasks(tmp_path, image=image)
    reported = set()
    tasks = [Task(key=case.block.key, argument=case) for case in cases]
    run = {
        "receipts": tmp_path / "receipts",
        "identity": {"of": "a test"},
        "crew": Crew(slots=2),
        "keeps_going": True,
        "reported": lambda key, values: reported.add(key),
    }
    with pytest.raises(TasksFailedError, match=cases[1].block.key) as told:
        run_tasks(flood_block_task, tasks, **run)
    assert list(told.value.failures) == [cases[1].block.key]
    assert "such voxels" in told.value.failures[cases[1].block.key]
    assert reported == {case.block.key for case in cases}
    again = flood_tasks(tmp_path, work=str(tmp_path / "again.floodem"))[0]
    done = json.loads((tmp_path / "receipts" / f"{cases[0].block.key}.json").read_text())
    assert left_by(cases[0], done["result"]) == left_by(again, flood_block_task(again))
