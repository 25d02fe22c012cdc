"""A picture of the viewer without a screen: a running `Viewer` in, a PNG file out.

A headless Chromium draws the page with its software renderer, so that the
picture is the same on a laptop and on a server without a graphics card.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import DependencyError, OptionError, ResourceError, StorageError
from floodem.files import replacing

if TYPE_CHECKING:
    from floodem.viewer.running import Viewer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DRIVER = "chromedriver"
BROWSER_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
FLAGS = (
    "--headless=new",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # WebGL 2 without a graphics card; --use-gl=egl would lose it.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)

LONGEST_EDGE = 8192  # the software renderer's largest texture
DRAWN_WITHIN_S = 180.0


def save_screenshot(
    viewer: Viewer,
    path: Path,
    *,
    size_wh: tuple[int, int],
    drawn_within_s: float = DRAWN_WITHIN_S,
) -> None:
    """Draw the viewer's panels, everything loaded, into a PNG file.

    Parameters
    ----------
    viewer
        Running, made for a window of this size.
    path
        Replaced when it exists.
    size_wh
        Width and height in pixels.
    drawn_within_s
        How long to wait for data and meshes.

    Raises
    ------
    DependencyError
        When selenium, a Chromium or its driver is not installed, or does not start.
    OptionError
        When the size is not possible, or the path does not end in ``.png``.
    ResourceError
        When the page is not drawn in time.
    StorageError
        When the file cannot be written.
    """
    require_png(path)
    if not all(0 < edge <= LONGEST_EDGE for edge in size_wh):
        raise OptionError(f"size {size_wh} is not within 1 to {LONGEST_EDGE} pixels")
    if not path.absolute().parent.is_dir():
        raise StorageError(f"there is no folder for {path}: make it first")
    with headless_browser(size_wh) as browser:
        browser.get(viewer.address)
        png = _draw(viewer, size_wh, drawn_within_s)
    with replacing(path) as partial:
        partial.write_bytes(png)


def require_png(path: Path) -> None:
    """Refuse a path that no PNG picture could have.

    Raises
    ------
    OptionError
        When it does not end in ``.png``, or is a folder.
    """
    if path.suffix.lower() != ".png" or path.is_dir():
        raise OptionError(
            f"screenshot {str(path)!r} is no name of a PNG file: give one that ends in .png"
        )


def find_browser() -> tuple[str, str]:
    """Return the paths of a Chromium (or Chrome) and of its driver.

    Raises
    ------
    DependencyError
        When one of them is missing; the message has the line that installs both.
    """
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    found += [place for place in BROWSER_PLACES if os.path.isfile(place)]
    driver = shutil.which(DRIVER)
    if not found or driver is None:
        missing = " and ".join(
            name for name, here in (("Chromium", found), (DRIVER, driver)) if not here
        )
        raise DependencyError(f"a screenshot needs {missing}: {_install_line()}")
    return found[0], driver


def _install_line() -> str:
    if sys.platform == "darwin":
        return "brew install --cask chromium chromedriver"
    if sys.platform == "win32":
        return "install Chrome, and put the chromedriver.exe of its version on the PATH"
    return "sudo apt-get install chromium chromium-driver"


@contextlib.contextmanager
def headless_browser(size_wh: tuple[int, int], *, flags: Sequence[str] = ()) -> Iterator[Any]:
    """Give a selenium driver of a Chromium without a window, which keeps the console's log.

    Raises
    ------
    DependencyError
        When selenium, a Chromium or its driver is not installed, or does not start.
    """
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError as error:
        raise DependencyError("a screenshot needs selenium: pip install selenium") from error
    binary, driver_path = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--window-size={size_wh[0]},{size_wh[1]}", *flags):
        options.add_argument(flag)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root with it
    try:
        # A given driver keeps selenium from looking for one on the network.
        service = webdriver.ChromeService(executable_path=driver_path)
        browser = webdriver.Chrome(options=options, service=service)
    except WebDriverException as error:
        reason = (error.msg or "no reason given").splitlines()[0]
        raise DependencyError(
            f"{binary} does not start under {driver_path} ({reason}): their versions must match"
        ) from error
    try:
        yield browser
    finally:
        browser.quit()


def _draw(viewer: Viewer, size_wh: tuple[int, int], drawn_within_s: float) -> bytes:
    """Ask the page for a picture; it answers when all that is in view has been drawn."""
    drawn: list[bytes] = []

    def ask() -> None:
        reply = viewer.client.screenshot(size=list(size_wh))
        drawn.append(bytes(reply.screenshot.image))

    # The call itself has no time limit, and a page without WebGL never answers.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(drawn_within_s)
    if not drawn:
        raise ResourceError(
            f"the browser did not draw the page within {drawn_within_s:g} s: "
            "show a smaller volume, or fewer layers"
        )
    return drawn[0]
