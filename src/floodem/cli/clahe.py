"""``floodem clahe SRC DST``: an image in, the same with even contrast out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from floodem.cli import options
from floodem.cli.copying import copying_to, parse_pyramid, report
from floodem.cli.values import option_value
from floodem.errors import OptionError
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
    chunks: options.Chunks = None,
    pyramid: options.Pyramid = None,
    kind: Annotated[
        Literal["image"] | None,
        typer.Option(help="Insist that SRC is an image, where it looks like labels."),
    ] = None,
    channel: options.Channel = None,
    level: options.Level = 0,
    axes: options.Axes = None,
    threads: options.Threads = None,
    allow_external: options.AllowExternal = False,
    overwrite: options.Replace = False,
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
    from floodem.volumes.volume import Kind

    wanted: dict[str, Any] = {
        "block": block,
        "bins": bins,
        "slope": slope,
        "value_range": None if value_range is None else parse_range(value_range),
        "box": option_value("--box", Box.parse, text=box),
        "chunks": option_value("--chunks", parse_zyx, text=chunks),
        "pyramid": parse_pyramid(pyramid),
        "kind": None if kind is None else Kind(kind),
        "channel": channel,
        "level": level,
        "axes": axes,
        "threads": threads,
        "allow_external": allow_external,
        "overwrite": overwrite,
    }
    with copying_to(destination, overwrite=overwrite) as control:
        made = volumes.clahe(source, destination, **wanted, **control)
    report(made, destination)


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
