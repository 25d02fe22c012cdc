"""Servers far away: an address in, what tensorstore needs to reach it, and patience, out.

Addresses are ``http(s)://host/path``, ``gs://bucket/path`` and ``s3://bucket/path``.
Whatever is asked of a server goes through `insist`: what fails for a moment
(no answer, a cut connection, 429, 500, 502, 503, 504) is tried again until the
deadline, what fails for good (404, 403) is not.

The environment decides what the addresses do not say:

- ``FLOODEM_REMOTE_DEADLINE``: seconds after which an answer is given up (default 60).
- ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, ``AWS_REGION`` or
  ``AWS_DEFAULT_REGION``, and the usual AWS credentials; without any, requests are
  not signed, as public buckets want it.
- ``STORAGE_EMULATOR_HOST`` or ``TENSORSTORE_GCS_HTTP_URL``: another server for gs;
  credentials as ``gcloud`` leaves them, or none.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from floodem.errors import FloodemError, OptionError, StorageError, VolumeFormatError
from floodem.volumes.packages import require_package

REMOTE_SCHEMES = ("http", "https", "gs", "s3")

DEADLINE_VARIABLE = "FLOODEM_REMOTE_DEADLINE"
REMOTE_DEADLINE_S = 60.0
"""How long one object may take to be read or written, with everything that is tried again."""

UNREACHABLE_DEADLINE_S = 8.0
"""A host that nobody has reached yet is more likely mistyped than down."""

REQUESTS_AT_ONCE = 32
"""As many as tensorstore sends itself (TENSORSTORE_HTTP_REQUEST_CONCURRENCY)."""

_STALLS_PER_DEADLINE = 4
_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 4.0
# One quick retry is tensorstore's; the others are made here, where the deadline is known.
_RETRIES = {"max_retries": 1, "initial_delay": "0.1s", "max_delay": "0.5s"}
_TRANSIENT = re.compile(
    r"(?:UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|CANCELLED): "
    r"|\[HTTP code (?:408|429|5\d\d)\]|curl_code="
)
_UNREACHED = re.compile(r"Could not connect to server|Could not resolve hostname")
_DENIED = re.compile(r"PERMISSION_DENIED|UNAUTHENTICATED|\[HTTP code 40[13]\]")
_NOISE = re.compile(
    r"^[A-Z_]+: |All \d+ retry attempts failed: | \[(?:http_response_body|curl_code|source)[^\]]*\]"
)
_URL_SECRETS = re.compile(r"(?<=://)[^/\s@\"']+@|(?<=[\w/%.-])\?[^\s\"'\])>,;]*=[^\s\"'\])>,;]*")

T = TypeVar("T")
Result_co = TypeVar("Result_co", covariant=True)


class Future(Protocol[Result_co]):
    """What tensorstore gives for something that is under way."""

    def result(self, timeout: float | None = None) -> Result_co:
        """Wait for it."""

    def cancel(self) -> bool:
        """Give it up."""


def is_remote(path: str) -> bool:
    """Tell an http(s), gs or s3 address from a path."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.lower() in REMOTE_SCHEMES


def without_secrets(text: str) -> str:
    """Cut user names, passwords and signed queries out of every address in a text."""
    return _URL_SECRETS.sub("", text)


def remote_deadline_s() -> float:
    """Return the deadline of one read or write of an object, in seconds.

    Raises
    ------
    OptionError
        When ``FLOODEM_REMOTE_DEADLINE`` is no positive number.
    """
    text = os.environ.get(DEADLINE_VARIABLE, "")
    if not text:
        return REMOTE_DEADLINE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise OptionError(
            f"{DEADLINE_VARIABLE}={text!r} is no positive number of seconds: for example 120"
        )
    return seconds


def tensorstore() -> Any:
    """Import tensorstore, with stalled connections cut before the deadline is over.

    A stall is noticed by the library that tensorstore reads http with, which
    looks at the environment when it is used first.
    """
    stall_s = max(1, round(remote_deadline_s() / _STALLS_PER_DEADLINE))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(stall_s))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", str(stall_s))
    return require_package("tensorstore", purpose="a remote address", install="tensorstore")


def kvstore_spec(address: str) -> dict[str, Any]:
    """Return what tensorstore opens as the key-value store at a remote address.

    The path is as the address has it: a folder's ends with ``/``.

    Raises
    ------
    VolumeFormatError
        When the address names no host or bucket.
    """
    split = urlsplit(address)
    if not split.netloc:
        raise VolumeFormatError(
            f"{without_secrets(address)} names no host or bucket: write it as in "
            f"{split.scheme}://NAME/path"
        )
    scheme = split.scheme.lower()
    if scheme in ("http", "https"):
        query = f"?{split.query}" if split.query else ""
        return {
            "driver": "http",
            "base_url": f"{scheme}://{split.netloc}{query}",
            "path": split.path or "/",
        }
    path = unquote(split.path).lstrip("/")
    if scheme == "gs":
        _point_at_emulator()
        return {"driver": "gcs", "bucket": split.netloc, "path": path}
    return {"driver": "s3", "bucket": split.netloc, "path": path, **_s3_place()}


def context_spec() -> dict[str, Any]:
    """Return how tensorstore is to go about remote requests."""
    context: dict[str, Any] = {
        f"{kind}_request_retries": dict(_RETRIES) for kind in ("http", "gcs", "s3")
    }
    if not _has_aws_credentials():
        context["aws_credentials"] = {"type": "anonymous"}
    return context


def _point_at_emulator() -> None:
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        url = emulator if "://" in emulator else f"http://{emulator}"
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = url.rstrip("/")


def _s3_place() -> dict[str, str]:
    environment = os.environ.get
    endpoint = environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL")
    region = environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
    place = {"endpoint": endpoint.rstrip("/")} if endpoint else {}
    return place | ({"aws_region": region} if region else {})


def _has_aws_credentials() -> bool:
    """Look whether this user or machine has any, without asking the network."""
    named = (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials",
        os.environ.get("AWS_CONFIG_FILE") or Path.home() / ".aws" / "config",
    )
    return (
        any(os.environ.get(name) for name in named)
        or any(Path(file).is_file() for file in files)
        or _is_on_ec2()
    )


def _is_on_ec2() -> bool:
    """Tell whether this is a machine of Amazon, which may have a role of its own."""
    try:
        vendor = Path("/sys/class/dmi/id/sys_vendor").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return vendor.startswith("Amazon EC2")


def insist(start: Callable[[], Future[T]], *, address: str, action: str) -> T:
    """Wait for one object to be read or written; try again what fails for a moment.

    Parameters
    ----------
    start
        Sends the request, at once and each time that it is tried again.
    address
        What messages call the place; secrets are cut out of it.
    action
        What is being done, for messages: ``read``, ``write``, ``open``.

    Raises
    ------
    StorageError
        When there is no answer by the deadline, or the server denies access.
    ValueError, OSError
        What tensorstore says about anything else.
    """
    (result,) = insist_all([start], address=address, action=action)
    return result


def insist_all(
    starts: Iterable[Callable[[], Future[T]]], *, address: str, action: str
) -> Iterator[T]:
    """Do as `insist` with many requests, some at a time; results come in order.

    Each has the whole deadline for itself, so that a large box takes the time it takes.

    Raises
    ------
    StorageError, ValueError, OSError
        As `insist`.
    """
    waiting: deque[_Attempts[T]] = deque()
    try:
        for start in starts:
            waiting.append(_Attempts(start, address=address, action=action))
            if len(waiting) == REQUESTS_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left in waiting:
            left.give_up()


class _Attempts(Generic[T]):
    """One request, sent again while what goes wrong may pass."""

    def __init__(self, start: Callable[[], Future[T]], *, address: str, action: str) -> None:
        self._start = start
        self._address = address
        self._action = action
        self._deadline_s = remote_deadline_s()
        self._began = time.monotonic()
        self._future = start()

    def result(self) -> T:
        for attempt in itertools.count():
            try:
                return self._future.result(timeout=max(0.0, self._left_s()))
            except TimeoutError:
                self.give_up()
                raise self._late("it did not answer") from None
            except (ValueError, OSError) as error:
                self._require_transient(error)
                delay = min(_FIRST_DELAY_S * 2**attempt, _LONGEST_DELAY_S)
                is_unreached = bool(_UNREACHED.search(str(error)))
                limit = UNREACHABLE_DEADLINE_S if is_unreached else math.inf
                if self._left_s() < delay or time.monotonic() - self._began > limit:
                    raise self._late(reason_in(error)) from error
            time.sleep(delay)
            self._future = self._start()
        raise AssertionError

    def give_up(self) -> None:
        self._future.cancel()

    def _left_s(self) -> float:
        return self._began + self._deadline_s - time.monotonic()

    def _require_transient(self, error: Exception) -> None:
        if isinstance(error, FloodemError):
            raise error
        text = str(error)
        if _DENIED.search(text):
            raise denied(self._address, action=self._action, reason=reason_in(error)) from error
        if not _TRANSIENT.search(text):
            raise error

    def _late(self, reason: str) -> StorageError:
        seconds = time.monotonic() - self._began
        return StorageError(
            f"cannot {self._action} {without_secrets(self._address)}: {reason}, tried for "
            f"{seconds:.0f} s; check address and network, or allow more time with "
            f"{DEADLINE_VARIABLE}=SECONDS"
        )


def denied(address: str, *, action: str, reason: str) -> StorageError:
    """Say that a server does not let us."""
    return StorageError(
        f"cannot {action} {without_secrets(address)}: the server denies access ({reason}); check "
        "your rights there and your credentials"
    )


def reason_in(error: Exception) -> str:
    """Find what a server or the network said in tensorstore's words, in one line."""
    text = " ".join(_NOISE.sub("", str(error)).split())
    _, _, last = text.rpartition("CURL error ")
    return without_secrets(last or type(error).__name__)
