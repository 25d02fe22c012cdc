"""``floodem compare RUNS...``: folders of training runs in, a table or JSON out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from floodem.training.runs.comparison import Comparison, RunSummary
    from floodem.training.validation.score import ValidationScore

_WIDTH_IN_FILES = 200
_NONE = "-"


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUNS...", help="Folders of training runs.")],
    *,
    as_json: options.Json = False,
) -> None:
    """Table the scores of training runs against their cost.

    The first table has the best validation of each run, the best run first, and the
    best it had reached within the time that all runs had, beside what one segment over
    all the objects held out would score; the second one what that cost. A GFLOP is a
    thousand million operations of one field of view.
    """
    from floodem.training.runs.comparison import compare_runs

    found = compare_runs(runs)
    if as_json:
        print(found.to_json())
    else:
        print_comparison(found)


def print_comparison(found: Comparison) -> None:
    """Print scores, cost and what makes them hard to compare."""
    from rich.console import Console

    console = Console(
        markup=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH_IN_FILES
    )
    console.print(_scores(found))
    console.print()
    console.print(_costs(found))
    for notice in found.notices:
        console.print(f"\nnote: {notice}")


def _table(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(names[0], overflow="fold")
    for name in names[1:]:
        table.add_column(name, justify="right")
    return table


def _scores(found: Comparison) -> Table:
    hours = found.equal_hours
    table = _table(
        "run",
        "Rand error",
        "VOI split",
        "VOI merge",
        "fill",
        "at step",
        "after h",
        "latest",
        "within equal time" if hours is None else f"within {hours:.3g} h",
        "one segment",
        "objects",
    )
    for run in found.runs:
        best = run.best
        shown = (
            (_NONE,) * 6
            if best is None
            else (
                f"{best.adapted_rand_error:.4f}",
                f"{best.voi_split_bits:.3f}",
                f"{best.voi_merge_bits:.3f}",
                f"{best.fill:.1%}",
                f"{best.step:,}",
                f"{best.hours:.2f}",
            )
        )
        table.add_row(
            run.folder,
            *shown,
            _error(run.latest),
            _error(run.within_equal_time),
            _number(run.one_segment_error, ".4f"),
            _number(run.objects, ",d"),
        )
    return table


def _costs(found: Comparison) -> Table:
    table = _table(
        "run",
        "status",
        "step",
        "hours",
        "examples",
        "examples/s",
        "fields/s",
        "GFLOP/field",
        "fov z,y,x",
        "network",
    )
    for run in found.runs:
        table.add_row(
            run.folder,
            run.status,
            _number(run.step, ",d"),
            _number(run.hours, ".2f"),
            _number(run.examples, ",.0f"),
            _number(run.examples_per_second, ".3g"),
            _number(run.fields_per_second, ".3g"),
            _number(None if run.flop_per_call is None else run.flop_per_call / 1e9, ".3g"),
            ",".join(map(str, run.fov)),
            _network(run),
        )
    return table


def _network(run: RunSummary) -> str:
    arguments = ", ".join(f"{name} {value}" for name, value in run.arguments.items())
    return f"{run.network} ({arguments})" if arguments else run.network


def _error(score: ValidationScore | None) -> str:
    return _NONE if score is None else f"{score.adapted_rand_error:.4f}"


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)
