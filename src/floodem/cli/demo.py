"""``floodem demo``: a published network segments a small sample, and is held against the reference.

Everything is done by the commands a user would type, and each is printed first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from floodem.errors import VolumeNotFoundError

DATA_VARIABLE = "FLOODEM_DATA"
DATA_BESIDE_CHECKOUT = Path("..", "shared", "data")
CHECKPOINT = Path("fib25", "model.ckpt-27465036.index")
IMAGE = Path("golden", "fib25-image.h5")
REFERENCE = Path("golden", "fib25-segmentation.npz")


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where model and labels go.")
    ] = Path("demo-output"),
    *,
    data: Annotated[
        Path | None, typer.Option(help=f"Folder with the sample data; default: {DATA_VARIABLE}.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    show: Annotated[
        bool | None,
        typer.Option("--view/--no-view", help="Open the result; default: on a terminal."),
    ] = None,
) -> None:
    """Segment a small sample and score it: the whole way in one command.

    Imports the published FIB-25 network, segments 80 x 80 x 80 voxels of fly brain and
    scores the result against the one of the reference implementation.
    """
    from floodem.cli.evaluate import evaluate
    from floodem.cli.import_model import import_model
    from floodem.cli.segment import segment
    from floodem.cli.view import view

    source = find_data(data)
    folder.mkdir(parents=True, exist_ok=True)
    model, labels = folder / "fib25.safetensors", str(folder / f"labels-{dtype}.zarr")
    image, reference = f"{source / IMAGE}@raw", f"{source / REFERENCE}@segmentation"
    if not model.exists():
        _say("import-model", source / CHECKPOINT, model)
        import_model(
            str(source / CHECKPOINT),
            str(model),
            fov="33,33,33",
            deltas="8,8,8",
            image_mean=128,
            image_stddev=33,
            voxel_size="10,10,10",
            licence="Apache-2.0",
            source="google/ffn, trained on FIB-25 (Janelia FlyEM, CC BY)",
        )
    _say("segment", image, labels, "--model", model, "--dtype", dtype)
    segment(image, labels, model=str(model), dtype=dtype)
    _say("evaluate", labels, reference)
    evaluate(labels, reference)
    if sys.stdout.isatty() if show is None else show:
        _say("view", image, labels)
        view([image, labels])
    else:
        print(f"\nto see it: floodem view {image} {labels}")


def find_data(named: Path | None) -> Path:
    """Return the folder with the sample data.

    Raises
    ------
    VolumeNotFoundError
        When it is not there, with where to get it.
    """
    asked = named or Path(os.environ.get(DATA_VARIABLE) or DATA_BESIDE_CHECKOUT)
    missing = [path for path in (CHECKPOINT, IMAGE, REFERENCE) if not (asked / path).exists()]
    if missing:
        raise VolumeNotFoundError(
            f"the demo needs {missing[0].as_posix()} in {asked}: set {DATA_VARIABLE} to the folder "
            "with the sample data; the network is published at https://github.com/google/ffn "
            "(models/fib25), images at https://github.com/janelia-flyem/neuroproof_examples"
        )
    return asked


def _say(command: str, *arguments: object) -> None:
    print(f"\n$ floodem {command} {' '.join(str(argument) for argument in arguments)}", flush=True)
