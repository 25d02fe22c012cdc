"""Schedulers and workers as programs of their own, as someone else would have started them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from floodem.cluster.certificates import ROLES, Certificates, make_certificates

HERE = Path(__file__).parent


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that the system gives to nobody else, as a restarted scheduler wants it again.

    Those that it gives to callers begin at 32768 (Linux) or 49152.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            return port


@dataclass
class DaskPrograms:
    """A scheduler and workers with certificates of one authority.

    Attributes
    ----------
    folder
        Certificates and logs go there.
    host, port
        Where the scheduler listens.
    scheme
        tls or tcp.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    scheme: str = "tls"
    made: Certificates = field(default_factory=make_certificates)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        for role in ROLES:
            (self.folder / role).mkdir(parents=True)
            self.made.write(self.folder / role, role=role)

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def files(self, role: str) -> tuple[Path, Path, Path]:
        folder = self.folder / role
        return folder / "ca.pem", folder / f"{role}.pem", folder / f"{role}.key"

    def toml(self, *, certificates: DaskPrograms | None = None) -> str:
        """Write the file for --cluster and return its path."""
        ca, certificate, key = (certificates or self).files("client")
        path = self.folder / "cluster.toml"
        path.write_text(
            f'version = 1\n[scheduler]\naddress = "{self.address}"\nca_file = "{ca}"\n'
            f'cert_file = "{certificate}"\nkey_file = "{key}"\n',
            encoding="utf-8",
        )
        return str(path)

    def start_scheduler(self, *, listens: str | None = None) -> subprocess.Popen[bytes]:
        host = listens or self.host
        where = ["--protocol", self.scheme, "--host", host, "--port", str(self.port)]
        return self._start("dask_scheduler", where, role="scheduler")

    def start_worker(
        self, *options: str, address: str | None = None, inside: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        words = [address or self.address, "--nthreads", "1", "--memory-limit", "0", *options]
        words += ["--local-directory", str(self.folder)]
        return self._start("dask_worker", words, role="worker", inside=inside)

    def _start(
        self, module: str, words: list[str], *, role: str, inside: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        names = ("--tls-ca-file", "--tls-cert", "--tls-key")
        if self.scheme == "tls":
            for name, file in zip(names, self.files(role), strict=True):
                words = [*words, name, str(file)]
        words = [*words, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        with open(self.folder / f"{role}.log", "ab") as log:
            started = subprocess.Popen(
                [*inside, sys.executable, "-m", f"distributed.cli.{module}", *words],
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    # a host that is cut off says nothing: how long until it counts as lost
                    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
                    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running.append(started)
        return started

    def end(self, *programs: subprocess.Popen[bytes], kill: bool = False) -> None:
        """End programs with all their processes."""
        for program in programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL if kill else signal.SIGTERM)
        for program in programs:
            try:
                program.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()
            with contextlib.suppress(ProcessLookupError):  # workers behind a nanny that was killed
                os.killpg(program.pid, signal.SIGKILL)

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text(encoding="utf-8", errors="replace")

    @classmethod
    @contextlib.contextmanager
    def ending(cls, folder: Path, **where: object) -> Iterator[DaskPrograms]:
        programs = cls(folder, **where)  # type: ignore[arg-type]
        try:
            yield programs
        finally:
            programs.end(*programs.running, kill=True)


def wait_until(condition, *, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come in {seconds} s")
        time.sleep(0.05)
