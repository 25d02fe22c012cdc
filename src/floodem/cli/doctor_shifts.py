"""``floodem doctor IMAGE --shift-mask DST``: an image in, a field of its shifts and a mask out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from floodem.cli.stopping import finishing_tasks
from floodem.project.matching import Matching
from floodem.volumes.source import VolumeSource

if TYPE_CHECKING:
    from floodem.cluster import Crew
    from floodem.geometry import Zyx
    from floodem.project.shift_report import ShiftReport
    from floodem.project.shifts import ShiftField

_SECTIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftRequest:
    """What was asked for; see the options of the command."""

    source: VolumeSource
    destination: str
    matching: Matching
    threshold: int | None
    model: str | None
    overwrite: bool
    as_json: bool


def make_shift_mask(asked: ShiftRequest, *, crew: Crew) -> None:
    """Measure and write the field, and print what it says."""
    from floodem.project.shift_report import report_shifts
    from floodem.project.shifts import measure_shifts

    fov = _fov(asked.model)
    with finishing_tasks(overwrite=asked.overwrite) as working:
        field = measure_shifts(
            asked.source,
            asked.destination,
            matching=asked.matching,
            overwrite=asked.overwrite,
            crew=crew,
            **working,
        )
    report = report_shifts(field, fov=fov, threshold=asked.threshold)
    if asked.as_json:
        print(json.dumps({"path": field.uri, "scale": field.scale, **report.to_json()}))
    else:
        _print(field, report, fov)


def _fov(model: str | None) -> Zyx:
    from floodem.project.shift_report import USUAL_FOV

    if model is None:
        return USUAL_FOV
    from floodem.network.model_file import load_model

    return load_model(Path(model)).description.fov


def _print(field: ShiftField, report: ShiftReport, fov: Zyx) -> None:
    from floodem.counting import counted

    if field.was_finished:
        print(f"{field.uri} was finished by an earlier run of this command; --overwrite repeats it")
    print(
        f"{field.uri}: shifts of {counted(len(report.sections), 'section')} against the next, at "
        f"{counted(report.places, 'place')} {field.scale} voxels apart; {report.empty:.1%} are "
        f"empty, and of the others {report.lost:.1%} fit nowhere within "
        f"{field.matching.search * field.step} voxels"
    )
    print(f"half of the shifts are up to {report.typical} voxels, 90 % up to {report.usual}")
    _print_sections(report)
    of = ",".join(map(str, fov))
    print(
        f"with the mask below, {report.masked:.1%} of the image are closed to centres of fields of "
        f"view of {of} (z,y,x):"
    )
    print(f'  --mask "{report.mask}"')


def _print_sections(report: ShiftReport) -> None:
    from rich.console import Console
    from rich.table import Table

    large = [one for one in report.sections if one.large > 0]
    if not large:
        print(f"no place is shifted by {report.threshold} voxels or more")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("sections", "median y,x", "largest", f"from {report.threshold}", "fit nowhere")
    for name in names:
        table.add_column(name, justify="right")
    for one in large[:_SECTIONS]:
        table.add_row(
            f"{one.z}, {one.z + 1}",
            "-" if one.median_y is None else f"{one.median_y},{one.median_x}",
            str(one.largest),
            f"{one.large:.1%}",
            f"{one.lost:.1%}",
        )
    Console(markup=False, highlight=False).print(table)
    if len(large) > _SECTIONS:
        print(f"and {len(large) - _SECTIONS} more with shifts of {report.threshold} or more")
