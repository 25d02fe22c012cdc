"""How often a growing flood is shown: what pages say that showing costs in, a yes or no out.

Drawing takes milliseconds on a graphics card and half a second of both cores without one, and
on such a machine the network waits for the cores as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

SHOW_EVERY_S = 0.2
"""How often a growing flood is shown: five times a second look like growth."""

SHOW_AT_LEAST_EVERY_S = 2.0
"""However slow a page is: what grows more seldom looks as if it stood still."""

SHARE_OF_DRAWING = 0.25
"""Of the time, for pages; the rest is the network's."""

_WEIGHT_OF_LAST = 0.5
"""A mesh is drawn with one change and not with the next: the mean of the last ones counts."""

_SLOW_S = 0.1
"""What costs more is shown less than twice a second; a graphics card takes a tenth of it."""

_MESH_EVERY = 3
"""Of the changes that a slow page is shown. A mesh comes later than the slices, and all is drawn
once more for it."""


class Pace:
    """Keeps pages drawing for a share of the time.

    Parameters
    ----------
    clock
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown = -math.inf
        self._cost_s = 0.0
        self._without_mesh = 0

    @property
    def every_s(self) -> float:
        """How many seconds are to lie between what is shown and what is shown next."""
        wanted = self._cost_s / SHARE_OF_DRAWING
        return min(max(wanted, SHOW_EVERY_S), SHOW_AT_LEAST_EVERY_S)

    def has_shown(self) -> None:
        """Count from now on."""
        self._shown = self._clock()

    def takes_mesh(self) -> bool:
        """Tell, once for each change of what grows, whether its mesh is to be shown as well."""
        self._without_mesh += 1
        if self._cost_s > _SLOW_S and self._without_mesh < _MESH_EVERY:
            return False
        self._without_mesh = 0
        return True

    def is_due(self) -> bool:
        """Tell whether what grows may be shown again."""
        return self._clock() - self._shown >= self.every_s

    def has_drawn(self, spent_s: object) -> None:
        """Hear of a page how long it has drawn what was shown last.

        What is no number of seconds is not heard: anyone who has the address can say it.
        """
        if not isinstance(spent_s, int | float) or not 0 <= spent_s < math.inf:
            return
        spent = float(min(spent_s, SHOW_AT_LEAST_EVERY_S))
        self._cost_s += _WEIGHT_OF_LAST * (spent - self._cost_s)
