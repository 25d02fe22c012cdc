"""A network that can be understood: it floods bright voxels, in a fraction of a millisecond.

Weights by hand instead of training, so that floods, resumes and refusals can be
tested without data and in no time.
"""

from __future__ import annotations

import numpy as np
import torch

from floodem.geometry import VoxelSize, Zyx
from floodem.network.model_file import Model, ModelDescription, make_model
from floodem.network.registry import build_network

GAIN = 8.0
"""What a bright voxel adds to the logits and a dark one takes away."""

BRIGHTEST, DARK = 220, 50
"""On the axis of a tube, and between tubes; 125 divides them."""

MEAN, STDDEV = 125.0, 75.0


def bright_model(
    *, fov: Zyx = (7, 9, 9), deltas: Zyx = (2, 3, 3), depth: int = 1, features: int = 2
) -> Model:
    """A conv stack whose update is GAIN * normalised image (positive where it is bright).

    Depth and features beyond the first two only cost time: their weights are 0.
    """
    arguments = {"depth": depth, "features": features}
    network = build_network("conv_stack", arguments)
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    into, same, out_of = (weights[f"{layer}.weight"] for layer in ("first.0", "first.1", "last"))
    into[0, 0, 1, 1, 1], into[1, 0, 1, 1, 1] = 1.0, -1.0
    same[0, 0, 1, 1, 1] = same[1, 1, 1, 1, 1] = 1.0
    out_of[0, :2, 0, 0, 0] = torch.tensor([GAIN, -GAIN])
    description = ModelDescription(
        network="conv_stack",
        arguments=arguments,
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
