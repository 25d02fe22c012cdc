"""``floodem convert SRC DST``: a volume in any format in, a copy in any other out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from floodem.cli.stopping import interrupting_on_sigterm, stopping_on_signals
from floodem.cli.values import option_value
from floodem.errors import OptionError, StoppedError
from floodem.geometry import Box, VoxelSize, parse_zyx

if TYPE_CHECKING:
    from floodem.volumes import Volume
    from floodem.volumes.conversion.convert import Conversion


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Volume: a path or address.")],
    destination: Annotated[
        str,
        typer.Argument(metavar="DST", help="Copy to make; ending or prefix tell the format."),
    ],
    *,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Copy only these voxels of SRC.")
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxel edges in nm, if SRC is wrong.")
    ] = None,
    offset: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Where the first voxel of DST lies.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of DST: uint8, uint32, uint64, float32, ...")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Map these grey levels to the full range of --dtype (default uint8), clipped.",
        ),
    ] = None,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Number the objects 1..n, in the order of their ids.")
    ] = False,
    axes: Annotated[
        str | None, typer.Option(help="Names of the stored axes, if SRC is wrong: xyz, czyx.")
    ] = None,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Which channel of SRC, counted from 0.")
    ] = None,
    level: Annotated[
        int, typer.Option(min=0, help="Which level of a pyramid; 0 is the finest.")
    ] = 0,
    chunks: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Chunks of DST in voxels.")
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxels that share a file, in whole chunks."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of precomputed: raw, compressed_segmentation, png or jpeg (lossy)."),
    ] = None,
    pyramid: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Add N coarser levels, or down to 64 in y and x."),
    ] = None,
    kind: Annotated[
        Literal["image", "labels"] | None,
        typer.Option(help="What the values are; levels are means, or the most frequent value."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Blocks in work at once; default: one a core.")
    ] = None,
    allow_external: Annotated[
        bool, typer.Option("--allow-external", help="Follow HDF5 links that leave the file.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace DST, and begin a stopped copy again.")
    ] = False,
) -> None:
    """Copy a volume from any format to any other.

    Addresses are paths (em.h5@raw, em.zarr, a folder of PNG or TIFF sections,
    seg.npz) or begin with a format: zarr:// zarr3:// n5:// precomputed:// png://
    tiff://. Voxel size and offset go along where DST can hold them. Values that do
    not fit --dtype are refused, never cut; --window maps grey levels of images.

    Every block gets a receipt in DST.floodem, and DST is read back and compared at
    the end; `floodem verify DST` does it again. Chunked stores and stacks may be
    stopped, and the same command goes on; other formats begin again. Memory stays
    below 2 GiB, or half of what is free, unless one chunk or shard takes more.
    """
    from floodem import volumes
    from floodem.cli.progress import progress_bar
    from floodem.volumes.conversion.destination import is_resumable
    from floodem.volumes.conversion.recoding import Window
    from floodem.volumes.location import parse_location
    from floodem.volumes.volume import Kind

    def triple(option: str, text: str | None) -> Any:
        return None if text is None else option_value(option, parse_zyx, text=text)

    grey = None if window is None else Window.parse(window)
    options = {
        "box": None if box is None else option_value("--box", Box.parse, text=box),
        "voxel_size": None
        if voxel_size is None
        else option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
        "offset": triple("--offset", offset),
        "dtype": dtype,
        "window": None if grey is None else (grey.low, grey.high),
        "relabel": relabel,
        "axes": axes,
        "channel": channel,
        "level": level,
        "chunks": triple("--chunks", chunks),
        "shards": triple("--shards", shards),
        "encoding": encoding,
        "pyramid": None if pyramid is None else _parse_pyramid(pyramid),
        "kind": None if kind is None else Kind(kind),
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
            made = volumes.convert(
                source, destination, **options, progress=progress, should_stop=should_stop
            )
    except KeyboardInterrupt:
        if not goes_on:
            raise
        without = " without --overwrite" if overwrite else ""
        raise StoppedError(
            f"interrupted; what is written is kept: run the same command again{without} to go on"
        ) from None
    with volumes.open_volume(destination) as copy:
        _print(made, copy)


def _parse_pyramid(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise OptionError(
            f"--pyramid: {text!r} is no number of levels: write one, or auto"
        ) from None


def _print(made: Conversion, copy: Volume) -> None:
    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    print(describe(copy))
    for sentence in made.notices:
        print(f"note: {sentence}", file=sys.stderr)
    if made.labels is not None:
        objects = f"{made.labels} object{'' if made.labels == 1 else 's'}"
        print(f"note: {objects}; old and new ids are in {made.record}", file=sys.stderr)
    if made.is_lossy:
        print("note: jpeg changes values; receipts are of what it gives back", file=sys.stderr)


def describe(volume: Volume) -> str:
    """Return one line about a volume: size, type, place and voxel size as its file tells them."""
    z, y, x = volume.shape
    size = "unknown voxel size" if volume.voxel_size is None else f"{volume.voxel_size} nm a voxel"
    corner = ",".join(str(position) for position in volume.offset)
    levels = f", {len(volume.levels)} levels" if len(volume.levels) > 1 else ""
    return f"{volume.uri}: {z} x {y} x {x} {volume.dtype} at {corner} (z,y,x), {size}{levels}"
