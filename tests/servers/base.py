"""A small threaded HTTP server that goes wrong on demand, and remembers what it was asked.

`FakeServer` answers on a port of 127.0.0.1 while its block runs; a subclass says
what is served. `Fault`s are handed out to the first requests that they fit.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

STALL, STALL_INSIDE, TRUNCATE, RESET = "stall", "stall inside", "truncate", "reset"
"""Never answer; stop in the middle; hang up in the middle; hang up at once."""

LOST = "lost"
"""Do what was asked and hang up instead of answering."""

_LONGEST_STALL_S = 60.0
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class Fault:
    """What goes wrong with requests: an HTTP status, or one of the words above.

    It fits requests of `method` whose path holds `inside`, after the first
    `skip` of them, `times` times.
    """

    kind: int | str
    times: int = 1
    inside: str = ""
    method: str = ""
    skip: int = 0
    done: int = 0

    def fits(self, method: str, path: str) -> bool:
        if self.times <= 0 or self.inside not in path or self.method not in ("", method):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.done += 1
        return True


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a server says to it; a range of the body is taken where one was asked for."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True


class FakeServer:
    """Answers requests by `answer` until the block ends."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.sent_bytes = 0
        self.lock = threading.Lock()
        self._ending = threading.Event()
        self._connections: set[socket.socket] = set()

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def fault_for(self, asked: Asked) -> Fault | None:
        with self.lock:
            self.asked.append(asked)
            return next((f for f in self.faults if f.fits(asked.method, asked.path)), None)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._ending.set()
        self._server.shutdown()
        with self.lock:
            left = list(self._connections)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    @contextlib.contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        with self.lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self.lock:
                self._connections.discard(connection)

    def wait(self, seconds: float) -> None:
        self._ending.wait(seconds)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections are cut on purpose."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeServer

    def handle(self) -> None:
        with self.fake.connected(self.connection):
            super().handle()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        split = urlsplit(self.path)
        asked = Asked(
            method=self.command,
            path=unquote(split.path),
            query={k: v[0] for k, v in parse_qs(split.query, keep_blank_values=True).items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        fault = self.fake.fault_for(asked)
        if self.fake.delay_s:
            self.fake.wait(self.fake.delay_s)
        if fault is not None and fault.kind == STALL:
            self.fake.wait(_LONGEST_STALL_S)
            self.close_connection = True
        elif fault is not None and fault.kind in (RESET, LOST):
            if fault.kind == LOST:
                self.fake.answer(asked)
            self._reset()
        elif fault is not None and isinstance(fault.kind, int):
            self._send(Answer(fault.kind, b"it went wrong"), asked, None)
        else:
            self._send(self.fake.answer(asked), asked, fault)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _send(self, answer: Answer, asked: Asked, fault: Fault | None) -> None:
        status, body, headers = _ranged(answer, asked)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
        self.end_headers()
        if asked.method == "HEAD":
            return
        if fault is None:
            self.wfile.write(body)
            self._count(len(body))
            return
        half = body[: len(body) // 2]
        self.wfile.write(half)
        self.wfile.flush()
        self._count(len(half))
        self.close_connection = True
        if fault.kind == STALL_INSIDE:
            self.fake.wait(_LONGEST_STALL_S)

    def _count(self, sent: int) -> None:
        with self.fake.lock:
            self.fake.sent_bytes += sent

    def _reset(self) -> None:
        self.close_connection = True
        no_lingering = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
        self.connection.close()


def _ranged(answer: Answer, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
    match = _RANGE.fullmatch(asked.headers.get("range", ""))
    headers = dict(answer.headers)
    if (
        match is None
        or not answer.ranges
        or answer.status != HTTPStatus.OK
        or asked.method not in ("GET", "HEAD")
    ):
        return answer.status, answer.body, headers
    size = len(answer.body)
    first, last = match.groups()
    if first:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
    else:
        start, stop = max(0, size - int(last)), size
    if start >= size:
        headers["Content-Range"] = f"bytes */{size}"
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", headers
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return HTTPStatus.PARTIAL_CONTENT, answer.body[start:stop], headers
