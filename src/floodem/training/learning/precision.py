"""In which number format the network computes, and how float16 is kept from underflow."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from floodem.errors import DeviceError, OptionError
from floodem.network.device import choose_dtype

START_SCALE = 2.0**16
GROWTH_STEPS = 2000
"""Scale at the beginning, and steps without overflow after which it doubles: the defaults of
torch.amp.GradScaler."""


@dataclass(slots=True)
class LossScale:
    """A factor for the loss, so that small gradients do not vanish in float16.

    It doubles after `GROWTH_STEPS` good steps and halves after a step whose
    gradients were not finite (Micikevicius et al. 2018, ICLR, section 3.2).
    """

    scale: float = START_SCALE
    good_steps: int = 0

    def update(self, *, is_finite: bool) -> None:
        """Learn from one step."""
        if not is_finite:
            self.scale /= 2
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps == GROWTH_STEPS:
            self.scale *= 2
            self.good_steps = 0


def stored_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the format of weights, seeds and images: float64, or else float32.

    Raises
    ------
    OptionError, DeviceError
        When the device does not compute in the format asked for.
    """
    if name == "float64":
        if device.type != "cpu":
            raise OptionError(f"dtype float64 is for the CPU, not for {device}: choose float32")
        return torch.float64
    try:
        choose_dtype(name, device)
    except DeviceError as error:
        raise DeviceError(f"dtype {name}: {error}") from error
    return torch.float32


def computing_in(name: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Let the network compute in half precision where it may (autocast), while the body runs."""
    if name in {"bfloat16", "float16"}:
        return torch.autocast(device.type, getattr(torch, name))
    return contextlib.nullcontext()
