"""``floodem view LAYERS...``: volumes in, an address for the browser (or a picture) out."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli.staying import open_and_stay
from floodem.cli.values import option_value
from floodem.cli.view_report import is_page, show_report
from floodem.errors import OptionError
from floodem.geometry import VoxelSize

if TYPE_CHECKING:
    from floodem.viewer import Look, Viewer

_LARGEST_PORT = 65535
_LOCAL_ONLY = "127.0.0.1"
_CHOOSE = "auto"


def view(
    layers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LAYERS",
            help="Volumes, scenes, a report; image=ADDRESS or segmentation=ADDRESS names the kind.",
        ),
    ] = None,
    *,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="A volume to show as image (repeatable)."),
    ] = None,
    segmentation: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="A volume to show as segmentation (repeatable)."),
    ] = None,
    meshes: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Meshes of the segmentation (repeatable)."),
    ] = None,
    skeletons: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Skeletons of the segmentation (repeatable)."),
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Nanometres, instead of what the volumes state."),
    ] = None,
    position: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Where the slices cross, in voxels.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(metavar="ID,...", help="Objects to show in 3-D.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(metavar="NAME", help="4panel, 3d, xy, xz, yz, xy-3d, ...")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A network: f or shift+click on a cell floods it."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DST", help="Where kept floods go: a zarr, here, named after the image."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="For --model: auto, cpu, cuda or cuda:N.")
    ] = _CHOOSE,
    dtype: Annotated[
        str,
        typer.Option(metavar="NAME", help="For --model: auto, float32, bfloat16 or float16."),
    ] = _CHOOSE,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=_LARGEST_PORT,
            help="0: any that is free. From afar: ssh -L PORT:127.0.0.1:PORT.",
        ),
    ] = 0,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen: this machine alone.")
    ] = _LOCAL_ONLY,
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
    share: Annotated[
        bool,
        typer.Option("--share", help="Print the view as JSON for other viewers, and end."),
    ] = False,
) -> None:
    """Open images, segmentations and scenes in the browser.

    Files and folders of every format, gs:// and s3:// are read piece by piece as you look.
    A report of floodem evaluate opens with links that lead into the viewer. Addresses on other
    servers go to the viewer as they are: precomputed, zarr, n5 and nifti
    over http, dvid://, boss://, render://; "precomputed://https://..." and
    "https://...|zarr3:" alike.

    Volumes of 32- and 64-bit integers are shown as segmentations, floats as images;
    of 8- and 16-bit integers the flat ones are segmentations. Objects get meshes in
    volumes of up to 256 x 256 x 256 voxels, in larger ones from --meshes. Runs until Ctrl-C.

    With --model a flood grows where you click in the first image, around what is shown as
    segmentation: Escape stops it, Enter keeps it, Backspace takes it back, u undoes the last
    one kept. Clicking in a kept object goes on from there.
    """
    from floodem import viewer

    if not any([layers, image, segmentation, meshes, skeletons]):
        raise OptionError("there is nothing to show: floodem view IMAGE SEGMENTATION")
    if any(map(is_page, layers or [])):
        others = [image, segmentation, meshes, skeletons, voxel_size, position, select, layout]
        if len(layers or []) > 1 or any([*others, model, screenshot, share]):
            raise OptionError("a report is shown as it is: floodem view REPORT.html")
        show_report(Path((layers or [])[0]), host=host, port=port, opens_browser=not no_browser)
        return
    if model is not None and (screenshot is not None or share):
        raise OptionError("--model is for clicking: leave out --screenshot and --share")
    if model is None and keep is not None:
        raise OptionError(f"--keep {keep} is for floods: give the network as well, --model MODEL")
    for option, value in (("--device", device), ("--dtype", dtype)):
        if model is None and value != _CHOOSE:
            raise OptionError(f"{option} {value} is for a network: give one as well, --model MODEL")
    window = parse_size(size)
    if screenshot is not None:
        from floodem.viewer.screenshot import require_png

        require_png(screenshot)
    edges = option_value("--voxel-size", VoxelSize.parse, text=voxel_size)
    look = parse_look(position=position, select=select, layout=layout)
    with viewer.view(
        *(layers or []),
        image=image or [],
        segmentation=segmentation or [],
        meshes=meshes or [],
        skeletons=skeletons or [],
        voxel_size=edges,
        port=port,
        host=host,
        view_size_wh=window,
        look=look,
        model=model,
        keep=keep,
        device=device,
        dtype=dtype,
    ) as running:
        say_notes(running, host=host, to_stderr=share)
        if screenshot is not None:
            with running.client.txn() as state:
                state.selected_layer.visible = False  # its panel would be a black stripe
            viewer.save_screenshot(running, screenshot, size_wh=window)
            print(f"saved {screenshot}", file=sys.stderr if share else sys.stdout)
        if share:
            print_state(running)
        if screenshot is None and not share:
            stay_open(running, opens_browser=not no_browser)


def say_notes(running: Viewer, *, host: str, to_stderr: bool) -> None:
    """Print what is shown otherwise than one may think, and who can see it."""
    for note in running.notes:
        print(note, file=sys.stderr if to_stderr else sys.stdout)
    if host not in {_LOCAL_ONLY, "localhost", "::1"}:
        print(
            f"warning: listening at {host}: everyone who has the address can read what is shown "
            "here, over a connection that is not encrypted; ssh -L keeps it to you",
            file=sys.stderr,
        )


def print_state(running: Viewer) -> None:
    """Print the view as JSON on stdout, and what was left out of it on stderr."""
    shared = running.shared()
    for remark in shared.remarks:
        print(remark, file=sys.stderr)
    if not shared.state.get("layers"):
        print(
            "nothing is left to share: floodem scene makes a folder that opens anywhere",
            file=sys.stderr,
        )
    print(json.dumps(shared.state, indent=2))


def stay_open(running: Viewer, *, opens_browser: bool) -> None:
    """Print the address, open it, and serve until Ctrl-C."""
    open_and_stay(running.address, opens_browser=opens_browser)


def parse_look(*, position: str | None, select: str | None, layout: str | None) -> Look:
    """Read ``--position 10,20.5,30``, ``--select 1,2,3`` and ``--layout``.

    Raises
    ------
    OptionError
        When one of them is not understood.
    """
    from floodem.viewer import Look

    place = None
    if position is not None:
        try:
            z, y, x = (float(part) for part in position.split(","))
        except ValueError:
            raise OptionError(
                f"--position {position!r} is not z,y,x: three numbers, for example 50,128,128"
            ) from None
        place = (z, y, x)
    try:
        selected = tuple(int(part) for part in (select or "").split(",") if part.strip())
    except ValueError:
        raise OptionError(
            f"--select {select!r} is no list of ids: whole numbers, for example 7,200"
        ) from None
    return Look(position_zyx=place, selected=selected, layout=layout)


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
