"""``floodem stats IMAGE``: an image in, mean, deviation, histogram and drift out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodem.cli import options
from floodem.cli.values import option_value
from floodem.errors import VolumeNotFoundError
from floodem.geometry import Box

if TYPE_CHECKING:
    from floodem.volumes.grey.report import Histogram, Statistics

_BARS = 16
_BAR_WIDTH = 40
_EXACT_BELOW = 1e15
"""Up to here a float shows its digits; beyond, the exponent reads better."""


def stats(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Volume: a path or address.")],
    *,
    box: Annotated[
        str | None, typer.Option(metavar="Z:Z,Y:Y,X:X", help="Look only at these voxels.")
    ] = None,
    channel: options.Channel = None,
    level: options.Level = 0,
    axes: options.Axes = None,
    sections: Annotated[
        str | None, typer.Option(metavar="CSV", help="Also write one line for each section.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace CSV.")] = False,
    threads: options.Threads = None,
    allow_external: options.AllowExternal = False,
    as_json: options.Json = False,
) -> None:
    """Mean, standard deviation, histogram and drift of an image.

    Mean and deviation are exact for whole numbers. The last lines are the
    normalisation for training and segmentation: that of all sections with more
    than one grey value. Sections that stand out, drift and cut-off grey values
    are named.
    """
    from floodem import volumes
    from floodem.cli.progress import progress_bar
    from floodem.files import write_text

    region = option_value("--box", Box.parse, text=box)
    if sections is not None:
        _require_place(Path(sections), overwrite=overwrite)
    with (
        volumes.open_volume(
            image, channel=channel, level=level, axes=axes, allow_external=allow_external
        ) as volume,
        progress_bar() as progress,
    ):
        found = volumes.statistics(volume, box=region, threads=threads, progress=progress)
    if sections is not None:
        write_text(Path(sections), found.to_csv())
    if as_json:
        print(found.to_json())
    else:
        print_statistics(found)


def _require_place(table: Path, *, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    from floodem.volumes.staging import require_no_destination

    if not table.absolute().parent.is_dir():
        raise VolumeNotFoundError(
            f"--sections {table} cannot be written: there is no folder {table.absolute().parent}"
        )
    if table.is_dir() or not overwrite:
        require_no_destination(table, uri=str(table))


def print_statistics(found: Statistics) -> None:
    """Print a table of numbers, a histogram of ASCII bars, the normalisation and the notes."""
    z, y, x = found.box.shape
    print(f"{found.uri}: {z} x {y} x {x} {found.dtype} in {found.box} (z,y,x)\n")
    rows = [
        ("voxels", f"{found.voxels:,}"),
        ("mean", number(found.mean)),
        ("stddev", number(found.stddev)),
        ("minimum", number(found.minimum)),
        ("maximum", number(found.maximum)),
        ("median", number(found.percentiles[50])),
        *_saturation_rows(found),
        ("drift", f"{found.drift:.3f} stddev between the means of sections"),
    ]
    for name, value in rows:
        print(f"  {name:12} {value}")
    print(
        "\n  percentiles  " + "  ".join(f"{p}%: {number(v)}" for p, v in found.percentiles.items())
    )
    print()
    print_histogram(found.histogram)
    if found.suggested is not None:
        mean, stddev = found.suggested.image_mean, found.suggested.image_stddev
        print(f"\n  --image-mean {mean:.6g} --image-stddev {stddev:.6g}")
    for note in found.notes:
        print(f"\nnote: {note}")


def _saturation_rows(found: Statistics) -> list[tuple[str, str]]:
    import numpy as np

    if found.saturation is None:
        return []
    limits = np.iinfo(found.dtype)
    (low, high) = found.saturation
    return [("saturation", f"{low:.3%} at {limits.min}, {high:.3%} at {limits.max}")]


def print_histogram(histogram: Histogram) -> None:
    """Print one ASCII bar for each of a few ranges of grey values."""
    grouped = histogram.grouped(_BARS)
    counts = [int(count) for count in grouped.counts]
    most, total = max(counts, default=0), sum(counts)
    if not total:
        return
    starts = [number(grouped.start + index * grouped.width) for index in range(len(counts))]
    width = max(len(start) for start in starts)
    for start, count in zip(starts, counts, strict=True):
        bar = "#" * math.ceil(_BAR_WIDTH * count / most)
        print(f"  {start:>{width}} |{bar:{_BAR_WIDTH}} {count / total:6.2%}")


def number(value: float | None) -> str:
    """Write a grey value: whole numbers whole, others with six digits."""
    if value is None or math.isnan(value):
        return "none"
    if isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT_BELOW):
        return str(int(value))
    return f"{value:.6g}"
