"""``floodem consensus A B DST``: two segmentations in, what both agree on out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.stopping import saving_state
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from floodem.assembly.consensus import Consensus


def consensus(
    a: Annotated[
        str, typer.Argument(metavar="A", help="Segmentation that is split: a path or address.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Segmentation that splits it.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Where the labels go.")],
    *,
    split_min_size: Annotated[
        int, typer.Option(help="Smaller pieces of the result are dropped (voxels).")
    ] = 1000,
    min_size: Annotated[
        int, typer.Option(help="Smaller objects of A and B are dropped first (voxels).")
    ] = 0,
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Take objects of several parts as they are.")
    ] = False,
    box: Annotated[
        str | None,
        typer.Option(metavar="Z:Z,Y:Y,X:X", help="Part of A, in voxels of the finer one."),
    ] = None,
    level_a: Annotated[int, typer.Option(min=0, help="Level of A's pyramid; 0: finest.")] = 0,
    level_b: Annotated[int, typer.Option(min=0, help="Level of B's pyramid; 0: finest.")] = 0,
    block: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxels of a block; default: about 256,256,256."),
    ] = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    overwrite: options.Restart = False,
    as_json: options.Json = False,
) -> None:
    """Split the objects of one segmentation where another one sees several.

    Every pair (object of A, object of B) becomes a segment, so that what only one of
    the two has merged comes apart. A's id stays with its largest piece; the others get
    new ones. Where B has no object A's stays, as a piece of its own. Objects of both
    are split into connected parts first. Then join again with `floodem agglomerate`.

    A and B may have other boxes: DST lies where A lies, and B is 0 where it has no
    voxels. One may be coarser by whole multiples: its voxels are repeated.

    Writes labels (uint64) to DST and the record of the run to DST.floodem. Ctrl-C
    stops, and the same command goes on from there.
    """
    from floodem.assembly.consensus import ConsensusOptions, make_consensus
    from floodem.cli.labels import warn_of_image
    from floodem.shapes.source import LabelSource

    asked = ConsensusOptions(
        split_components=not no_split, min_size=min_size, split_min_size=split_min_size
    )
    crew = options.chosen_crew(
        workers=workers, cluster=cluster, shard=shard, insecure=insecure, overwrite=overwrite
    )
    sources = LabelSource(uri=a, level=level_a), LabelSource(uri=b, level=level_b)
    for source in sources:
        warn_of_image(source)
    with saving_state(overwrite=overwrite) as listening:
        made = make_consensus(
            *sources,
            destination,
            options=asked,
            box=option_value("--box", Box.parse, text=box),
            crew=crew,
            block=option_value("--block", parse_zyx, text=block),
            overwrite=overwrite,
            **listening,
        )
    if as_json:
        print(json.dumps(made.to_json()))
    else:
        _print(made)


def _print(made: Consensus) -> None:
    from rich.console import Console
    from rich.table import Table

    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    found = made.summary
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("a", "b"):
        table.add_row(f"objects of {name.upper()}", f"{found[f'objects_{name}']:,}")
        table.add_row(f"segments of {name.upper()}", f"{found[f'segments_{name}']:,}")
    table.add_row("pairs", f"{found['pairs']:,}")
    table.add_row("pieces dropped as too small", f"{found['dropped']:,}")
    table.add_row("segments in DST", f"{found['segments']:,}")
    table.add_row("voxels of A that are left", f"{found['kept']:.2%}")
    Console(markup=False, highlight=False).print(table)
    print(
        f"{made.uri}: {counted(made.segments, 'segment')} in box {made.box}, "
        f"{found['covered']:.1%} of the voxels; record in {made.folder}"
    )
