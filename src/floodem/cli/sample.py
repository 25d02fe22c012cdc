"""``floodem sample NAME=PARTITIONS... DST``: partitions in, an index of centres out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError, UsageError
from floodem.geometry import parse_zyx

if TYPE_CHECKING:
    from floodem.legacy.records.balanced import TfrecordResult
    from floodem.training.coordinates.index import CoordinateIndex

_MOST_SHARDS = 10**5
"""Shards are numbered with five digits."""


def sample(
    partitions: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=PARTITIONS...",
            help="Volumes from `floodem partition`; TFRecord files with --from-tfrecord.",
        ),
    ],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Index file to make (.npz).")],
    *,
    margin: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels at each face that hold no centre.")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Keep background as one more partition.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=2,...", help="How often to draw from a volume; the others have 1."
        ),
    ] = None,
    tfrecord: Annotated[
        bool, typer.Option("--tfrecord", help="Write the historic GZIP TFRecord file instead.")
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="Write so many TFRecord files, DST-00000-of-00025 and so on."),
    ] = None,
    legacy_background: Annotated[
        bool,
        typer.Option(
            "--legacy-background", help="Keep background in the TFRecord, as the old program did."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in the TFRecord.")] = 0,
    from_tfrecord: Annotated[
        bool,
        typer.Option(
            "--from-tfrecord",
            help="List the centres of TFRecord files in their order; globs and coords@25 as well.",
        ),
    ] = False,
    allow_external: options.AllowExternal = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
    as_json: options.Json = False,
) -> None:
    """Index where training examples are centred, in balance.

    Training draws a volume by its weight, then any of its partitions alike, then any
    voxel of that. NAME is how the training configuration calls the volume; the margin
    is what a patch reaches around its centre.

    With --tfrecord DST is what the old training reads: every partition resampled to
    the size of the largest, over all volumes, all shuffled. With --from-tfrecord DST is a
    list of what such files hold, for training with --sampling.sampler listed.
    """
    from floodem.cli.progress import progress_bar

    if from_tfrecord:
        if any((margin, background, weights, tfrecord, shards, legacy_background, seed)):
            raise OptionError(
                "--from-tfrecord takes centres as they are: only --overwrite and --json go with it"
            )
        _list_centres(partitions, destination, overwrite=overwrite, as_json=as_json)
        return
    if margin is None:
        raise UsageError("--margin is missing: give what a patch reaches, z,y,x")
    named = parse_volumes(partitions)
    factors = {} if weights is None else parse_weights(weights, names=list(named))
    if tfrecord and (background or weights is not None):
        raise OptionError(
            "--background and --weights are of the index, not of --tfrecord: leave them out "
            "(--legacy-background keeps background)"
        )
    if not tfrecord and (shards is not None or legacy_background):
        raise OptionError("--shards and --legacy-background are of --tfrecord: add it")
    if shards is not None and shards >= _MOST_SHARDS:
        raise OptionError(f"--shards {shards} is not below {_MOST_SHARDS}")
    wanted: dict[str, Any] = {
        "margin": option_value("--margin", parse_zyx, text=margin),
        "allow_external": allow_external,
    }
    with progress_bar() as progress:
        if tfrecord:
            from floodem.legacy.records.balanced import write_tfrecord
            from floodem.training.coordinates.sampling import gathered

            path = Path(destination)
            with gathered(
                named, beside=path, background=legacy_background, progress=progress, **wanted
            ) as index:
                written = write_tfrecord(
                    index, path, shards=shards, seed=seed, overwrite=overwrite, progress=progress
                )
        else:
            from floodem.training.coordinates.sampling import sample as make

            found = make(
                named,
                destination,
                background=background,
                weights=factors,
                overwrite=overwrite,
                progress=progress,
                **wanted,
            )
    if tfrecord:
        print_tfrecord(written, destination, has_background=legacy_background, as_json=as_json)
    else:
        print_index(found, destination, as_json=as_json)


def _list_centres(
    files: Sequence[str], destination: str, *, overwrite: bool, as_json: bool
) -> None:
    """Make a list of centres of TFRecord files, and print what it holds."""
    from floodem.cli.progress import progress_bar
    from floodem.legacy.records.listing import list_centres

    with progress_bar() as progress:
        made = list_centres(",".join(files), destination, overwrite=overwrite, progress=progress)
    volumes = {one.name: {"box_zyx": str(one.box), "centres": one.count} for one in made.volumes}
    if as_json:
        print(json.dumps({"path": destination, "centres": len(made), "volumes": volumes}))
        return
    print(f"{destination}: {counted(len(made), 'centre')}; train with --sampling.sampler listed")
    for volume in made.volumes:
        print(f"{volume.name}: {volume.count:,} in {volume.box} (z,y,x)")


def parse_volumes(texts: Sequence[str]) -> dict[str, str]:
    """Read ``["a=af.h5@af", "b=b.zarr"]``: names and addresses.

    Raises
    ------
    UsageError
        When one is not of this form, or two have the same name.
    """
    named: dict[str, str] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        if not (name and equals and address):
            raise UsageError(
                f"{text!r} is not a named volume: write NAME=PARTITIONS, for example train=af.h5@af"
            )
        if name in named:
            raise UsageError(f"two volumes are called {name!r}: give them different names")
        named[name] = address
    return named


def parse_weights(text: str, *, names: Sequence[str]) -> dict[str, float]:
    """Read ``"a=2,b=0.5"``.

    Raises
    ------
    OptionError
        When a part is not of this form, not positive, or names no volume.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in names:
            raise OptionError(
                f"--weights: no volume is called {name!r}: the names are {', '.join(names)}"
            )
        try:
            weights[name] = float(number)
        except ValueError:
            raise OptionError(
                f"--weights {part!r} is not NAME=NUMBER: write for example {names[0]}=2"
            ) from None
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise OptionError(f"--weights {part!r} is not positive")
    return weights


def print_index(index: CoordinateIndex, destination: str, *, as_json: bool) -> None:
    """Print how many voxels of each volume are in each partition."""
    told = {
        volume.name: {
            "box_zyx": str(volume.box),
            "weight": volume.weight,
            "voxels": {
                str(one): index.count(volume.name, one) for one in index.partitions(volume.name)
            },
        }
        for volume in index.volumes
    }
    if as_json:
        print(json.dumps({"path": destination, "volumes": told}))
        return
    print(f"{destination}: centres in {counted(len(index.volumes), 'volume')}")
    for volume in index.volumes:
        print(f"{volume.name}, weight {volume.weight:g}, in {index.free_box(volume.name)} (z,y,x)")
        _print_counts({one: index.count(volume.name, one) for one in index.partitions(volume.name)})


def print_tfrecord(
    written: TfrecordResult, destination: str, *, has_background: bool, as_json: bool
) -> None:
    """Print how many records there are, and what became of background."""
    if as_json:
        print(json.dumps({**written.to_json(), "background": has_background}))
        return
    records = counted(written.records, "record")
    files = counted(len(written.paths), "file")
    print(f"{destination}: {records} in {files}; different voxels by partition:")
    _print_counts(written.voxels)
    print(
        "background (0) is kept, so that one target in so many is empty"
        if has_background
        else "background (0) is left out; --legacy-background keeps it, as the old program did"
    )


def _print_counts(voxels: Mapping[int, int]) -> None:
    for partition, count in voxels.items():
        print(f"{partition:5} {count:15,}")
