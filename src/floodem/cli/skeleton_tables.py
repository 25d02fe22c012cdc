"""Skeleton scores as tables: `SkeletonScores` in, lines on a console out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from floodem.counting import counted

if TYPE_CHECKING:
    from rich.console import Console

    from floodem.evaluation import SkeletonScores
    from floodem.evaluation.skeletons import SkeletonMistake

_NM_PER_UM = 1000
_NAMED = 4
"""A merger may join hundreds of skeletons; the file that --json prints has them all."""


def print_skeletons(console: Console, scores: SkeletonScores) -> None:
    """Print the scores along skeletons, then the worst splits and mergers along them."""
    from floodem.cli.tables import plain_table, spread

    outside = f"; {counted(scores.outside, 'node')} outside left out" if scores.outside else ""
    console.print(
        f"along {counted(scores.skeletons, 'skeleton')} of {_um(scores.length_nm)} um: "
        f"{scores.coverage:.1%} of {counted(scores.nodes, 'node')} in a segment{outside}",
        highlight=False,
    )
    if scores.merge_nodes > 1:
        console.print(
            f"segments with {scores.merge_nodes} nodes of two skeletons join them",
            highlight=False,
        )
    console.print()
    table = plain_table(
        "",
        "ERL (um)",
        "possible",
        "correct",
        "split",
        "omitted",
        "merged",
        "splits",
        "gaps",
        "mergers",
    )
    table.add_row(
        "along skeletons",
        _um(scores.erl_nm),
        _um(scores.possible_erl_nm),
        *(
            f"{share:.1%}"
            for share in (scores.correct, scores.split, scores.omitted, scores.merged)
        ),
        *(str(count) for count in (scores.splits, scores.gaps, scores.mergers)),
    )
    interval = scores.erl_interval
    if interval is not None:
        low, high = interval.low / _NM_PER_UM, interval.high / _NM_PER_UM
        table.add_row(f"{interval.level:.0%} of drawings", spread(low, high, digits=3))
    console.print(table)
    _print_worst(console, scores.worst_splits, title="worst splits along skeletons", is_split=True)
    _print_worst(console, scores.worst_mergers, title="worst mergers of skeletons", is_split=False)


def _print_worst(
    console: Console, mistakes: Sequence[SkeletonMistake], *, title: str, is_split: bool
) -> None:
    from floodem.cli.tables import place, plain_table

    if not mistakes:
        return
    console.print(f"\n{title}", style="bold", highlight=False)
    whole, part = ("skeleton", "segment") if is_split else ("segment", "skeleton")
    table = plain_table(whole, f"{part}s", "ERL lost (um)", f"{part} at z,y,x", "next")
    for mistake in mistakes:
        wholes = mistake.skeletons if is_split else mistake.segments
        parts = mistake.segments if is_split else mistake.skeletons
        table.add_row(
            str(wholes[0]),
            _listed(parts),
            _um(mistake.cost_nm),
            place(parts[0], mistake.positions[0]),
            place(parts[1], mistake.positions[1]),
        )
    console.print(table)


def _listed(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ",".join(str(number) for number in ids[:_NAMED]) + more


def _um(length_nm: float) -> str:
    return f"{length_nm / _NM_PER_UM:.3f}"
