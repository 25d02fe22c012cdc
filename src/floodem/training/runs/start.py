"""The beginning of training: options come in, a network with its first weights goes out.

Weights are drawn from the seed of the run, or taken from the model that a
fine-tuning starts from; and back, weights become a model file's contents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from floodem.errors import ModelError, OptionError
from floodem.geometry import UNKNOWN_VOXEL_SIZE
from floodem.network.model_file import (
    Model,
    ModelDescription,
    load_model,
    make_model,
)
from floodem.network.registry import build_network, register_network
from floodem.training.configuration.options import TrainOptions
from floodem.training.examples.sources import TrainingData
from floodem.training.learning.optimisers import initialise


def first_network(options: TrainOptions, *, goes_on: bool = False) -> nn.Module:
    """Return the network with its first weights, float32 on the CPU.

    Parameters
    ----------
    goes_on
        Whether a checkpoint will bring the weights: then no model is read for them.

    Raises
    ------
    OptionError
        When the network of the configuration does not exist.
    ModelError
        When it cannot be built, or the weights to begin with do not fit it.
    """
    register_network(options.network.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = build_network(options.network.name, options.network.arguments)
    initialise(network, seed=options.seed)
    if options.network.init is not None and not goes_on:
        _take_weights(network, options)
    return network


def _take_weights(network: nn.Module, options: TrainOptions) -> None:
    path = options.network.init
    assert path is not None
    model = load_model(path)
    wanted, given = network.state_dict(), model.network.state_dict()
    unfitting = sorted(
        name
        for name in {*wanted, *given}
        if name not in wanted or name not in given or wanted[name].shape != given[name].shape
    )
    if unfitting:
        theirs = model.description
        raise ModelError(
            f"{path} holds network {theirs.network} {dict(theirs.arguments)}, whose weights do not "
            f"fit {options.network.name} {dict(options.network.arguments)} ({unfitting[0]} is the "
            "first): leave out network.name and network.arguments to take over the model's"
        )
    network.load_state_dict(given)


def describe(
    options: TrainOptions, data: TrainingData, *, facts: Mapping[str, int | float | str]
) -> ModelDescription:
    """Return what a model file of this run says.

    Parameters
    ----------
    facts
        Of the training: steps, hours, digests.

    Raises
    ------
    OptionError
        When field of view, deltas or probabilities are impossible.
    """
    mean, stddev = data.mean_stddev
    try:
        return ModelDescription(
            network=options.network.name,
            arguments=options.network.arguments,
            fov=options.network.fov,
            deltas=options.network.deltas,
            image_mean=mean,
            image_stddev=stddev,
            voxel_size=data.voxel_size or UNKNOWN_VOXEL_SIZE,
            pad_value=options.movement.pad,
            move_threshold=options.movement.threshold,
            training=dict(facts),
            licence=options.licence,
            source=options.source or ", ".join(volume.image for volume in options.volumes),
        )
    except ModelError as error:
        raise OptionError(f"network: {error}") from error


def to_model(description: ModelDescription, weights: Mapping[str, Tensor]) -> Model:
    """Return a model with a copy of these weights, float32 on the CPU.

    Raises
    ------
    ModelError
        When a weight is no finite number.
    """
    return make_model(
        description,
        {name: one.detach().to("cpu", copy=True).contiguous() for name, one in weights.items()},
    )


def digest(values: object) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
