"""What goes wrong in tasks is told of those tasks, and the others are done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import task_cases
from floodem.cluster import Crew, Task, run_tasks, surroundings, task_context
from floodem.errors import (
    LabelError,
    ResourceError,
    StoppedError,
    TasksFailedError,
)
from task_cases import IDENTITY, tasks_for, times_done

CREWS = [Crew(), Crew(slots=2), Crew(workers=2), Crew(workers=2, slots=2)]
needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def names(crew):
    return f"{crew.workers}x{crew.slots}"


@pytest.fixture
def work(tmp_path):
    return {"receipts": tmp_path / "receipts", "identity": IDENTITY}


@pytest.mark.parametrize("crew", CREWS, ids=names)
def test_results_are_the_same_whoever_does_the_tasks(tmp_path, work, crew):
    results = run_tasks(task_cases.note_down, tasks_for(tmp_path, 9), crew=crew, **work)
    assert results == [{"square": number**2} for number in range(9)]
    assert times_done(tmp_path) == dict.fromkeys(range(9), 1)


@pytest.mark.parametrize("crew", CREWS, ids=names)
def test_a_result_is_what_its_receipt_says_at_once(work, crew):
    tasks = [Task(key=str(number), argument=number) for number in range(3)]
    fresh = run_tasks(task_cases.tuples, tasks, crew=crew, **work)
    assert fresh[0] == {"box": [1, 2], "sizes": {"3": 4}}
    assert run_tasks(task_cases.tuples, tasks, crew=crew, **work) == fresh


@pytest.mark.parametrize("crew", CREWS, ids=names)
def test_tasks_that_fail_are_told_together_and_the_others_are_done(tmp_path, work, crew):
    tasks = tasks_for(tmp_path, 10)
    with pytest.raises(TasksFailedError, match="5 of 10 tasks failed.*and 2 more") as caught:
        run_tasks(task_cases.refuse_odd, tasks, crew=crew, keeps_going=True, **work)
    assert caught.value.failures == {
        f"task-{n}": f"label -{n} is negative" for n in (1, 3, 5, 7, 9)
    }
    kept = {path.stem for path in (tmp_path / "receipts").glob("*.json")}
    assert kept == {f"task-{number}" for number in range(0, 10, 2)}
    with pytest.raises(TasksFailedError):
        run_tasks(task_cases.refuse_odd, tasks, crew=crew, keeps_going=True, **work)
    assert times_done(tmp_path) == {number: 1 + number % 2 for number in range(10)}


@pytest.mark.parametrize("crew", CREWS, ids=names)
def test_without_keeping_on_the_first_failure_begins_nothing_more(tmp_path, work, crew):
    with pytest.raises(LabelError, match="label -1 is negative"):
        run_tasks(task_cases.refuse_odd, tasks_for(tmp_path, 400), crew=crew, **work)
    assert len(times_done(tmp_path)) < 200  # a worker may start late


@needs_kill
@pytest.mark.parametrize("crew", CREWS[2:], ids=names)
def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done(tmp_path, work, crew):
    tasks = tasks_for(tmp_path, 8)
    with pytest.raises(TasksFailedError, match="1 of 8 tasks failed") as caught:
        run_tasks(task_cases.poison, tasks, crew=crew, keeps_going=True, **work)
    (sentence,) = caught.value.failures.values()
    assert list(caught.value.failures) == ["task-3"]
    assert "killed 3 times, most likely for its memory (last exit: signal 9)" in sentence
    done = times_done(tmp_path)
    assert done[3] == 3
    assert all(done[number] == 1 for number in done if number != 3) or crew.slots == 2
    assert all(done[number] <= 2 for number in done if number != 3)
    assert len(list((tmp_path / "receipts").glob("*.json"))) == 7


@needs_kill
def test_without_keeping_on_a_killed_worker_is_one_sentence(tmp_path, work):
    with pytest.raises(ResourceError, match="signal 9.*fewer workers"):
        run_tasks(task_cases.poison, tasks_for(tmp_path, 5), crew=Crew(workers=2), **work)


@needs_kill
def test_a_task_whose_worker_was_killed_once_is_done_by_another(tmp_path, work):
    crew = Crew(workers=2, deaths=2)
    results = run_tasks(task_cases.die_once, tasks_for(tmp_path, 3), crew=crew, **work)
    assert results == [{"square": number**2} for number in range(3)]
    assert times_done(tmp_path) == dict.fromkeys(range(3), 2)
    logs = [log.read_text(encoding="ascii") for log in tmp_path.glob("*.log")]
    assert all(len({line.split()[0] for line in log.splitlines()}) == 2 for log in logs)


def test_a_worker_that_leaves_by_itself_is_told_by_its_exit_code(tmp_path, work):
    crew = Crew(workers=2, deaths=1)
    with pytest.raises(ResourceError, match=r"its worker ended 1 time \(last exit: exit code 7\)"):
        run_tasks(task_cases.leave, tasks_for(tmp_path, 2), crew=crew, **work)


@needs_kill
def test_the_last_task_of_many_does_not_kill_who_asks_again(tmp_path, work):
    tasks, crew = tasks_for(tmp_path, 4), Crew(workers=2, deaths=1)
    for _ in range(2):
        with pytest.raises(TasksFailedError, match="1 of 4"):
            run_tasks(task_cases.poison, tasks, crew=crew, keeps_going=True, **work)


def one_error(work, kind, crew):
    tasks = [Task(key=f"{kind}-{number}", argument=kind) for number in range(2)]
    with pytest.raises(Exception) as caught:
        run_tasks(task_cases.raise_kind, tasks, crew=crew, **work)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "of", "says"),
    [
        ("foreign", RuntimeError, "ForeignError: ('a', 2)"),
        ("wordless", RuntimeError, "cannot be put in words"),
        ("value", ValueError, "this is a bug"),
        ("unicode", RuntimeError, "UnicodeDecodeError"),
        ("exit", RuntimeError, "SystemExit: enough"),
        ("memory", ResourceError, "too little memory"),
        ("result", TypeError, "not JSON serializable"),
        ("secret", LabelError, "cannot read https://host/em denied"),
        ("stopped", StoppedError, "stopped by itself"),
    ],
)
def test_any_error_of_a_worker_comes_back_in_words(work, kind, of, says):
    error = one_error(work, kind, Crew(workers=2))
    assert type(error) is of
    assert says in str(error)
    assert "secret" not in str(error)
    is_bug = kind in ("foreign", "wordless", "value", "unicode", "result")
    notes = "".join(getattr(error, "__notes__", []))
    assert ("Traceback" in notes) == (is_bug or kind == "exit")
    if kind != "result":
        assert ("raise_kind" in notes) == (is_bug or kind == "exit")


def test_in_this_process_errors_are_raised_as_they_are(work):
    assert type(one_error(work, "foreign", Crew())) is task_cases.ForeignError
    assert str(one_error(work, "exit", Crew())) == "SystemExit: enough"


@pytest.mark.parametrize("crew", CREWS, ids=names)
def test_told_to_stop_a_long_task_saves_its_state_and_counts_as_stopped(tmp_path, work, crew):
    begun = crew.workers * crew.slots
    with pytest.raises(StoppedError, match="stopped after 0 of 6 tasks: run the same command"):
        run_tasks(
            task_cases.count_on,
            tasks_for(tmp_path, 6),
            crew=crew,
            should_stop=lambda: len(list(tmp_path.glob("*.begun"))) >= begun,
            keeps_going=True,
            **work,
        )
    assert len(list(tmp_path.glob("*.state"))) == begun
    assert len(list(tmp_path.glob("*.begun"))) == begun


@pytest.mark.parametrize("crew", CREWS, ids=names)
def test_what_tasks_report_arrives_but_not_too_often(tmp_path, work, crew):
    heard = []
    run_tasks(
        task_cases.tell,
        tasks_for(tmp_path, 2),
        crew=crew,
        reported=lambda key, values: heard.append((key, values["step"])),
        **work,
    )
    for key in ("task-0", "task-1"):
        steps = [step for who, step in heard if who == key]
        assert steps[0] == 0
        assert steps == sorted(steps)
        assert 2 <= len(steps) < 60


def test_outside_of_tasks_nobody_stops_and_nobody_listens():
    assert task_context().key == ""
    assert not task_context().should_stop()
    task_context().report({"step": 1})


def test_workers_share_cores_and_get_a_card_each(tmp_path, work, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-aa,7")
    monkeypatch.setattr(surroundings, "usable_threads", lambda: 6)
    tasks = [Task(key=str(number), argument=number) for number in range(8)]
    found = run_tasks(task_cases.look_around, tasks, crew=Crew(workers=2), **work)
    assert {one["worker"]: one["CUDA_VISIBLE_DEVICES"] for one in found} == {0: "5", 1: "GPU-aa"}
    assert (
        {one["OMP_NUM_THREADS"] for one in found}
        == {"3"}
        == {one["MKL_NUM_THREADS"] for one in found}
    )
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,GPU-aa,7"
    assert "OMP_NUM_THREADS" not in os.environ


def test_threads_that_the_user_chose_and_a_single_card_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,3")
    assert surroundings.worker_environment(1, workers=2) == {}


@pytest.mark.parametrize(
    ("printed", "cards"),
    [
        (
            "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA",
            2,
        ),
        ("", 0),
        (None, 0),
        ("No devices were found\n", 0),
    ],
)
def test_cards_are_counted_as_the_driver_lists_them(monkeypatch, printed, cards):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(surroundings, "nvidia_smi", lambda: "nvidia-smi")
    monkeypatch.setattr(surroundings, "run_quietly", lambda command: printed)
    surroundings._count_cards.cache_clear()
    try:
        assert surroundings.visible_cards() == [str(number) for number in range(cards)]
    finally:
        surroundings._count_cards.cache_clear()


def test_a_script_without_its_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from task_cases import IDENTITY, note_down, tasks_for\n"
        "from floodem.cluster import Crew, run_tasks\n"
        "run_tasks(note_down, tasks_for(sys.argv[1], 3), receipts=sys.argv[1] + '/r',\n"
        "          identity=IDENTITY, crew=Crew(workers=2))\n",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "workers needs `if __name__ == '__main__':`" in ended.stderr
    assert ended.returncode == 1


def test_an_interruption_ends_the_workers_at_once(tmp_path, work):
    def interrupt(key, values):
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_tasks(
            report_and_wait,
            tasks_for(tmp_path, 4),
            crew=Crew(workers=2),
            reported=interrupt,
            **work,
        )
    assert time.monotonic() - began < 30
    pids = [int(path.read_text(encoding="ascii")) for path in tmp_path.glob("*.pid")]
    assert pids
    assert not any(map(task_cases.is_running, pids))


def report_and_wait(argument):
    folder, number = argument
    (Path(folder) / f"{number}.pid").write_text(str(os.getpid()), encoding="ascii")
    task_context().report({})
    time.sleep(60)
    return {}


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from task_cases import IDENTITY, {function}, tasks_for
from floodem.cluster import Crew, run_tasks
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_tasks({function}, tasks_for(folder, {count}), receipts=folder / "r", identity=IDENTITY,
              crew=Crew(workers=3, slots={slots}))
"""


def start_parent(tmp_path, function, *, count, slots=1):
    script = tmp_path / "script.py"
    text = PARENT.format(
        tests=str(Path(__file__).parent), function=function, count=count, slots=slots
    )
    script.write_text(text, encoding="utf-8")
    return subprocess.Popen([sys.executable, str(script), str(tmp_path)], start_new_session=True)


def group_of(leader):
    """Find the running processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("slots", [1, 2])
def test_a_killed_parent_leaves_no_process_behind(tmp_path, slots):
    process = start_parent(tmp_path, "wait_long", count=8, slots=slots)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.pid"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(group_of(process.pid)) >= 4
    process.kill()
    process.wait()
    while group_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group_of(process.pid) == []


def kill_workers_at_random(folder, seed, *, kills):
    """Kill processes that have begun tasks, until enough are dead or all is done."""
    chance = random.Random(seed)
    killed = set()
    ended = threading.Event()

    def kill():
        while len(killed) < kills and not ended.wait(chance.uniform(0.05, 0.3)):
            begun = {
                int(line.split()[0])
                for log in Path(folder).glob("*.log")
                for line in log.read_text(encoding="ascii").splitlines()
            }
            alive = sorted(pid for pid in begun - killed if task_cases.is_running(pid))
            if alive:
                chosen = chance.choice(alive)
                os.kill(chosen, signal.SIGKILL)
                killed.add(chosen)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return killed, ended, thread


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 22))]
)
def test_random_kills_of_workers_cost_only_what_they_held(tmp_path, work, seed):
    tasks = tasks_for(tmp_path, 40)
    killed, ended, thread = kill_workers_at_random(tmp_path, seed, kills=4)
    crew = Crew(workers=3, slots=1 + seed % 2, deaths=5)
    try:
        results = run_tasks(task_cases.slowly, tasks, crew=crew, **work)
    finally:
        ended.set()
        thread.join()
    assert killed
    assert results == [{"square": number**2} for number in range(40)]
    done = times_done(tmp_path)
    assert set(done) == set(range(40))
    assert sum(done.values()) - 40 <= len(killed) * crew.slots
    kept = [
        json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "receipts").glob("*.json")
    ]
    assert sorted(one["result"]["square"] for one in kept) == [n**2 for n in range(40)]
