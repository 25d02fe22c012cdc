"""``floodem evaluate SEG TRUTH``: two label volumes in, a short table or JSON out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.ids import read_ids
from floodem.cli.stopping import finishing_tasks, interrupting_on_sigterm
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from floodem.evaluation import Evaluation, Mistake, Part

_WIDTH_IN_FILES = 120
_IGNORE_NOTHING = "none"
_LEAST_BITS = 0.0005
"""What a mistake must add to VOI to be listed: less is 0.000 in the table of scores."""


def evaluate(
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="Segmentation: a path or address.")
    ],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="What it should be.")],
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
    worst: Annotated[int, typer.Option(min=0, help="Splits and mergers to list.")] = 10,
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
    block, so that neither need fit in memory. With --work a stopped command goes on, and
    other scores of the same voxels (--ignore, --worst) need no counting; --shard and
    --cluster need a FOLDER that all machines see.
    """
    from floodem import evaluation

    ids = parse_ids(["0"] if ignore is None else ignore)
    margin = option_value("--border", parse_zyx, text=border)
    region = option_value("--box", Box.parse, text=box)
    crew = options.chosen_crew(workers=workers, cluster=cluster, shard=shard, insecure=insecure)
    with _working(work) as how:
        result = evaluation.evaluate(
            segmentation,
            truth,
            box=region,
            border=margin,
            ignore=ids,
            worst=worst,
            crew=crew,
            work=work,
            **how,
        )
    if as_json:
        print(result.to_json())
    else:
        print_evaluation(result)


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
    console = _console()
    console.print(f"{result.segmentation} against {result.truth}", highlight=False)
    if result.segmentation_box != result.truth_box:
        console.print(
            f"the segmentation holds {result.segmentation_box}, the truth {result.truth_box}: "
            "compared where both have voxels",
            highlight=False,
        )
    console.print(
        f"{counted(result.all_truth.voxels, 'voxel')} with truth in {result.box} (z,y,x), "
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


def _console() -> Console:
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich calls this where it has caught the error, and would exit with 1 itself.
            raise  # noqa: PLE0704

    return PipedConsole(markup=False, width=None if sys.stdout.isatty() else _WIDTH_IN_FILES)


def _table(left: str, *right: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(left)
    for name in right:
        table.add_column(name, justify="right")
    return table


def _scores_table(result: Evaluation) -> Table:
    table = _table(
        "",
        "Rand error",
        "precision",
        "recall",
        "VOI split",
        "VOI merge",
        "segments",
        "objects",
    )
    rows = (("all truth", result.all_truth), ("where both label", result.where_both_label))
    for name, scores in rows:
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
            str(scores.segments),
            str(scores.objects),
        )
    return table


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
    table = _table(
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
            _place(first),
            _place(second),
        )
    console.print(table)


def _place(part: Part) -> str:
    if part.position is None:
        return str(part.id)
    return f"{part.id} at {','.join(str(index) for index in part.position)}"
