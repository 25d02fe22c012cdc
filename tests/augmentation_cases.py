"""Patches whose voxels can be told apart, for the tests of augmentation."""

from __future__ import annotations

import torch

from floodem.geometry import Zyx
from floodem.training.augmentation.options import PRESETS, AugmentationOptions
from floodem.training.patch import Patch

AUGMENTATIONS = tuple(name.removesuffix("_probability") for name in PRESETS["none"])


def numbered_patch(shape: Zyx, *, dtype: torch.dtype = torch.float32) -> Patch:
    """Every voxel has its own label, and a grey level that follows from the label."""
    labels = torch.arange(1, shape[0] * shape[1] * shape[2] + 1, dtype=torch.int32).reshape(shape)
    image = torch.sin(labels.to(dtype) * 0.7)
    return Patch(image=image, labels=labels, weights=torch.ones(shape, dtype=dtype))


def always(*names: str, **others: object) -> AugmentationOptions:
    """These augmentations happen to every example, and nothing else does: no turns either."""
    turns = {"reflectable_axes": (), "permutable_axes": ()}
    chosen = {f"{name}_probability": 1.0 for name in names}
    return AugmentationOptions(**(turns | chosen | others))
