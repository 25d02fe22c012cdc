"""Random numbers of one example: in, seed and number; out, the same draws for ever.

Nothing is carried from one example to the next, so that a resumed run and any
number of processes see the same examples.
"""

from __future__ import annotations

import numpy as np


def draws(seed: int, number: int, *, stream: int) -> np.random.Generator:
    """Return the random numbers of one purpose (`stream`) for one example.

    Philox is keyed by the seed and counts from the example's number and the
    stream, so that examples and purposes never share a number.

    References
    ----------
    Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    # The lowest word of the counter is the one that runs.
    counter = (stream << 128) | (number << 64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))
