"""``floodem run project.toml``: a project file in, all its results and a table of them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.progress import duration, progress_bar
from floodem.cli.stopping import saving_state
from floodem.counting import counted
from floodem.errors import OptionError, VolumeNotFoundError

if TYPE_CHECKING:
    from rich.console import Console

    from floodem.project.pipeline import ProjectResult, StageResult

_WIDTH_IN_FILES = 160
_SHORT_S = 60.0
_BEFORE = "before: "
_REASONS = 3
"""Of a stage that was made; --plan tells all."""


def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Project file in TOML.")],
    *,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what is stale and why, and make nothing.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="This stage alone, if it is stale.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="This stage and those after it.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="This stage and those before it.")
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Make it again though it is fresh (repeatable)."),
    ] = None,
    init: Annotated[
        bool, typer.Option("--init", help="Write CONFIG for --image, and make nothing.")
    ] = False,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="With --init: the image of the project.")
    ] = None,
    truth: Annotated[
        str | None, typer.Option(metavar="LABELS", help="With --init: true labels of it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="With --init: a network that is there.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make all results of a project, or those that are stale, from one file.

    Stages: prepare, truth, train, segment, agglomerate, merge, evaluate, mesh, scene; those
    that the file has tables for. A stage is stale when an option, a file or an earlier result
    it is made from has changed, or its own result was touched. Results and the records of
    stages go to one folder. docs/projects.md says more.

    Ctrl-C saves what is begun; the same command goes on, also after a crash.
    """
    if init:
        _init(config, image=image, truth=truth, model=model, as_json=as_json)
        return
    if image is not None or truth is not None or model is not None:
        raise OptionError(f"--image, --truth and --model are of --init: {config} names its own")
    from floodem.project.pipeline import Choice, run_project

    _require_right(config)
    choice = Choice(only=only, since=since, until=until, force=tuple(force or ()))
    if plan:
        made = run_project(config, choice=choice, dry_run=True)
    else:
        with saving_state(overwrite=False) as listening:
            made = run_project(config, choice=choice, **listening)
    if as_json:
        print(json.dumps(made.to_json(), indent=1))
    elif plan:
        _print_plan(made)
    else:
        _print_table(made)


def _require_right(config: Path) -> None:
    """End with all mistakes of a project file, one a line; other errors are of one line."""
    from floodem.project.pipeline import read_project

    try:
        read_project(config, look=True)
    except (OptionError, VolumeNotFoundError) as error:
        if len(str(error).splitlines()) == 1:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


def _init(
    config: Path, *, image: str | None, truth: str | None, model: str | None, as_json: bool
) -> None:
    from floodem.project.pipeline.starting import write_project

    if image is None:
        raise OptionError("--init writes a project for an image: add --image IMAGE")
    with progress_bar() as progress:
        written = write_project(config, image=image, truth=truth, model=model, progress=progress)
    if as_json:
        print(json.dumps({"project": str(written.path), "reasons": list(written.reasons)}))
        return
    print(f"{written.path}: a project for {image}")
    for sentence in written.reasons:
        print(f"note: {sentence}", file=sys.stderr)
    print(f"look it through, then: floodem run {config}")


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, width=None if sys.stdout.isatty() else _WIDTH_IN_FILES)


def _print_table(made: ProjectResult) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "state", "time", "result", "where"):
        table.add_column(name, justify="right" if name == "time" else "left")
    for one in made.stages:
        table.add_row(
            one.name,
            one.state,
            "" if one.seconds is None else _time(one.seconds),
            _result(one),
            " ".join(_shown(place, made.folder) for place in one.places),
        )
    _console().print(table, highlight=False)
    print(f"all in {made.folder}")


def _print_plan(made: ProjectResult) -> None:
    for one in made.stages:
        said = [reason.said for reason in one.reasons]
        print(f"{one.name}: {one.state}{f' ({said[0]})' if len(said) == 1 else ''}")
        if len(said) > 1:
            for sentence in said:
                print(f"    {sentence}")


def _result(one: StageResult) -> str:
    if one.numbers:
        return numbers_text(one.numbers)
    return "; ".join(reason.said for reason in one.reasons[:_REASONS])


def numbers_text(numbers: Mapping[str, Any]) -> str:
    """Write numbers with their names: 1,204 segments, Rand error 0.0748 (before 0.0812)."""
    parts = []
    if numbers.keys() >= {"joined", "into"}:
        parts.append(f"{counted(numbers['joined'], 'segment')} joined into {numbers['into']:,}")
        numbers = {name: one for name, one in numbers.items() if name not in ("joined", "into")}
    for name, value in numbers.items():
        if name.startswith(_BEFORE):
            continue
        text = _number(name, value)
        before = numbers.get(f"{_BEFORE}{name}")
        parts.append(text if before is None else f"{text} (before {_bare(name, before)})")
    return ", ".join(parts)


def _number(name: str, value: Any) -> str:
    if isinstance(value, int):
        return counted(value, name.removesuffix("s"))
    if name == "covered":
        return f"{_bare(name, value)} {name}"
    return f"{name.removesuffix(' nm')} {_bare(name, value)}"


def _bare(name: str, value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if name == "covered":
        return f"{value:.1%}"
    return f"{value:,.0f} nm" if name.endswith(" nm") else f"{value:.4f}"


def _shown(place: Path, folder: Path) -> str:
    return str(place.relative_to(folder)) if place.is_relative_to(folder) else str(place)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _SHORT_S else duration(seconds)
