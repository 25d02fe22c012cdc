"""Who may ask: what a request says of itself comes in, a refusal or nothing goes out.

The server listens on this machine, where every page that a browser shows can reach it. Pages of
others are kept out by three things: addresses hold a random token, the Host header must name this
server (a page whose own name was rebound to 127.0.0.1 sends its own name), and what changes
something must come from a page of ours (Origin).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::(?P<port>\d{1,5}))?", re.ASCII)
_HTTP_PORT = 80
_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered, in a status and a sentence."""

    status: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Names under which a server may be spoken to.

    Attributes
    ----------
    port
        Where it listens.
    names
        Lower-case host names and addresses, IPv6 in brackets.
    takes_any_address
        Whether numeric addresses are taken besides, because it listens to the network:
        only a name can be rebound to another machine.
    """

    port: int
    names: frozenset[str]
    takes_any_address: bool

    @classmethod
    def of(cls, host: str, *, port: int) -> Gate:
        """Return the gate of a server that is bound to a host."""
        names = {*LOOPBACK_NAMES, bracketed(host).lower()}
        is_local = is_loopback(host)
        if not is_local:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(port=port, names=frozenset(names), takes_any_address=not is_local)

    def refusal(
        self, method: str, *, host: str | None, origin: str | None, site: str | None
    ) -> Refusal | None:
        """Say why a request is refused, or None where it may pass.

        Parameters
        ----------
        method
            Of HTTP, in capitals.
        host, origin, site
            The headers Host, Origin and Sec-Fetch-Site; None where they are missing.
        """
        if method not in METHODS:
            return Refusal(
                status=HTTPStatus.METHOD_NOT_ALLOWED, sentence=f"{method[:16]} is not served here"
            )
        if not self.is_own(host):
            return Refusal(
                status=HTTPStatus.FORBIDDEN,
                sentence="this name is not one of this server's: use the address that was printed",
            )
        if method != "POST":
            return None
        is_strange = origin is not None and not self.is_own_origin(origin)
        if is_strange or (site is not None and site not in _OWN_SITES):
            return Refusal(
                status=HTTPStatus.FORBIDDEN, sentence="a page of another site may not do this"
            )
        return None

    def is_own(self, host: str | None) -> bool:
        """Tell whether a Host header names this server."""
        match = _HOST.fullmatch(host or "")
        if match is None or int(match["port"] or _HTTP_PORT) != self.port:
            return False
        name = match["name"].lower()
        return name in self.names or (self.takes_any_address and _is_address(name))

    def is_own_origin(self, origin: str) -> bool:
        """Tell whether an Origin header names this server."""
        scheme, _, host = origin.partition("://")
        return scheme == "http" and self.is_own(host)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what is bound to a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bracketed(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
