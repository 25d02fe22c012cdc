"""A TensorFlow checkpoint of the replaced packages becomes a floodem model file.

In: a V2 bundle with ``seed_update/conv*`` variables. Out: a `Model`. Depth and
number of features are read from the variables; field of view, deltas and
normalisation are not in a checkpoint and must be said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from floodem.errors import DestinationExistsError, ModelError
from floodem.geometry import VoxelSize, Zyx
from floodem.legacy.checkpoints.tf_bundle import bundle_files, bundle_prefix, read_bundle
from floodem.network.model_file import Model, ModelDescription, make_model

_MODULE = re.compile(r"seed_update/conv(\d+)_[ab]/weights")
_OPTIMISER_SLOTS = re.compile(
    r".*/(Adam(_\d+)?|Adagrad|Momentum|RMSProp(_\d+)?|ExponentialMovingAverage)"
)
_LAST = "seed_update/conv_lom"
_WEIGHTS_ZYXIO_TO_OIZYX = (4, 3, 0, 1, 2)


def _layer_names(depth: int) -> dict[str, str]:
    """Return our layer name for each layer of the checkpoint."""
    names = {"seed_update/conv0_a": "first.0", "seed_update/conv0_b": "first.1"}
    for module in range(1, depth):
        names[f"seed_update/conv{module}_a"] = f"residual.{module - 1}.0"
        names[f"seed_update/conv{module}_b"] = f"residual.{module - 1}.1"
    names[_LAST] = "last"
    return names


def _weights(
    variables: Mapping[str, np.ndarray[Any, np.dtype[Any]]], *, depth: int, source: Path
) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    used = {"global_step"}
    for old, new in _layer_names(depth).items():
        for part in ("weights", "biases"):
            name = f"{old}/{part}"
            if name not in variables:
                raise ModelError(
                    f"{source} lacks variable {name}: it holds no residual conv stack network, and "
                    "no other can be imported"
                )
            used.add(name)
        kernel = variables[f"{old}/weights"]
        if kernel.ndim != len(_WEIGHTS_ZYXIO_TO_OIZYX):
            raise ModelError(
                f"{source}: {old}/weights has shape {kernel.shape}; expected z,y,x,i,o"
            )
        weights[f"{new}.weight"] = torch.tensor(kernel.transpose(_WEIGHTS_ZYXIO_TO_OIZYX).copy())
        weights[f"{new}.bias"] = torch.tensor(variables[f"{old}/biases"].copy())
    unused = [
        name
        for name in sorted(variables.keys() - used)
        if name.startswith("seed_update/") and not _OPTIMISER_SLOTS.fullmatch(name)
    ]
    if unused:
        raise ModelError(f"{source} holds layers that a conv stack does not have: {unused[:3]}")
    return weights


def require_apart(checkpoint: Path | str, destination: Path | str) -> None:
    """Refuse to write a model over the checkpoint it is made from.

    Raises
    ------
    DestinationExistsError
        When the destination is one of the checkpoint's files.
    """
    if Path(destination).resolve() in {one.resolve() for one in bundle_files(Path(checkpoint))}:
        raise DestinationExistsError(
            f"{destination} belongs to the checkpoint and was left as it is: choose another "
            "destination"
        )


def import_tensorflow_model(
    checkpoint: Path | str,
    *,
    fov: Zyx,
    deltas: Zyx,
    image_mean: float,
    image_stddev: float,
    voxel_size: VoxelSize,
    pad_value: float = 0.05,
    move_threshold: float = 0.9,
    licence: str = "",
    source: str = "",
) -> Model:
    """Read a TensorFlow V2 checkpoint of a residual conv stack.

    Parameters
    ----------
    checkpoint
        Prefix or any file of the bundle.
    fov, deltas
        Field of view and step in voxels, ordered z, y, x (the old programs'
        ``fov_size`` and ``deltas`` are x, y, z).
    image_mean, image_stddev
        Normalisation used in training, in grey levels.
    voxel_size
        Of the training images.
    pad_value, move_threshold
        Probabilities used in training.

    Raises
    ------
    VolumeNotFoundError, ModelError
        When files are missing, damaged, or hold another kind of network.
    """
    prefix = bundle_prefix(Path(checkpoint))
    variables = read_bundle(prefix)
    modules = [int(match[1]) for match in map(_MODULE.fullmatch, variables) if match]
    if not modules:
        raise ModelError(
            f"{prefix} has no seed_update/conv* variables: it is not a flood-filling network"
        )
    depth = max(modules) + 1
    weights = _weights(variables, depth=depth, source=prefix)
    training: dict[str, int | float | str] = {"checkpoint": prefix.name}
    if "global_step" in variables:
        training["step"] = int(variables["global_step"])
    description = ModelDescription(
        network="conv_stack",
        arguments={"depth": depth, "features": int(weights["first.0.weight"].shape[0])},
        fov=fov,
        deltas=deltas,
        image_mean=image_mean,
        image_stddev=image_stddev,
        voxel_size=voxel_size,
        pad_value=pad_value,
        move_threshold=move_threshold,
        training=training,
        licence=licence,
        source=source,
    )
    return make_model(description, weights)
