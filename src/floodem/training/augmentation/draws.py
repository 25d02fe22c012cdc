"""Random numbers of one example: in, seed and number; out, the same draws for ever.

Nothing is carried from one example to the next, so that a resumed run and any
number of processes see the same examples. Each purpose has a stream of its own,
so that turning one augmentation on leaves the others as they were.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch

from floodem.training.augmentation.options import AugmentationOptions


class Stream(IntEnum):
    """What random numbers are for; the values are part of what a seed means."""

    TURN = 0
    AFFINE = 1
    ELASTIC = 2
    SLIP = 3
    TRANSLATION = 4
    BLUR = 5
    OUT_OF_FOCUS = 6
    GREY = 7
    SECTION_GREY = 8
    NOISE = 9
    MISSING = 10


def draws(seed: int, number: int, *, stream: Stream) -> np.random.Generator:
    """Return the random numbers of one purpose for one example.

    Philox is keyed by the seed and counts from the example's number and the
    stream, so that examples and purposes never share a number.

    References
    ----------
    Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    # The lowest of the four 64-bit words of the counter is the one that runs.
    counter = (int(stream) << 128) | (number << 64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


def chosen_draws(
    options: AugmentationOptions, name: str, *, seed: int, number: int
) -> np.random.Generator | None:
    """Return the random numbers of an augmentation if it happens to this example."""
    generator = draws(seed, number, stream=Stream[name.upper()])
    return generator if generator.random() < options.probability(name) else None


def symmetric(generator: np.random.Generator, *, largest: float) -> float:
    """Draw a number from -`largest` to `largest`."""
    return float(generator.uniform(-largest, largest))


def normal_field(shape: tuple[int, ...], *, seed: int, like: torch.Tensor) -> torch.Tensor:
    """Return normal random numbers on the device and in the dtype of `like`.

    The same on every run on one kind of device; a CPU and a GPU differ.
    """
    generator = torch.Generator(device=like.device)
    generator.manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
