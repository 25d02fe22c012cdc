"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli.values import option_value
from floodem.errors import OptionError

if TYPE_CHECKING:
    from floodem.cluster import Crew

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
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="SPEC",
        help="Workers of Dask instead: local:4, tls://HOST:PORT, or a TOML file (SLURM).",
    ),
]
ShardPart = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Do only this part; others do theirs, as in a job array."
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Allow a tcp:// scheduler, which anyone near it may use."),
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


def chosen_crew(
    *,
    workers: int | None,
    cluster: str | None,
    shard: str | None,
    insecure: bool,
    overwrite: bool = False,
) -> Crew:
    """Return who does the tasks of a command: by default one process for each core.

    Parameters
    ----------
    workers, cluster, shard, insecure, overwrite
        As given.

    Raises
    ------
    OptionError
        When one is not understood, or two exclude each other.
    """
    from floodem.cluster import Crew, Shard
    from floodem.volumes.parallel import usable_threads

    if shard is not None and overwrite:
        raise OptionError(
            f"--shard {shard} with --overwrite would remove what other shards have done: remove "
            "DST and DST.floodem first, and start all shards without --overwrite"
        )
    if cluster is not None and workers is not None:
        raise OptionError(
            f"--workers {workers} are processes of this command, and --cluster {cluster} has its "
            "own: give one of both (local:N has N)"
        )
    return Crew(
        workers=1 if cluster is not None else usable_threads(workers),
        cluster=cluster,
        is_insecure=insecure,
        shard=option_value("--shard", Shard.parse, text=shard),
    )
