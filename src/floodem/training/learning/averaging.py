"""The moving average of the weights, which segments better than the last weights alone.

In: the weights after each step. Out: their exponential average, for validation
and model files.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows a network's weights.

    The decay begins at a tenth and rises with the number of steps, so that the
    random weights of the beginning are soon forgotten:
    min(decay, (1 + steps) / (10 + steps)), as in TensorFlow's
    ``ExponentialMovingAverage``.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._followed = dict(network.state_dict())
        self._averages = {name: tensor.clone() for name, tensor in self._followed.items()}
        self._pairs = [
            (self._averages[name], tensor)
            for name, tensor in self._followed.items()
            if tensor.is_floating_point()
        ]

    @torch.no_grad()
    def follow(self) -> None:
        """Take the network's present weights into the average."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages, weights = zip(*self._pairs, strict=True)
        torch._foreach_lerp_(list(averages), list(weights), 1 - decay)
        for name, tensor in self._followed.items():
            if not tensor.is_floating_point():  # counters of other packages' layers
                self._averages[name].copy_(tensor)

    def weights(self) -> dict[str, Tensor]:
        """Return the averages by name."""
        return dict(self._averages)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor], *, steps: int) -> None:
        """Go on from saved averages."""
        for name, tensor in self._averages.items():
            tensor.copy_(weights[name])
        self.steps = steps
