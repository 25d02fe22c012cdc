"""``floodem view LAYERS...``: volumes in, an address for the browser (or a picture) out."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.errors import OptionError
from floodem.geometry import VoxelSize

if TYPE_CHECKING:
    from floodem.viewer import Kind, Layer

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
        int, typer.Option(min=0, max=_LARGEST_PORT, help="0 for any that is free.")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address only.")
    ] = False,
    screenshot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Save a picture and end.")
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
    from floodem.viewer import Viewer, save_screenshot

    wanted = [
        *map(split_kind, layers or []),
        *(("segmentation", uri) for uri in segmentation or []),
    ]
    if not wanted:
        raise OptionError("there is nothing to show: floodem view IMAGE SEGMENTATION")
    window = parse_size(size)
    edges = None if voxel_size is None else VoxelSize.parse(voxel_size)
    with ExitStack() as stack:
        shown = open_layers(wanted, stack)
        viewer = stack.enter_context(
            Viewer(shown, voxel_size=edges, port=port, view_size_wh=window)
        )
        for note in (*guesses(wanted, shown), *viewer.notes):
            print(note)
        if screenshot is not None:
            save_screenshot(viewer, screenshot, size_wh=window)
            print(f"saved {screenshot}")
            return
        print(f"open {viewer.address}\nCtrl-C ends it", flush=True)
        if not no_browser and has_screen():
            import webbrowser

            webbrowser.open(viewer.address)
        stay()


def split_kind(text: str) -> tuple[str | None, str]:
    """Split ``segmentation=ADDRESS`` or ``image=ADDRESS``; without either the kind is None."""
    name, equals, rest = text.partition("=")
    return (name, rest) if equals and name in {"image", "segmentation"} else (None, text)


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


def open_layers(wanted: Sequence[tuple[str | None, str]], stack: ExitStack) -> list[Layer]:
    """Open the volumes, to be closed by `stack`, and decide how to show each."""
    from floodem.viewer import Kind, Layer, guess_kind, unique_names
    from floodem.volumes import open_volume

    volumes = [stack.enter_context(open_volume(uri)) for _, uri in wanted]
    kinds: list[Kind] = [
        guess_kind(volume) if kind is None else Kind(kind)
        for (kind, _), volume in zip(wanted, volumes, strict=True)
    ]
    names = unique_names([volume.uri for volume in volumes])
    return [Layer(*parts) for parts in zip(volumes, kinds, names, strict=True)]


def guesses(wanted: Sequence[tuple[str | None, str]], shown: Sequence[Layer]) -> Iterator[str]:
    """Yield a sentence for each small-integer volume whose voxels told how to show it."""
    for (kind, uri), layer in zip(wanted, shown, strict=True):
        dtype = layer.volume.dtype
        if kind is None and layer.kind == "segmentation" and dtype.itemsize <= 2:
            yield (
                f"{layer.name} ({dtype}) looks like labels and is shown as a segmentation; "
                f"image={uri} shows it in grey"
            )


def has_screen() -> bool:
    """Tell whether a browser would open in a window; on a bare terminal one would take it over."""
    if sys.platform in {"win32", "darwin"}:
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def stay() -> None:
    """Wait for Ctrl-C."""
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print("closed")
