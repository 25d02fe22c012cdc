"""Patience with servers: a request in, its result out, or one sentence when it does not come.

What fails for a moment (no answer, a cut connection, 408, 409, 429, 500 to 504) is
tried again until a deadline; what fails for good (404, 403) is not. Stalled
connections are cut by tensorstore itself (`remote.tensorstore`), so that they are
tried again as well.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

from floodem.errors import FloodemError, StorageError
from floodem.volumes.servers.addresses import DEADLINE_VARIABLE, remote_deadline_s, without_secrets

UNREACHABLE_DEADLINE_S = 8.0
"""A host that nobody has reached yet is more likely mistyped than down."""

REQUESTS_AT_ONCE = 32
"""As many as tensorstore sends itself (TENSORSTORE_HTTP_REQUEST_CONCURRENCY)."""

_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 4.0
_CODE = re.compile(r"(?:HTTP code |http_response_code=')(\d{3})")
_TRANSIENT_CODES = {408, 409, 429, 500, 502, 503, 504}
"""409 is what S3 says to one of two conditional writes in the same moment."""

_ELSEWHERE_CODES = {301, 302, 303, 307, 308}
_DENIED_CODES = {401, 403}
_TRANSIENT = re.compile(
    r"^(?:UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|CANCELLED): |curl_code="
)
_LASTING = re.compile(r"curl_code='(?:1|3|51|58|60|77)'")
"""Unknown protocols, malformed addresses, certificates that are not accepted."""

_UNREACHED = re.compile(r"Could not connect to server|Could not resolve hostname")
_ANNOTATIONS = re.compile(r" \[[a-z_]+='.*", re.DOTALL)

T = TypeVar("T")
Result_co = TypeVar("Result_co", covariant=True)


class AccessDeniedError(StorageError):
    """A server does not let us."""


class Future(Protocol[Result_co]):
    """What tensorstore gives for something that is under way."""

    def result(self, timeout: float | None = None) -> Result_co:
        """Wait for it."""

    def cancel(self) -> bool:
        """Give it up."""


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
        When there is no answer by the deadline.
    AccessDeniedError
        When the server answers 401 or 403.
    ValueError, OSError
        What tensorstore says about anything else.
    """
    (result,) = insist_all([start], address=address, action=action)
    return result


def insist_all(
    starts: Iterable[Callable[[], Future[T]]], *, address: str, action: str
) -> Iterator[T]:
    """Do as `insist` with many requests, some at a time; results come in order.

    The deadline counts from the last one that came, so that a large box takes the time it takes.

    Raises
    ------
    StorageError, ValueError, OSError
        As `insist`.
    """
    progress = _Progress()
    waiting: deque[_Attempts[T]] = deque()
    try:
        for start in starts:
            waiting.append(_Attempts(start, progress, address=address, action=action))
            if len(waiting) == REQUESTS_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left in waiting:
            left.give_up()


@contextlib.contextmanager
def remote_refusals(action: str, address: str) -> Iterator[None]:
    """Turn what tensorstore says in the body into one sentence.

    Raises
    ------
    StorageError
        For every error that is not one of ours already.
    """
    try:
        yield
    except FloodemError:
        raise
    except (ValueError, OSError) as error:
        raise StorageError(
            f"cannot {action} {without_secrets(address)}: {reason_in(error)}; check the address "
            "and your rights there"
        ) from error


class _Progress:
    """When something last came; from then on the deadline counts."""

    def __init__(self) -> None:
        self.last = time.monotonic()


class _Attempts(Generic[T]):
    """One request, sent again while what goes wrong may pass."""

    def __init__(
        self, start: Callable[[], Future[T]], progress: _Progress, *, address: str, action: str
    ) -> None:
        self._start = start
        self._progress = progress
        self._address = without_secrets(address)
        self._action = action
        self._deadline_s = remote_deadline_s()
        self._future = start()

    def result(self) -> T:
        last = "it does not answer"
        for attempt in itertools.count():
            try:
                result = self._future.result(timeout=max(0.0, self._deadline_s - self._waited_s()))
            except TimeoutError:
                break
            except (ValueError, OSError) as error:
                self._require_transient(error)
                last = reason_in(error)
                delay = min(_FIRST_DELAY_S * 2**attempt, _LONGEST_DELAY_S)
                is_unreached = bool(_UNREACHED.search(str(error)))
                limit = min(self._deadline_s, UNREACHABLE_DEADLINE_S if is_unreached else math.inf)
                if self._waited_s() + delay > limit:
                    break
            else:
                self._progress.last = time.monotonic()
                return result
            time.sleep(delay)
            self._future = self._start()
        self.give_up()
        raise StorageError(
            f"cannot {self._action} {self._address}: {last} (waited {self._waited_s():.0f} s); "
            f"check address and network, or allow more time with {DEADLINE_VARIABLE}=SECONDS"
        )

    def give_up(self) -> None:
        self._future.cancel()

    def _waited_s(self) -> float:
        return time.monotonic() - self._progress.last

    def _require_transient(self, error: Exception) -> None:
        if isinstance(error, FloodemError):
            raise error
        code = code_in(error)
        if code in _DENIED_CODES:
            raise AccessDeniedError(
                f"cannot {self._action} {self._address}: the server denies access "
                f"({reason_in(error)}); check your rights there and your credentials"
            ) from error
        is_transient = _TRANSIENT.search(str(error)) and not _LASTING.search(str(error))
        if code in _ELSEWHERE_CODES:
            raise StorageError(
                f"cannot {self._action} {self._address}: the server sends us to another address "
                f"({reason_in(error)}); give that one"
            ) from error
        if code not in _TRANSIENT_CODES and (code or not is_transient):
            raise error


def code_in(error: Exception) -> int | None:
    """Find the HTTP status in what tensorstore says."""
    match = _CODE.search(str(error))
    return int(match[1]) if match else None


def reason_in(error: Exception) -> str:
    """Say in a few words what a server or the network did, from what tensorstore says."""
    code = code_in(error)
    if code is not None:
        known = {status.value: status.phrase for status in HTTPStatus}
        return f"HTTP {code} {known.get(code, '')}".strip()
    text = " ".join(_ANNOTATIONS.sub("", str(error)).split())
    last = re.sub(r"^[A-Z_]+: ", "", text.rpartition("CURL error ")[2])
    return without_secrets(last) or type(error).__name__
