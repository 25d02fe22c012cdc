"""``floodem doctor IMAGE``: machine and data in, what may be wrong and what to do about it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.counting import counted
from floodem.errors import EXIT_INPUT_REFUSED, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from floodem.project.doctor import Examination, Finding
    from floodem.volumes.source import VolumeSource

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def doctor(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="Image: a path or address.")
    ] = None,
    *,
    labels: Annotated[
        str | None, typer.Option(metavar="LABELS", help="True objects of the same place.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Network to be used; a mask of shifts is for its field of view."),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Read everything instead of samples.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 3 when there is a problem.")
    ] = False,
    destination: Annotated[
        Path, typer.Option("--dst", metavar="FOLDER", help="Where results will go.")
    ] = Path(),
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
    """Look for what is wrong with machine and data, and propose options.

    Without IMAGE the machine alone is looked at. Of an image of any size samples are
    read, within a minute or so, and what was sampled is said; --thorough reads all.
    Findings come problems first, then proposed options and commands to copy. The exit
    code is 0 whatever is found, unless --strict is given. docs/doctor.md lists every check.

    --shift-mask DST compares patches of each section with the next one instead and writes
    the shifts to DST (zarr or precomputed, two channels). It prints which sections are
    shifted most, and the --mask that keeps fields of view from lying over them. Black
    sections are passed over. Ctrl-C stops; the same command goes on.
    """
    from floodem.volumes.source import VolumeSource

    source = None
    if image is not None:
        source = VolumeSource(
            uri=image, level=level, channel=channel, axes=axes, allow_external=allow_external
        )
    if shift_mask is not None:
        if source is None:
            raise UsageError("--shift-mask measures the shifts of an image: give IMAGE before it")
        if labels is not None or thorough or strict:
            raise UsageError(
                "--shift-mask measures shifts alone: give --labels, --thorough and --strict to "
                "another floodem doctor"
            )
        from floodem.cli.doctor_shifts import ShiftRequest, make_shift_mask
        from floodem.project.matching import Matching

        make_shift_mask(
            ShiftRequest(
                source=source,
                destination=shift_mask,
                matching=Matching(stride=stride, patch=patch, search=search),
                threshold=threshold,
                model=model,
                overwrite=overwrite,
                as_json=as_json,
            ),
            crew=options.chosen_crew(
                workers=workers,
                cluster=cluster,
                shard=shard,
                insecure=insecure,
                overwrite=overwrite,
            ),
        )
        return
    _examine(
        source,
        labels=labels,
        model=model,
        destination=destination,
        thorough=thorough,
        strict=strict,
        as_json=as_json,
    )


def _examine(
    source: VolumeSource | None,
    *,
    labels: str | None,
    model: str | None,
    destination: Path,
    thorough: bool,
    strict: bool,
    as_json: bool,
) -> None:
    from floodem.cli.progress import progress_bar
    from floodem.project.doctor import Level, examine

    with progress_bar() as progress:
        found = examine(
            source,
            labels=labels,
            model=model,
            destination=destination,
            thorough=thorough,
            progress=progress,
        )
    if as_json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print_examination(found)
    if strict and found.worst is Level.PROBLEM:
        raise typer.Exit(EXIT_INPUT_REFUSED)


def print_examination(found: Examination) -> None:
    """Print findings, problems first, then proposals and commands."""
    from rich.console import Console

    from floodem.project.doctor.commands import option_text

    console = Console(markup=False, highlight=False, soft_wrap=True)
    if found.sampled:
        console.print(f"{found.image}: looked at {found.sampled}\n")
    in_order = 0
    for one in found.by_gravity():
        if found.image is not None and (one.part, one.level) == ("machine", "ok"):
            in_order += 1
        else:
            _print_finding(console, one)
    if in_order:
        console.print(f"ok       machine   {in_order} checks; floodem doctor alone lists them")
    counts = ", ".join(
        counted(number, level)
        for level in ("problem", "warning", "note")
        if (number := sum(one.level == level for one in found.findings))
    )
    console.print(f"\n{counts or 'nothing to worry about'}")
    if found.proposals:
        console.print("\nproposed, and why:")
        width = max(len(one.option) for one in found.proposals)
        for proposal in found.proposals:
            value = option_text(proposal.value)
            console.print(f"  {proposal.option:{width}}  {value}")
            console.print(f"  {'':{width}}  {proposal.reason}", style="dim")
    if found.commands:
        console.print("\ncommands to copy:")
        for command in found.commands:
            console.print(f"  {command}")


def _print_finding(console: Console, one: Finding) -> None:
    style = _STYLES[one.level]
    console.print(f"{one.level:8}", style=style, end="")
    console.print(f" {one.part:8}  {one.says}")
    for text in (one.reason, one.advice):
        if text and one.level != "ok":
            console.print(f"{'':20}{text}", style="dim")
