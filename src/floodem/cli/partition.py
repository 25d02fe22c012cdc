"""``floodem partition LABELS DST``: labels in, partitions and their counts out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.ids import read_ids
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError, StorageError
from floodem.files import storage_error
from floodem.geometry import Box, parse_zyx

if TYPE_CHECKING:
    from floodem.training.coordinates.partition_volume import PartitionResult

_BACKGROUND, _EXCLUDED = 0, 255
_IDS_NAMED = 5


def partition(
    labels: Annotated[
        str, typer.Argument(metavar="LABELS", help="Label volume: a path or address.")
    ],
    destination: Annotated[
        str,
        typer.Argument(metavar="DST", help="Partitions to make; HDF5 (af.h5@af) or any format."),
    ],
    *,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Fractions between partitions, ascending. "
            "[default: 0.025,0.05,0.075,0.1,0.2,0.3,...,0.9]",
        ),
    ] = None,
    lom_radius: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Half of the box that is counted, in voxels. [default: 12,24,24]"
        ),
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(help="Objects with fewer voxels are background. [default: 10000]"),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MASK", help="No centres whose box holds a masked voxel (repeatable)."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="Z,Y,X,R|FILE",
            help="No centres in this sphere, in voxels (repeatable, or a file of lines).",
        ),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(metavar="LIST|FILE", help="Sort only these objects; others stay 0."),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Look only at these voxels.")
    ] = None,
    threads: options.Threads = None,
    allow_external: options.AllowExternal = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
    as_json: options.Json = False,
) -> None:
    """Sort the voxels of labels by how much of their surroundings is the same object.

    Partition 1 is thinnest. 0 is background, and 255 no centre of an example: within
    the radius of a face, excluded or near a masked voxel. `floodem sample` draws from
    1 and up in balance.

    Masks are written as in `floodem segment`: the address of a volume (not 0: masked),
    volume:ADDRESS,values=1|3 or "where: z < 10". DST gets the attributes bounding_boxes
    and partition_counts where it is HDF5; beside other formats they stand in
    DST.floodem/partitions.json.
    """
    from floodem.cli.progress import progress_bar
    from floodem.flooding.masks import parse_mask
    from floodem.training.configuration.options import SamplingOptions
    from floodem.training.coordinates.partition_volume import partition as make
    from floodem.training.coordinates.partitioning import Partitioning, Sphere

    usual = SamplingOptions()
    by = Partitioning(
        thresholds=usual.thresholds if thresholds is None else parse_thresholds(thresholds),
        radius=usual.lom_radius
        if lom_radius is None
        else option_value("--lom-radius", parse_zyx, text=lom_radius),
        min_size=usual.min_size if min_size is None else min_size,
        ids=None if ids is None else parse_ids(ids),
        masks=tuple(parse_mask(text) for text in mask or []),
        spheres=tuple(Sphere.parse(line) for text in exclude or [] for line in lines_of(text)),
    )
    region = option_value("--box", Box.parse, text=box)
    with progress_bar() as progress:
        result = make(
            labels,
            destination,
            by=by,
            box=region,
            overwrite=overwrite,
            allow_external=allow_external,
            threads=threads,
            progress=progress,
        )
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        print_partitions(result, by.thresholds)


def parse_thresholds(text: str) -> tuple[float, ...]:
    """Read ``"0.1,0.2"``.

    Raises
    ------
    OptionError
        When a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"--thresholds {text!r} are not numbers: give fractions, for example 0.1,0.3,0.6"
        ) from None


def parse_ids(text: str) -> tuple[int, ...]:
    """Read ids from ``"3,17"``, or from a file that holds them, apart by commas or lines.

    Raises
    ------
    OptionError
        When a part is not a whole number, or there is none.
    """
    lines = lines_of(text)
    if not lines:
        raise OptionError(f"--ids {text!r} is empty: give numbers, as in 3,17, or a file of them")
    return read_ids(lines, option="--ids")


def lines_of(text: str) -> list[str]:
    """Return the lines of a file of this name, without empty ones and comments, or the text.

    Raises
    ------
    StorageError
        When the file cannot be read.
    """
    path = Path(text)
    if not path.is_file():
        return [text]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise storage_error("read", path, error) from error
    except UnicodeDecodeError as error:
        raise StorageError(f"{path} is no text file: give one line for each entry") from error
    bare = [line.partition("#")[0].strip() for line in lines]
    return [line for line in bare if line]


def print_partitions(result: PartitionResult, thresholds: Sequence[float]) -> None:
    """Print what was sorted, then how many voxels are in each partition."""
    objects = result.objects
    all_objects = counted(objects.all_objects, "object")
    print(f"{result.uri}: {len(objects.ids):,} of {all_objects}, in {result.box}")
    if objects.unused_ids:
        named = ", ".join(str(one) for one in objects.unused_ids[:_IDS_NAMED])
        more = ", ..." if len(objects.unused_ids) > _IDS_NAMED else ""
        ids = counted(len(objects.unused_ids), "id is no object", many="ids are no objects")
        print(f"{ids} or too small: {named}{more}")
    bounds = (0.0, *thresholds, 1.0)
    for value, count in result.counts.items():
        if value == _BACKGROUND:
            meaning = "background"
        elif value == _EXCLUDED:
            meaning = "excluded"
        else:
            meaning = f"{bounds[value - 1]:g} to {bounds[value]:g} of the surroundings"
        print(f"{value:5} {count:15,} {meaning}")
