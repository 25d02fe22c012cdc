"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Channel = Annotated[
    int | None, typer.Option("--channel", min=0, help="Which channel, counted from 0.")
]
Level = Annotated[
    int, typer.Option("--level", min=0, help="Which level of a pyramid; 0 is the finest.")
]
Axes = Annotated[
    str | None,
    typer.Option("--axes", help="Names of the stored axes, if the file is wrong: xyz, czyx."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="By default one for each core.")
]
AllowExternal = Annotated[
    bool, typer.Option("--allow-external", help="Follow HDF5 links that leave the file.")
]
Ids = Annotated[
    list[str] | None,
    typer.Option("--ids", metavar="ID,ID", help="Only these objects (repeatable); default: all."),
]
IdsFile = Annotated[
    Path | None,
    typer.Option("--ids-file", metavar="FILE", help="Only the objects listed in this file."),
]
VoxelEdges = Annotated[
    str | None,
    typer.Option("--voxel-size", metavar="Z,Y,X", help="Voxel edges in nm, if SEG is wrong."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes; default: one for each core.")
]
Restart = Annotated[
    bool, typer.Option("--overwrite", help="Replace DST, and begin a stopped run again.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Chunks = Annotated[
    str | None, typer.Option("--chunks", metavar="Z,Y,X", help="Chunks of DST in voxels.")
]
Pyramid = Annotated[
    str | None,
    typer.Option(
        "--pyramid", metavar="N|auto", help="Add N coarser levels, or down to 64 in y and x."
    ),
]
Replace = Annotated[
    bool, typer.Option("--overwrite", help="Replace DST, and begin a stopped copy again.")
]
