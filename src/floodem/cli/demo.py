"""``floodem demo``: synthetic tissue, flooded by a network that floodem ships, and scored.

Everything is done by the commands a user would type, and each is printed first.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from floodem.geometry import parse_zyx

TRAINED_SEEDS = 1000
"""Tissue of smaller seeds is what the shipped network was trained on."""

PRESET = "clear"
"""What it was trained on."""

MIN_SEGMENT_SIZE = 300
"""Of segments in voxels; the default suits larger voxel counts."""

SEGMENT_THRESHOLD = 0.4
"""What it is unsure of is mostly membrane, half of which belongs to the object."""

DISCO_SEED_THRESHOLD = -1.0
"""The rule against mergers is off: this network makes few, and sheets of glia need second looks."""

BORDER = "16,16,16"
"""Voxels that are not scored at each face: objects that are only grazed there."""


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where tissue and labels go.")
    ] = Path("demo-output"),
    *,
    seed: Annotated[
        int, typer.Option(min=TRAINED_SEEDS, help="Another number is other tissue.")
    ] = 2026,
    shape: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="Size of the tissue in voxels of 8 nm.")
    ] = "96,96,96",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    show: Annotated[
        bool | None,
        typer.Option("--view/--no-view", help="Open the result; default: on a terminal."),
    ] = None,
) -> None:
    """See neurons within a minute, without any data: tissue, flood, scores, browser.

    Makes a piece of synthetic brain tissue that no network has seen, floods it with a
    small network that was trained on other such tissue, scores the result against the
    exact truth and opens both in the browser.
    """
    from floodem.cli.evaluate import evaluate
    from floodem.cli.segment import segment
    from floodem.cli.synthetic import synthetic
    from floodem.cli.view import view

    parse_zyx(shape)
    folder.mkdir(parents=True, exist_ok=True)
    image, truth = f"{folder / f'tissue-{seed}.zarr'}", f"{folder / f'truth-{seed}.zarr'}"
    labels = f"{folder / f'labels-{seed}-{dtype}.zarr'}"
    _do(synthetic, image, truth, preset=PRESET, shape=shape, seed=seed)
    _do(
        segment,
        image,
        labels,
        model=["synthetic"],
        dtype=dtype,
        min_segment_size=MIN_SEGMENT_SIZE,
        segment_threshold=SEGMENT_THRESHOLD,
        disco_seed_threshold=DISCO_SEED_THRESHOLD,
    )
    _do(evaluate, labels, truth, border=BORDER)
    if sys.stdout.isatty() if show is None else show:
        _say("view", image, labels, truth)
        view([image, labels, truth])
    else:
        print(f"\nto see it: {shlex.join(['floodem', 'view', image, labels, truth])}")


def _do(command: Any, *arguments: str, **options: Any) -> None:
    _say(command.__name__, *arguments, **options)
    command(*arguments, **options)


def _say(command: str, *arguments: str, **options: Any) -> None:
    words = ["floodem", command, *arguments]
    for name, value in options.items():
        # An option that may be given several times is written once for each value.
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", str(one)]
    print(f"\n$ {shlex.join(words)}", flush=True)
