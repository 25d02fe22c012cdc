"""A network that can be understood: it floods bright voxels, in a fraction of a millisecond.

Weights by hand instead of training, so that floods, resumes and refusals can be
tested without data and in no time.
"""

from __future__ import annotations

import numpy as np
import torch

from floodem.geometry import VoxelSize, Zyx
from floodem.network.model_file import Model, ModelDescription, make_model

GAIN = 8.0
"""What a bright voxel adds to the logits and a dark one takes away."""

BRIGHTEST, DARK = 220, 50
"""On the axis of a tube, and between tubes; 125 divides them."""

MEAN, STDDEV = 125.0, 75.0


def bright_model(*, fov: Zyx = (7, 9, 9), deltas: Zyx = (2, 3, 3)) -> Model:
    """A conv stack whose update is GAIN * normalised image (+1 bright, -1 dark)."""
    into = torch.zeros(2, 2, 3, 3, 3)
    into[0, 0, 1, 1, 1], into[1, 0, 1, 1, 1] = 1.0, -1.0
    same = torch.zeros(2, 2, 3, 3, 3)
    same[0, 0, 1, 1, 1] = same[1, 1, 1, 1, 1] = 1.0
    weights = {
        "first.0.weight": into,
        "first.0.bias": torch.zeros(2),
        "first.1.weight": same,
        "first.1.bias": torch.zeros(2),
        "last.weight": torch.tensor([GAIN, -GAIN]).reshape(1, 2, 1, 1, 1),
        "last.bias": torch.zeros(1),
    }
    description = ModelDescription(
        network="conv_stack",
        arguments={"depth": 1, "features": 2},
        fov=fov,
        deltas=deltas,
        image_mean=MEAN,
        image_stddev=STDDEV,
        voxel_size=VoxelSize(30, 6, 6),
    )
    return make_model(description, weights)


def bright_tubes(shape: Zyx = (24, 40, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Bright tubes along x, brightest on their axes: an image and its truth.

    Between two tubes there is more dark than half a field of view: this network
    does not know what is connected.
    """
    image = np.full(shape, DARK, np.uint8)
    truth = np.zeros(shape, np.uint32)
    z, y, _ = np.ogrid[: shape[0], : shape[1], : shape[2]]
    label = 0
    for center_z in range(5, shape[0] - 4, 13):
        for center_y in range(6, shape[1] - 5, 14):
            label += 1
            distance = np.maximum(np.abs(z - center_z), np.abs(y - center_y))
            inside = np.broadcast_to(distance <= 4, shape)
            image[inside] = np.broadcast_to(BRIGHTEST - 8 * distance, shape)[inside]
            truth[inside] = label
    return image, truth
