"""HTTP itself: tornado and Neuroglancer's own server come in, one gated and bounded server out.

Neuroglancer's Python package brings a web server for what changes: the state of a viewer, its
actions, volumes in memory. Its handlers are kept and stand beside ours, behind one gate, on one
port; its class is kept too, so that its viewers find it where they look for it.

The classes are made in functions, because the packages they derive from are optional.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import socket
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any

from floodem.errors import DependencyError, UsageError
from floodem.viewer.serving.anonymous import anonymous_class
from floodem.viewer.serving.answers import Source
from floodem.viewer.serving.bridge import bridge_class
from floodem.viewer.serving.gate import Gate, bracketed

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest
    from tornado.iostream import IOStream
    from tornado.web import RequestHandler

MOST_CONNECTIONS = 512
"""Open at once; a page uses at most seven. The one that has been idle for longest makes room."""

HEADER_BYTES = 32 * 2**10
"""Browsers send a few KB, with the cookies of every other server on this machine among them."""

REQUEST_WITHIN_S = 30.0
"""How long a connection may be idle, and how long the headers of a request may take."""

BODY_WITHIN_S = 120.0

BODY_BYTES: Mapping[str, int] = {
    "action": 256 * 2**20,
    "state": 16 * 2**20,
    "volume_response": 16 * 2**20,
}
"""What pages may post: a screenshot of 8192 x 8192 pixels, which is an action, at its worst; a
state with some hundred thousand selected segments; a chunk that Python asked the page for."""

_LEAST_BODY_BYTES = 64 * 2**10
"""What is read, and thrown away, of a body that nobody wants."""

_LOOK_EVERY_S = 10.0
_LEAST_PROGRESS = 16 * 2**10
"""Bytes that a client with an answer under way must take between two looks, or it is dropped."""

_BACKLOG = 512

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# What Neuroglancer's page posts, by the first part of its path.
_POSTED: Mapping[str, frozenset[str]] = {
    "action": frozenset({"action", "state"}),
    "state": frozenset({"pg", "g", "s", "c"}),
}

_OF_A_REQUEST: Mapping[str, tuple[type[Exception], ...]] = {
    "GET": (ValueError, OverflowError),
    "POST": (ValueError, OverflowError, TypeError, LookupError, AttributeError),
}
"""What Neuroglancer's handlers raise when they are handed nonsense: numbers, or a state."""

_LOG = logging.getLogger(__name__)


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen to a port, 0 for any that is free.

    Raises
    ------
    UsageError
        When the host is none of this machine's, or the port cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        for family, place in dict.fromkeys((found[0], found[4][:2]) for found in places):
            # A name may stand for several addresses, which are to have one port.
            number = sockets[0].getsockname()[1] if sockets else place[1]
            one = socket.create_server((place[0], number), family=family, backlog=_BACKLOG)
            one.setblocking(False)
            sockets.append(one)
    except (OSError, OverflowError, UnicodeError) as error:
        for one in sockets:
            one.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"port {port} of {host} cannot be opened ({reason}): choose another port, or 0 for any"
        ) from error
    return sockets


def require_packages() -> None:
    """Refuse to go on without the packages behind the viewer.

    Raises
    ------
    DependencyError
        When one is not installed.
    """
    try:
        import_module("neuroglancer.server")
        import_module("tornado.web")
    except ImportError as error:
        raise DependencyError(
            'the viewer needs the package neuroglancer: pip install "floodem[view]"'
        ) from error


@functools.cache
def server_class() -> Any:
    """Return our subclass of Neuroglancer's server; see `Site` for what it is told."""
    from neuroglancer import server as theirs
    from tornado.ioloop import PeriodicCallback

    class SiteServer(theirs.Server):  # type: ignore[misc]
        """Neuroglancer's server with a gate, bounds, and sources of ours."""

        def __init__(self, sockets: list[socket.socket], *, host: str, page: Source) -> None:
            port = sockets[0].getsockname()[1]
            super().__init__(bind_address=host, bind_port=port)
            self.sources: dict[tuple[str, ...], Source] = {}
            self.page = page
            self.gate = Gate.of(host, port=port)
            self._sockets = sockets

        def _attempt_to_start_server(self) -> None:
            self.app = application_class()(self)
            self.http_server = bounded_server_class()(
                self.app,
                max_header_size=HEADER_BYTES,
                idle_connection_timeout=REQUEST_WITHIN_S,
                body_timeout=BODY_WITHIN_S,
                max_body_size=_LEAST_BODY_BYTES,
            )
            self.http_server.add_sockets(self._sockets)
            self.port = self.gate.port
            self.server_url = self.regular_server_url = address_of(self._bind_address, self.port)
            self._credentials_manager = None
            self._looking = PeriodicCallback(self.http_server.drop_stalled, _LOOK_EVERY_S * 1000)
            self._looking.start()

        async def _stop(self) -> None:
            self._looking.stop()
            self.http_server.stop()
            await self.http_server.close_all_connections()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self.executor.shutdown(wait=False, cancel_futures=True)
            self.loop.stop()

    return SiteServer


def address_of(host: str, port: int) -> str:
    """Return what to put in front of a path; a server that listens everywhere has a name."""
    is_everywhere = host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return f"http://{bracketed(socket.gethostname() if is_everywhere else host)}:{port}"


@functools.cache
def application_class() -> Any:
    """Return the application: the gate, then Neuroglancer's handlers and ours."""
    from tornado.web import Application

    class GatedApplication(Application):
        """Looks at each request before its body is read."""

        def __init__(self, server: Any) -> None:
            self._server = server
            super().__init__(
                list(routes(server)),
                log_function=lambda handler: None,  # addresses hold the token
                default_handler_class=bridge_class(),
                default_handler_args={"server": server},
            )
            self.add_transform(transform_class())

        def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
            asked = request.headers
            self._server.http_server.note_request(request)
            refusal = self._server.gate.refusal(
                request.method or "",
                host=asked.get("Host"),
                origin=asked.get("Origin"),
                site=asked.get("Sec-Fetch-Site"),
            )
            if refusal is None and request.method == "POST":
                kind, token = [*request.path.split("/"), "", ""][1:3]
                if token in self._server.viewers and request.connection is not None:
                    wanted = BODY_BYTES.get(kind, _LEAST_BODY_BYTES)
                    request.connection.set_max_body_size(wanted)  # type: ignore[attr-defined]
            if refusal is None:
                return super().find_handler(request, **kwargs)
            told = {"server": self._server, "refusal": refusal}
            return self.get_handler_delegate(request, bridge_class(), told)

    return GatedApplication


def routes(server: Any) -> Iterable[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Yield Neuroglancer's routes, two of them with answers of ours: page and credentials."""
    from neuroglancer import server as theirs

    handlers = {
        theirs.INFO_PATH_REGEX: theirs.VolumeInfoHandler,
        theirs.SKELETON_INFO_PATH_REGEX: theirs.SkeletonInfoHandler,
        theirs.DATA_PATH_REGEX: theirs.SubvolumeHandler,
        theirs.SKELETON_PATH_REGEX: theirs.SkeletonHandler,
        theirs.MESH_PATH_REGEX: theirs.MeshHandler,
        theirs.ACTION_PATH_REGEX: theirs.ActionHandler,
        theirs.VOLUME_INFO_RESPONSE_PATH_REGEX: theirs.VolumeInfoResponseHandler,
        theirs.VOLUME_CHUNK_RESPONSE_PATH_REGEX: theirs.VolumeChunkResponseHandler,
        theirs.EVENTS_PATH_REGEX: theirs.EventStreamHandler,
        theirs.SET_STATE_PATH_REGEX: theirs.SetStateHandler,
    }
    for pattern, handler in handlers.items():
        yield pattern, careful(handler), {"server": server}
    yield theirs.CREDENTIALS_PATH_REGEX, careful(anonymous_class()), {"server": server}


@functools.cache
def careful(handler_class: Any) -> Any:
    """Return one of Neuroglancer's handlers that answers nonsense with 400 and logs no address."""
    from tornado.iostream import StreamClosedError
    from tornado.web import HTTPError

    class Careful(handler_class):  # type: ignore[misc]
        """Neuroglancer's handler behind a look at what it is handed."""

        def prepare(self) -> None:
            kind = self.request.path.split("/")[1]
            if self.request.method == "POST" and kind in _POSTED:
                try:
                    body = json.loads(self.request.body)
                except (ValueError, RecursionError):
                    body = None
                if not isinstance(body, dict) or not _POSTED[kind] <= set(body):
                    raise HTTPError(HTTPStatus.BAD_REQUEST)

        def write_error(self, status_code: int, **kwargs: Any) -> None:
            error = (kwargs.get("exc_info") or (None, None))[1]
            if self._is_nonsense(error):
                self.set_status(HTTPStatus.BAD_REQUEST)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{kwargs.get('message') or self.get_status()}\n")

        def _is_nonsense(self, error: Any) -> bool:
            return isinstance(error, _OF_A_REQUEST.get(self.request.method or "", ()))

        def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
            if not (isinstance(error, (HTTPError, StreamClosedError)) or self._is_nonsense(error)):
                _LOG.error("a request of the viewer failed", exc_info=(kind, error, trace))

    return Careful


@functools.cache
def transform_class() -> Any:
    """Return what adds our headers to every answer, Neuroglancer's too."""
    from tornado.web import OutputTransform

    class SecurityHeaders(OutputTransform):
        def transform_first_chunk(
            self, status_code: int, headers: Any, *rest: Any
        ) -> tuple[int, Any, bytes]:
            for name, value in _SECURITY_HEADERS.items():
                if name not in headers:
                    headers[name] = value
            headers.pop("Server", None)
            return status_code, headers, rest[0]

    return SecurityHeaders


@functools.cache
def bounded_server_class() -> Any:
    """Return tornado's HTTP server with a bound on connections and on patience."""
    from tornado.httpserver import HTTPServer

    class BoundedServer(HTTPServer):
        """Drops whoever is idle when there are too many, and whoever takes nothing."""

        def initialize(self, *args: Any, **kwargs: Any) -> None:
            super().initialize(*args, **kwargs)
            self._used: dict[IOStream, float] = {}
            self._sent: dict[IOStream, int] = {}

        def handle_stream(self, stream: IOStream, address: Any) -> None:
            if len(self._used) >= MOST_CONNECTIONS:
                idle = min(self._used, key=self._used.__getitem__)
                del self._used[idle]
                idle.close()
            self._used[stream] = time.monotonic()
            super().handle_stream(stream, address)

        def on_close(self, server_conn: Any) -> None:
            self._used.pop(server_conn.stream, None)
            self._sent.pop(server_conn.stream, None)
            super().on_close(server_conn)

        def note_request(self, request: HTTPServerRequest) -> None:
            """Remember when a connection was used last; one that waits for events always is."""
            stream = getattr(request.connection, "stream", None)
            if stream in self._used:
                waits = request.path.startswith("/events/")
                self._used[stream] = float("inf") if waits else time.monotonic()

        def drop_stalled(self) -> None:
            """Close connections that took next to nothing since the last look."""
            for stream in list(self._used):
                sent = stream._total_write_done_index  # noqa: SLF001 - said nowhere else
                before = self._sent.get(stream)
                if not stream.writing():
                    self._sent.pop(stream, None)
                elif before is not None and sent - before < _LEAST_PROGRESS:
                    stream.close()
                else:
                    self._sent[stream] = sent

    return BoundedServer
