"""``floodem fetch NAME [DIR]``: a name in, a published network and its sample volumes out."""

from __future__ import annotations

import contextlib
import json as json_text
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.counting import counted
from floodem.errors import StoppedError

if TYPE_CHECKING:
    from floodem.legacy.published.catalogue import Part, Published
    from floodem.legacy.published.fetch import Fetched


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="fib25 or snemi3d.")],
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Where the files go; default: ./NAME.")
    ] = None,
    *,
    part: Annotated[
        list[str] | None,
        typer.Option(help="network, sample; fib25 also validation, coordinates (repeatable)."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Copies of the files, below their host's name and path."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not the published ones.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Bring a published network and its sample volumes.

    fib25: Google's network for FIB-SEM of the fruit fly, with a labelled 250^3 volume.
    snemi3d: a network for ATUM-SEM of mouse cortex, with 100 labelled sections.

    The network is imported as well: --model NAME then works everywhere. Without --part
    the network and the sample come. The same command goes on after an interruption, and
    checks what is there. Read the licences it prints, and cite what you use.

    Where a firewall is in the way: copy the files with `wget --force-directories` to a
    web server of yours and give its address with --mirror.
    """
    from floodem.cli.progress import progress_bar
    from floodem.cli.stopping import stopping_on_signals
    from floodem.legacy.published.catalogue import find_published
    from floodem.legacy.published.fetch import fetch as run

    published = find_published(name)
    chosen = published.chosen(tuple(part or ()))
    if not json:
        print("\n".join(terms(published, chosen)), flush=True)
    with (
        _keeping_what_arrived(),
        stopping_on_signals("keeping what has arrived") as should_stop,
        progress_bar() as progress,
    ):
        made = run(
            name,
            folder or name,
            parts=part or (),
            mirror=mirror,
            overwrite=overwrite,
            progress=progress,
            should_stop=should_stop,
        )
    if json:
        print(json_text.dumps(_plain(made), indent=2))
    else:
        _print(made, published)


def terms(published: Published, parts: Sequence[Part]) -> Iterator[str]:
    """Give the lines that say what comes, under which licence, and what to cite."""
    yield f"{published.name}: {published.summary}"
    for part in parts:
        yield f"  {part.name}: {part.summary}"
        yield f"    licence: {part.licence}"
        yield f"    cite: {part.citation}"


@contextlib.contextmanager
def _keeping_what_arrived() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(
            "interrupted; what has arrived is kept: run the same command again to go on"
        ) from None


def _print(made: Fetched, published: Published) -> None:
    here = sum(file.was_here for file in made.files)
    size = sum(file.size for file in made.files) / 1e6
    already = f", {here} of them there already" if here else ""
    print(f"{made.folder}: {counted(len(made.files), 'file')}{already}, {size:.1f} MB, checked")
    for address in made.bodies:
        print(f"neurons, made from the published supervoxels: {address}")
    if made.model is not None:
        print(f"network: use it as --model {made.name} ({made.model})")
    print("when you use them, keep to their licences and cite:")
    for part in made.parts:
        print(f"  {part.name} ({part.licence}): {part.citation}")
    for sentence in made.notices:
        print(f"note: {sentence}", file=sys.stderr)


def _plain(made: Fetched) -> dict[str, Any]:
    return {
        "name": made.name,
        "folder": str(made.folder),
        "model": None if made.model is None else str(made.model),
        "bodies": list(made.bodies),
        "record": str(made.record),
        "terms": [
            {"part": part.name, "licence": part.licence, "citation": part.citation}
            for part in made.parts
        ],
        "files": [file.to_json() for file in made.files],
        "notices": list(made.notices),
    }
