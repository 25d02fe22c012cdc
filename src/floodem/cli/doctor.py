"""``floodem doctor IMAGE``: an image in, what may be wrong with it and what to do about it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.stopping import finishing_tasks
from floodem.errors import UsageError

if TYPE_CHECKING:
    from floodem.geometry import Zyx
    from floodem.project.shift_report import ShiftReport
    from floodem.project.shifts import ShiftField

_SECTIONS = 10
_CHECKS = {
    "--shift-mask DST": "measures by how much each section is shifted against the next one, and "
    "writes it to DST for `segment --mask`",
}
"""What can be asked for, and what it does."""


def doctor(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="Image: a path or address.")
    ] = None,
    *,
    shift_mask: Annotated[
        str | None, typer.Option(metavar="DST", help="Measure shifts of sections and keep them.")
    ] = None,
    patch: Annotated[
        int, typer.Option(help="Edge of what is compared, an odd multiple of --stride (voxels).")
    ] = 160,
    stride: Annotated[int, typer.Option(help="A shift every so many voxels along y and x.")] = 32,
    search: Annotated[int, typer.Option(help="Largest shift that is looked for (voxels).")] = 32,
    threshold: Annotated[
        int | None, typer.Option(help="Shift from which to mask; default: proposed (voxels).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Network whose field of view the mask is for; default: 33.")
    ] = None,
    level: options.Level = 0,
    channel: options.Channel = None,
    axes: options.Axes = None,
    allow_external: options.AllowExternal = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    overwrite: options.Restart = False,
    as_json: options.Json = False,
) -> None:
    """Look for what is wrong with an image before a network sees it.

    --shift-mask DST compares patches of each section with the next one and writes the
    shifts to DST (zarr or precomputed, two channels). It prints which sections are
    shifted most, and the --mask that keeps fields of view from lying over them.

    Black sections are passed over: the next one with a picture is compared. Where both
    have one and nothing fits, the shift counts as larger than --search. A coarser
    --level costs a quarter of the time or less. Ctrl-C stops; the same command goes on.
    """
    if shift_mask is None:
        print("floodem doctor IMAGE with")
        for name, summary in _CHECKS.items():
            print(f"  {name}  {summary}")
        return
    if image is None:
        raise UsageError("--shift-mask measures the shifts of an image: give IMAGE before it")
    from floodem.project.matching import Matching
    from floodem.project.shift_report import report_shifts
    from floodem.project.shifts import measure_shifts
    from floodem.volumes.source import VolumeSource

    source = VolumeSource(
        uri=image, level=level, channel=channel, axes=axes, allow_external=allow_external
    )
    matching = Matching(stride=stride, patch=patch, search=search)
    fov = _fov(model)
    crew = options.chosen_crew(
        workers=workers, cluster=cluster, shard=shard, insecure=insecure, overwrite=overwrite
    )
    with finishing_tasks(overwrite=overwrite) as working:
        field = measure_shifts(
            source, shift_mask, matching=matching, overwrite=overwrite, crew=crew, **working
        )
    report = report_shifts(field, fov=fov, threshold=threshold)
    if as_json:
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
