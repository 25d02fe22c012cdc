"""What a worker finds in its environment: a number out of how many in, variables out.

Workers share a machine: each takes its part of the cores and, where there are several
cards, one of its own. What the user has set stays.
"""

from __future__ import annotations

import functools
import os

from floodem.cards import nvidia_smi, run_quietly
from floodem.volumes.parallel import usable_threads

_CARDS = "CUDA_VISIBLE_DEVICES"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Read by torch and numpy when they are loaded."""


def worker_environment(number: int, *, workers: int) -> dict[str, str]:
    """Return what is set in the environment of a worker before it starts.

    Parameters
    ----------
    number
        The worker's, from 0.
    workers
        How many share this machine.
    """
    found = {}
    if not any(name in os.environ for name in _THREADS):
        share = max(1, usable_threads() // workers)
        found = dict.fromkeys(_THREADS, str(share))
    cards = visible_cards()
    if len(cards) > 1:
        found[_CARDS] = cards[number % len(cards)]
    return found


def visible_cards() -> list[str]:
    """Name the NVIDIA cards that processes of ours may use, without loading torch.

    What ``CUDA_VISIBLE_DEVICES`` names ends at the first -1, as CUDA has it.
    """
    named = os.environ.get(_CARDS)
    if named is None:
        return [str(number) for number in range(_count_cards())]
    cards = [name.strip() for name in named.split(",")]
    ends = [at for at, name in enumerate(cards) if name in {"", "-1", "NoDevFiles"}]
    return cards[: ends[0]] if ends else cards


@functools.cache
def _count_cards() -> int:
    program = nvidia_smi()
    printed = None if program is None else run_quietly([program, "-L"])
    return sum(line.startswith("GPU ") for line in (printed or "").splitlines())
