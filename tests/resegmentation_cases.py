"""Networks that are plain functions, and what resegmentation makes of small images with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import ndimage

from array_volume import ArrayVolume
from floodem.assembly.agglomeration.resegmentation.resegmenter import (
    ResegmentationOptions,
    Resegmenter,
)
from floodem.flooding.options import FloodOptions
from floodem.geometry import VoxelSize
from floodem.network.model_file import Model, ModelDescription
from reference.resegmentation import Twin

FOV, DELTAS = (5, 7, 7), (1, 2, 2)
VOXEL_SIZE = VoxelSize(30, 6, 6)
GAIN = np.float32(8)
SMALL = ResegmentationOptions(
    radius=(6, 10, 14), analysis_radius=(4, 7, 11), exclusion_radius=(1, 1, 2)
)


def bright(image, logits):
    """Bright (1) is inside, dark (-1) outside, whatever was there before."""
    return GAIN * image


def forgetful(image, logits):
    """As `bright`, but the faces of the field of view are given up whatever is there."""
    update = GAIN * image
    inner = (slice(1, -1),) * 3
    forgotten = np.full(update.shape, np.float32(-40))
    forgotten[inner] = update[inner]
    return forgotten


def wavering(image, logits):
    """As `bright`, but what the network was very sure of it believes less each time."""
    return np.where(logits > 4, np.float32(-5.25), GAIN * image).astype(np.float32)


class FunctionNetwork(torch.nn.Module):
    """A plain function of image and logits as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs_bczyx):
        image, logits = inputs_bczyx[0].numpy()
        return torch.from_numpy(self.function(image, logits)[None, None])


def model_of(function, *, fov=FOV, deltas=DELTAS):
    description = ModelDescription(
        network="conv_stack",
        arguments={"depth": 1, "features": 1},
        fov=fov,
        deltas=deltas,
        image_mean=0,
        image_stddev=1,
        voxel_size=VOXEL_SIZE,
    )
    return Model(description, FunctionNetwork(function))


def resegmenter(image, labels, *, network=bright, options=SMALL, flood=None, offset=(0, 0, 0)):
    return Resegmenter(
        ArrayVolume(image, offset=offset, voxel_size=VOXEL_SIZE),
        ArrayVolume(labels, offset=offset, voxel_size=VOXEL_SIZE),
        model=model_of(network),
        options=options,
        flood=flood,
        device="cpu",
    )


def twin(image, labels, *, network=bright, options=SMALL, flood=None):
    flood = flood or FloodOptions()
    values = dataclasses.asdict(options)
    return Twin(
        image,
        labels,
        network,
        FOV,
        DELTAS,
        VOXEL_SIZE.zyx_nm,
        tries=values.pop("max_retries"),
        fraction=values.pop("recovery_fraction"),
        disco=flood.disco_seed_threshold,
        segment=flood.segment_threshold,
        **values,
    )


def tubes(shape=(13, 25, 33), *, centers=((6, 12),), radius=(2, 4)):
    """Tubes along x, brightest on their axes and dark outside: an image, and labels from 1 on."""
    image, labels = np.full(shape, -1, np.float32), np.zeros(shape, np.uint64)
    z, y, _ = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for label, (center_z, center_y) in enumerate(centers, start=1):
        aside_z, aside_y = np.abs(z - center_z), np.abs(y - center_y)
        inside = np.broadcast_to((aside_z <= radius[0]) & (aside_y <= radius[1]), shape)
        image[inside] = np.broadcast_to(1.5 - (aside_z + aside_y) / 16, shape)[inside]
        labels[inside] = label
    return image, labels


def halved(labels, *, at=16, far=100):
    """Give all that lies beyond a plane across x another id."""
    labels = labels.copy()
    beyond = labels[:, :, at:]
    beyond[beyond > 0] += np.uint64(far)
    return labels


def noise(seed, shape=(13, 21, 29)):
    """Blobs, and labels that cut them at random places: nothing here is easy."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (0.8, 2, 2))
    image = np.where(smooth > np.quantile(smooth, 0.35), 1, -1).astype(np.float32)
    image *= rng.choice(np.array([0.5, 1, 2], np.float32), shape)
    coarse = rng.integers(1, 5, [-(-n // 8) for n in shape]).astype(np.uint64)
    labels = np.kron(coarse, np.ones((8, 8, 8), np.uint64))[tuple(slice(n) for n in shape)]
    labels[image < 0] = 0
    return image, labels
