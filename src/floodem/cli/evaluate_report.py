"""What ``floodem evaluate`` does with several segmentations, and with ``--report``.

Evaluations come in; a table, JSON or a page goes out.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.cli.tables import plain_console, plain_table
from floodem.counting import counted
from floodem.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from floodem.evaluation import Evaluation
    from floodem.project.report.numbers import ObjectChange

_OBJECTS_SHOWN = 5
_BEST, _CLEAR = "*", "!"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedReport:
    """The report that is asked for, if any.

    Attributes
    ----------
    path
        Of the page; None for none.
    image, has_viewer, overwrite
        As `floodem.project.report.write_report` takes them.
    """

    path: Path | None
    image: str | None
    has_viewer: bool
    overwrite: bool

    def require(self, *, has_truth: bool) -> None:
        """Refuse what cannot become a report, before anything is scored.

        Raises
        ------
        OptionError, StorageError, DestinationExistsError
            As `floodem.project.report.require_report_place`; or when options that only a
            report has are given without one.
        """
        if self.path is None:
            asked = {
                "--image": self.image,
                "--no-viewer": not self.has_viewer,
                "--overwrite": self.overwrite,
            }
            given = [name for name, value in asked.items() if value]
            if given:
                raise OptionError(f"{given[0]} is about a report: name it with --report out.html")
            return
        from floodem.project.report import require_report_place

        if not has_truth:
            raise OptionError(
                f"--report {self.path} shows mistakes against TRUTH: give TRUTH as well"
            )
        require_report_place(self.path, overwrite=self.overwrite, has_viewer=self.has_viewer)

    def write(
        self, evaluations: Sequence[Evaluation], segmentations: Sequence[str], **more: Any
    ) -> None:
        """Write it; what is otherwise than one may think goes to stderr."""
        if self.path is None:
            return
        from floodem.project.report import write_report

        def note(sentence: str) -> None:
            print(f"note: {sentence}", file=sys.stderr)

        write_report(
            self.path,
            evaluations=evaluations,
            segmentations=segmentations,
            image=self.image,
            has_viewer=self.has_viewer,
            overwrite=self.overwrite,
            notice=note,
            **more,
        )

    def tell(self, *, to_stderr: bool) -> None:
        """Say where it is, and how its links are opened."""
        if self.path is None:
            return
        line = shlex.join(["floodem", "view", str(self.path)])
        opening = f"; with {line} its places open in the viewer" if self.has_viewer else ""
        print(f"wrote {self.path}{opening}", file=sys.stderr if to_stderr else sys.stdout)


def split_addresses(texts: Sequence[str] | None, *, shard: str | None = None) -> list[str]:
    """Read ``--compare B --compare C`` or ``--compare B,C``; a file with a comma stays whole.

    Raises
    ------
    OptionError
        When a part is empty, or only a part of the work is to be done (`shard`).
    """
    if texts and shard is not None:
        raise OptionError(f"--shard {shard} scores one segmentation: leave out --compare")
    found: list[str] = []
    for text in texts or ():
        is_file = Path(text).exists() or Path(text.rpartition("@")[0] or text).exists()
        parts = [text] if is_file else text.split(",")
        if not all(part.strip() for part in parts):
            raise OptionError(f"--compare {text!r} names nothing: give addresses, such as B,C")
        found += parts
    return found


def tell_comparison(evaluations: Sequence[Evaluation], *, as_json: bool) -> None:
    """Print several evaluations, as a list of JSON or side by side."""
    if as_json:
        print(comparison_json(evaluations))
    else:
        print_side_by_side(evaluations)


def comparison_json(evaluations: Sequence[Evaluation]) -> str:
    """Return a JSON list with every evaluation; later ones say what changed."""
    from floodem.evaluation import score_differences

    values = [evaluations[0].to_dict()]
    for other in evaluations[1:]:
        better, worse = _changes(evaluations[0], other)
        values.append(
            other.to_dict()
            | {
                "against_first": {
                    "differences": {
                        name: one.to_dict()
                        for name, one in score_differences(evaluations[0], other).items()
                    },
                    "better": [_change_dict(one) for one in better],
                    "worse": [_change_dict(one) for one in worse],
                }
            }
        )
    return json.dumps(values, indent=2, allow_nan=False)


def _changes(first: Evaluation, other: Evaluation) -> tuple[list[ObjectChange], list[ObjectChange]]:
    from floodem.project.report.numbers import object_changes

    return object_changes(first, other, limit=_OBJECTS_SHOWN)


def _change_dict(one: ObjectChange) -> dict[str, Any]:
    return {
        "object": one.id,
        "voxels": one.voxels,
        "voi_split_bits": list(one.split),
        "voi_merge_bits": list(one.merge),
        "change_bits": one.change,
    }


def print_side_by_side(evaluations: Sequence[Evaluation]) -> None:
    """Print all segmentations in one table, then the objects that changed most."""
    from floodem.viewer.layers import unique_names

    console = plain_console()
    first = evaluations[0]
    names = unique_names([one.segmentation for one in evaluations])
    console.print(
        f"{counted(len(evaluations), 'segmentation')} against {first.truth}, "
        f"{counted(first.all_truth.voxels, 'voxel')} with truth in {first.box} (z,y,x), those "
        "without a segment as one segment\n",
        highlight=False,
    )
    table = plain_table("", *names)
    for title, cells in _rows(evaluations):
        table.add_row(title, *cells)
    console.print(table)
    remark = f"{_BEST} best"
    if first.draws:
        remark += (
            f"; changes are from {names[0]}, with what drawings of the same objects give; "
            f"{_CLEAR} all of that on one side of 0"
        )
    console.print(remark, highlight=False)
    for name, other in zip(names[1:], evaluations[1:], strict=True):
        better, worse = _changes(first, other)
        _print_changes(console, better, title=f"objects better in {name} than in {names[0]}")
        _print_changes(console, worse, title=f"objects worse in {name} than in {names[0]}")


def _rows(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, list[str]]]:
    from floodem.project.report.numbers import side_by_side

    for told in side_by_side(evaluations):
        metric = told.metric
        marks = [f" {_BEST}" if number in told.best else "  " for number in range(len(evaluations))]
        yield (
            metric.title,
            [
                f"{metric.text(metric.value(one))}{mark}"
                for one, mark in zip(evaluations, marks, strict=True)
            ],
        )
        intervals = [metric.interval_text(one, between="-") for one in evaluations]
        if any(intervals):
            yield "", [f"{text or ''}  " for text in intervals]
        if any(told.changes):
            yield (
                "  change",
                [
                    ""
                    if change is None
                    else f"{metric.change_text(change)} {_CLEAR if change.is_clear else ' '}"
                    for change in told.changes
                ],
            )


def _print_changes(console: Console, changes: Sequence[ObjectChange], *, title: str) -> None:
    if not changes:
        return
    console.print(f"\n{title}", style="bold", highlight=False)
    table = plain_table("object", "voxels", "VOI split", "VOI merge", "change in bits")
    for one in changes:
        table.add_row(
            str(one.id),
            f"{one.voxels:,}",
            f"{one.split[0]:.4f} to {one.split[1]:.4f}",
            f"{one.merge[0]:.4f} to {one.merge[1]:.4f}",
            f"{one.change:+.4f}",
        )
    console.print(table)
