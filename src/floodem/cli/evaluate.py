"""``floodem evaluate SEG TRUTH``: two label volumes in, a short table or JSON out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import evaluate_report, options
from floodem.cli.ids import read_ids
from floodem.cli.labels import warn_of_image
from floodem.cli.skeleton_tables import print_skeletons
from floodem.cli.stopping import finishing_tasks, interrupting_on_sigterm
from floodem.cli.tables import place, plain_console, plain_table, spread
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError, UsageError
from floodem.geometry import Box, VoxelSize, parse_zyx

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from floodem.evaluation import Evaluation, Interval, Mistake, SkeletonScores
    from floodem.shapes.skeletons.swc import Unit

_IGNORE_NOTHING = "none"
_LEAST_BITS = 0.0005
"""What a mistake must add to VOI to be listed: less is 0.000 in the table of scores."""


def evaluate(
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="Segmentation: a path or address.")
    ],
    truth: Annotated[
        str | None,
        typer.Argument(metavar="[TRUTH]", help="What it should be; --skeletons does without."),
    ] = None,
    *,
    border: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="Voxels to leave out at each face.")
    ] = "0,0,0",
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Truth ids that do not count (repeatable, or a list); none: all do."
        ),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Compare only these voxels.")
    ] = None,
    cremi_border: Annotated[
        float | None,
        typer.Option(
            metavar="NM", help="Leave out voxels so near to borders of TRUTH (CREMI: 25)."
        ),
    ] = None,
    skeletons: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Score along skeletons: a folder, an SWC file, or from-truth (makes them).",
        ),
    ] = None,
    merge_nodes: Annotated[
        int, typer.Option(min=1, help="A segment with so many nodes of two skeletons joins them.")
    ] = 1,
    swc_unit: Annotated[
        str | None, typer.Option(metavar="nm|um", help="Of SWC files that do not say theirs.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="Draw objects N times, for intervals (1000).")
    ] = 0,
    bootstrap_seed: Annotated[int, typer.Option(min=0, help="Of these drawings.")] = 0,
    worst: Annotated[int, typer.Option(min=0, help="Splits and mergers to list.")] = 10,
    voxel_size: options.VoxelEdges = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SEG,...", help="Other segmentations beside SEG (repeatable, or a list)."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="HTML", help="Write a page with pictures of the worst places."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="What the report's pictures lie on.")
    ] = None,
    no_viewer: Annotated[
        bool, typer.Option("--no-viewer", help="Leave the viewer out of the report.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace HTML even if it is no report.")
    ] = False,
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
    """Score a segmentation against the truth.

    Prints the adapted Rand error and the variation of information, over all truth
    (unlabelled voxels are one segment) and where both label, then the worst splits
    and mergers and where they are. Volumes are compared where both have voxels, block by
    block, so that neither need fit in memory. --skeletons adds the expected run length
    and mistakes along skeletons, and does without TRUTH. With --work a stopped command
    goes on, and other scores of the same voxels (--ignore, --worst) need no counting;
    --shard and --cluster need a FOLDER that all machines see.

    --compare scores several segmentations over the voxels that all have, and prints them
    side by side: floodem evaluate A TRUTH --compare B --compare C, or --compare B,C.
    --report writes the scores and pictures of the worst mergers and splits into one page;
    `floodem view HTML` opens it, and its links open those places in the viewer.
    """
    from floodem import evaluation
    from floodem.shapes.source import LabelSource

    ids = parse_ids(["0"] if ignore is None else ignore)
    margin = option_value("--border", parse_zyx, text=border)
    region = option_value("--box", Box.parse, text=box)
    size = option_value("--voxel-size", VoxelSize.parse, text=voxel_size)
    along: dict[str, Any] = {
        "merge_nodes": merge_nodes,
        "worst": worst,
        "bootstrap": bootstrap,
        "seed": bootstrap_seed,
        "swc_unit": _unit(swc_unit),
    }
    crew = options.chosen_crew(workers=workers, cluster=cluster, shard=shard, insecure=insecure)
    page = evaluate_report.AskedReport(
        path=report, image=image, has_viewer=not no_viewer, overwrite=overwrite
    )
    page.require(has_truth=truth is not None)
    if truth is None:
        needing = {"--border": any(margin), "--ignore": ignore, "--cremi-border": cremi_border}
        address = _require_skeletons(skeletons, needing=needing | {"--compare": compare})
        with _working(work) as how:
            scores = evaluation.score_skeletons(
                segmentation,
                address,
                voxel_size=size,
                box=region,
                options=evaluation.skeletons.SkeletonOptions(**along),
                crew=crew,
                work=work,
                **how,
            )
        _tell_skeletons(segmentation, scores, as_json=as_json)
        return
    addresses = [segmentation, *evaluate_report.split_addresses(compare, shard=shard)]
    for address in (*addresses, truth):
        warn_of_image(LabelSource(uri=address))
    with _working(work) as how:
        results = evaluation.evaluate_several(
            addresses,
            truth,
            box=region,
            border=margin,
            ignore=ids,
            cremi_border_nm=cremi_border,
            skeletons=skeletons,
            voxel_size=size,
            crew=crew,
            work=work,
            **along,
            **how,
        )
        page.write(results, addresses, truth=truth, voxel_size=size, places=worst, **how)
    if len(results) == 1:
        _tell(results[0], as_json=as_json)
    else:
        evaluate_report.tell_comparison(results, as_json=as_json)
    page.tell(to_stderr=as_json)


def _tell(result: Evaluation, *, as_json: bool) -> None:
    if as_json:
        print(result.to_json())
    else:
        print_evaluation(result)


def _unit(text: str | None) -> Unit | None:
    if text not in (None, "nm", "um"):
        raise OptionError(f"--swc-unit {text!r} is no unit: use nm or um")
    return text  # type: ignore[return-value]


def _require_skeletons(address: str | None, *, needing: Mapping[str, object]) -> str:
    """Return where skeletons are that do without TRUTH, and refuse options that do not."""
    from floodem.evaluation.skeletons.from_truth import FROM_TRUTH

    if address is None:
        raise UsageError(
            "there is nothing to compare with: give TRUTH, or skeletons of it (--skeletons)"
        )
    given = [name for name, value in needing.items() if value]
    if address == FROM_TRUTH:
        given.append(f"--skeletons {FROM_TRUTH}")
    if given:
        raise UsageError(f"{given[0]} is about TRUTH: give TRUTH as well")
    return address


def _tell_skeletons(segmentation: str, scores: SkeletonScores, *, as_json: bool) -> None:
    from floodem.evaluation.result import FORMAT, FORMAT_VERSION

    if as_json:
        values = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "segmentation": {"uri": segmentation},
            "truth": None,
            "skeletons": scores.to_dict(),
        }
        print(json.dumps(values, indent=2, allow_nan=False))
        return
    console = plain_console()
    console.print(segmentation, highlight=False)
    print_skeletons(console, scores)


@contextlib.contextmanager
def _working(work: str | None) -> Iterator[dict[str, Any]]:
    """Give what is told of progress and asked to stop: politely where it can go on later."""
    if work is not None:
        with finishing_tasks(overwrite=False) as how:
            yield how
        return
    from floodem.cli.progress import progress_bar

    with interrupting_on_sigterm() as should_stop, progress_bar() as progress:
        yield {"progress": progress, "should_stop": should_stop}


def parse_ids(texts: Iterable[str]) -> list[int]:
    """Read ids from ``["0,5", "7"]``; ``none`` stands for no id.

    Raises
    ------
    OptionError
        When a part is not a number.
    """
    texts = list(texts)
    return [] if texts == [_IGNORE_NOTHING] else list(read_ids(texts, option="--ignore"))


def print_evaluation(result: Evaluation) -> None:
    """Print the two rows of scores, then the worst splits and mergers that a score shows."""
    console = plain_console()
    console.print(f"{result.segmentation} against {result.truth}", highlight=False)
    if result.segmentation_box != result.truth_box:
        console.print(
            f"the segmentation holds {result.segmentation_box}, the truth {result.truth_box}: "
            "compared where both have voxels",
            highlight=False,
        )
    border = result.cremi_border_nm
    apart = "" if border is None else f", over {border:g} nm from its borders,"
    console.print(
        f"{counted(result.all_truth.voxels, 'voxel')} with truth{apart} in {result.box} (z,y,x), "
        f"{result.coverage:.1%} of them segmented\n",
        highlight=False,
    )
    console.print(_scores_table(result))
    _print_mistakes(
        console,
        result.worst_splits,
        title="worst splits: objects of the truth in several segments",
        whole="object",
        part="segment",
    )
    _print_mistakes(
        console,
        result.worst_mergers,
        title="worst mergers: segments over several objects of the truth",
        whole="segment",
        part="object",
    )
    if result.skeletons is not None:
        console.print()
        print_skeletons(console, result.skeletons)


def _scores_table(result: Evaluation) -> Table:
    table = plain_table(
        "",
        "Rand error",
        "precision",
        "recall",
        "VOI split",
        "VOI merge",
        "VOI sum",
        "segments",
        "objects",
    )
    rows = (
        ("all truth", result.all_truth, result.intervals),
        ("where both label", result.where_both_label, result.intervals_where_both),
    )
    for name, scores, intervals in rows:
        if scores is None:
            table.add_row(name, "no voxel")
            continue
        table.add_row(
            name,
            f"{scores.adapted_rand_error:.4f}",
            f"{scores.rand_precision:.3f}",
            f"{scores.rand_recall:.3f}",
            f"{scores.voi_split_bits:.3f}",
            f"{scores.voi_merge_bits:.3f}",
            f"{scores.voi_sum_bits:.3f}",
            str(scores.segments),
            str(scores.objects),
        )
        if intervals:
            table.add_row(*_interval_cells(intervals))
    return table


_DIGITS = {
    "adapted_rand_error": 4,
    "rand_precision": 3,
    "rand_recall": 3,
    "voi_split_bits": 3,
    "voi_merge_bits": 3,
    "voi_sum_bits": 3,
}
"""The columns of the scores that have intervals, and how exactly they are printed."""


def _interval_cells(intervals: Mapping[str, Interval]) -> list[str]:
    cells = [
        spread(intervals[name].low, intervals[name].high, digits=digits)
        for name, digits in _DIGITS.items()
    ]
    return [f"{intervals['adapted_rand_error'].level:.0%} of drawings", *cells]


def _print_mistakes(
    console: Console, mistakes: Sequence[Mistake], *, title: str, whole: str, part: str
) -> None:
    if not mistakes:
        return
    console.print(f"\n{title}", style="bold", highlight=False)
    shown = [mistake for mistake in mistakes if mistake.voi_bits >= _LEAST_BITS]
    if not shown:
        console.print(f"none above {_LEAST_BITS} bits", highlight=False)
        return
    table = plain_table(
        whole, "voxels", f"{part}s", "effective", "VOI bits", f"largest {part} at z,y,x", "next"
    )
    for mistake in shown:
        first, second = mistake.largest
        table.add_row(
            str(mistake.id),
            f"{mistake.voxels:,}",
            str(mistake.parts),
            f"{mistake.effective_parts:.1f}",
            f"{mistake.voi_bits:.4f}",
            place(first.id, first.position),
            place(second.id, second.position),
        )
    console.print(table)
