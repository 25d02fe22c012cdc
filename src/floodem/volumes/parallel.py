"""Work in threads, results in order: a function and items come in, its results go out.

numpy lets go of Python's lock while it computes, so threads share the arrays and
the cores. Volumes are not asked from several threads at once: whoever reads and
writes them does so outside of the function.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from floodem.errors import OptionError

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_threads(asked: int | None = None) -> int:
    """Return how many threads to work with: those asked for, or one for each usable core.

    Raises
    ------
    OptionError
        When fewer than one are asked for.
    """
    if asked is None:
        # A container or a batch system may have given this process fewer cores than there are.
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    if asked < 1:
        raise OptionError(f"{asked} threads cannot work: give 1 or more")
    return asked


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in the items' order.

    The items are drawn in the calling thread, and at most `ahead` of them before
    the first result is taken, so that what they hold in memory is bounded.

    Parameters
    ----------
    threads
        How many calls run at once; with 1 all run in the calling thread.
    ahead
        How many items may be drawn and not yet yielded, at least 1.
    """
    if threads == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
