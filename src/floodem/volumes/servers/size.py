"""How long a file on a server is: an address in, a number of bytes out.

An http server is asked for one byte and says of how many; it may also send us to
another address, where the file really is. For gs and s3
tensorstore has the credentials but tells no sizes: there the last byte is found
by asking which bytes exist.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, InvalidURL
from typing import Any
from urllib.parse import quote, unquote

from floodem.errors import StorageError, VolumeNotFoundError
from floodem.volumes.servers.addresses import HTTP_SCHEMES, split_address, stall_s, without_secrets
from floodem.volumes.servers.patience import Future, insist, insist_all

_PROBES_AT_ONCE = 32
_LARGEST_FILE = 2**50
_ENOUGH_TO_READ = 2**18
_NOT_FOUND = (404, 410)
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
_USER_AGENT = "floodem"


def find_http_file(address: str) -> tuple[str, int]:
    """Return where the file at an http address really is, and how many bytes it has.

    Raises
    ------
    VolumeNotFoundError
        When there is none.
    StorageError
        When the server denies it, does not answer, or sends only whole files.
    """
    return insist(lambda: _FirstByte(address), address=address, action="open")


def whole_files_only(address: str) -> StorageError:
    """Say that a server does not send parts of files."""
    return StorageError(
        f"{without_secrets(address)} cannot be read in parts, because its server "
        "sends only whole files: download it and open the copy"
    )


class _FirstByte:
    """A request for the first byte of a file on an http server; it tells address and size."""

    def __init__(self, address: str) -> None:
        self._address = address

    def cancel(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> tuple[str, int]:
        request = http_request(self._address, headers={"Range": "bytes=0-0"})
        limit = stall_s() if timeout is None else min(timeout, stall_s())
        try:
            with urllib.request.urlopen(request, timeout=limit) as answer:  # noqa: S310 - as above
                status, stated = answer.status, answer.headers.get("Content-Range", "")
                found_at = answer.geturl()
        except urllib.error.HTTPError as error:
            with error:
                status, stated = error.code, error.headers.get("Content-Range", "")
            if status in _NOT_FOUND:
                raise _not_found(self._address) from None
            if status != _RANGE_NOT_SATISFIABLE:
                raise OSError(f"[HTTP code {status}]") from None
            return self._address, 0
        except (OSError, HTTPException) as error:
            raise OSError(in_curls_words(error)) from error
        total = _TOTAL.fullmatch(stated)
        if status != _PARTIAL or total is None:
            raise whole_files_only(self._address)
        if found_at == request.full_url:
            found_at = self._address
        elif split_address(found_at)[0] not in HTTP_SCHEMES:
            raise StorageError(
                f"{without_secrets(self._address)} leads to {without_secrets(found_at)}, which is "
                "no http address: give the address of the file itself"
            )
        return found_at, int(total[1])


def http_request(address: str, *, headers: Mapping[str, str]) -> urllib.request.Request:
    """Make a request for the bytes of a file as they are; a password goes to its server only."""
    scheme, place, path, query = split_address(address)
    user, _, host = place.rpartition("@")
    url = f"{scheme}://{host}/{quote(unquote(path))}" + (f"?{query}" if query else "")
    usual = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=usual | dict(headers))  # noqa: S310 - http(s) only
    if user:
        word = base64.b64encode(unquote(user).encode()).decode()
        # Not for whoever the server sends us to.
        request.add_unredirected_header("Authorization", f"Basic {word}")
    return request


def in_curls_words(error: Exception) -> str:
    """Say what happened as tensorstore would, for `patience` to judge."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, ConnectionRefusedError):
        return f"UNAVAILABLE: Could not connect to server: {inner}"
    if isinstance(inner, socket.gaierror):
        return f"UNAVAILABLE: Could not resolve hostname: {inner}"
    if isinstance(inner, TimeoutError):
        return "UNAVAILABLE: it does not answer"
    lasting = isinstance(inner, (ssl.SSLError, InvalidURL))
    return f"{'INVALID_ARGUMENT' if lasting else 'UNAVAILABLE'}: {inner}"


def _not_found(address: str) -> VolumeNotFoundError:
    return VolumeNotFoundError(f"{without_secrets(address)} is not there: check the address")


class _Probe:
    """Whether a file has a byte at a place."""

    def __init__(self, store: Any, at: int) -> None:
        self._future: Future[Any] = store.read("", byte_range=slice(at, at + 1))

    def cancel(self) -> bool:
        return self._future.cancel()

    def result(self, timeout: float | None = None) -> bool | None:
        try:
            return True if self._future.result(timeout=timeout).state == "value" else None
        except ValueError as error:
            if "OUT_OF_RANGE" in str(error):
                return False
            raise


def count_bytes(address: str, store: Any) -> int:
    """Close in on the last byte of a file, many places at a time.

    Parameters
    ----------
    address
        Of one file.
    store
        The tensorstore.KvStore that was opened at it.

    Raises
    ------
    VolumeNotFoundError
        When there is none.
    StorageError
        When the server denies it or does not answer.
    """

    def which(places: list[int]) -> list[bool | None]:
        starts = [lambda at=at: _Probe(store, at) for at in places]
        return list(insist_all(starts, address=address, action="open"))

    (first,) = which([0])
    if first is None:
        raise _not_found(address)
    if not first:
        return 0
    low, high = 0, _LARGEST_FILE
    places = [2**exponent for exponent in range(1, _LARGEST_FILE.bit_length() - 1)]
    while high - low > _ENOUGH_TO_READ:
        there = which(places)
        low = max([low, *(at for at, is_there in zip(places, there, strict=True) if is_there)])
        high = min([high, *(a for a, is_there in zip(places, there, strict=True) if not is_there)])
        step = max(1, (high - low) // _PROBES_AT_ONCE)
        places = list(range(low + step, high, step))
    rest = insist(
        lambda: store.read("", byte_range=slice(low, None)), address=address, action="open"
    )
    return low + len(rest.value)
