"""What one example is cut into, before and after augmentation.

Axes are z, y, x; all three tensors have one shape and lie on one device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32

from floodem.geometry import Zyx


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """The surroundings of one centre.

    Attributes
    ----------
    image
        Normalised grey levels.
    labels
        Object numbers of the volume, compact; 0 is background or unknown.
    weights
        What each voxel counts in the loss: 0 outside the volume, where a loss mask
        says so and where the truth is unknown, else 1.
    """

    image: Float[torch.Tensor, "z y x"]
    labels: Int32[torch.Tensor, "z y x"]
    weights: Float[torch.Tensor, "z y x"]

    @property
    def shape(self) -> Zyx:
        """Edge lengths in voxels, ordered z, y, x."""
        z, y, x = self.image.shape
        return (z, y, x)

    @property
    def centre(self) -> Zyx:
        """Index of the middle voxel; edges are odd."""
        z, y, x = self.shape
        return (z // 2, y // 2, x // 2)
