"""``floodem calibrate GRAPH TRUTH``: a segment graph and labelled data in, thresholds out."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.evaluate import parse_ids
from floodem.cli.stopping import finishing_tasks
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from floodem.assembly.agglomeration.calibration.calibration import Calibration, Outcome
    from floodem.assembly.agglomeration.graph.rule import MergeRule

_WIDTH_IN_FILES = 140
_NOTE_LETTERS = 500
_ABOUT_EDGES = ("merges", "right", "wrong", "precision", "recall")


def calibrate(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH", help="Segment graph: its file.")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Labels: a path or address.")],
    *,
    max_merge_bits: Annotated[
        float, typer.Option(metavar="BITS", help="VOI merge that merges may add to the base's.")
    ] = 0.01,
    purity: Annotated[
        float,
        typer.Option(metavar="0-1", help="Share of a segment that must lie in one object."),
    ] = 0.8,
    folds: Annotated[
        int, typer.Option(min=0, help="Groups of objects for the cross-validation; 0: none.")
    ] = 5,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Truth ids that do not count (repeatable, or a list); none: all do."
        ),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Compare only these voxels.")
    ] = None,
    border: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="Voxels to leave out at each face.")
    ] = "0,0,0",
    set_rule: Annotated[
        bool, typer.Option("--set", help="Keep the fitted rule in the graph, as the one in force.")
    ] = False,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with the rule.")] = "",
    segmentation: Annotated[
        str | None, typer.Option(metavar="SEG", help="Where the base is now, if it was moved.")
    ] = None,
    work: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Keep what is counted, to go on with; shards share it."
        ),
    ] = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    as_json: options.Json = False,
) -> None:
    """Fit the thresholds of merges on labelled data.

    Each segment gets the truth object that it lies in; an edge is right when both of its
    segments have the same. Of all rules of a grid the one is best that gives the lowest sum of
    VOI split and merge without adding more VOI merge than --max-merge-bits; among equals the
    most careful. Printed are the merges' precision and recall and the scores of the base, the
    default rule, the one in force and the fitted one, and what the fit gives on objects that it
    has not seen (--folds). Decisions about single edges do not count.

    TRUTH lies in the frame of the base segmentation and may cover a part of it. With --set the
    rule is kept in the graph; earlier ones stay in its history. No network is needed.
    """
    from floodem.assembly.agglomeration.calibration.calibration import (
        CalibrationOptions,
        calibrate_graph,
    )
    from floodem.assembly.agglomeration.calibration.overlaps import Counting
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph

    crew = options.chosen_crew(workers=workers, cluster=cluster, shard=shard, insecure=insecure)
    asked = CalibrationOptions(
        purity=purity,
        max_merge_bits=max_merge_bits,
        folds=folds,
        ignore=tuple(parse_ids(["0"] if ignore is None else ignore)),
    )
    with finishing_tasks(overwrite=False) as listening:
        found = calibrate_graph(
            graph,
            truth,
            segmentation=segmentation,
            options=asked,
            counting=Counting(
                box=option_value("--box", Box.parse, text=box),
                border=option_value("--border", parse_zyx, text=border),
                crew=crew,
                work=work,
                **listening,
            ),
        )
    if set_rule:
        with SegmentGraph.open(graph, writable=True) as opened:
            opened.set_rule(found.rule, note=note or f"calibrated on {truth}"[:_NOTE_LETTERS])
    if as_json:
        print(json.dumps(found.to_json(), allow_nan=False))
    else:
        print_calibration(found, graph=graph, is_set=set_rule)


def print_calibration(found: Calibration, *, graph: Path, is_set: bool) -> None:
    """Print a table of rules, and what to do with the best one."""
    from rich.console import Console
    from rich.table import Table

    from floodem.assembly.agglomeration.calibration.calibration import FEW_RIGHT_EDGES
    from floodem.cli.merges_shown import rule_in_words

    print(
        f"{graph}: {counted(found.edges, 'edge')}, {found.clear_edges:,} of them between segments "
        f"of clear objects, {found.right_edges:,} of those within one"
    )
    print(
        f"{found.unclear_segments:,} of {counted(found.segments, 'segment')} where truth was "
        f"compared belong to no object clearly; {found.tried:,} rules were tried"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in (
        "merges",
        "right",
        "wrong",
        "precision",
        "recall",
        "VOI split",
        "VOI merge",
        "sum",
    ):
        table.add_column(name, justify="right")
    table.add_column("Rand error", justify="right")
    for name, outcome in found.outcomes.items():
        table.add_row(name, *_cells(outcome))
    held = found.held_out
    if held is not None:
        split, merge = held.voi_split_bits, held.voi_merge_bits
        unseen = f"{split:.4f}", f"{merge:.4f}", f"{split + merge:.4f}"
        table.add_row("fitted, unseen objects", *[""] * len(_ABOUT_EDGES), *unseen, "")
    width = None if sys.stdout.isatty() else _WIDTH_IN_FILES
    Console(markup=False, highlight=False, width=width).print(table)
    print(f"\nfitted rule: {rule_in_words(found.rule)}")
    if held is not None:
        print(_stability(found.rule, held.rules))
    if not found.outcomes["fitted"].accepted:
        print("no rule makes the segmentation better: the base is best")
    if found.has_few:
        print(
            f"warning: there are few right edges to fit a rule on, {found.right_edges} (fewer than "
            f"{FEW_RIGHT_EDGES}): prefer the default rule, or compare more labelled data"
        )
    if is_set:
        print(f"it is the rule of {graph} now")
        return
    if found.has_few:
        return
    far = "any" if found.rule.distance_nm is None else f"{found.rule.distance_nm:g}"
    print(
        f"keep it with --set, or: floodem merges {shlex.quote(str(graph))} --iou "
        f"{found.rule.iou:g} --coverage {found.rule.coverage:g} --deleted {found.rule.deleted:g} "
        f"--distance {far}"
    )


def _stability(rule: MergeRule, others: Sequence[MergeRule]) -> str:
    """Say whether the fitted rule depends on which objects are seen."""
    fitted = f"fitted again {len(others)} times, each time without another group of objects"
    different = sum(one != rule for one in others)
    if not different:
        return f"{fitted}, the rule is always the same"
    return (
        f"{fitted}, the rule is another one {counted(different, 'time')}: it depends on which "
        "objects are labelled"
    )


def _cells(outcome: Outcome) -> list[str]:
    scores = outcome.scores
    return [
        f"{outcome.accepted:,}",
        f"{outcome.right:,}",
        f"{outcome.wrong:,}",
        "-" if outcome.precision is None else f"{outcome.precision:.3f}",
        "-" if outcome.recall is None else f"{outcome.recall:.3f}",
        f"{scores.voi_split_bits:.4f}",
        f"{scores.voi_merge_bits:.4f}",
        f"{scores.voi_split_bits + scores.voi_merge_bits:.4f}",
        f"{scores.adapted_rand_error:.4f}",
    ]
