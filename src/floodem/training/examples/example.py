"""The examples of a run, by number: a number in, a patch with its target out.

Which centre, which augmentation and which noise an example gets follows from the
seed of the run and the number alone. So a resumed run, and any number of
processes, see the same examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box, Zyx
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.augmentation.plan import plan_augmentation
from floodem.training.configuration.options import volume_called
from floodem.training.coordinates.samplers import Draw, Sampler
from floodem.training.examples.sources import TrainingData

TARGET_INSIDE = 0.95
TARGET_OUTSIDE = 0.05
"""Probabilities that the network is to give; softened, so that logits stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What one example shows and what is wanted of it, z, y, x in the shape of a patch.

    Attributes
    ----------
    image
        Normalised grey levels.
    targets
        0.95 in the object of the centre, 0.05 elsewhere.
    weights
        What each voxel counts in the loss.
    """

    image: Float[Tensor, "z y x"]
    targets: Float[Tensor, "z y x"]
    weights: Float[Tensor, "z y x"]


def room(patch_shape: Zyx, augmentation: AugmentationOptions) -> Zyx:
    """Return the edges, z, y, x, that hold a patch however its axes are exchanged.

    Warps may look further; what they miss has weight 0.
    """
    edges = list(patch_shape)
    for axis in augmentation.permutable_axes:
        edges[axis] = max(patch_shape[other] for other in augmentation.permutable_axes)
    return (edges[0], edges[1], edges[2])


class Examples:
    """Makes examples.

    Parameters
    ----------
    data
        Open volumes.
    sampler
        Gives the centre of each number.
    patch_shape
        Odd edges, z, y, x.
    seed
        Of the augmentation.
    pads
        Whether patches may leave their volume; what is outside then has weight 0.
    """

    def __init__(
        self,
        data: TrainingData,
        sampler: Sampler,
        *,
        augmentation: AugmentationOptions,
        patch_shape: Zyx,
        seed: int,
        pads: bool,
    ) -> None:
        self.data = data
        self.patch_shape = patch_shape
        self._sampler = sampler
        self._augmentation = augmentation
        self._seed = seed
        self._pads = pads

    def __call__(self, number: int) -> Example:
        """Return example `number`, counted from 0.

        Raises
        ------
        OptionError
            When the coordinates name a volume that the run does not have.
        GeometryError
            When the patch leaves its volume and may not.
        """
        draw = self._sampler(number)
        volume = self.data.volumes.get(draw.volume)
        if volume is None:
            raise OptionError(
                f"the coordinates name a volume {draw.volume!r}; the run has "
                f"{', '.join(self.data.volumes)}: rename one of them"
            )
        if not self._pads:
            self._require_inside(draw, volume.box)
        plan = plan_augmentation(
            self._augmentation, patch_shape=self.patch_shape, seed=self._seed, number=number
        )
        patch = plan.apply(volume.cut(draw.centre, plan.source_shape))
        own = patch.labels[patch.centre]
        # A centre on background has no object: nothing is to be filled.
        is_object = (patch.labels == own) & (own != 0)
        targets = torch.full_like(patch.image, TARGET_OUTSIDE)
        targets[is_object] = TARGET_INSIDE
        return Example(image=patch.image, targets=targets, weights=patch.weights)

    def _require_inside(self, draw: Draw, box: Box) -> None:
        shape = room(self.patch_shape, self._augmentation)
        z, y, x = (at - size // 2 for at, size in zip(draw.centre, shape, strict=True))
        patch = Box.from_shape(shape, start=(z, y, x))
        if not box.contains(patch):
            raise GeometryError(
                f"the example at {draw.centre} (z,y,x) of {volume_called(draw.volume)} needs "
                f"{patch}, which leaves {box}: sample with a larger margin, or choose "
                "sampling.out_of_volume pad"
            )
