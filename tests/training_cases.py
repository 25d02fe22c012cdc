"""Small volumes to learn from, and examples in flight over them, for tests of training."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch
from scipy import ndimage

from array_volume import ArrayVolume
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.configuration.options import MovementOptions, NetworkOptions, VolumeOptions
from floodem.training.coordinates.samplers import Draw
from floodem.training.examples.example import Examples
from floodem.training.examples.in_flight import InFlight
from floodem.training.examples.movement import make_policy, patch_shape
from floodem.training.examples.sources import TrainingData, TrainingVolume

CPU = torch.device("cpu")
AS_IT_IS = AugmentationOptions(reflectable_axes=(), permutable_axes=())
TINY = NetworkOptions(arguments={"depth": 2, "features": 4}, fov=(5, 7, 7), deltas=(1, 2, 2))


def smooth_image(shape, *, seed=0):
    """Grey levels that change slowly, uint8."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def blobs(shape, *, seed=0, count=12):
    """Objects that touch, uint32: each voxel belongs to the nearest of some points, or to none."""
    generator = np.random.default_rng(seed)
    points = generator.uniform(0, shape, size=(count, 3))
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    away = np.linalg.norm(voxels[..., None, :] - points, axis=-1)
    labels = away.argmin(axis=-1) + 1
    labels[away.min(axis=-1) > np.quantile(away.min(axis=-1), 0.8)] = 0
    return labels.astype(np.uint32)


def training_volume(image, labels, *, mask=None, offset=(0, 0, 0), dtype=torch.float32, **options):
    """A volume of arrays in memory, to be read patch by patch until `load` is called."""
    image, labels = (ArrayVolume(array, offset=offset) for array in (image, labels))
    return TrainingVolume(
        VolumeOptions(**{"image_mean": 128.0, "image_stddev": 33.0, **options}),
        image=image,
        labels=labels,
        mask=None if mask is None else ArrayVolume(mask, offset=offset),
        device=CPU,
        dtype=dtype,
    )


def training_data(*volumes):
    return TrainingData(list(volumes), ExitStack())


def centres(labels, margin, *, seed=0):
    """A sampler over all voxels of objects that keep the margin; a pure function of the number."""
    inner = tuple(slice(m, size - m) for m, size in zip(margin, labels.shape, strict=True))
    places = np.argwhere(labels[inner] != 0) + margin

    def draw(number):
        row = np.random.default_rng([seed, number]).integers(len(places))
        z, y, x = (int(index) for index in places[row])
        return Draw(volume="volume", centre=(z, y, x))

    return draw


def flight(
    data,
    sampler,
    *,
    movement=None,
    network=TINY,
    batch_size=2,
    batches=1,
    first=0,
    total=None,
    dtype=torch.float32,
):
    """Examples in flight, and the policy by which they are walked."""
    movement = movement or MovementOptions()
    policy = make_policy(network, movement, seed=0)
    examples = Examples(
        data,
        sampler,
        augmentation=AS_IT_IS,
        patch_shape=patch_shape(network, policy),
        seed=0,
        pads=False,
    )
    return InFlight(
        examples,
        policy,
        network=network,
        movement=movement,
        batch_size=batch_size,
        batches=batches,
        first=first,
        total=batch_size * batches if total is None else total,
        device=CPU,
        dtype=dtype,
    ), policy
