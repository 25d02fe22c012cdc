"""Requests by hand, down to single bytes, for tests of the server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """What came back; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def plain(address):
    """Return an address without the client's word for its format."""
    return address.removeprefix("precomputed://")


def ask(address, *, method="GET", headers=None, body=None, timeout=20):
    """Send one request and return the reply; nothing is followed, unpacked or repaired."""
    place = urlsplit(plain(address))
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    with contextlib.closing(connection):
        path = place.path + (f"?{place.query}" if place.query else "")
        connection.request(method, path, body=body, headers=headers or {})
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, found, reply.read())


def connect(site):
    return socket.create_connection(("127.0.0.1", site.port), timeout=20)


def send(site, request, *, timeout=20):
    """Send bytes as they are, and return all that comes back until the server hangs up."""
    with connect(site) as connection:
        connection.settimeout(timeout)
        connection.sendall(request)
        return read_all(connection)


def read_all(connection):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def status_of(reply):
    """Return the status of raw bytes, or None where the server hung up without a word."""
    return int(reply.split()[1]) if reply.startswith(b"HTTP/1.") else None
