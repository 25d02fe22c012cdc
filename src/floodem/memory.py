"""How much memory this process may still take, asked from the operating system."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from floodem.errors import ResourceError

_CGROUP = Path("/sys/fs/cgroup")


def _linux_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    available = int(values["MemAvailable"]) * 1024 if "MemAvailable" in values else None
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (_CGROUP / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return available
    if limit == "max":
        return available
    under_limit = max(int(limit) - int(used), 0)
    return under_limit if available is None else min(available, under_limit)


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        ("total_physical", ctypes.c_ulonglong),
        ("available_physical", ctypes.c_ulonglong),
        ("total_page_file", ctypes.c_ulonglong),
        ("available_page_file", ctypes.c_ulonglong),
        ("total_virtual", ctypes.c_ulonglong),
        ("available_virtual", ctypes.c_ulonglong),
        ("available_extended_virtual", ctypes.c_ulonglong),
    )


def available_memory() -> int | None:
    """Return the bytes that can be taken without swapping, or None where the system does not say.

    On Linux the smaller of MemAvailable and what the control group leaves; on
    Windows the free physical memory; on macOS the whole physical memory, an
    upper bound.
    """
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return None
        return int(status.available_physical)
    if sys.platform == "linux":
        return _linux_available()
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def require_memory(*, needed_bytes: int, purpose: str, remedy: str) -> None:
    """Refuse work that would not fit in memory.

    Raises
    ------
    ResourceError
        When the system says that less than `needed_bytes` are available.
    """
    available = available_memory()
    if available is not None and needed_bytes > available:
        raise ResourceError(
            f"{purpose} needs {needed_bytes / 1e9:.1f} GB of memory and "
            f"{available / 1e9:.1f} GB are available: {remedy}"
        )
