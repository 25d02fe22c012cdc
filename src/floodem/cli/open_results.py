"""``floodem open-results DIR DST``: a folder of the older programs' results in, one volume out."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.copying import copying_to, describe, parse_pyramid
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import Box, VoxelSize, parse_zyx

if TYPE_CHECKING:
    from floodem.legacy.results import OpenedResults


def open_results(
    source: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder of results, or one seg-X_Y_Z.npz.")
    ],
    destination: Annotated[
        str,
        typer.Argument(metavar="DST", help="Labels to make; ending or prefix tell the format."),
    ],
    *,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Open only these voxels.")
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxel edges in nm, which old results do not say."),
    ] = None,
    chunks: options.Chunks = None,
    pyramid: options.Pyramid = None,
    threads: options.Threads = None,
    overwrite: options.Replace = False,
    as_json: options.Json = False,
) -> None:
    """Turn a folder of the older programs' results into one volume.

    Reads DIR/X/Y/seg-X_Y_Z.npz and DIR/seg-X_Y_Z.npz; nothing in them is executed.
    DST (uint64) can be viewed, scored and gone on with as what `floodem segment`
    writes; DST.floodem has origins.json and overlaps.json.

    The ids of one subvolume stay. Of several, each id is added to the largest ids of
    the subvolumes before its own (in the order of their corners z,y,x), as
    DST.floodem/subvolumes.json tells. Where they overlap, a voxel comes from the
    subvolume whose centre is nearest. Segments are not joined across subvolumes.

    Ctrl-C stops, and the same command goes on where DST is kept in chunks or sections.
    """
    from floodem.legacy import results

    with copying_to(destination, overwrite=overwrite) as control:
        made = results.open_results(
            source,
            destination,
            box=option_value("--box", Box.parse, text=box),
            voxel_size=option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
            chunks=option_value("--chunks", parse_zyx, text=chunks),
            pyramid=parse_pyramid(pyramid),
            threads=threads,
            overwrite=overwrite,
            **control,
        )
    if as_json:
        print(json.dumps(_plain(made), indent=2))
    else:
        _print(made, destination)


def _print(made: OpenedResults, destination: str) -> None:
    from floodem.volumes import open_volume

    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    with open_volume(destination) as volume:
        print(describe(volume))
    print(
        f"{counted(made.segments, 'segment')} of {counted(made.subvolumes, 'subvolume')}; where "
        f"{counted(made.origins, 'segment')} began is in {made.record}"
    )
    for sentence in made.notices:
        print(f"note: {sentence}", file=sys.stderr)


def _plain(made: OpenedResults) -> dict[str, object]:
    return {
        "uri": made.uri,
        "box": str(made.box),
        "record": made.record,
        "subvolumes": made.subvolumes,
        "segments": made.segments,
        "origins": made.origins,
        "was_finished": made.was_finished,
        "notices": list(made.notices),
    }
