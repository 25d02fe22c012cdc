"""A deeper flood-filling network with layer normalisation, as a package of one's own would add it.

In: one field of view of normalised image and seed logits, (b, 2, z, y, x). Out:
what to add to the logits, (b, 1, z, y, x). Any such module can be trained; floodem
finds this one by the name ``layer_norm_network:LayerNormNetwork``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of each voxel's features."""

    def forward(self, features_bczyx: Tensor) -> Tensor:
        """Normalise over the channels."""
        channels_last = features_bczyx.movedim(1, -1)
        return super().forward(channels_last).movedim(-1, 1)


class Module(nn.Module):
    """Normalise, two convolutions, add: the order in which deep residual networks train best.

    References
    ----------
    Xiong et al. 2020, ICML 119:10524, "On Layer Normalization in the Transformer Architecture".
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(features)
        self.first = nn.Conv3d(features, features, 3, padding=1)
        self.second = nn.Conv3d(features, features, 3, padding=1)

    def forward(self, state_bczyx: Tensor) -> Tensor:
        """Return the new state."""
        inner = self.first(functional.relu(self.norm(state_bczyx)))
        return state_bczyx + self.second(functional.relu(inner))


class LayerNormNetwork(nn.Module):
    """Residual modules with layer normalisation at full resolution."""

    def __init__(self, *, modules: int = 20, features: int = 32) -> None:
        super().__init__()
        self.into = nn.Conv3d(2, features, 3, padding=1)
        self.modules_ = nn.ModuleList(Module(features) for _ in range(modules))
        self.norm = ChannelNorm(features)
        self.out = nn.Conv3d(features, 1, 1)

    def forward(self, inputs_bczyx: Tensor) -> Tensor:
        """Return the update of the logits."""
        state = self.into(inputs_bczyx)
        for module in self.modules_:
            state = module(state)
        update: Tensor = self.out(torch.relu(self.norm(state)))
        return update
