"""`--cluster local:N`: a Dask cluster on this machine, whose workers die."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from cluster_cases import (
    IDENTITY,
    POISON,
    die_with_address,
    environment,
    note_down,
    note_down_or_die,
    note_down_or_refuse,
    note_down_slowly,
    raise_address,
    squares,
    tasks_for,
    times_done,
    wait_for_stop,
)
from floodem.cluster import Crew, Task, run_tasks
from floodem.cluster.dask_crew import _OPEN, keeping_cluster
from floodem.cluster.dask_worker import Sealed, is_leaving, worker_number
from floodem.cluster.receipts import Receipts
from floodem.errors import (
    DependencyError,
    LabelError,
    OptionError,
    StoppedError,
    TasksFailedError,
)
from floodem.volumes.parallel import usable_threads

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")

WORKERS = 2
CREW = Crew(cluster=f"local:{WORKERS}")

needs_sigkill = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@pytest.fixture(scope="module", autouse=True)
def kept():
    """One cluster for all tests here: starting one takes seconds; gives what listened before."""
    before = set(listening())
    with keeping_cluster(CREW):
        yield before


def run(function, tasks, folder, *, crew=CREW, **options):
    return run_tasks(
        function, tasks, receipts=folder / "receipts", identity=IDENTITY, crew=crew, **options
    )


def worker_pids():
    """The processes that do tasks: this one started them, and watches them itself."""
    children = psutil.Process().children()
    return sorted(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))


@contextlib.contextmanager
def dask_client():
    client = _OPEN[CREW.cluster, CREW.slots].connect(timeout_s=10)
    try:
        yield client
    finally:
        client.close()


def listening():
    """Ports of this process and those that it started, by address."""
    here = psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for socket in process.net_connections(kind="inet"):
                if socket.status == psutil.CONN_LISTEN:
                    yield socket.laddr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for sockets")
def test_everything_listens_here_only_and_lets_nobody_in_without_a_certificate(kept):
    ports = [address for address in listening() if address not in kept]
    assert {address.ip for address in ports} == {"127.0.0.1"}
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    cluster = _OPEN[CREW.cluster, CREW.slots].cluster
    friend = cluster.security.get_connection_args("client")["ssl_context"]
    encrypted = 0
    for address in ports:
        if _is_page(address.port):  # without bokeh it tells only that it lives
            for page in ("info/main/workers.html", "json/counts.json", "metrics", "status"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"http://127.0.0.1:{address.port}/{page}", timeout=30)
        else:
            encrypted += 1
            assert _greeting(address.port, friend), "it greets a friend"
            assert _greeting(address.port, stranger) == b""
    assert encrypted >= 1 + 2 * WORKERS  # the scheduler, and each worker with who watches it


def _is_page(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return plain.recv(5) == b"HTTP/"
    return False


def _greeting(port, context):
    """Return the first byte that is said to one who comes in."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        try:
            with context.wrap_socket(plain) as tls:
                return tls.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_every_task_is_done_once_and_results_come_in_the_order_of_the_tasks(tmp_path):
    told = []
    results = run(
        note_down,
        tasks_for(tmp_path, 9),
        tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert results == squares(9)
    assert times_done(tmp_path) == dict.fromkeys(range(9), 1)
    assert told == [(done, 9) for done in range(10)]
    assert len(list((tmp_path / "receipts").glob("*.json"))) == 9
    assert run(note_down, tasks_for(tmp_path, 11), tmp_path) == squares(11)
    assert times_done(tmp_path) == dict.fromkeys(range(11), 1)


def test_stages_of_a_run_share_their_workers(tmp_path):
    tasks = [Task(key=str(number), argument=None) for number in range(4)]
    pids = {
        result["pid"]
        for stage in ("one", "two")
        for result in run(environment, tasks, tmp_path / stage)
    }
    assert pids <= set(worker_pids())
    assert os.getpid() not in pids


def test_ctrl_c_which_reaches_all_processes_ends_no_worker(tmp_path):
    before = worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert run(note_down, tasks_for(tmp_path, 4), tmp_path) == squares(4)
    assert worker_pids() == before


def test_what_tasks_report_and_what_happens_to_workers_is_told_while_they_work(tmp_path):
    told = []
    with pytest.raises(StoppedError, match="stopped after 0 of 2 tasks"):
        run(
            wait_for_stop,
            tasks_for(tmp_path, 2),
            tmp_path,
            reported=lambda key, values: told.append((key, dict(values))),
            should_stop=lambda: len([key for key, _ in told if key]) >= 2,
        )
    of_tasks = sorted(key for key, _ in told if key)
    assert of_tasks == ["task-0", "task-1"]
    assert {values["worker"] for key, values in told if key} == {0, 1}
    notes = [values["note"] for key, values in told if not key]
    assert notes[0] == "the local cluster has 2 workers"
    assert {path.name for path in tmp_path.glob("*.state")} == {"0.state", "1.state"}
    assert run(wait_for_stop, tasks_for(tmp_path, 2), tmp_path) == squares(2)


def test_told_to_stop_it_begins_nothing_new_and_goes_on_later(tmp_path):
    tasks = tasks_for(tmp_path, 40)
    with pytest.raises(StoppedError, match="of 40 tasks"):
        run(note_down_slowly, tasks, tmp_path, should_stop=lambda: len(times_done(tmp_path)) >= 3)
    assert 3 <= len(times_done(tmp_path)) <= 3 + 2 * WORKERS
    assert run(note_down, tasks, tmp_path) == squares(40)
    assert times_done(tmp_path) == dict.fromkeys(range(40), 1)


def test_errors_of_tasks_keep_their_class_and_sentence_and_the_others_are_done(tmp_path):
    with pytest.raises(TasksFailedError, match="2 of 8 tasks failed") as failed:
        run(note_down_or_refuse, tasks_for(tmp_path, 8), tmp_path, keeps_going=True)
    assert failed.value.failures == {
        "task-2": "label -1 is negative",
        "task-3": "division by a foreign library",
    }
    assert sorted(times_done(tmp_path)) == [0, 1, 4, 5, 6, 7]
    with pytest.raises(LabelError, match="label -1 is negative"):
        run(note_down_or_refuse, tasks_for(tmp_path, 3), tmp_path)


@needs_sigkill
def test_a_task_that_kills_its_workers_is_given_up_with_a_sentence_and_the_rest_is_done(tmp_path):
    told = []
    with pytest.raises(TasksFailedError, match="1 of 12 tasks failed") as failed:
        run(
            note_down_or_die,
            tasks_for(tmp_path, 12),
            tmp_path,
            keeps_going=True,
            reported=lambda key, values: told.append(values),
        )
    assert list(failed.value.failures) == [f"task-{POISON}"]
    assert "its worker died 3 times" in failed.value.failures[f"task-{POISON}"]
    done = times_done(tmp_path)
    assert done.pop(POISON) == CREW.deaths
    assert sorted(done) == [number for number in range(12) if number != POISON]
    assert any("lost" in values["note"] for values in told)


@needs_sigkill
def test_workers_killed_at_random_cost_no_more_than_what_was_in_flight(tmp_path):
    tasks = tasks_for(tmp_path, 40)
    kills = 0
    is_over = threading.Event()
    chance = random.Random(7)

    def kill_now_and_then():
        nonlocal kills
        while not is_over.wait(0.7) and kills < 4:
            with contextlib.suppress(IndexError, ProcessLookupError, psutil.NoSuchProcess):
                os.kill(chance.choice(worker_pids()), signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        # one that dies by chance is not to blame, however often
        results = run(note_down_slowly, tasks, tmp_path, crew=Crew(cluster="local:2", deaths=9))
    finally:
        is_over.set()
        killer.join()
    assert results == squares(40)
    assert len(list((tmp_path / "receipts").glob("task-*.json"))) == 40
    assert kills >= 2
    again = {number: times for number, times in times_done(tmp_path).items() if times > 1}
    assert sum(times - 1 for times in again.values()) <= kills


SIGNED = "https://bucket.example/em?X-Amz-Signature=5ecretSignature&token=5ecretToken"


@needs_sigkill
@pytest.mark.parametrize("function", [raise_address, die_with_address])
def test_no_log_holds_what_tasks_are_called_with(tmp_path, capfd, function):
    tasks = [Task(key=f"signed-{number}", argument=SIGNED) for number in range(2)]
    with pytest.raises(TasksFailedError) as failed:
        run(function, tasks, tmp_path, keeps_going=True, crew=Crew(cluster="local:2", deaths=1))
    with dask_client() as client:
        logs = repr((client.get_worker_logs(), client.get_scheduler_logs()))
        events = repr(client.get_events())
        stories = repr(client.run_on_scheduler(_reprs_of_tasks))
    shown = "".join(capfd.readouterr())
    for where in (logs, events, stories, shown, str(failed.value.failures), repr(failed.value)):
        assert "5ecret" not in where
    sealed = Sealed(
        function=function, task=tasks[0], receipts=Receipts(str(tmp_path), "x"), run="r"
    )
    assert repr(sealed) == "<task signed-0>"


def _reprs_of_tasks(dask_scheduler):
    return [(repr(task), repr(task.run_spec)) for task in dask_scheduler.tasks.values()]


def test_workers_get_their_share_of_cores_and_the_cards_of_this_machine(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7")
    tasks = [Task(key=str(number), argument=None) for number in range(6)]
    # cards that are no cards: nothing here asks for one
    found = run(environment, tasks, tmp_path, crew=Crew(cluster="local:2", slots=2))
    assert {one["CUDA_VISIBLE_DEVICES"] for one in found} <= {"3", "GPU-7"}
    share = max(1, usable_threads() // 2)
    assert {one["OMP_NUM_THREADS"] for one in found} == {str(share)}


def test_a_worker_of_a_job_leaves_before_the_jobs_time_is_over(monkeypatch):
    assert not is_leaving()
    monkeypatch.setenv("FLOODEM_WORKER_SECONDS", "3300")
    monkeypatch.setenv("FLOODEM_WORKER_BEGAN", "1000")
    assert not is_leaving(now=lambda: 4299.0)
    assert is_leaving(now=lambda: 4300.0)


@pytest.mark.parametrize(("name", "number"), [(3, 3), ("floodem-12", 12), ("tls://h", 0)])
def test_workers_are_numbered_by_their_names(name, number):
    assert worker_number(name) == number


def test_one_of_another_version_refuses_tasks(tmp_path, monkeypatch):
    other = partial(Sealed, version="0.0.1")
    monkeypatch.setattr("floodem.cluster.dask_crew.Sealed", other)
    with pytest.raises(DependencyError, match=r"the run\s+0\.0\.1: install the same"):
        run(note_down, tasks_for(tmp_path, 1), tmp_path)
    assert times_done(tmp_path) == {}


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError, match=r"pip install floodem\[cluster\]"):
        run(note_down, tasks_for(tmp_path, 1), tmp_path, crew=Crew(cluster="local:3"))


def test_a_cluster_that_is_none_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(OptionError, match="--insecure"):
        run(note_down, tasks_for(tmp_path, 1), tmp_path, crew=Crew(cluster="tcp://127.0.0.1:1"))


LONELY = """
import sys
from pathlib import Path
from cluster_cases import *
from floodem.cluster import Crew, run_tasks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_tasks(
        wait_for_stop, tasks_for(folder, 2), receipts=folder / "receipts", identity={},
        crew=Crew(cluster="local:2"),
        reported=lambda key, values: print(key, values, flush=True),
    )
"""


@needs_sigkill
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_end_with_a_run_that_is_killed(tmp_path):
    (tmp_path / "lonely.py").write_text(LONELY, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "lonely.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "begun" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    for one in alive:
        one.kill()
    assert alive == []


def test_a_run_that_is_given_up_leaves_nothing_with_the_cluster(tmp_path):
    def interrupt(key, values):
        if key:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(wait_for_stop, tasks_for(tmp_path, 2), tmp_path, reported=interrupt)
    assert time.monotonic() - begun < 20


def test_loading_the_crew_loads_no_dask():
    code = (
        "import sys, floodem.cluster, floodem.cluster.dask_crew, floodem.cluster.slurm_jobs\n"
        "assert not {'dask', 'distributed', 'cryptography', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
