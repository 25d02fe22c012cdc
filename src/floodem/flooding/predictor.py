"""One network on one device, asked about one field of view at a time.

In: the normalised image of a block (once), then a corner and the seed logits of
a field of view. Out: its new logits, float32 on the CPU. Kernels depend on the
field of view's shape only, so that the same question gets the same answer.
"""

from __future__ import annotations

import contextlib
import copy

import numpy as np
import torch
from jaxtyping import Float32

from floodem.errors import ModelError
from floodem.geometry import Zyx
from floodem.network.model_file import Model


class Predictor:
    """Runs a model's network in one number format on one device.

    The convolutions see their input channels last, the layout in which oneDNN
    and cuDNN are fastest; the sum of seed and update is float32 always.
    """

    def __init__(self, model: Model, *, device: torch.device, dtype: torch.dtype) -> None:
        self.fov = model.description.fov
        self.device = device
        self.dtype = dtype
        network = copy.deepcopy(model.network).to(device=device, dtype=dtype)
        self._network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        empty = torch.zeros((1, 2, *self.fov), dtype=dtype, device=device)
        self._inputs_bczyx = empty.to(memory_format=torch.channels_last_3d)
        self._image_zyx = empty[0, 0]

    def _repeatable_kernels(self) -> contextlib.AbstractContextManager[None]:
        """On a card: the same kernels every time, and float32 that is not rounded to tf32."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )

    def load_image(self, image: Float32[np.ndarray, "z y x"]) -> None:
        """Take the normalised image of a block to the device."""
        self._image_zyx = torch.from_numpy(image).to(device=self.device, dtype=self.dtype)

    @torch.inference_mode()
    def predict(
        self, corner: Zyx, seed_logits: Float32[np.ndarray, "z y x"]
    ) -> Float32[np.ndarray, "z y x"]:
        """Return the new logits of the field of view whose first voxel is `corner`.

        Raises
        ------
        ModelError
            When the network answers with something that is not a number.
        """
        (z, y, x), (dz, dy, dx) = corner, self.fov
        seed = torch.from_numpy(seed_logits)
        self._inputs_bczyx[0, 0].copy_(self._image_zyx[z : z + dz, y : y + dy, x : x + dx])
        self._inputs_bczyx[0, 1].copy_(seed)
        with self._repeatable_kernels():
            update = self._network(self._inputs_bczyx)[0, 0].cpu()
        logits: Float32[np.ndarray, "z y x"] = (seed + update).numpy()
        if not np.isfinite(logits.max()):
            number_format = str(self.dtype).removeprefix("torch.")
            remedy = "" if self.dtype == torch.float32 else ", or compute in float32"
            raise ModelError(
                f"the network gave a value that is not finite, in {number_format}, for the field "
                f"of view that begins {corner} voxels (z,y,x) into the block: check that mean and "
                f"standard deviation of the model suit the image{remedy}"
            )
        return logits
