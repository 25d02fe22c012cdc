"""``floodem scene OUT/ --image IMAGE --segmentation SEG``: volumes in, a folder to show out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options as shared
from floodem.cli.copying import parse_pyramid
from floodem.cli.ids import read_ids
from floodem.cli.stopping import saving_state
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize

if TYPE_CHECKING:
    from floodem.viewer.scenes import Scene, ScenePlan


def scene(
    folder: Annotated[Path, typer.Argument(metavar="OUT/", help="The folder to make.")],
    *,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]IMAGE", help="A volume to show in grey (repeatable)."),
    ] = None,
    segmentation: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SEG", help="A volume to show as segments (repeatable)."),
    ] = None,
    meshes: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR|make|none", help="Their meshes; default: make."),
    ] = None,
    skeletons: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR|make|none", help="Their skeletons; default: make."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="What floodem evaluate SEG TRUTH --json printed."),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Names of objects: lines of id,name.")
    ] = None,
    only_ids: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="List and shape these objects only (repeatable, a list)."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="Z:Z,Y:Y,X:X", help="Take only these voxels of the first volume."),
    ] = None,
    voxel_size: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Nanometres, instead of what the volumes state."),
    ] = None,
    pyramid: shared.Pyramid = "auto",
    sharded: Annotated[
        bool,
        typer.Option("--sharded", help="Pack files into shards, for object stores."),
    ] = False,
    title: Annotated[str | None, typer.Option(help="Of the page; default: OUT.")] = None,
    no_client: Annotated[
        bool, typer.Option("--no-client", help="Leave the viewer out (floodem view brings one).")
    ] = False,
    workers: shared.Workers = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin again, replacing the scene in OUT.")
    ] = False,
    as_json: shared.Json = False,
) -> None:
    """Put images, segmentations and shapes into one folder that opens in a browser.

    OUT holds the volumes with coarser levels (Neuroglancer precomputed), meshes,
    skeletons, a list of objects with names and sizes, and the viewer. `floodem view
    OUT/` shows it, as does any web server, without a network: python3 -m http.server.

    Says first how large OUT becomes. Ctrl-C stops, and the same command goes on. A later
    one with another title, other names or scores makes only those anew, and what it does
    not name is gone. The record of the making lies beside it, in OUT.floodem.
    """
    from floodem.viewer.scenes import SceneOptions, make_scene
    from floodem.viewer.scenes.properties import read_names
    from floodem.volumes.parallel import usable_threads

    levels = parse_pyramid(pyramid)
    wanted = SceneOptions(
        box=option_value("--box", Box.parse, text=box),
        voxel_size=option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
        pyramid=0 if levels is None else levels,
        is_sharded=sharded,
        meshes=parse_shapes(meshes),
        skeletons=parse_shapes(skeletons),
        only_ids=None if only_ids is None else frozenset(read_ids(only_ids, option="--only-ids")),
        names={} if names is None else read_names(names),
        title=title,
        scores=scores,
        has_client=not no_client,
        workers=usable_threads(workers),
    )
    with saving_state(overwrite=overwrite) as listening:
        made = make_scene(
            folder,
            images=image or (),
            segmentations=segmentation or (),
            options=wanted,
            overwrite=overwrite,
            planned=_print_plan,
            **listening,
        )
    if as_json:
        print(json.dumps(_facts(made), indent=2))
    else:
        _print(made)


def parse_shapes(texts: Sequence[str] | None) -> str | Mapping[str, str]:
    """Read ``make``, ``none`` or a folder; or some of them, each behind ``NAME=``.

    Raises
    ------
    OptionError
        When several are given without names.
    """
    from floodem.viewer.scenes import MAKE
    from floodem.viewer.scenes.inputs import split_name

    if not texts:
        return MAKE
    pairs = [split_name(text) for text in texts]
    if len(pairs) == 1 and pairs[0][0] is None:
        return pairs[0][1]
    named = {name: value for name, value in pairs if name is not None}
    if len(named) != len(pairs):
        raise OptionError(
            f"{texts[0]!r} and {texts[-1]!r} are for several segmentations: write NAME=DIR for each"
        )
    return named


def _print_plan(plan: ScenePlan) -> None:
    for volume in plan.volumes:
        print(volume, file=sys.stderr)
    print(plan, file=sys.stderr, flush=True)


def _facts(made: Scene) -> dict[str, Any]:
    return {
        "folder": str(made.folder),
        "title": made.title,
        "layers": {name: str(kind) for name, kind in made.layers.items()},
        "objects": made.summary.get("objects", {}),
        "has_client": made.has_client,
    }


def _print(made: Scene) -> None:
    objects = sum(made.summary.get("objects", {}).values())
    print(
        f"{made.folder}: {', '.join(made.layers)}; {counted(objects, 'object')}\n"
        f"see it: {shlex.join(['floodem', 'view', str(made.folder)])}"
    )
    if made.has_client:
        server = "python3 -m http.server --bind 127.0.0.1 --directory"
        print(f"or: {server} {shlex.quote(str(made.folder))} 8000")
