"""``floodem merges GRAPH``: a segment graph in; its merges, inspected, undone, thresholds changed.

No network is loaded or asked: all scores are in the graph.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.ids import read_ids
from floodem.cli.stopping import saving_state
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError
from floodem.geometry import parse_zyx

if TYPE_CHECKING:
    from floodem.assembly.agglomeration.graph.applying import Applied
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph
    from floodem.assembly.agglomeration.graph.records import Entry
    from floodem.assembly.agglomeration.graph.rule import MergeRule

_PAIR = 2
_ALL = "all"


def merges(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH", help="Segment graph: its file.")],
    *,
    near: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="List the N undecided edges nearest to a threshold."),
    ] = None,
    best: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="List the N surest merges.")
    ] = None,
    worst: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="List the N farthest from a merge.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(metavar="ID", help="List the merges inside the segment that holds ID."),
    ] = None,
    between: Annotated[
        str | None, typer.Option(metavar="A,B", help="Show the way of merges from A to B.")
    ] = None,
    undo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B|N|all", help="Undo a merge, entry N of the decisions, or every merge."
        ),
    ] = None,
    merge: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Merge two segments (repeatable).")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Never merge by this edge (repeatable).")
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with what is changed.")] = "",
    iou: Annotated[
        float | None, typer.Option(metavar="0-1", help="Rule: floods overlap by more.")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(metavar="0-1", help="Rule: floods cover more of segments.")
    ] = None,
    deleted: Annotated[
        float | None, typer.Option(metavar="0-1", help="Rule: less of a flood is deleted.")
    ] = None,
    distance: Annotated[
        str | None, typer.Option(metavar="NM|any", help="Rule: segments no further apart.")
    ] = None,
    apply: Annotated[
        str | None, typer.Option(metavar="DST", help="Write the merged segmentation there.")
    ] = None,
    segmentation: Annotated[
        str | None, typer.Option(metavar="SEG", help="Where the base is now, if it was moved.")
    ] = None,
    block: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels of a block of DST.")
    ] = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    allow_external: options.AllowExternal = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace DST and OUT.csv, and begin again.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", help="Write one line for each edge.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Inspect the merges of a segment graph, undo them, and change their thresholds.

    The base segmentation is never changed, and neither are scores: the graph keeps which
    merges the rule makes and what people decided about single ones, so that everything can be
    undone, and an undo as well (--undo with its number). No network is needed.

    Without options the rule, the counts, the decisions and the edges nearest to a threshold are
    printed: a proofreading queue. Thresholds (--iou, --coverage, --deleted, --distance) that
    are not given stay as they are. A margin of 1 is a perfect merge, 0 lies on a threshold.

    --apply writes the merged segmentation to DST, and the record of the run to DST.floodem;
    the id of a merged segment is the smallest in it. Ctrl-C stops, and the same command goes on.
    """
    from floodem.assembly.agglomeration.graph.edges_csv import write_edges_csv
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph
    from floodem.cli.merges_shown import Listing, as_values, print_graph

    listing = Listing.chosen(
        near=near, best=best, worst=worst, of=_id(of, "--of"), between=_pair(between, "--between")
    )
    changes = {
        "undo": [_undone(text) for text in undo or ()],
        "split": [_pair(text, "--split") for text in split or ()],
        "merge": [_pair(text, "--merge") for text in merge or ()],
    }
    rule = {"iou": iou, "coverage": coverage, "deleted": deleted, "distance": distance}
    is_changed = any(changes.values()) or any(value is not None for value in rule.values())
    if note and not is_changed:
        raise OptionError(
            "--note belongs to a change: give --undo, --merge, --split or a threshold"
        )
    crew = options.chosen_crew(
        workers=workers, cluster=cluster, shard=shard, insecure=insecure, overwrite=overwrite
    )
    _require_apply(
        apply,
        {
            "--segmentation": segmentation,
            "--block": block,
            "--workers": workers,
            "--cluster": cluster,
            "--shard": shard,
            "--allow-external": allow_external,
        },
    )
    if overwrite and apply is None and csv is None:
        raise OptionError("--overwrite is for what --apply and --csv write: give one of them")
    if csv is not None:
        _require_place(csv, overwrite=overwrite)
    with SegmentGraph.open(graph, writable=is_changed) as opened:
        written: list[Entry] = []
        # Where an id that is asked for is refused, nothing is changed either.
        with opened.changing() if is_changed else contextlib.nullcontext():
            written = _decide(opened, changes, note=note)
            _set_rule(opened, rule, note=note)
            edges = opened.edges()
            listing.require_known(edges, opened.entries())
        if csv is not None:
            write_edges_csv(csv, edges, rule=opened.rule)
        applied = None
        if apply is not None:
            how = {"crew": crew, "overwrite": overwrite, "block": block}
            applied = _apply(opened, apply, how=how, base=(segmentation, allow_external))
        if as_json:
            print(json.dumps(as_values(opened, edges, listing=listing, applied=applied)))
            return
        print_graph(opened, edges, listing=listing, written=written)
    if applied is not None:
        _print_applied(applied)


def _require_apply(apply: str | None, given: dict[str, Any]) -> None:
    """Refuse options that would do nothing."""
    names = [name for name, value in given.items() if value]
    if apply is None and names:
        raise OptionError(f"{names[0]} is for the volume that --apply writes: give --apply DST too")


def _require_place(csv: Path, *, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    from floodem.errors import VolumeNotFoundError
    from floodem.volumes.staging import require_no_destination

    if not csv.absolute().parent.is_dir():
        raise VolumeNotFoundError(
            f"--csv {csv} cannot be written: there is no folder {csv.absolute().parent}"
        )
    if csv.is_dir() or not overwrite:
        require_no_destination(csv, uri=str(csv))


def _id(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    ids = read_ids([text], option=option)
    if len(ids) != 1:
        raise OptionError(f"{option} {text!r} is not one id: give the id of a segment")
    return ids[0]


def _pair(text: str | None, option: str) -> tuple[int, int] | None:
    if text is None:
        return None
    ids = read_ids([text], option=option)
    if len(ids) != _PAIR:
        raise OptionError(f"{option} {text!r} is no pair: give two ids, as in 17,42")
    return ids[0], ids[1]


def _undone(text: str) -> tuple[int, ...]:
    """Read what to undo: no number for all, one for an entry, two for a pair."""
    if text.strip() == _ALL:
        return ()
    ids = read_ids([text], option="--undo")
    if len(ids) > _PAIR:
        raise OptionError(f"--undo {text!r} is not understood: give two ids, an entry, or all")
    return ids


def _decide(graph: SegmentGraph, changes: dict[str, Any], *, note: str) -> list[Entry]:
    """Write the decisions that were asked for into the ledger."""
    written = []
    for what in changes["undo"]:
        if not what:
            written.append(graph.undo_all(note=note))
        elif len(what) == 1:
            written.append(graph.undo_entry(what[0], note=note))
        else:
            written.append(graph.undo(*what, note=note))
    for a, b in changes["split"]:
        written.append(graph.decide(a, b, action="split", note=note))
    for a, b in changes["merge"]:
        written.append(graph.decide(a, b, action="merge", note=note))
    return written


def _set_rule(graph: SegmentGraph, asked: dict[str, Any], *, note: str) -> None:
    """Change the thresholds that were given; the others stay."""
    from dataclasses import replace

    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        return
    if "distance" in given:
        given["distance_nm"] = _distance(given.pop("distance"))
    rule: MergeRule = replace(graph.rule, **given)
    least = graph.header.least_coverage
    if least is not None and rule.coverage < least:
        print(
            f"note: where floods cover less than {least:g} no second one was made, so that "
            f"coverage {rule.coverage:g} makes no more merges than {least:g}: `floodem agglomerate "
            "--both-sides` floods both",
            file=sys.stderr,
        )
    graph.set_rule(rule, note=note)


def _distance(text: str) -> float | None:
    if text.strip() == "any":
        return None
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"--distance {text!r} is no length: give nanometres, or any") from None


def _apply(
    graph: SegmentGraph, destination: str, *, how: dict[str, Any], base: tuple[str | None, bool]
) -> Applied:
    from dataclasses import replace

    from floodem.assembly.agglomeration.graph.applying import apply_merges

    moved, allow_external = base
    source = graph.header.segmentation
    is_said = moved is not None or allow_external
    source = replace(source, uri=moved or source.uri, allow_external=allow_external)
    block = option_value("--block", parse_zyx, text=how.pop("block"))
    with saving_state(overwrite=how["overwrite"]) as listening:
        return apply_merges(
            graph.path,
            destination,
            segmentation=source if is_said else None,
            block=block,
            **how,
            **listening,
        )


def _print_applied(applied: Applied) -> None:
    if applied.was_finished:
        print(
            f"{applied.uri} was finished by an earlier run of this command; --overwrite repeats it"
        )
    joined = "no merges: these are the segments of the base"
    if applied.joined:
        joined = (
            f"{counted(applied.joined, 'segment')} of the base are joined to {applied.wholes:,}"
        )
    print(
        f"{applied.uri}: {counted(applied.segments, 'segment')} in {applied.labelled:,} of "
        f"{counted(applied.voxels, 'voxel')}; {joined}"
    )
