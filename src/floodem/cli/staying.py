"""What commands do that serve an address: they print it, open it and stay until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator


def open_and_stay(address: str, *, opens_browser: bool) -> None:
    """Print an address that is served, open it, and wait until Ctrl-C."""
    with until_ctrl_c():
        print(f"open {address}\nCtrl-C ends it", flush=True)
        if opens_browser and has_screen():
            import webbrowser

            webbrowser.open(address)
        stay()


def has_screen() -> bool:
    """Tell whether a browser would open in a window; on a bare terminal one would take it over."""
    if sys.platform in {"win32", "darwin"}:
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


@contextlib.contextmanager
def until_ctrl_c() -> Iterator[None]:
    """Take Ctrl-C in the body for its proper end."""
    try:
        yield
    except KeyboardInterrupt:
        print("closed")


def stay() -> None:
    """Wait for ever."""
    while True:
        time.sleep(1)
