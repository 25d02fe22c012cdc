"""`--cluster tls://...`: a scheduler that somebody else started, and that may be lost."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time

import pytest

from cluster_cases import IDENTITY, note_down, note_down_slowly, squares, tasks_for, times_done
from dask_programs import DaskPrograms, wait_until
from floodem.cluster import Crew, dask_clusters, dask_crew, dask_watch, run_tasks
from floodem.cluster.addresses import SchedulerAddress
from floodem.errors import OptionError, ResourceError, StoppedError

dask = pytest.importorskip("dask")
pytest.importorskip("distributed")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ends programs by their group")

WORKERS = 2


@pytest.fixture
def programs(tmp_path):
    with DaskPrograms.ending(tmp_path / "cluster") as started:
        yield started


@pytest.fixture
def impatient(monkeypatch):
    """Let nobody wait half a minute for what does not come."""
    monkeypatch.setattr(dask_clusters, "CONNECT_S", 2.0)
    monkeypatch.setattr(dask_crew, "CONNECT_S", 2.0)
    monkeypatch.setattr(dask_crew, "RETURN_DEADLINE_S", 4.0)


def run(function, tasks, folder, *, cluster, insecure=False, **options):
    crew = Crew(cluster=cluster, is_insecure=insecure)
    return run_tasks(
        function, tasks, receipts=folder / "receipts", identity=IDENTITY, crew=crew, **options
    )


def test_only_who_has_a_certificate_of_the_same_authority_gets_in(
    tmp_path, programs, impatient, monkeypatch
):
    scheduler = programs.start_scheduler()
    programs.start_worker()
    tasks = tasks_for(tmp_path, 5)
    assert run(note_down, tasks, tmp_path, cluster=programs.toml()) == squares(5)

    others = DaskPrograms(tmp_path / "others")
    with pytest.raises(ResourceError, match="same authority"):
        run(note_down, tasks, tmp_path / "b", cluster=programs.toml(certificates=others))
    plain = programs.address.replace("tls", "tcp")
    with pytest.raises(ResourceError, match="no scheduler answers"):
        run(note_down, tasks, tmp_path / "c", cluster=plain, insecure=True)
    with pytest.raises(OptionError, match=r"\[scheduler\] address, ca_file"):
        run(note_down, tasks, tmp_path / "d", cluster=programs.address)

    # the certificates of Dask's own configuration do for a plain address
    ca, certificate, key = (str(file) for file in programs.files("client"))
    tls = {"ca-file": ca, "client": {"cert": certificate, "key": key}}
    with dask.config.set({"distributed.comm.tls": dask.config.get("distributed.comm.tls") | tls}):
        assert run(note_down, tasks_for(tmp_path, 6), tmp_path, cluster=programs.address)
    assert times_done(tmp_path) == dict.fromkeys(range(6), 1)
    programs.end(scheduler)


def test_certificates_that_do_not_belong_together_are_named_before_anything_is_asked(
    tmp_path, programs
):
    (programs.folder / "client" / "client.key").write_text("no key", encoding="ascii")
    with pytest.raises(OptionError, match="belong together"):
        run(note_down, tasks_for(tmp_path, 1), tmp_path, cluster=programs.toml())


def test_a_scheduler_that_is_killed_and_comes_back_costs_only_what_was_in_flight(
    tmp_path, programs
):
    scheduler = programs.start_scheduler()
    workers = [programs.start_worker() for _ in range(WORKERS)]
    notes, killed = [], []

    def restart():
        wait_until(lambda: len(times_done(tmp_path)) >= 4, what="the first tasks")
        killed.append(dict(times_done(tmp_path)))
        programs.end(scheduler, *workers, kill=True)
        time.sleep(1)
        programs.start_scheduler()
        for _ in range(WORKERS):
            programs.start_worker()

    meddler = threading.Thread(target=restart)
    meddler.start()
    try:
        results = run(
            note_down_slowly,
            tasks_for(tmp_path, 16),
            tmp_path,
            cluster=programs.toml(),
            reported=lambda key, values: notes.append(values["note"]),
        )
    finally:
        meddler.join()
    assert results == squares(16)
    assert len(killed[0]) < 16
    done = times_done(tmp_path)
    assert sorted(done) == list(range(16))
    assert sum(done.values()) - 16 <= WORKERS
    assert any("is lost: waiting for it" in note for note in notes)
    assert any("is back" in note for note in notes)


def test_a_scheduler_that_does_not_come_back_ends_the_run_with_how_to_go_on(
    tmp_path, programs, monkeypatch
):
    programs.scheme = "tcp"
    programs.start_scheduler()
    programs.start_worker()

    def end_cluster(done, total):
        if done == 3:
            programs.end(*programs.running, kill=True)

    monkeypatch.setattr(dask_crew, "RETURN_DEADLINE_S", 2.0)
    with pytest.raises(ResourceError, match="run the same command again"):
        run(
            note_down_slowly,
            tasks_for(tmp_path, 8),
            tmp_path,
            cluster=programs.address,
            insecure=True,
            progress=end_cluster,
        )
    again = run_tasks(
        note_down,
        tasks_for(tmp_path, 8),
        receipts=tmp_path / "receipts",
        identity=IDENTITY,
    )
    assert again == squares(8)
    assert sum(times_done(tmp_path).values()) <= 8 + 1


def test_a_scheduler_that_hangs_is_as_good_as_lost_and_who_waits_for_it_can_be_stopped(
    tmp_path, programs, monkeypatch
):
    monkeypatch.setattr(dask_watch, "ANSWER_S", 1.0)
    monkeypatch.setattr(dask_watch, "COUNTED_EVERY_S", 0.5)
    programs.scheme = "tcp"
    scheduler = programs.start_scheduler()
    programs.start_worker()
    notes = []

    def freeze(done, total):
        if done == 1:
            scheduler.send_signal(signal.SIGSTOP)

    with pytest.raises(StoppedError):
        run(
            note_down_slowly,
            tasks_for(tmp_path, 8),
            tmp_path,
            cluster=programs.address,
            insecure=True,
            progress=freeze,
            reported=lambda key, values: notes.append(values["note"]),
            should_stop=lambda: any("is lost" in note for note in notes),
        )


def test_who_takes_connections_and_says_nothing_is_no_scheduler():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster = dask_clusters.Elsewhere(
            what="it",
            address=SchedulerAddress(address=f"tcp://127.0.0.1:{silent.getsockname()[1]}"),
        )
        with pytest.raises(ResourceError, match="no scheduler answers"):
            cluster.connect(timeout_s=0.5)
