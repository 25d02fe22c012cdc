"""Two hosts, as network namespaces of one machine, of which one is cut off amid a run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_cases import IDENTITY, note_down_slowly, squares, tasks_for, times_done
from dask_programs import DaskPrograms, free_port, wait_until
from floodem.cluster import Crew, run_tasks

pytest.importorskip("distributed")

pytestmark = pytest.mark.slow

SUBNET = "10.213.77"
BRIDGE = "floodem-br"
HOSTS = ("floodem-a", "floodem-b")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def take_down() -> None:
    for host in HOSTS:
        for words in (["netns", "delete", host], ["link", "delete", f"{host}-0"]):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*words)
    with contextlib.suppress(subprocess.CalledProcessError):
        ip("link", "delete", BRIDGE)


@pytest.fixture
def two_hosts() -> Iterator[dict[str, str]]:
    """Two namespaces on a bridge of their own; their addresses by name."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need ip: apt-get install iproute2")
    take_down()  # what a test that was killed left
    try:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            ip("addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for number, host in enumerate(HOSTS, start=2):
                ip("netns", "add", host)
                ip(
                    "link",
                    "add",
                    f"{host}-0",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "eth0",
                    "netns",
                    host,
                )
                ip("link", "set", f"{host}-0", "master", BRIDGE, "up")
                ip("-n", host, "addr", "add", f"{SUBNET}.{number}/24", "dev", "eth0")
                ip("-n", host, "link", "set", "lo", "up")
                ip("-n", host, "link", "set", "eth0", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield {host: f"{SUBNET}.{number}" for number, host in enumerate(HOSTS, start=2)}
    finally:
        take_down()


def test_a_host_that_is_cut_off_costs_only_what_was_in_flight(tmp_path: Path, two_hosts):
    host = f"{SUBNET}.1"
    with DaskPrograms.ending(tmp_path / "cluster", host=host, port=free_port(host)) as programs:
        programs.start_scheduler()
        for name, address in two_hosts.items():
            programs.start_worker("--host", address, inside=["ip", "netns", "exec", name])
        wait_until(
            lambda: programs.log("scheduler").count("Register worker addr") == len(HOSTS),
            what="the second worker",
        )
        notes: list[str] = []

        def cut_off():
            wait_until(lambda: len(times_done(tmp_path)) >= 8, what="the first tasks")
            ip("link", "set", f"{HOSTS[1]}-0", "down")

        meddler = threading.Thread(target=cut_off)
        meddler.start()
        try:
            results = run_tasks(
                note_down_slowly,
                tasks_for(tmp_path, 30),
                receipts=tmp_path / "receipts",
                identity=IDENTITY,
                crew=Crew(cluster=programs.toml()),
                reported=lambda key, values: notes.append(values["note"]),
            )
        finally:
            meddler.join()
        assert results == squares(30)
        done = times_done(tmp_path)
        assert sorted(done) == list(range(30))
        in_flight = 2  # one begun and one waiting at the host that is lost
        assert sum(done.values()) - 30 <= in_flight
        both = {line for log in tmp_path.glob("*.log") for line in log.read_text().split()}
        assert len(both) == 2, "both hosts worked"
        assert any(
            "1 worker lost, whose tasks are done again: 1 worker now" in one for one in notes
        )
    assert "handshake failed" not in programs.log("scheduler")
