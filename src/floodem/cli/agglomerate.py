"""``floodem agglomerate SEG IMAGE GRAPH``: which segments belong together in, a graph out."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.progress import duration
from floodem.cli.stopping import saving_state
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from floodem.assembly.agglomeration.agglomerate import Agglomeration
    from floodem.assembly.agglomeration.graph.applying import Applied
    from floodem.cluster import Crew


def agglomerate(
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="Segmentation: a path or address.")
    ],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The image it was made from.")],
    graph: Annotated[str, typer.Argument(metavar="GRAPH", help="File for the segment graph.")],
    *,
    model: Annotated[str, typer.Option(help="Model file (.safetensors) or name.")],
    apply: Annotated[
        str | None,
        typer.Option("--apply", metavar="DST", help="Also write a volume of merged segments."),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(metavar="NM", help="How far apart segments may be [nm]; default: 50."),
    ] = None,
    min_size: Annotated[
        int, typer.Option(min=0, help="Smaller segments take no part (voxels).")
    ] = 0,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Only decisions in this part.")
    ] = None,
    radius: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxels to each side that floods may fill."),
    ] = None,
    analysis_radius: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxels to each side in which floods are judged."),
    ] = None,
    max_retries: Annotated[int, typer.Option(help="Seeds tried on each side.")] = 8,
    recovery: Annotated[
        float,
        typer.Option(help="Part of its own segment that a flood must cover."),
    ] = 0.6,
    both_sides: Annotated[
        bool,
        typer.Option("--both-sides", help="Flood the larger one also where the smaller failed."),
    ] = False,
    iou: Annotated[float, typer.Option(help="Merge where floods overlap by more than this.")] = 0.8,
    coverage: Annotated[
        float, typer.Option(help="Merge where floods cover more than this of both segments.")
    ] = 0.6,
    deleted: Annotated[
        float, typer.Option(help="Merge where less than this of a flood was taken back.")
    ] = 0.02,
    disco_seed_threshold: Annotated[
        float, typer.Option(help="As of `floodem segment`; negative: nothing counts as taken back.")
    ] = 0.0,
    device: Annotated[
        str, typer.Option(help="auto (a usable card, else the CPU), cpu, cuda or cuda:N.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto (float32), float32, bfloat16 or float16.")
    ] = "auto",
    network: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE:FACTORY", help="Code of the model's network, if not ours."),
    ] = None,
    block: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Blocks in which decisions are looked for.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that flood; default: 1.")
    ] = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Begin again; what was decided in GRAPH is lost."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Score which segments belong together, by flooding them again from both sides.

    Where two segments come near each other is a decision point. Both are erased around
    it and flooded anew, each from its own side; where both floods find the same object
    they are one. GRAPH (an SQLite file) keeps every decision with its scores and place;
    SEG stays as it is. Ctrl-C saves the state; the same command goes on from there.

    The thresholds --iou, --coverage and --deleted can be changed afterwards, and merges
    undone, without flooding: see `floodem merges` and `floodem calibrate`. With --apply
    the merged segmentation is written too.
    """
    from floodem.assembly.agglomeration.agglomerate import agglomerate as run
    from floodem.assembly.agglomeration.graph.applying import require_destination
    from floodem.assembly.agglomeration.graph.rule import MergeRule
    from floodem.assembly.agglomeration.points.points import PointOptions
    from floodem.assembly.agglomeration.preparation import AgglomerationOptions
    from floodem.flooding.options import FloodOptions
    from floodem.shapes.source import LabelSource

    points = {} if max_distance is None else {"max_distance_nm": max_distance}
    radii = {
        "radius": option_value("--radius", parse_zyx, text=radius),
        "analysis_radius": option_value("--analysis-radius", parse_zyx, text=analysis_radius),
    }
    chosen = AgglomerationOptions(
        points=PointOptions(**points, min_size=min_size),
        resegmentation={
            **{name: value for name, value in radii.items() if value is not None},
            "max_retries": max_retries,
            "recovery_fraction": recovery,
        },
        both_sides=both_sides,
        floods=FloodOptions(disco_seed_threshold=disco_seed_threshold),
        rule=MergeRule(iou=iou, coverage=coverage, deleted=deleted),
        box=option_value("--box", Box.parse, text=box),
        block=option_value("--block", parse_zyx, text=block),
        device=device,
        dtype=dtype,
    )
    crew = options.chosen_crew(
        workers=1 if workers is None and cluster is None else workers,
        cluster=cluster,
        shard=shard,
        insecure=insecure,
        overwrite=overwrite,
    )
    source = LabelSource(uri=segmentation)
    if apply is not None:
        place: dict[str, Any] = {"graph": graph, "segmentation": source, "image": image}
        require_destination(apply, **place, overwrite=overwrite)
    with saving_state(overwrite=overwrite) as listening:
        made = run(
            source,
            image,
            graph,
            model=model,
            options=chosen,
            crew=crew,
            network=network,
            overwrite=overwrite,
            **listening,
        )
        applied = _applied(graph, apply, crew=crew, overwrite=overwrite, **listening)
    if as_json:
        print(
            json.dumps(made.to_json() | {"applied": None if applied is None else asdict(applied)})
        )
    else:
        _print(made, applied)


def _applied(graph: str, destination: str | None, *, crew: Crew, **how: Any) -> Applied | None:
    """Write the merged segmentation, if asked for; of several shards the last one comes here."""
    from floodem.assembly.agglomeration.graph.applying import apply_merges

    if destination is None:
        return None
    return apply_merges(graph, destination, crew=replace(crew, shard=None), **how)


def _print(made: Agglomeration, applied: Applied | None) -> None:
    if made.was_finished:
        print(f"{made.graph} was finished by an earlier run of this command")
    merges = "no merges"
    if made.merges:
        merges = (
            f"{counted(made.merges, 'merge')} of {counted(made.segments, 'segment')} into "
            f"{counted(made.objects, 'object')}"
        )
    print(
        f"{made.graph}: {counted(made.points, 'decision point')}, {merges}; "
        f"{counted(made.calls, 'network call')} in "
        f"{duration(made.seconds)}"
    )
    if applied is not None:
        joined = "no merges: these are the segments of the base"
        if applied.joined:
            joined = (
                f"{counted(applied.joined, 'segment')} became part of "
                f"{counted(applied.wholes, 'merged one')}"
            )
        print(f"{applied.uri}: {joined}")
    else:
        print(
            f"`floodem merges {shlex.quote(str(made.graph))}` shows them and undoes them, and "
            "writes the merged segmentation (--apply DST)"
        )
