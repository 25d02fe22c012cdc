"""``floodem mesh SEG DST``: a segmentation in, the meshes of its objects out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.ids import parse_ids
from floodem.cli.stopping import finishing_tasks
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import Box, VoxelSize

if TYPE_CHECKING:
    from floodem.shapes.meshes.job import MeshResult


def mesh(
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="Segmentation: a path or address.")
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Folder of meshes to make, or one file.")
    ],
    *,
    ids: options.Ids = None,
    ids_file: options.IdsFile = None,
    min_voxels: Annotated[
        int, typer.Option(min=0, help="Smaller objects get no mesh (voxels).")
    ] = 0,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Mesh only these voxels.")
    ] = None,
    voxel_size: options.VoxelEdges = None,
    error: Annotated[
        float | None,
        typer.Option(metavar="NM", help="How far simplification may go; default: about one voxel."),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="One file an object instead: obj, ply, stl or glb."),
    ] = None,
    sharded: Annotated[
        bool | None,
        typer.Option(
            "--sharded/--unsharded", help="Objects share files; default: at s3:// and gs:// only."
        ),
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(metavar="VOXELS", help="Edge of blocks; default: 64 to 256.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For working files, where DST is on a server."),
    ] = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    level: options.Level = 0,
    channel: options.Channel = None,
    axes: options.Axes = None,
    allow_external: options.AllowExternal = False,
    overwrite: options.Restart = False,
    as_json: options.Json = False,
) -> None:
    """Make meshes of the objects of a segmentation.

    DST becomes a folder of multi-resolution meshes (Draco, at least three levels of
    detail) that Neuroglancer and CloudVolume read. Inside the folder of a precomputed
    segmentation it is named in that one's info. With --format, or where DST is
    named like a file (cell.obj, with one id), objects become single files.

    The volume is meshed block by block and need not fit in memory; the largest
    object's mesh must. Ctrl-C stops; the same command goes on from there. Several
    machines work with --cluster, or each with its --shard, of which the last one ends
    the work; all must see the same folders.
    """
    from floodem.cli.labels import warn_of_image
    from floodem.shapes.meshes.job import mesh_segmentation
    from floodem.shapes.meshes.options import MeshOptions
    from floodem.shapes.source import LabelSource

    began = time.perf_counter()
    crew = options.chosen_crew(
        workers=workers, cluster=cluster, shard=shard, insecure=insecure, overwrite=overwrite
    )
    wanted = MeshOptions(
        ids=parse_ids(ids, ids_file),
        min_voxels=min_voxels,
        box=option_value("--box", Box.parse, text=box),
        voxel_size=option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
        max_error_nm=error,
        block_edge=block_size,
        file_format=file_format,
        is_sharded=sharded,
    )
    source = LabelSource(
        uri=segmentation, level=level, channel=channel, axes=axes, allow_external=allow_external
    )
    warn_of_image(source)
    with finishing_tasks(overwrite=overwrite) as how:
        made = mesh_segmentation(
            source,
            destination,
            options=wanted,
            crew=crew,
            work=work,
            overwrite=overwrite,
            **how,
        )
    seconds = time.perf_counter() - began
    for sentence in made.notices:
        print(f"note: {sentence}", file=sys.stderr)
    if as_json:
        print(json.dumps(made.to_json() | {"seconds": round(seconds, 3)}))
    else:
        print(describe(made, seconds=seconds))


def describe(made: MeshResult, *, seconds: float) -> str:
    """Return one line about what was made."""
    if made.was_finished:
        return (
            f"{made.destination} was finished by an earlier run of this command; "
            "--overwrite repeats it"
        )
    if not made.objects:
        return f"{made.destination}: no objects, so there is no mesh"
    levels = ", ".join(f"{count:,}" for count in made.triangles[1:])
    coarser = f" (coarser levels: {levels})" if levels else ""
    return (
        f"{made.destination}: {counted(made.objects, 'object')}, "
        f"{counted(made.triangles[0], 'triangle')}{coarser}, {made.bytes / 1e6:.1f} MB, "
        f"voxels of {made.voxel_size} nm, error up to {made.max_error_nm:.3g} nm, "
        f"in {seconds:.1f} s"
    )
