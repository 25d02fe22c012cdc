"""The residual convolution stack, the network of the original flood-filling papers.

In: one field of view of normalised image and seed logits. Out: what to add to
the logits. Shape suffixes: b batch, c channel, z y x space.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "FFN architecture".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

INPUT_CHANNELS = 2
"""Normalised image, then seed logits."""

LARGEST = 1024
"""Modules and features at most; published networks have 9 to 12 and 32. A description may lie."""


class Convolution3d(nn.Conv3d):
    """A zero-padded 3-D convolution that takes the fast route on a CPU.

    For a single small input torch falls back to a plain convolution that is up
    to nine times slower than oneDNN (``use_mkldnn`` in aten/native/Convolution.cpp:
    batch 1 and channels * depth * height of at most 20,480). Asking for oneDNN
    by name avoids that rule.
    """

    def __init__(self, channels_in: int, channels_out: int, *, kernel_size: int = 3) -> None:
        super().__init__(channels_in, channels_out, kernel_size, padding=kernel_size // 2)
        self._margins = [kernel_size // 2] * 3

    def forward(self, features_bczyx: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """Convolve, keeping the shape in space."""
        if not _takes_onednn(features_bczyx):
            return super().forward(features_bczyx)
        once = [1, 1, 1]
        return torch.mkldnn_convolution(
            features_bczyx, self.weight, self.bias, self._margins, once, once, 1
        )


def _takes_onednn(features_bczyx: Tensor) -> bool:
    """Tell whether oneDNN has to be asked for; it takes half precision by itself."""
    return (
        features_bczyx.device.type == "cpu"
        and features_bczyx.dtype == torch.float32
        # Both of these know torch's own convolution only.
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


class ConvStack(nn.Module):
    """Residual modules of two 3x3x3 convolutions at full resolution.

    Parameters
    ----------
    depth
        Number of modules; the first has no residual connection.
    features
        Channels between the layers.
    """

    def __init__(self, *, depth: int, features: int = 32) -> None:
        super().__init__()
        if not (1 <= depth <= LARGEST and 1 <= features <= LARGEST):
            raise ValueError(f"depth {depth} and features {features} must lie in 1 to {LARGEST}")
        self.first = nn.ModuleList(
            [Convolution3d(INPUT_CHANNELS, features), Convolution3d(features, features)]
        )
        self.residual = nn.ModuleList(
            nn.ModuleList([Convolution3d(features, features), Convolution3d(features, features)])
            for _ in range(depth - 1)
        )
        self.last = Convolution3d(features, 1, kernel_size=1)

    def forward(self, inputs_bczyx: Float[Tensor, "b 2 z y x"]) -> Float[Tensor, "b 1 z y x"]:
        """Return the update that is to be added to the seed logits."""
        into, out_of = self.first
        state = out_of(functional.relu_(into(inputs_bczyx)))
        for into, out_of in self.residual:  # type: ignore[misc]
            # In place wherever the old values are not needed again, not even by a gradient:
            # at this size memory traffic is a quarter of the time.
            state = out_of(functional.relu_(into(functional.relu(state)))).add_(state)
        update: Tensor = self.last(functional.relu_(state))
        return update
