"""``floodem import-model CKPT DST``: a TensorFlow checkpoint in, a model file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.geometry import VoxelSize, parse_zyx


def import_model(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CKPT", help="Prefix or any file of the checkpoint.")
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Model file to write (.safetensors).")
    ],
    *,
    fov: Annotated[str, typer.Option(metavar="Z,Y,X", help="Field of view in voxels.")],
    deltas: Annotated[str, typer.Option(metavar="Z,Y,X", help="Step in voxels.")],
    image_mean: Annotated[float, typer.Option(help="Mean grey level in training.")],
    image_stddev: Annotated[float, typer.Option(help="Standard deviation in training.")],
    voxel_size: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="Voxel edges of the training images, nm.")
    ],
    pad: Annotated[float, typer.Option(help="Probability of untouched voxels.")] = 0.05,
    move_threshold: Annotated[
        float, typer.Option(help="Probability from which the field of view moves on.")
    ] = 0.9,
    licence: Annotated[str, typer.Option(help="Licence of weights and training data.")] = "",
    source: Annotated[str, typer.Option(help="Where they come from, to be cited.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
) -> None:
    """Turn a TensorFlow checkpoint of a flood-filling network into a model file.

    CKPT is a V2 bundle (CKPT.index, CKPT.data-...); TensorFlow is not needed. Old
    settings give fov_size and deltas as x,y,z: turn them round.
    """
    from floodem.legacy.checkpoints.import_model import import_tensorflow_model, require_apart
    from floodem.network.model_file import require_no_model, save_model

    require_apart(checkpoint, destination)
    require_no_model(Path(destination), overwrite=overwrite)
    model = import_tensorflow_model(
        checkpoint,
        fov=option_value("--fov", parse_zyx, text=fov),
        deltas=option_value("--deltas", parse_zyx, text=deltas),
        image_mean=image_mean,
        image_stddev=image_stddev,
        voxel_size=option_value("--voxel-size", VoxelSize.parse, text=voxel_size),
        pad_value=pad,
        move_threshold=move_threshold,
        licence=licence,
        source=source,
    )
    save_model(model, destination, overwrite=overwrite)
    description = model.description
    weights = sum(parameter.numel() for parameter in model.network.parameters())
    print(
        f"{destination}: {description.network} of depth {description.arguments['depth']}, "
        f"{counted(weights, 'weight')}, field of view {description.fov} (z,y,x), "
        f"step {description.training.get('step', 'unknown')}"
    )
