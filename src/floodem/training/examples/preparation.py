"""A configuration becomes examples in flight: coordinates found or made, margins checked."""

from __future__ import annotations

import torch

from floodem.errors import OptionError
from floodem.geometry import Zyx
from floodem.progress import ProgressListener
from floodem.training.configuration.options import TrainOptions
from floodem.training.coordinates.index import CoordinateIndex
from floodem.training.coordinates.indexing import index_labels
from floodem.training.coordinates.samplers import Sampler, make_sampler
from floodem.training.examples.example import Examples, room
from floodem.training.examples.in_flight import InFlight
from floodem.training.examples.movement import make_policy, patch_shape
from floodem.training.examples.sources import TrainingData


def make_in_flight(
    options: TrainOptions,
    data: TrainingData,
    *,
    index: CoordinateIndex,
    rank: int = 0,
    world: int = 1,
    device: torch.device,
    dtype: torch.dtype,
) -> InFlight:
    """Return the slots of one process, each with its first example.

    Parameters
    ----------
    index
        From `find_coordinates`.
    rank, world
        Number of this process, and of all of them.

    Raises
    ------
    OptionError, UsageError
        When no example could begin, or the coordinates are of other volumes.
    GeometryError
        When examples would leave their volume and may not.
    """
    policy = make_policy(options.network, options.movement, seed=options.seed)
    if options.movement.init < options.movement.threshold:
        raise OptionError(
            f"movement.init {options.movement.init} lies below movement.threshold "
            f"{options.movement.threshold}, so that no example would begin: raise init"
        )
    examples = Examples(
        data,
        _sampler(options, data, index=index),
        augmentation=options.augmentation,
        patch_shape=patch_shape(options.network, policy),
        seed=options.seed,
        pads=options.sampling.out_of_volume == "pad",
    )
    here = options.batch_size * options.accumulate
    return InFlight(
        examples,
        policy,
        network=options.network,
        movement=options.movement,
        batch_size=options.batch_size,
        batches=options.accumulate,
        first=rank * here,
        total=world * here,
        device=device,
        dtype=dtype,
    )


def find_coordinates(
    options: TrainOptions, data: TrainingData, *, progress: ProgressListener | None = None
) -> CoordinateIndex:
    """Read the index of the configuration, or make one from the labels.

    Raises
    ------
    OptionError
        When no voxel is left to centre an example on.
    """
    if options.sampling.coordinates is not None:
        return CoordinateIndex.load(options.sampling.coordinates)
    return index_labels(
        {name: volume.labels for name, volume in data.volumes.items()},
        sampling=options.sampling,
        margin=margin(options),
        boxes={name: volume.box for name, volume in data.volumes.items()},
        progress=progress,
    )


def margin(options: TrainOptions) -> Zyx:
    """Return the voxels to keep free at each face, z, y, x: what a patch reaches."""
    if options.sampling.margin is not None:
        return options.sampling.margin
    if options.sampling.out_of_volume == "pad":
        return (0, 0, 0)
    return _patch_reach(options)


def _patch_reach(options: TrainOptions) -> Zyx:
    """Return how far a patch reaches from its centre, z, y, x, its axes exchanged or not."""
    policy = make_policy(options.network, options.movement, seed=options.seed)
    shape = room(patch_shape(options.network, policy), options.augmentation)
    z, y, x = (size // 2 for size in shape)
    return (z, y, x)


def _sampler(options: TrainOptions, data: TrainingData, *, index: CoordinateIndex) -> Sampler:
    pads = options.sampling.out_of_volume == "pad"
    index.require_volumes(
        {name: volume.box for name, volume in data.volumes.items()},
        margin=(0, 0, 0) if pads else _patch_reach(options),
    )
    return make_sampler(
        options.sampling.sampler,
        index,
        seed=options.seed,
        weights={name: volume.options.weight for name, volume in data.volumes.items()},
        background=options.sampling.background,
    )
