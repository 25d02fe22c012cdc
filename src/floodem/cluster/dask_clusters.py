"""Dask clusters: what ``--cluster`` names comes in, something to connect to goes out.

Clusters that floodem starts have their scheduler in this process, listen with TLS and
take nobody whose certificate is not of this very run (floodem.cluster.certificates).
Pages that show what they do are served on this machine's own address, and only
where bokeh is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from floodem.cluster.addresses import SchedulerAddress
from floodem.errors import OptionError, ResourceError
from floodem.volumes.packages import require_package

CONNECT_S = 30.0
"""For a scheduler to answer."""
_CLOSE_S = 30.0
"""For workers to end, and for batch jobs to be given back."""
ONLY_HERE = "127.0.0.1:0"
PRELOAD = "floodem.cluster.dask_worker"


def require(name: str) -> ModuleType:
    """Import a package of the extra `cluster`.

    Raises
    ------
    DependencyError
        When it is not installed.
    """
    return require_package(name, purpose="--cluster", install="floodem[cluster]")


def distributed_package() -> ModuleType:
    """Import Dask's scheduler, workers and clients."""
    return require("distributed")


class Cluster(Protocol):
    """Something with a scheduler.

    Attributes
    ----------
    what
        What it is, for messages.
    may_return
        Whether its scheduler may be lost and come back; not one of this process.
    """

    what: str
    may_return: bool

    def connect(self, *, timeout_s: float) -> Any:
        """Return a new client of dask.distributed.

        Raises
        ------
        ResourceError
            When no scheduler answers.
        """

    def tend(self) -> None:
        """Replace what has ended.

        Raises
        ------
        ResourceError
            When nothing that is started lives.
        """


@dataclass(slots=True, kw_only=True)
class Owned:
    """A cluster with its scheduler in this process, which ends with it.

    Attributes
    ----------
    what, may_return
        See `Cluster`.
    cluster
        Dask's.
    """

    what: str
    cluster: Any
    may_return: bool = False

    def connect(self, *, timeout_s: float) -> Any:
        """Return a new client."""
        return distributed_package().Client(self.cluster, timeout=timeout_s, set_as_default=False)

    def tend(self) -> None:
        """Nannies start workers again by themselves."""


@dataclass(slots=True, kw_only=True)
class Elsewhere:
    """A scheduler that somebody else started, and may start again.

    Attributes
    ----------
    what, may_return
        See `Cluster`.
    address
        Where it is, and with which certificates.
    """

    what: str
    address: SchedulerAddress
    may_return: bool = True

    def connect(self, *, timeout_s: float) -> Any:
        """Return a new client."""
        security = _security_of(self.address)
        is_tls = self.address.is_encrypted
        of_one = ", and that the certificates are of the same authority" if is_tls else ""
        try:
            return _in_time(
                lambda: distributed_package().Client(
                    self.address.address, security=security, timeout=timeout_s, set_as_default=False
                ),
                seconds=2 * timeout_s,
            )
        except (OSError, TimeoutError, ImportError) as error:
            raise ResourceError(
                f"no scheduler answers at {self.address.address} ({first_line(error)}): see that "
                f"it runs{of_one}"
            ) from error

    def tend(self) -> None:
        """Whoever started it sees to it."""


def _in_time(connect: Callable[[], Any], *, seconds: float) -> Any:
    """Call what Dask lets wait for ever when the other side takes a connection and says nothing.

    Raises
    ------
    TimeoutError
        When it took longer; the thread that waits ends with the process.
    """
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put((connect(), None))
        except Exception as error:  # noqa: BLE001 - raised below
            answers.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        client, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("it takes connections and says nothing") from None
    if error is not None:
        raise error
    return client


def _security_of(address: SchedulerAddress) -> Any:
    make = distributed_package().Security
    if not address.is_encrypted:
        return make(require_encryption=False)
    files = address.ca_file, address.cert_file, address.key_file
    known: dict[str, Any] = {}
    if all(file is not None for file in files):
        names = ("tls_ca_file", "tls_client_cert", "tls_client_key")
        known = {name: str(file) for name, file in zip(names, files, strict=True)}
    security = make(require_encryption=True, **known)
    if not security.tls_ca_file or not security.tls_client_cert:
        raise OptionError(
            f"{address.address} wants certificates: write a TOML file with version = 1 and "
            "[scheduler] address, ca_file, cert_file, key_file, and give it with --cluster"
        )
    try:
        security.get_connection_args("client")
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        raise OptionError(
            f"the certificates for {address.address} cannot be used ({first_line(error)}): give "
            "PEM files of authority, certificate and key that belong together"
        ) from error
    return security


def first_line(error: BaseException) -> str:
    """Return the first line of an error of Dask, which may have many."""
    return (str(error) or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def closing(cluster: Any) -> Iterator[Any]:
    """End a cluster when the body ends."""
    try:
        yield cluster
    finally:
        with contextlib.suppress(TimeoutError):  # workers end by themselves without a scheduler
            cluster.close(timeout=_CLOSE_S)


def scheduler_options() -> dict[str, Any]:
    """Return how a scheduler of this process listens, and where it shows its pages."""
    has_pages = importlib.util.find_spec("bokeh") is not None
    return {"dashboard": has_pages, "dashboard_address": ONLY_HERE, "protocol": "tls://"}
