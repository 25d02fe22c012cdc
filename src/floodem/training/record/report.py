"""The page of a run: its record comes in, one HTML text goes out.

The page needs nothing but itself: no scripts, no network, pictures inside it.
Every word that comes from files, options or errors is escaped.
"""

from __future__ import annotations

import base64
import html
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import floodem
from floodem.training.record.curves import Series, bar_chart, curve_chart
from floodem.training.record.history import History
from floodem.training.record.pictures import saved_pictures
from floodem.training.record.style import STYLE
from floodem.training.validation.choice import ValidationFailure, best_score
from floodem.training.validation.convergence import Convergence
from floodem.training.validation.held_out import HeldOut
from floodem.training.validation.score import ValidationScore

CONFIGURATION, PICTURES = "config.toml", "pictures"
REFRESH_SECONDS = 120
_PICTURES_SHOWN, _ROWS_SHOWN = 3, 60
_RECENT = 20
"""Rows over which shares by distance are averaged."""

_MOVES = ("correct", "missed", "spurious")
_PARTS = ("network", "patches", "optimiser", "rest")
_AGREEMENT = ("precision", "recall", "accuracy", "specificity", "f1")
_BY_DISTANCE = "_by_distance_"

Rows = Sequence[ValidationScore | ValidationFailure]


def report_page(
    folder: Path,
    *,
    history: History,
    rows: Rows,
    convergence: Convergence,
    held_out: HeldOut | None = None,
    is_running: bool = True,
) -> str:
    """Return the page.

    Parameters
    ----------
    folder
        Of the run; its configuration and newest pictures are shown.
    rows
        Of the validation curve, in any order.
    held_out
        What they are of, if known.
    is_running
        Whether the page should look for a newer version of itself now and then.
    """
    name = html.escape(folder.absolute().name)
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if is_running else ""
    written = time.strftime("%Y-%m-%d %H:%M:%S")
    state = "running" if is_running else "ended"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{refresh}<title>{name}: training</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{name}</h1><p class='when'>training, {state} at {written}</p></header>"
        f'<p class="verdict {convergence.trend.value}">{html.escape(convergence.sentence)}</p>'
        f"{_figures(history, rows)}"
        f"<h2>Validation</h2>{_validation(folder, rows, held_out)}"
        f"<h2>Training</h2>{_training(history)}"
        f"{_pictures(folder)}{_configuration(folder)}"
        f"<footer>floodem {html.escape(floodem.__version__)} · the same numbers are in "
        "metrics.jsonl and validation.jsonl beside this page</footer></body></html>\n"
    )


def _figures(history: History, rows: Rows) -> str:
    best = best_score(row for row in rows if isinstance(row, ValidationScore))
    steps = history.steps()
    figures = [
        ("step", f"{steps[-1]:,}" if len(steps) else None),
        _time_trained(history.last("hours")),
        ("examples", _text(history.last("examples_seen"), ",.0f")),
        ("fields of view/s", _text(history.last("fields_per_s"), ".3g")),
        ("loss", _text(history.last("loss"), ".4g")),
        ("best adapted Rand error", None if best is None else f"{best.cost:.3f}"),
        ("best at step", None if best is None else f"{best.step:,}"),
    ]
    cells = "".join(
        f"<div><b>{value}</b><span>{name}</span></div>" for name, value in figures if value
    )
    return f'<div class="figures">{cells}</div>' if cells else ""


def _time_trained(hours: float | None) -> tuple[str, str | None]:
    if hours is not None and hours < 1:
        return "minutes", f"{60 * hours:.1f}"
    return "hours", _text(hours, ".2f")


def _validation(folder: Path, rows: Rows, held_out: HeldOut | None) -> str:
    about = "" if held_out is None else f"<p>{html.escape(_capitalised(held_out.sentence))}.</p>"
    if not rows:
        return (
            f"{about}<p>No validation yet. Without one nobody knows how good the network is: the "
            "loss does not say.</p>"
        )
    scores = sorted(
        (row for row in rows if isinstance(row, ValidationScore)), key=lambda row: row.step
    )
    best = best_score(scores)
    return "".join((about, _score_charts(scores, best, held_out), _table(rows, best))) + _look_at(
        folder, best, held_out
    )


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _score_charts(
    scores: Sequence[ValidationScore], best: ValidationScore | None, held_out: HeldOut | None
) -> str:
    if best is None:
        return ""
    steps = np.array([float(score.step) for score in scores])

    def series(name: str, label: str) -> Series:
        values = np.array([float(getattr(score, name)) for score in scores])
        is_cost = name == "adapted_rand_error"
        return Series(
            name=label,
            x=steps,
            y=values,
            has_dots=True,
            marked=float(best.step) if is_cost else None,
        )

    errors = [series("adapted_rand_error", "network")]
    if held_out is not None:
        level = np.full(len(steps), held_out.one_segment_error)
        errors.append(Series(name="one segment", x=steps, y=level))
    charts = (
        curve_chart("adapted Rand error (0 is perfect)", errors, floor=0.0),
        curve_chart(
            "VOI in bits",
            [series("voi_split_bits", "split"), series("voi_merge_bits", "merge")],
            floor=0.0,
        ),
        curve_chart(
            "Rand precision, recall, fill",
            [
                series("rand_precision", "precision"),
                series("rand_recall", "recall"),
                series("fill", "fill"),
            ],
            floor=0.0,
        ),
    )
    return f'<div class="charts">{"".join(charts)}</div>'


_COLUMNS = (
    "step",
    "hours",
    "adapted Rand error",
    "precision",
    "recall",
    "VOI split",
    "VOI merge",
    "fill",
    "segments",
    "network calls",
    "seconds",
)


def _table(rows: Rows, best: ValidationScore | None) -> str:
    newest = sorted(rows, key=lambda row: (row.step, row.hours), reverse=True)
    shown = newest[:_ROWS_SHOWN]
    if best is not None and best not in shown:
        shown.append(best)
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    body = "".join(_row(row, is_best=row is best) for row in shown)
    left_out = len(newest) - len(shown)
    note = f"<p>{left_out} older ones are in validation.jsonl.</p>" if left_out > 0 else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{note}"
    )


def _row(row: ValidationScore | ValidationFailure, *, is_best: bool) -> str:
    first = f"<td>{row.step:,}{' ★ best' if is_best else ''}</td><td>{row.hours:.2f}</td>"
    if isinstance(row, ValidationFailure):
        return (
            f'<tr class="failed">{first}<td class="reason" colspan="{len(_COLUMNS) - 3}">no score: '
            f"{html.escape(row.reason)}</td><td>{row.seconds:.0f}</td></tr>"
        )
    cells = (
        f"{row.adapted_rand_error:.4f}",
        f"{row.rand_precision:.3f}",
        f"{row.rand_recall:.3f}",
        f"{row.voi_split_bits:.3f}",
        f"{row.voi_merge_bits:.3f}",
        f"{row.fill:.1%}",
        f"{row.segments:,}",
        f"{row.network_calls:,}",
        f"{row.seconds:.0f}",
    )
    cells_text = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr{' class=best' if is_best else ''}>{first}{cells_text}</tr>"


def _look_at(folder: Path, best: ValidationScore | None, held_out: HeldOut | None) -> str:
    if best is None:
        return ""
    image, truth = ("IMAGE", "TRUTH") if held_out is None else (held_out.image, held_out.labels)
    made = str(folder / "validation" / f"step-{best.step:08d}.h5@labels")
    command = shlex.join(["floodem", "view", image, made, truth])
    return f"<p>See the best one: <code>{html.escape(command)}</code></p>"


def _training(history: History) -> str:
    if not len(history):
        return "<p>No step yet.</p>"
    steps = history.steps().astype(np.float64)

    def chart(title: str, names: dict[str, str], *, floor: float | None = None) -> str:
        series = [
            Series(name=label, x=steps, y=history.column(name)) for name, label in names.items()
        ]
        return curve_chart(title, series, floor=floor)

    charts = (
        chart("loss", {"loss": "loss"}),
        chart("share of moves", {f"moves_{kind}": kind for kind in _MOVES}, floor=0.0),
        _by_distance(history),
        chart("voxels", {name: name for name in _AGREEMENT}, floor=0.0),
        chart("learning rate", {"learning_rate": "learning rate"}),
        chart("gradient norm", {"gradient_norm": "gradient norm"}),
        chart("where the time goes", {f"{name}_share": name for name in _PARTS}, floor=0.0),
        chart("fields of view per second", {"fields_per_s": "fields/s"}, floor=0.0),
    )
    return f'<div class="charts">{"".join(charts)}</div>'


def _by_distance(history: History) -> str:
    prefix = f"moves_{_MOVES[0]}{_BY_DISTANCE}"
    ends = [name.removeprefix(prefix) for name in history.names if name.startswith(prefix)]
    bars = []
    for end in sorted((end for end in ends if end.isdecimal()), key=int):
        shares = [_recent(history, f"moves_{kind}{_BY_DISTANCE}{end}") for kind in _MOVES]
        if sum(shares) > 0:
            bars.append((end, [share / sum(shares) for share in shares]))
    return bar_chart("moves by distance in voxels, of late", bars, names=_MOVES)


def _recent(history: History, name: str) -> float:
    column = history.column(name)[-_RECENT:]
    column = column[np.isfinite(column)]
    return float(column.mean()) if len(column) else 0.0


def _pictures(folder: Path) -> str:
    figures = []
    for step, path in saved_pictures(folder / PICTURES)[: -_PICTURES_SHOWN - 1 : -1]:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        figures.append(
            f'<figure><img alt="planes of an example" src="data:image/png;base64,{data}">'
            f"<figcaption>step {step:,}</figcaption></figure>"
        )
    if not figures:
        return ""
    return f'<h2>Examples</h2><div class="pictures">{"".join(figures)}</div>'


def _configuration(folder: Path) -> str:
    try:
        text = (folder / CONFIGURATION).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    return (
        "<h2>Configuration</h2><details><summary>config.toml</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )


def _text(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
