"""A Firefox without a driver program: it speaks WebDriver BiDi by itself.

https://w3c.github.io/webdriver-bidi/. What `browser.Page` asks of selenium's driver is
answered here, so that a test reads the same in both browsers. Headless it has no WebGL
without a graphics card; in a window on a screen in memory (Xvfb) it has.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import Browser

PROGRAMS = ("firefox-esr", "firefox")
SCREEN = "Xvfb"
INSTALL = "sudo apt-get install firefox-esr xvfb libgl1-mesa-dri"
STARTED_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 120.0

PREFERENCES = {
    "webgl.force-enabled": True,  # by software, where there is no graphics card
    "webgl.disable-fail-if-major-performance-caveat": True,
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "http://127.0.0.1:9/",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}

_LISTENS = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


class Driver:
    """The few calls of selenium's driver that a page needs."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._log: list[dict[str, str]] = []
        self.ask("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self.ask("session.subscribe", events=["log.entryAdded"])
        self._context = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv())
            if told.get("method") == "log.entryAdded":
                self._remember(told["params"])
            elif told.get("id") == number:
                assert told["type"] == "success", told
                return told["result"]

    def _remember(self, entry: dict[str, Any]) -> None:
        level = "SEVERE" if entry["level"] == "error" else entry["level"].upper()
        self._log.append({"level": level, "message": str(entry.get("text"))})

    def get(self, address: str) -> None:
        self.ask("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def execute_script(self, script: str, *arguments: Any) -> Any:
        # What crosses the wire is a text, whatever the script returns.
        body = f"JSON.stringify((function() {{ {script} }}).apply(null, {json.dumps(arguments)}))"
        told = self.ask(
            "script.evaluate",
            expression=body,
            target={"context": self._context},
            awaitPromise=False,
        )
        assert told["type"] == "success", told
        return json.loads(told["result"].get("value", "null"))

    def execute_cdp_cmd(self, command: str, size: dict[str, Any]) -> None:
        assert command == "Emulation.setDeviceMetricsOverride"
        viewport = {"width": size["width"], "height": size["height"]}
        self.ask("browsingContext.setViewport", context=self._context, viewport=viewport)

    def get_screenshot_as_png(self) -> bytes:
        told = self.ask("browsingContext.captureScreenshot", context=self._context)
        return base64.b64decode(told["data"])

    def get_log(self, kind: str) -> list[dict[str, str]]:
        self.execute_script("return 0")  # what was said until now arrives before the answer
        found, self._log = self._log, []
        return found


@contextlib.contextmanager
def running_firefox() -> Iterator[Browser]:
    """Start a Firefox on a screen in memory, or skip the test with what is missing."""
    websocket = pytest.importorskip("websocket", reason="websocket-client comes with selenium")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None or shutil.which(SCREEN) is None:
        pytest.skip(f"no Firefox and Xvfb here: {INSTALL}")
    with contextlib.ExitStack() as running:
        profile = running.enter_context(
            tempfile.TemporaryDirectory(prefix="firefox", ignore_cleanup_errors=True)
        )
        display = running.enter_context(_screen())
        address = running.enter_context(_listening(program, Path(profile), display=display))
        socket = websocket.create_connection(
            f"{address}/session", timeout=ANSWERED_WITHIN_S, suppress_origin=True
        )
        yield Browser(Driver(running.enter_context(contextlib.closing(socket))))


@contextlib.contextmanager
def _screen() -> Iterator[str]:
    """Run a screen in memory and give its name."""
    read, write = os.pipe()
    command = [SCREEN, "-displayfd", str(write), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, pass_fds=[write], **quiet) as process:
        os.close(write)
        try:
            with open(read, encoding="ascii") as told:
                number = told.readline().strip()
            if not number:
                pytest.skip(f"{SCREEN} does not start")
            yield f":{number}"
        finally:
            process.terminate()


@contextlib.contextmanager
def _listening(program: str, profile: Path, *, display: str) -> Iterator[str]:
    """Run a Firefox and give the address where it takes commands."""
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
    log = profile / "log.txt"
    command = [program, "--remote-debugging-port", "0", "--no-remote", "--profile", str(profile)]
    settings = {**os.environ, "DISPLAY": display, "LIBGL_ALWAYS_SOFTWARE": "1"}
    settings |= {"HOME": str(profile), "MOZ_CRASHREPORTER_DISABLE": "1"}
    with (
        open(log, "wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=settings) as process,
    ):
        try:
            yield _address(log, process)
        finally:
            process.terminate()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    said, end = "", time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        said = log.read_text(encoding="utf-8", errors="replace")
        match = _LISTENS.search(said)
        if match is not None:
            return match[1]
        time.sleep(0.1)
    pytest.skip(f"Firefox does not start: {said[-300:]}")
