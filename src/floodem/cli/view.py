"""``floodem view LAYERS...``: volumes in, an address for the browser (or a picture) out."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from floodem.cli.values import option_value
from floodem.errors import OptionError
from floodem.geometry import VoxelSize

_LARGEST_PORT = 65535


def view(
    layers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LAYERS",
            help="Volumes; image=ADDRESS or segmentation=ADDRESS says how to show one.",
        ),
    ] = None,
    *,
    segmentation: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="A volume to show as segmentation (repeatable)."),
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Nanometres, instead of what the volumes state."),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=_LARGEST_PORT,
            help="0: any that is free. From afar: ssh -L PORT:127.0.0.1:PORT.",
        ),
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address only.")
    ] = False,
    screenshot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Save a picture, replacing PNG, and end."),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the window in pixels.")
    ] = "1400x900",
) -> None:
    """Open images and segmentations in the browser.

    Volumes of 32- and 64-bit integers are shown as segmentations, floats as images;
    of 8- and 16-bit integers the flat ones are segmentations. Objects get meshes in
    volumes of up to 256 x 256 x 256 voxels. Runs until Ctrl-C.
    """
    from floodem import viewer

    wanted = [*(layers or []), *(f"segmentation={uri}" for uri in segmentation or [])]
    if not wanted:
        raise OptionError("there is nothing to show: floodem view IMAGE SEGMENTATION")
    window = parse_size(size)
    if screenshot is not None:
        from floodem.viewer.screenshot import require_png

        require_png(screenshot)
    edges = None
    if voxel_size is not None:
        edges = option_value("--voxel-size", VoxelSize.parse, text=voxel_size)
    with viewer.view(*wanted, voxel_size=edges, port=port, view_size_wh=window) as running:
        for note in running.notes:
            print(note)
        if screenshot is not None:
            viewer.save_screenshot(running, screenshot, size_wh=window)
            print(f"saved {screenshot}")
            return
        with until_ctrl_c():
            print(f"open {running.address}\nCtrl-C ends it", flush=True)
            if not no_browser and has_screen():
                import webbrowser

                webbrowser.open(running.address)
            stay()


def parse_size(text: str) -> tuple[int, int]:
    """Read ``"1400x900"`` as width and height.

    Raises
    ------
    OptionError
        When it is not two positive whole numbers.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text, re.ASCII)
    if match is None:
        raise OptionError(f"--size {text!r} is not WIDTHxHEIGHT, for example 1400x900")
    return int(match[1]), int(match[2])


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
