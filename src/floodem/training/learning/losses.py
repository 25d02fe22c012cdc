"""What is minimised: logits, targets and weights in, one number out.

All tensors are (b, 1, z, y, x). A loss of another package is named
``package:function`` in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from floodem.plugins import resolve

Loss = Callable[
    [Float[Tensor, "b 1 z y x"], Float[Tensor, "b 1 z y x"], Float[Tensor, "b 1 z y x"]], Tensor
]


def sigmoid_cross_entropy(
    logits_bczyx: Float[Tensor, "b 1 z y x"],
    targets_bczyx: Float[Tensor, "b 1 z y x"],
    weights_bczyx: Float[Tensor, "b 1 z y x"],
) -> Tensor:
    """Return the mean over all voxels of weight times cross entropy.

    Voxels of weight 0 stay in the denominator, as in the reference.
    """
    return functional.binary_cross_entropy_with_logits(
        logits_bczyx, targets_bczyx, weight=weights_bczyx
    )


def balanced_cross_entropy(
    logits_bczyx: Float[Tensor, "b 1 z y x"],
    targets_bczyx: Float[Tensor, "b 1 z y x"],
    weights_bczyx: Float[Tensor, "b 1 z y x"],
) -> Tensor:
    """Return the cross entropy with object and surroundings counting the same in each example.

    For thin processes, which are a small part of their field of view.
    """
    is_object = (targets_bczyx > 1 / 2).to(weights_bczyx.dtype)
    entropy = functional.binary_cross_entropy_with_logits(
        logits_bczyx, targets_bczyx, reduction="none"
    )
    axes = (1, 2, 3, 4)
    losses = []
    for part in (is_object * weights_bczyx, (1 - is_object) * weights_bczyx):
        total = part.sum(axes)
        losses.append((entropy * part).sum(axes) / torch.clamp(total, min=1))
    return (losses[0] + losses[1]).mean() / 2


LOSSES: dict[str, Loss] = {
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "balanced_cross_entropy": balanced_cross_entropy,
}


def make_loss(name: str) -> Loss:
    """Return the loss of this name, or what ``package:function`` names.

    Raises
    ------
    OptionError
        When there is none of this name.
    """
    loss: Loss = resolve(name, known=LOSSES, group="floodem.losses", what="loss")
    return loss
