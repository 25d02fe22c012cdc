"""One headless Chromium for many tests: an address in, what it drew and complained about out.

`chromium` is a fixture of the whole run (tests/conftest.py); it skips where there is
no browser. Pixels are taken from the page as a user sees it, panel by panel. Pictures
that people look at are written to build/screenshots.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from floodem.errors import DependencyError
from floodem.viewer.screenshot import headless_browser

SCREENSHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"

USUAL_SIZE_WH = (700, 600)
DRAWN_WITHIN_S = 120.0  # on a machine that does other things as well
_CALM_FOR = 4  # looks in a row at a page that is ready: a layer may come after the first
_LOOK_EVERY_S = 0.1

_BACKGROUND_SLICES = 128  # grey where there is no data

# The client keeps itself in window.viewer; what is read of it are public members and the
# scale bars, which exist as pixels only.
_STATUS = """
const v = window.viewer;
if (v === undefined || v.layerManager === undefined) return null;
const layers = v.layerManager.managedLayers;
const errors = [];
for (const managed of layers) {
  for (const source of managed.layer?.dataSources ?? []) {
    const error = source.loadState?.error;
    if (error) errors.push(managed.name + ": " + (error.message ?? error));
  }
}
return {layers: layers.length, errors: errors,
        ready: layers.length > 0 && layers.every((l) => l.layer !== null) && v.isReady()};
"""
_PANELS = """
const found = [];
for (const panel of window.viewer.display.panels) {
  if (panel.navigationState === undefined) continue;
  const {left, top, width, height} = panel.element.getBoundingClientRect();
  const bars = (panel.scaleBars?.scaleBars ?? []).filter((bar) => bar.texture !== null);
  found.push({is3d: panel.sliceView === undefined, left, top, width, height,
              bars: bars.map((bar) => ({label: bar.label, pixels: bar.dimensions.lengthInPixels,
                                        length: bar.dimensions.physicalLength,
                                        unit: bar.dimensions.physicalUnit}))});
}
return found;
"""


@dataclass(frozen=True)
class ScaleBar:
    """What is written beside a scale bar, and how long it is drawn."""

    label: str
    length: float
    unit: str
    pixels: int

    @property
    def nm_per_pixel(self) -> float:
        return self.length * {"nm": 1.0, "µm": 1e3, "mm": 1e6}[self.unit] / self.pixels


@dataclass(frozen=True)
class Panel:
    """One panel's pixels (row, column, RGB as int) and scale bars."""

    pixels: np.ndarray
    bars: Sequence[ScaleBar]
    is_3d: bool

    def coloured(self) -> np.ndarray:
        """Where pixels are not grey: segments, meshes, and thin lines of axes and bounds."""
        return np.ptp(self.pixels, axis=2) > 30

    def share_coloured(self) -> float:
        """Lines of axes and bounds alone take up to 6 %."""
        return float(self.coloured().mean())

    def share_textured(self) -> float:
        """Share of grey pixels that are clearly no background: an image."""
        is_grey = np.ptp(self.pixels, axis=2) < 5
        return float(np.mean(is_grey & (np.abs(self.pixels[..., 0] - _BACKGROUND_SLICES) > 20)))

    def colours(self, *, share: float = 1e-3) -> int:
        """Number of clearly different colours that take at least this share of the panel."""
        coarse = (self.pixels[self.coloured()] // 48).astype(int)
        _, counts = np.unique(coarse, axis=0, return_counts=True)
        return int(np.count_nonzero(counts > self.pixels[..., 0].size * share))

    def centre(self, edge: int = 40) -> np.ndarray:
        """The square in the middle, mostly without axes, texts and bounds."""
        row, column = (size // 2 for size in self.pixels.shape[:2])
        half = edge // 2
        return self.pixels[row - half : row + half, column - half : column + half]

    def has_bar_of(self, bar: ScaleBar) -> bool:
        """Tell whether a white bar of this length is drawn in the lower left."""
        height = self.pixels.shape[0]
        corner = self.pixels[height - 60 :, : bar.pixels + 40]
        white = (corner > 250).all(axis=2)
        return any(_longest_run(row) == bar.pixels for row in white)


def _longest_run(row: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
    return int(max((stop - start for start, stop in edges.reshape(-1, 2)), default=0))


class Page:
    """The page that the browser shows now."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._errors: list[str] = []

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def state(self) -> dict[str, Any]:
        """The state of the viewer as the page has it."""
        return json.loads(self.run("return JSON.stringify(window.viewer.state)"))

    def wait_until(self, condition: str, *, within_s: float = DRAWN_WITHIN_S) -> None:
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + within_s
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"{condition} did not hold: {self.complaints()}"
            time.sleep(_LOOK_EVERY_S)

    def wait_drawn(self, *, layers: int = 1, within_s: float = DRAWN_WITHIN_S) -> None:
        """Wait until so many layers are there and all that is in view has been drawn."""
        end, calm = time.monotonic() + within_s, 0
        while calm < _CALM_FOR:
            status = self.run(_STATUS)
            is_calm = status is not None and status["ready"] and status["layers"] >= layers
            calm = calm + 1 if is_calm else 0
            wrong = status["errors"] if status else []
            assert not wrong, wrong
            assert time.monotonic() < end, (
                f"not drawn within {within_s:g} s: {status} {self.complaints()}"
            )
            time.sleep(_LOOK_EVERY_S)

    def picture(self) -> np.ndarray:
        """The whole window (row, column, RGB as int)."""
        png = self.driver.get_screenshot_as_png()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def panels(self) -> dict[str, Panel]:
        """The panels as they are drawn: xy, xz, 3d, yz in the usual layout, else as numbered."""
        found = self.run(_PANELS)
        found.sort(key=lambda panel: (round(panel["top"]), round(panel["left"])))
        pixels = self.picture()
        names = ["xy", "xz", "3d", "yz"] if len(found) == 4 else map(str, range(len(found)))
        return {name: _cut(pixels, panel) for name, panel in zip(names, found, strict=True)}

    def complaints(self, *, but: Sequence[str] = ()) -> list[str]:
        """Errors in the browser's console and in the page's messages, since it was opened.

        `but` are endings of paths where the client looks for what need not be there.
        """
        for entry in self.driver.get_log("browser"):
            if entry["level"] == "SEVERE" and "favicon.ico" not in entry["message"]:
                self._errors.append(entry["message"])
        shown = self.run(
            "return [...document.querySelectorAll('[id^=neuroglancer-status-container] li')]"
            ".filter((e) => e.style.display !== 'none').map((e) => e.textContent)"
        )
        found = [*self._errors, *(text for text in shown if "rror" in text)]
        looked_for = tuple(f"{ending} - Failed to load resource" for ending in but)
        return [one for one in found if not any(look in one for look in looked_for)]

    def save(self, name: str) -> Path:
        """Write the window to build/screenshots/NAME.png and print where."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        path.write_bytes(self.driver.get_screenshot_as_png())
        print(f"screenshot {path}")
        return path


def _cut(picture: np.ndarray, panel: dict[str, Any]) -> Panel:
    margin = 2  # the frame of the active panel
    top, left = round(panel["top"]) + margin, round(panel["left"]) + margin
    bottom = round(panel["top"] + panel["height"]) - margin
    right = round(panel["left"] + panel["width"]) - margin
    bars = [ScaleBar(**bar) for bar in panel["bars"]]
    return Panel(picture[top:bottom, left:right], bars, is_3d=panel["is3d"])


class Browser:
    """A running Chromium that shows one page after the other."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, *, size_wh: tuple[int, int] = USUAL_SIZE_WH) -> Page:
        """Go to an address in a window whose inside has this size."""
        self._forget()
        width, height = size_wh
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(address)
        return Page(self.driver)

    def show(
        self,
        viewer: Any,
        *,
        layers: int = 1,
        size_wh: tuple[int, int] = USUAL_SIZE_WH,
        within_s: float = DRAWN_WITHIN_S,
    ) -> Page:
        """Open a running `floodem.viewer.Viewer` and wait until it is drawn."""
        page = self.open(viewer.address, size_wh=size_wh)
        page.wait_drawn(layers=layers, within_s=within_s)
        return page

    def _forget(self) -> None:
        # An address that differs behind # only would not be loaded anew.
        self.driver.get("about:blank")
        self.driver.get_log("browser")


@contextlib.contextmanager
def running_chromium(*flags: str) -> Iterator[Browser]:
    """Start a Chromium, or skip the test with what is missing."""
    with contextlib.ExitStack() as running:
        try:
            driver = running.enter_context(headless_browser(USUAL_SIZE_WH, flags=flags))
        except DependencyError as error:
            pytest.skip(str(error))
        yield Browser(driver)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this run."""
    # A stand-in for BossDB, which the client reads over https alone, has its own certificate.
    with running_chromium("--ignore-certificate-errors") as browser:
        yield browser
