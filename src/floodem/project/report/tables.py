"""The tables of a page: evaluations in, scores alone or side by side as HTML out."""

from __future__ import annotations

from collections.abc import Sequence

from floodem.counting import counted
from floodem.evaluation import Difference, Evaluation
from floodem.project.report.contents import Contents
from floodem.project.report.numbers import (
    LEAST_CHANGE,
    Metric,
    ObjectChange,
    metrics_of,
    object_changes,
    side_by_side,
)
from floodem.project.report.text import shown

_FIGURES = ("adapted_rand_error", "voi_split_bits", "voi_merge_bits", "erl_nm", "coverage")
"""What stands in large letters."""

_OBJECTS_SHOWN = 8
_SKELETON_ROWS = 10


def scores_section(contents: Contents) -> str:
    """Return the scores of one evaluation, or those of several side by side."""
    metrics = metrics_of(contents.evaluations)
    if len(contents.evaluations) == 1:
        return _figures(contents.evaluations[0], metrics) + _single(
            contents.evaluations[0], metrics
        )
    return _side_by_side(contents)


def _figures(one: Evaluation, metrics: Sequence[Metric]) -> str:
    cells = []
    for metric in metrics:
        if metric.key in _FIGURES and metric.value(one) is not None:
            interval = metric.interval_text(one)
            below = "" if interval is None else f"<i>{interval}</i>"
            cells.append(
                f"<div><b>{metric.text(metric.value(one))}</b>{below}"
                f"<span>{metric.title}</span></div>"
            )
    return f'<div class="figures">{"".join(cells)}</div>'


def _single(one: Evaluation, metrics: Sequence[Metric]) -> str:
    both = one.where_both_label
    rows = []
    for metric in metrics:
        interval = metric.interval_text(one)
        below = "" if interval is None else f"<small>{interval}</small>"
        there = "" if both is None else _where_both(metric, one)
        rows.append(
            f"<tr><td>{metric.title}</td><td>{metric.text(metric.value(one))}{below}</td>"
            f'<td>{there}</td><td class="meaning">{metric.meaning}</td></tr>'
        )
    return (
        '<h2>Scores</h2><div class="wide"><table><thead><tr><th></th><th>all truth</th>'
        '<th>where both label</th><th class="meaning">what it says</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="soft">"All truth" counts every voxel of the truth, those without a segment as '
        'one segment; "where both label" leaves these out, and asks only how good the segments '
        f"are.{_about_intervals([one])}</p>"
    )


def _where_both(metric: Metric, one: Evaluation) -> str:
    both = one.where_both_label
    if both is None:
        return ""
    value = getattr(both, metric.key, None)
    interval = one.intervals_where_both.get(metric.key)
    below = "" if interval is None else f"<small>{metric.range_text(interval)}</small>"
    return "" if value is None else f"{metric.text(value)}{below}"


def _side_by_side(contents: Contents) -> str:
    evaluations = contents.evaluations
    head = "".join(f"<th>{shown(name)}</th>" for name in contents.names)
    rows = []
    numbers = side_by_side(evaluations)
    for told in numbers:
        metric, cells = told.metric, []
        for number, one in enumerate(evaluations):
            interval = metric.interval_text(one)
            below = "" if interval is None else f"<small>{interval}</small>"
            below += _change(metric, told.changes[number])
            is_best = number in told.best
            cells.append(
                f"<td{' class=best' if is_best else ''}>{metric.text(metric.value(one))}"
                f"{' ★' if is_best else ''}{below}</td>"
            )
        rows.append(
            f"<tr><td>{metric.title}</td>{''.join(cells)}"
            f'<td class="meaning">{metric.meaning}</td></tr>'
        )
    change = next((one for told in numbers for one in told.changes if one is not None), None)
    changes = (
        f" Each change is from {shown(contents.names[0])}; the range in brackets holds "
        f"{change.interval.level:.0%} of the changes when the same objects are drawn again for "
        "both. Where it lies on one side of 0 it says “better” or “worse”; what is “not clear” "
        "may be an accident of which objects lie in the volume."
        if change is not None
        else " No changes were drawn (--bootstrap), so that nobody knows which differences "
        "would hold in another volume."
    )
    return (
        '<h2>Side by side</h2><div class="wide"><table><thead><tr><th></th>'
        f'{head}<th class="meaning">what it says</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        '</table></div><p class="soft">Over all voxels of the truth, those without a segment as '
        f"one segment. ★ is the best.{changes}{_about_intervals(evaluations)}</p>"
    )


def _change(metric: Metric, change: Difference | None) -> str:
    if change is None:
        return ""
    verdict = "not clear"
    if change.is_clear:
        verdict = "better" if metric.is_better(change) else "worse"
    return (
        f"<small>change {metric.change_text(change)}</small>"
        f'<small class="{verdict.replace(" ", "-")}">{verdict}</small>'
    )


def _about_intervals(evaluations: Sequence[Evaluation]) -> str:
    found = next(
        (
            interval
            for metric in metrics_of(evaluations)
            for one in evaluations
            if (interval := metric.interval(one)) is not None
        ),
        None,
    )
    if found is None:
        return ""
    return (
        f" The range below a number holds {found.level:.0%} of what comes out when the objects of "
        "the truth are drawn again at random."
    )


def changes_section(contents: Contents) -> str:
    """Say which objects got better and worse from the first segmentation to each other one."""
    parts = []
    for name, other in zip(contents.names[1:], contents.evaluations[1:], strict=True):
        better, worse = object_changes(contents.evaluations[0], other, limit=_OBJECTS_SHOWN)
        parts.append(
            f"<h3>from {shown(contents.names[0])} to {shown(name)}</h3>"
            f'<div class="columns"><div>{_change_table(better, "better")}</div>'
            f"<div>{_change_table(worse, 'worse')}</div></div>"
        )
    if not parts:
        return ""
    return (
        "<h2>Objects that changed most</h2>"
        '<p class="soft">What each object of the truth adds to the variation of information, in '
        f"bits; the changes of all objects together are the change of its sum.</p>{''.join(parts)}"
    )


def _change_table(changes: Sequence[ObjectChange], word: str) -> str:
    if not changes:
        return f'<p class="soft">no object got {word} by {LEAST_CHANGE} bits</p>'
    rows = "".join(
        f"<tr><td>{one.id}</td><td>{one.voxels:,}</td>"
        f"<td>{one.split[0]:.4f} → {one.split[1]:.4f}</td>"
        f"<td>{one.merge[0]:.4f} → {one.merge[1]:.4f}</td>"
        f'<td class="{word}">{one.change:+.4f}</td></tr>'
        for one in changes
    )
    return (
        f'<div class="wide"><table><thead><tr><th>{word}: object</th><th>voxels</th><th>split</th>'
        f"<th>merge</th><th>change</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def skeletons_section(contents: Contents) -> str:
    """Return what is known along skeletons; nothing where no skeletons were given."""
    parts = []
    for name, one in zip(contents.names, contents.evaluations, strict=True):
        found = one.skeletons
        if found is None:
            continue
        rows = [
            (
                "split",
                f"skeleton {mistake.skeletons[0]}",
                "segments " + ", ".join(map(str, mistake.segments)),
                mistake,
            )
            for mistake in found.worst_splits[:_SKELETON_ROWS]
        ] + [
            (
                "merger",
                "skeletons " + ", ".join(map(str, mistake.skeletons[:_SKELETON_ROWS])),
                f"segment {mistake.segments[0]}",
                mistake,
            )
            for mistake in found.worst_mergers[:_SKELETON_ROWS]
        ]
        body = "".join(
            f"<tr><td>{kind}</td><td>{which}</td><td>{segments}</td>"
            f"<td>{'; '.join(','.join(map(str, at)) for at in mistake.positions[:2])}</td>"
            f"<td>{mistake.cost_nm / 1000:.3f}</td></tr>"
            for kind, which, segments, mistake in rows
        )
        heading = f"<h3>{shown(name)}</h3>" if len(contents.evaluations) > 1 else ""
        parts.append(
            f"{heading}<p>{counted(found.skeletons, 'skeleton')}, "
            f"{found.length_nm / 1e3:,.1f} µm in all. Expected run length "
            f"{found.erl_nm / 1e3:.2f} µm of {found.possible_erl_nm / 1e3:.2f} µm that a perfect "
            f"segmentation has. Of the length {found.correct:.1%} is right, {found.split:.1%} lies "
            f"between two segments, {found.omitted:.1%} in none, {found.merged:.1%} in segments "
            f"that join skeletons ({counted(found.merge_nodes, 'node')} of two or more make one)."
            "</p>"
            '<div class="wide"><table><thead><tr><th>mistake</th><th>of</th><th>in</th>'
            "<th>at z,y,x</th><th>costs µm of run length</th></tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )
    return f"<h2>Along skeletons</h2>{''.join(parts)}" if parts else ""
