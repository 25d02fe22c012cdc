"""Requests that nobody should send: refused, without stopping or slowing the server for others."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from array_volume import ArrayVolume
from floodem.viewer.layers import Kind
from floodem.viewer.serving import Site, wire
from floodem.viewer.serving.gate import Gate
from serving_cases import ask, connect, plain, read_all, send, status_of

neuroglancer = pytest.importorskip("neuroglancer")

CHUNK = "1_1_1/0-64_0-64_0-64"


@pytest.fixture
def site(caplog):
    caplog.set_level(logging.DEBUG)
    with Site.start() as running:
        yield running
        tokens = {part for key in running._served for part in key if len(part) > 20}
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not errors, caplog.text
    for token in tokens:
        assert token not in caplog.text
    assert not re.search(r"[0-9a-f]{40}", caplog.text), "that is the token of a viewer"


@pytest.fixture
def chunk(site):
    """Address of a chunk that the server answers well."""
    return site.serve_volume(an_image(), kind=Kind.IMAGE, name="em") + f"/{CHUNK}"


def an_image(shape=(64, 64, 64)):
    return ArrayVolume(
        np.random.default_rng(7).integers(0, 200, shape).astype(np.uint8), chunks=(64, 64, 64)
    )


def request(site, line, *headers):
    lines = [line, f"Host: 127.0.0.1:{site.port}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def median_latency(chunk, *, count=15):
    """Return the median seconds of requests of a good client."""
    seconds = []
    for _ in range(count):
        began = time.monotonic()
        assert ask(chunk).status == 200
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def assert_as_fast_as(alone, now):
    # Other work on the machine must not fail the test, and waiting for another would be seconds.
    assert now < 10 * alone + 0.25


# What is malformed.


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 500 + b"\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused_and_others_answered(site, chunk, raw):
    with connect(site) as connection:
        connection.sendall(raw)
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            status = status_of(connection.recv(1000))
            assert status is None or 400 <= status < 500
    assert ask(chunk).status == 200


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_any_bytes_leave_the_server_as_it_was(site, chunk, raw):
    with connect(site) as connection:
        connection.sendall(raw + b"\r\n\r\n")
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            reply = connection.recv(1000)
            assert not reply.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5"))
    assert ask(chunk).status == 200


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["", "/d", "/f", "/v", "/state", "/events", "/neuroglancer", "/d/TOKEN/em"]),
    st.lists(
        st.one_of(
            st.sampled_from(
                ["..", "TOKEN", "em", "info", "1_1_1", "0-64_0-64_0-64", "mesh", "1:0"]
            ),
            st.text(max_size=12),
        ),
        max_size=4,
    ),
)
def test_any_path_is_answered_in_a_sentence(site, chunk, top, parts):
    token = plain(chunk).split("/")[4]
    path = "/".join([top, *parts]).replace("TOKEN", token)
    line = re.sub(
        r"[^!-~]",
        lambda match: "".join(f"%{b:02x}" for b in match[0].encode("utf-8", "surrogatepass")),
        path,
    )
    status = status_of(send(site, request(site, f"GET {line or '/'} HTTP/1.1")))
    assert status in {200, 400, 404, 405}
    if status == 200:
        assert token in path


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "x"])
def test_methods_that_change_things_are_not_served(site, chunk, method):
    path = plain(chunk).removeprefix(site.address)
    assert status_of(send(site, request(site, f"{method} {path} HTTP/1.1"))) == 405


# Who asks.


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("LOCALHOST:{port}", True),
        ("[::1]:{port}", True),
        ("127.0.0.1", False),
        ("127.0.0.1:1", False),
        ("evil.example:{port}", False),
        ("127.0.0.1.evil.example:{port}", False),
        ("localhost.:{port}", False),
        ("evil@127.0.0.1:{port}", False),
        ("127.0.0.1:{port}@evil", False),
        ("192.168.1.2:{port}", False),
        ("0.0.0.0:{port}", False),
        ("", False),
    ],
)
def test_only_this_servers_own_names_are_answered(site, chunk, host, is_ours):
    path = plain(chunk).removeprefix(site.address)
    lines = (
        f"GET {path} HTTP/1.1\r\nHost: {host.format(port=site.port)}\r\nConnection: close\r\n\r\n"
    )
    status = status_of(send(site, lines.encode()))
    assert status == 200 if is_ours else status in {400, 403}


def test_a_server_of_the_network_is_spoken_to_by_number_and_own_name():
    gate = Gate.of("0.0.0.0", port=9000)
    assert gate.is_own("192.168.1.2:9000")
    assert gate.is_own("[fe80::1]:9000")
    assert gate.is_own(f"{socket.gethostname()}:9000")
    assert not gate.is_own("rebound.example:9000")
    assert not gate.is_own("192.168.1.2:80")
    assert Gate.of("192.168.1.2", port=80).is_own("192.168.1.2")
    assert not Gate.of("127.0.0.1", port=80).takes_any_address


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_strange_page_changes_nothing(site, headers):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    invoked = []
    viewer.actions.add("flood", invoked.append)
    generation = viewer.shared_state.raw_state_and_generation[1]
    body = json.dumps({"pg": generation, "g": "1", "s": {"layout": "3d"}, "c": "me"})
    url = f"{site.address}/state/{viewer.token}"
    assert ask(url, method="POST", body=body, headers=headers).status == 403
    body = json.dumps({"action": "flood", "state": {}})
    url = f"{site.address}/action/{viewer.token}"
    assert ask(url, method="POST", body=body, headers=headers).status == 403
    assert viewer.shared_state.raw_state_and_generation[1] == generation
    assert invoked == []
    own = {"Origin": f"http://localhost:{site.port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(url, method="POST", body=body, headers=own).status == 200


def test_a_wrong_token_finds_nothing(site):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    wrong = "0" * len(viewer.token)
    for path in (
        f"/v/{wrong}/",
        f"/v/{wrong}/main.js",
        f"/events/{wrong}?c=1&gc=&gs=",
        f"/neuroglancer/info/{wrong}.{wrong}",
        f"/d/{wrong}/em/info",
        f"/f/{wrong}/",
        "/",
        "/v/",
        "/f",
    ):
        assert ask(site.address + path).status == 404, path
    for path in (f"/state/{wrong}", f"/action/{wrong}", f"/credentials/{wrong}", "/x"):
        assert ask(site.address + path, method="POST", body="{}").status in {400, 404}, path


def test_what_can_only_be_posted_is_not_read(site):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    for kind in ("state", "action", "credentials", "volume_response"):
        assert ask(f"{site.address}/{kind}/{viewer.token}").status in {404, 405}


def test_credentials_are_handed_to_nobody(site):
    viewer = neuroglancer.Viewer(allow_credentials=True)
    place = f"{site.address}/credentials/{viewer.token}"
    for key in ("google", "boss", "middleauth", "gcs", None, ["DVID"]):
        body = json.dumps({"key": key, "parameters": None})
        reply = ask(place, method="POST", body=body)
        assert (reply.status, reply.body) == (403, b""), key
    # The client asks before it speaks to a DVID server that wants no login.
    reply = ask(place, method="POST", body=json.dumps({"key": "DVID", "parameters": "x"}))
    assert reply.json["credentials"] == {}
    assert ask(place, method="POST", body="nonsense").status == 400
    assert ask(place).status == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"action": 1}',
        b"[" * 50_000,
        b'{"pg": "", "g": "", "s": 5, "c": ""}',
        b'{"pg": "", "g": "", "s": {"layers": 7}, "c": ""}',
    ],
)
def test_a_malformed_body_is_a_bad_request(site, body):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    with viewer.txn() as state:
        state.layout = "xy"
    for kind in ("action", "state"):
        reply = ask(f"{site.address}/{kind}/{viewer.token}", method="POST", body=body)
        assert reply.status in {400, 412}
    assert viewer.state.layout.type == "xy"


# How much, and how slowly.


def test_huge_bodies_are_refused_before_they_are_read(site, chunk):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    for path, size in (
        (f"/action/{viewer.token}", 10**10),
        (f"/state/{viewer.token}", 10**9),
        ("/action/" + "0" * 40, 10**6),
        (plain(chunk).removeprefix(site.address), 10**6),
    ):
        asked = request(site, f"POST {path} HTTP/1.1", f"Content-Length: {size}")
        assert status_of(send(site, asked + b"x" * 1000)) == 400
    endless = request(site, "POST /x HTTP/1.1", "Transfer-Encoding: chunked")
    with connect(site) as connection, pytest.raises(ConnectionError):
        connection.sendall(endless + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 1000)


def test_a_screenshot_of_tens_of_megabytes_is_taken(site):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    heard = threading.Event()
    viewer.actions.add("screenshot", lambda event: heard.set())
    body = json.dumps({"action": "screenshot", "state": {"image": "x" * 30 * 10**6}})
    reply = ask(f"{site.address}/action/{viewer.token}", method="POST", body=body)
    assert reply.status == 200
    assert heard.wait(20)


def test_huge_headers_are_refused(site, chunk):
    path = plain(chunk).removeprefix(site.address)
    few = request(site, f"GET {path} HTTP/1.1", "X-A: " + "x" * 8000)
    assert status_of(send(site, few)) == 200
    with connect(site) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\n" + b"X-A: y\r\n" * 100_000)
        assert status_of(read_all(connection)) != 200
    assert ask(chunk).status == 200


def test_clients_that_ask_slowly_are_dropped_and_slow_nobody(monkeypatch):
    monkeypatch.setattr(wire, "REQUEST_WITHIN_S", 1.5)
    with Site.start() as site, contextlib.ExitStack() as opened:
        good = site.serve_volume(an_image(), kind=Kind.IMAGE, name="em") + f"/{CHUNK}"
        alone = median_latency(good)
        slow = [opened.enter_context(connect(site)) for _ in range(100)]
        began = time.monotonic()
        for letter in "GET ":
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(letter.encode())
        assert_as_fast_as(alone, median_latency(good))
        slow[0].settimeout(20)
        while time.monotonic() - began < 20:
            with contextlib.suppress(OSError):
                slow[1].sendall(b"x")
            if slow[0].recv(1) == b"":
                break
        for connection in slow:
            connection.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def test_clients_that_take_nothing_are_dropped_and_slow_nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(wire, "_LOOK_EVERY_S", 0.3)
    with open(tmp_path / "huge", "wb") as handle:
        handle.truncate(2 * 10**9)
    with Site.start() as site, contextlib.ExitStack() as opened:
        good = site.serve_volume(an_image(), kind=Kind.IMAGE, name="em") + f"/{CHUNK}"
        folder = site.serve_folder(tmp_path).removeprefix(site.address)
        alone, before = median_latency(good), most_memory()
        slow = []
        for _ in range(60):
            connection = opened.enter_context(connect(site))
            connection.sendall(request(site, f"GET {folder}/huge HTTP/1.1"))
            slow.append(connection)
        assert_as_fast_as(alone, median_latency(good))
        assert most_memory() - before < 200 * 2**20
        end = time.monotonic() + 20
        server = neuroglancer.server.global_server.http_server
        while server._used and time.monotonic() < end:
            time.sleep(0.1)
        assert len(server._used) == 0
        slow[0].settimeout(5)
        assert len(read_all(slow[0])) < 2 * 10**9


def most_memory():
    """Return the largest memory of this process so far, in bytes; 0 where nobody says."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_two_hundred_at_once_are_all_answered(site):
    volume = an_image((64, 640, 640))
    address = site.serve_volume(volume, kind=Kind.IMAGE, name="em")
    boxes = [(64 * (i % 10), 64 * (i // 10 % 10)) for i in range(200)]

    def fetch(corner):
        x, y = corner
        reply = ask(f"{address}/1_1_1/{x}-{x + 64}_{y}-{y + 64}_0-64")
        assert reply.status == 200
        assert reply.body == volume.array[:, y : y + 64, x : x + 64].tobytes()

    with ThreadPoolExecutor(200) as pool:
        list(pool.map(fetch, boxes))
    assert len(volume.reads) == 100, "each stored chunk is read once"


def test_nobody_can_take_all_connections(site, chunk, monkeypatch):
    monkeypatch.setattr(wire, "MOST_CONNECTIONS", 20)
    viewer = neuroglancer.Viewer(allow_credentials=False)
    with contextlib.ExitStack() as opened:
        events = opened.enter_context(connect(site))
        line = f"GET /events/{viewer.token}?c=1&gc=&gs= HTTP/1.1"
        events.sendall(request(site, line))
        assert status_of(events.recv(1000)) == 200
        for _ in range(60):
            opened.enter_context(connect(site))
        assert ask(chunk).status == 200
        server = neuroglancer.server.global_server.http_server
        assert len(server._used) <= 20
        # A page that waits for events is not the one that makes room.
        with viewer.txn() as state:
            state.layout = "xz"
        events.settimeout(10)
        heard = b""
        while b'"xz"' not in heard:
            part = events.recv(65536)
            assert part, heard
            heard += part


def test_what_nobody_waits_for_any_more_is_not_read(site):
    class Slow(ArrayVolume):
        def _read(self, box):
            time.sleep(0.1)
            return super()._read(box)

    array = np.zeros((64, 64, 64 * 40), np.uint8)
    volume = Slow(array, chunks=(64, 64, 64))
    address = site.serve_volume(volume, kind=Kind.IMAGE, name="em")
    path = plain(address).removeprefix(site.address)
    for i in range(40):
        with connect(site) as connection:
            x = 64 * i
            connection.sendall(request(site, f"GET {path}/1_1_1/{x}-{x + 64}_0-64_0-64 HTTP/1.1"))
            time.sleep(0.01)
    time.sleep(0.3)
    began = time.monotonic()
    assert ask(f"{address}/1_1_1/0-64_0-64_0-64").status == 200
    assert time.monotonic() - began < 2
    assert len(volume.reads) < 20


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc tells open files")
def test_bad_clients_leave_no_descriptor_and_no_thread_behind(site, chunk, tmp_path):
    folder = site.serve_folder(tmp_path).removeprefix(site.address)
    (tmp_path / "a").write_bytes(bytes(10**6))

    def misbehave():
        for raw in (b"nonsense\r\n\r\n", request(site, f"GET {folder}/a HTTP/1.1"), b"GET"):
            with connect(site) as connection:
                connection.sendall(raw)
        assert ask(chunk).status == 200

    for _ in range(5):
        misbehave()
    time.sleep(0.2)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        misbehave()
    time.sleep(0.5)
    assert threading.active_count() <= threads + 2
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3


def test_every_answer_forbids_guessing_and_telling(site, chunk):
    viewer = neuroglancer.Viewer(allow_credentials=False)
    for address in (
        chunk,
        viewer.get_viewer_url(),
        f"{site.address}/neuroglancer/info/a.b",
        f"{site.address}/nothing",
    ):
        headers = ask(address).headers
        assert headers["x-content-type-options"] == "nosniff", address
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
