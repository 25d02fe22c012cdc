"""``floodem demo``: a published network segments a small sample, and is held against the reference.

Everything is done by the commands a user would type, and each is printed first.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

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
        Path | None,
        typer.Option(
            help=f"Folder with the sample data; default: {DATA_VARIABLE}, else ../shared/data."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    show: Annotated[
        bool | None,
        typer.Option("--view/--no-view", help="Open the result; default: on a terminal."),
    ] = None,
) -> None:
    """Segment a small sample and score it: the whole way in one command.

    Imports the published FIB-25 network, segments 80 x 80 x 80 voxels of fly brain and
    scores the result against what the reference implementation makes of them: in
    float32 the two are equal, and the error is 0.
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
        settings: dict[str, Any] = {
            "fov": "33,33,33",
            "deltas": "8,8,8",
            "image_mean": 128,
            "image_stddev": 33,
            "voxel_size": "10,10,10",
            "licence": "Apache-2.0",
            "source": "google/ffn, trained on FIB-25 (Janelia FlyEM, CC BY)",
        }
        _say("import-model", source / CHECKPOINT, model, **settings)
        import_model(str(source / CHECKPOINT), str(model), **settings)
    _say("segment", image, labels, model=model, dtype=dtype)
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
            "with floodem's sample data; or take the network from https://github.com/google/ffn "
            "(models/fib25) and images from https://github.com/janelia-flyem/neuroproof_examples, "
            "and follow the README from 'A first run on your own data'"
        )
    return asked


def _say(command: str, *arguments: object, **options: object) -> None:
    words = ["floodem", command, *(str(argument) for argument in arguments)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    print(f"\n$ {shlex.join(words)}", flush=True)
