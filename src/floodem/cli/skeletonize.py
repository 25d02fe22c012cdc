"""``floodem skeletonize SEG DST``: a segmentation in, the skeletons of its objects out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.ids import parse_ids
from floodem.cli.stopping import finishing_tasks
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError
from floodem.geometry import VoxelSize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from floodem.shapes.skeletons.request import Skeletonized

_IDS_SHOWN = 10
_NM_PER_UM = 1000
_BYTES_PER_GB = 10**9

Detail = Annotated[float, typer.Option("--scale", help="A path covers so many radii around it ...")]
Reach = Annotated[float, typer.Option("--const", metavar="NM", help="... and so many nm more.")]


def skeletonize(
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="Segmentation: a path or address.")
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder of skeletons to make.")
    ],
    *,
    ids: options.Ids = None,
    ids_file: options.IdsFile = None,
    min_voxels: Annotated[
        int, typer.Option(min=1, help="Smaller objects and pieces are left out (voxels).")
    ] = 1000,
    scale: Detail = 1.5,
    const: Reach = 300.0,
    soma: Annotated[
        float, typer.Option(metavar="NM", help="From this radius on a thick place is a soma.")
    ] = 3500.0,
    method: Annotated[
        str, typer.Option(help="teasar, or kimimaro where it is installed (GPL).")
    ] = "teasar",
    file_formats: Annotated[
        str, typer.Option("--format", help="precomputed, swc, or both with a comma.")
    ] = "precomputed",
    swc_unit: Annotated[str, typer.Option(help="Of the numbers in SWC files: nm or um.")] = "nm",
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Few large files instead of one an object.")
    ] = False,
    voxel_size: options.VoxelEdges = None,
    level: Annotated[
        int | None,
        typer.Option(min=0, help="Level of a pyramid; default: the finest that fits in memory."),
    ] = None,
    memory: Annotated[
        float, typer.Option(metavar="GB", help="For the objects each process works on.")
    ] = 2.0,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    channel: options.Channel = None,
    axes: options.Axes = None,
    allow_external: options.AllowExternal = False,
    overwrite: options.Restart = False,
    as_json: options.Json = False,
) -> None:
    """Find the midlines of the objects of a segmentation.

    DST becomes a folder of precomputed skeletons with radii that Neuroglancer and
    CloudVolume read; inside the folder of a precomputed segmentation it is named in
    that one's info. With --format swc it holds ID.swc, with both DST/swc does.

    The volume need not fit in memory: objects that are too large for --memory are
    read at a coarser level, or with neighbouring voxels taken together. Ctrl-C stops;
    the same command goes on from there. Several machines work with --cluster, or each
    with its --shard: the last one that counts its blocks does what is left, beside those
    that are started again.
    """
    from floodem.cli.labels import warn_of_image
    from floodem.shapes.skeletons.job import skeletonize as make
    from floodem.shapes.skeletons.request import SkeletonRequest
    from floodem.shapes.skeletons.teasar import TeasarOptions
    from floodem.shapes.source import LabelSource

    began = time.perf_counter()
    crew = options.chosen_crew(
        workers=workers, cluster=cluster, shard=shard, insecure=insecure, overwrite=overwrite
    )
    request = SkeletonRequest(
        ids=parse_ids(ids, ids_file),
        min_voxels=min_voxels,
        method=method,
        teasar=TeasarOptions(scale=scale, const_nm=const, soma_nm=soma),
        formats=tuple(word.strip() for word in file_formats.split(",")),
        is_sharded=sharded,
        swc_unit="um" if swc_unit == "um" else _nm(swc_unit),
        voxel_size=option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
        memory_bytes=int(memory * _BYTES_PER_GB),
        is_level_fixed=level is not None,
    )
    source = LabelSource(
        uri=segmentation,
        level=level or 0,
        channel=channel,
        axes=axes,
        allow_external=allow_external,
    )
    warn_of_image(source)
    with finishing_tasks(overwrite=overwrite) as how:
        made = make(
            source,
            destination,
            request=request,
            crew=crew,
            overwrite=overwrite,
            **how,
        )
    seconds = time.perf_counter() - began
    for sentence in notices(made):
        print(f"note: {sentence}", file=sys.stderr)
    if as_json:
        print(json.dumps(as_values(made) | {"seconds": round(seconds, 3)}))
    else:
        print(describe(made, seconds=seconds))


def _nm(unit: str) -> Any:
    if unit != "nm":
        raise OptionError(f"--swc-unit {unit!r} is no unit: use nm or um")
    return unit


def notices(made: Skeletonized) -> Iterator[str]:
    """Yield a sentence about everything that was not done as asked."""
    if made.refused:
        yield (
            f"{counted(len(made.refused), 'object')} too large for the memory at every level "
            f"({_listed(made.refused)}): give more with --memory"
        )
    if made.lost:
        yield (
            f"{counted(len(made.lost), 'object')} not there at the coarser level that fits in "
            f"memory ({_listed(made.lost)}): give more with --memory"
        )
    if made.missing:
        yield f"no voxel has {'id' if len(made.missing) == 1 else 'ids'} {_listed(made.missing)}"
    if made.coarse:
        yield (
            f"{counted(made.coarse, 'object')} read more coarsely than stored, to fit in memory: "
            "--memory gives more"
        )


def _listed(ids: Sequence[int]) -> str:
    more = ", ..." if len(ids) > _IDS_SHOWN else ""
    return ", ".join(str(number) for number in ids[:_IDS_SHOWN]) + more


def describe(made: Skeletonized, *, seconds: float) -> str:
    """Return one line about what was made."""
    if made.was_finished:
        return (
            f"{made.destination} was finished by an earlier run of this command; "
            "--overwrite repeats it"
        )
    small = f", {made.too_small:,} left out for their size" if made.too_small else ""
    return (
        f"{made.destination}: {counted(len(made.ids), 'skeleton')}{small}, "
        f"{made.lengths_nm.sum() / _NM_PER_UM:.1f} um of cable, "
        f"{counted(int(made.vertices.sum()), 'vertex', many='vertices')}, in {seconds:.1f} s"
    )


def as_values(made: Skeletonized) -> dict[str, Any]:
    """Return what was made as JSON values."""
    return {
        "destination": str(made.destination),
        "skeletons": len(made.ids),
        "vertices": int(made.vertices.sum()),
        "length_nm": float(made.lengths_nm.sum()),
        "too_small": made.too_small,
        "coarse": made.coarse,
        "refused": list(made.refused),
        "lost": list(made.lost),
        "missing": list(made.missing),
        "was_finished": made.was_finished,
    }
