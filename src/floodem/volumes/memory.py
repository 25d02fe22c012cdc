"""How much memory there is, asked before anything large is allocated."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from floodem.errors import ResourceError

ALWAYS_ALLOWED_BYTES = 64 * 2**20
"""Requests up to this size are not checked: asking would cost more than it saves."""

_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, or None if unknown.

    Linux: ``MemAvailable``. Windows: ``ullAvailPhys``. Elsewhere all physical
    memory, since the free part cannot be had from the standard library.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _available_on_windows()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _available_on_windows() -> int | None:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = [  # noqa: RUF012 - ctypes reads this name
            ("dwLength", ctypes.c_ulong),
            ("dwMemoryLoad", ctypes.c_ulong),
            ("ullTotalPhys", ctypes.c_ulonglong),
            ("ullAvailPhys", ctypes.c_ulonglong),
            ("ullTotalPageFile", ctypes.c_ulonglong),
            ("ullAvailPageFile", ctypes.c_ulonglong),
            ("ullTotalVirtual", ctypes.c_ulonglong),
            ("ullAvailVirtual", ctypes.c_ulonglong),
            ("ullAvailExtendedVirtual", ctypes.c_ulonglong),
        ]

    status = MemoryStatus(dwLength=ctypes.sizeof(MemoryStatus))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - absent elsewhere
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.ullAvailPhys)


def require_memory(needed_bytes: int, *, purpose: str, remedy: str) -> None:
    """Refuse an allocation that this machine cannot hold.

    Raises
    ------
    ResourceError
        When less than `needed_bytes` are available.
    """
    if needed_bytes <= ALWAYS_ALLOWED_BYTES:
        return
    available = available_memory()
    if available is not None and needed_bytes > available:
        raise ResourceError(
            f"{purpose} needs {needed_bytes / 1e9:.3g} GB of memory, where "
            f"{available / 1e9:.3g} GB are free: {remedy}"
        )
