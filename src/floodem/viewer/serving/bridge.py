"""From tornado to our sources and back: an HTTP request comes in, what a source answers goes out.

The classes are made in functions, because the package they derive from is optional.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from floodem.viewer.serving.answers import (
    PIECE_BYTES,
    Answer,
    FilePart,
    Request,
    Source,
    not_found,
    text_answer,
)
from floodem.viewer.serving.gate import Gate

_LOG = logging.getLogger(__name__)


@functools.cache
def sending_class() -> Any:
    """Return the handler that sends an answer, piece by piece, and logs no address."""
    from tornado.iostream import StreamClosedError
    from tornado.web import HTTPError, RequestHandler

    class Sending(RequestHandler):
        """Writes a piece when the one before it has left."""

        async def send(self, answer: Answer, *, executor: Any = None) -> None:
            self.set_status(answer.status)
            for name, value in answer.headers.items():
                self.set_header(name, value)
            if answer.status != HTTPStatus.NOT_MODIFIED:
                self.set_header("Content-Length", str(len(answer.body)))
                if self.request.method != "HEAD":
                    try:
                        await self._write(answer.body, executor)
                    except (StreamClosedError, OSError):
                        # The length is promised: who reads is to see that something is missing.
                        self._hang_up()
                        return
            await self.finish()

        async def _write(self, body: bytes | FilePart, executor: Any) -> None:
            loop, sent = asyncio.get_running_loop(), 0
            while sent < len(body):
                if isinstance(body, FilePart):
                    piece = await loop.run_in_executor(executor, body.read, sent)
                else:
                    piece = body[sent : sent + PIECE_BYTES]
                sent += len(piece)
                self.write(piece)
                await self.flush()

        def _hang_up(self) -> None:
            stream = getattr(self.request.connection, "stream", None)
            if stream is not None:
                stream.close()

        def compute_etag(self) -> None:
            """Add none: sources have their own."""

        def write_error(self, status_code: int, **kwargs: Any) -> None:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{status_code}\n")

        def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
            if not isinstance(error, (HTTPError, StreamClosedError)):
                _LOG.error("a request for data failed", exc_info=(kind, error, trace))

    return Sending


@functools.cache
def bridge_class() -> Any:
    """Return the handler that asks a source and sends what it answers."""

    class Bridge(sending_class()):  # type: ignore[misc]
        """Every path that is none of Neuroglancer's, and every request that was refused."""

        def initialize(self, server: Any, refusal: Any = None) -> None:
            self._server, self._refusal = server, refusal
            self._asked: Any = None

        async def prepare(self) -> None:
            if self._refusal is not None:
                await self.send(text_answer(self._refusal.status, self._refusal.sentence))

        async def get(self) -> None:
            source, path = find_source(self._server, self.request.path)
            if source is None:
                await self.send(not_found())
                return
            self._allow(source)
            headers = {name.lower(): value for name, value in self.request.headers.items()}
            asked = Request(path=path, headers=headers)
            answer = source.at_once(asked) or await self._from_thread(source, asked)
            await self.send(answer, executor=source.executor)

        head = get

        async def options(self) -> None:
            source, _ = find_source(self._server, self.request.path)
            if source is not None:
                self._allow(source)
                for name, value in preflight_headers(source).items():
                    self.set_header(name, value)
            self.set_status(HTTPStatus.NO_CONTENT)

        async def post(self) -> None:
            await self.send(not_found())

        def _allow(self, source: Source) -> None:
            origin = self.request.headers.get("Origin")
            for name, value in cors_headers(source, origin, self._server.gate).items():
                self.set_header(name, value)

        async def _from_thread(self, source: Source, asked: Request) -> Answer:
            try:
                self._asked = source.executor.submit(source.answer, asked)
                answer: Answer = await asyncio.wrap_future(self._asked)
            except asyncio.CancelledError:
                return not_found()  # nobody waits for it any more, or the source was closed
            except RuntimeError:
                if source in self._server.sources.values():
                    raise
                return not_found()  # it was closed just now
            return answer

        def on_connection_close(self) -> None:
            if self._asked is not None:
                self._asked.cancel()

    return Bridge


def find_source(server: Any, path: str) -> tuple[Source | None, str]:
    """Return whose path this is, and what follows the address of that, decoded once."""
    try:
        parts = [unquote_to_bytes(part).decode() for part in path.split("/")[1:]]
    except UnicodeDecodeError:
        return None, ""
    # An encoded slash is part of no name.
    if any("/" in part for part in parts):
        return None, ""
    if parts[0] == "v" and len(parts) > len(("v", "TOKEN")):
        is_viewer = parts[1] in server.viewers or parts[1] == server.token
        return (server.page, "/".join(parts[2:])) if is_viewer else (None, "")
    for length in (len(("f", "TOKEN")), len(("d", "TOKEN", "NAME"))):
        source = server.sources.get(tuple(parts[:length]))
        if source is not None and len(parts) > length:
            return source, "/".join(parts[length:])
    return None, ""


def cors_headers(source: Source, origin: str | None, gate: Gate) -> dict[str, str]:
    """Return what lets a page of another origin read: any, or the same server's other names."""
    exposed = "Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag, Last-Modified"
    if source.is_public:
        return {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": exposed,
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
    if origin is not None and gate.is_own_origin(origin):
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": exposed}
    return {}


def preflight_headers(source: Source) -> dict[str, str]:
    """Return what a browser wants to know before it asks from another origin."""
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
        "Access-Control-Allow-Headers": "Range, If-None-Match, If-Modified-Since, Cache-Control",
        "Access-Control-Max-Age": "86400",
    }
    if source.is_public:
        # https://wicg.github.io/private-network-access/: a page of the web may ask this machine.
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers
