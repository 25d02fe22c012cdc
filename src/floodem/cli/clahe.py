"""``floodem clahe SRC DST``: an image in, the same with even contrast out."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from floodem.cli.stopping import interrupting_on_sigterm, stopping_on_signals
from floodem.cli.values import option_value
from floodem.errors import OptionError, StoppedError
from floodem.geometry import Box, parse_zyx


def clahe(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Image: a path or address.")],
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Copy to make; ending or prefix tell the format.")
    ],
    *,
    block: Annotated[int, typer.Option(help="Edge of the window in pixels, odd.")] = 127,
    bins: Annotated[int, typer.Option(help="Bins of its histogram, at most 256.")] = 256,
    slope: Annotated[float, typer.Option(help="How much contrast may grow at most.")] = 1.5,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="LOW,HIGH",
            help="Grey values that the bins span; default: 0,255, or SRC's own for 16 bits.",
        ),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Equalise only these voxels of SRC.")
    ] = None,
    chunks: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Chunks of DST in voxels.")
    ] = None,
    pyramid: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Add N coarser levels, or down to 64 in y and x."),
    ] = None,
    kind: Annotated[
        Literal["image"] | None,
        typer.Option(help="Insist that SRC is an image, where it looks like labels."),
    ] = None,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Which channel of SRC, counted from 0.")
    ] = None,
    level: Annotated[
        int, typer.Option(min=0, help="Which level of a pyramid; 0 is the finest.")
    ] = 0,
    axes: Annotated[
        str | None, typer.Option(help="Names of SRC's stored axes, if it is wrong: xyz, czyx.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="By default one for each core.")
    ] = None,
    allow_external: Annotated[
        bool, typer.Option("--allow-external", help="Follow HDF5 links that leave the file.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace DST, and begin a stopped copy again.")
    ] = False,
) -> None:
    """Equalise the contrast of an image's sections, as ImageJ does.

    The rule is that of "Enhance Local Contrast (CLAHE)" in Fiji, section by
    section, on average within about half a grey level of its exact mode. Images have 8
    or 16 bits; voxel size, offset and type stay. A --box gives the same voxels as
    the whole would.

    As with `floodem convert`, DST gets receipts and is read back and compared, and
    what was stopped goes on with the same command.
    """
    from floodem import volumes
    from floodem.cli.convert import _parse_pyramid, describe
    from floodem.cli.progress import progress_bar
    from floodem.volumes.conversion.destination import is_resumable
    from floodem.volumes.location import parse_location
    from floodem.volumes.volume import Kind

    options: dict[str, Any] = {
        "block": block,
        "bins": bins,
        "slope": slope,
        "value_range": None if value_range is None else parse_range(value_range),
        "box": None if box is None else option_value("--box", Box.parse, text=box),
        "chunks": None if chunks is None else option_value("--chunks", parse_zyx, text=chunks),
        "pyramid": None if pyramid is None else _parse_pyramid(pyramid),
        "kind": None if kind is None else Kind(kind),
        "channel": channel,
        "level": level,
        "axes": axes,
        "threads": threads,
        "allow_external": allow_external,
        "overwrite": overwrite,
    }
    goes_on = is_resumable(parse_location(destination))
    stopping = (
        stopping_on_signals("finishing the blocks in work")
        if goes_on
        else interrupting_on_sigterm()
    )
    try:
        with stopping as should_stop, progress_bar() as progress:
            made = volumes.clahe(
                source, destination, **options, progress=progress, should_stop=should_stop
            )
    except KeyboardInterrupt:
        if not goes_on:
            raise
        without = " without --overwrite" if overwrite else ""
        raise StoppedError(
            f"interrupted; what is written is kept: run the same command again{without} to go on"
        ) from None
    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    with volumes.open_volume(destination) as copy:
        print(describe(copy))
    for sentence in made.notices:
        print(f"note: {sentence}", file=sys.stderr)


def parse_range(text: str) -> tuple[int, int]:
    """Read ``"120,4000"`` as the darkest and the brightest value.

    Raises
    ------
    OptionError
        When there are not two whole numbers.
    """
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"--range {text!r} is not two whole numbers: write LOW,HIGH, for example 120,4000"
        ) from None
    return low, high
