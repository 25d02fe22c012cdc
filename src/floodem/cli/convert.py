"""``floodem convert SRC DST``: a volume in any format in, a copy in any other out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli.values import option_value
from floodem.geometry import Box, VoxelSize, parse_zyx

if TYPE_CHECKING:
    from floodem.volumes import Volume

_IMAGE_BYTES = 2  # precomputed segmentations are of 32 and 64 bits


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
    chunks: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Chunks of DST in voxels.")
    ] = None,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Which channel of SRC, counted from 0.")
    ] = None,
    allow_external: Annotated[
        bool, typer.Option("--allow-external", help="Follow HDF5 links that leave the file.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
) -> None:
    """Copy a volume from any format to any other.

    Addresses are paths (em.h5@raw, em.zarr, a folder of PNG or TIFF sections,
    seg.npz) or begin with a format: zarr:// zarr3:// n5:// precomputed:// png://
    tiff://. Voxel size and offset go along where DST can hold them. Values that do
    not fit --dtype are refused, never cut. Memory stays bounded.
    """
    from floodem import volumes
    from floodem.cli.progress import progress_bar
    from floodem.volumes.location import parse_location

    with progress_bar() as progress:
        volumes.convert(
            source,
            destination,
            box=None if box is None else option_value("--box", Box.parse, text=box),
            voxel_size=None
            if voxel_size is None
            else option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
            offset=None if offset is None else option_value("--offset", parse_zyx, text=offset),
            dtype=dtype,
            chunks=None if chunks is None else option_value("--chunks", parse_zyx, text=chunks),
            channel=channel,
            allow_external=allow_external,
            overwrite=overwrite,
            progress=progress,
        )
    with volumes.open_volume(destination) as copy:
        print(describe(copy))
        if is_small_in_precomputed(copy, format_=parse_location(destination).format):
            print(
                f"note: precomputed holds {copy.dtype} as an image: for labels give --dtype uint32",
                file=sys.stderr,
            )


def is_small_in_precomputed(volume: Volume, *, format_: str | None) -> bool:
    """Tell whether viewers will show a volume in grey even if it holds labels."""
    is_integer = volume.dtype.kind in "ui"
    return format_ == "precomputed" and is_integer and volume.dtype.itemsize <= _IMAGE_BYTES


def describe(volume: Volume) -> str:
    """Return one line about a volume: size, type, place and voxel size as its file tells them."""
    z, y, x = volume.shape
    size = "unknown voxel size" if volume.voxel_size is None else f"{volume.voxel_size} nm a voxel"
    corner = ",".join(str(position) for position in volume.offset)
    return f"{volume.uri}: {z} x {y} x {x} {volume.dtype} at {corner} (z,y,x), {size}"
