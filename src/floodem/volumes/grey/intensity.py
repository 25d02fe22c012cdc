"""Grey values: raw image arrays in, what the network sees out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from floodem.errors import OptionError


def normalise(
    image: np.ndarray[Any, np.dtype[Any]], *, mean: float, stddev: float
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ``(image - mean) / stddev``, computed and stored in float32.

    Mean and standard deviation are rounded to float32 first, as the networks
    were trained: the result is equal bit for bit to
    ``(image.astype(float32) - float32(mean)) / float32(stddev)``.

    Parameters
    ----------
    image
        Raw intensities of any number type and shape.
    mean, stddev
        In units of raw intensity; the model file names those it was trained with.

    Raises
    ------
    OptionError
        When the standard deviation is not positive, or one of the two not finite.
    """
    if not (math.isfinite(mean) and math.isfinite(stddev) and stddev > 0):
        raise OptionError(
            f"image mean {mean} and standard deviation {stddev} are not usable: "
            "both must be finite and the standard deviation positive"
        )
    normalised = image.astype(np.float32)
    normalised -= np.float32(mean)
    normalised /= np.float32(stddev)
    return normalised
