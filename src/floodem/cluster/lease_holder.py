"""Who works at a place on a server: this process in, what a lease says about it out, and back."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

_LEASE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who works at a place.

    Attributes
    ----------
    host, process
        For whoever wonders who that is.
    token
        Random; tells two processes apart whatever they are called.
    started
        When the work began, by the holder's clock.
    machine
        Within what process numbers mean something: a boot of a system and a process
        namespace; empty where that cannot be told.
    beats
        Counts the renewals.
    is_released
        The holder has ended.
    version
        Of this description.
    """

    host: str
    process: int
    token: str
    started: str
    machine: str = ""
    beats: int = 0
    is_released: bool = False
    version: int = _LEASE_VERSION

    @classmethod
    def ours(cls) -> Holder:
        """Describe this process, under a new token."""
        return cls(
            host=socket.gethostname(),
            process=os.getpid(),
            token=secrets.token_hex(16),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_this_machine(),
        )

    @classmethod
    def parse(cls, data: bytes) -> Holder | None:
        """Read a lease, or return None where that is none: it then counts as a stranger's."""
        try:
            found = cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            return None
        return found if found.version == _LEASE_VERSION else None

    def encoded(self) -> bytes:
        """Return what is written."""
        return json.dumps(asdict(self)).encode()

    def is_gone(self) -> bool:
        """Tell whether the holder has ended for certain; False also where nobody can know."""
        if self.is_released:
            return True
        if not self.machine or self.machine != _this_machine():
            return False
        try:
            os.kill(self.process, 0)  # asks, and kills nothing
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.started}"


def _this_machine() -> str:
    """Name the system's boot and the namespace in which process numbers hold (Linux only)."""
    if sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
