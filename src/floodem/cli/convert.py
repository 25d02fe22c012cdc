"""``floodem convert SRC DST``: a volume in any format in, a copy in any other out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from floodem.cli import options
from floodem.cli.copying import copying_to, parse_pyramid, report
from floodem.cli.values import option_value
from floodem.geometry import Box, VoxelSize, parse_zyx


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
    axes: options.Axes = None,
    channel: options.Channel = None,
    level: options.Level = 0,
    chunks: options.Chunks = None,
    shards: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxels that share a file, in whole chunks."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of precomputed: raw, compressed_segmentation, png or jpeg (lossy)."),
    ] = None,
    pyramid: options.Pyramid = None,
    kind: Annotated[
        Literal["image", "labels"] | None,
        typer.Option(help="What the values are; levels are means, or the most frequent value."),
    ] = None,
    threads: options.Threads = None,
    allow_external: options.AllowExternal = False,
    overwrite: options.Replace = False,
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
    from floodem.volumes.conversion.recoding import Window
    from floodem.volumes.volume import Kind

    def triple(option: str, text: str | None) -> Any:
        return option_value(option, parse_zyx, text=text)

    grey = None if window is None else Window.parse(window)
    wanted = {
        "box": option_value("--box", Box.parse, text=box),
        "voxel_size": option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
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
        "pyramid": parse_pyramid(pyramid),
        "kind": None if kind is None else Kind(kind),
        "threads": threads,
        "allow_external": allow_external,
        "overwrite": overwrite,
    }
    with copying_to(destination, overwrite=overwrite) as control:
        made = volumes.convert(source, destination, **wanted, **control)
    report(made, destination)
