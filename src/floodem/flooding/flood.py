"""One flood: from a seed until nothing is left to visit.

In: a canvas and a seed. Out: logits on the canvas and why the flood ended. A
flood can be stopped between two steps and go on from its state later.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from floodem.flooding.canvas import Canvas
from floodem.flooding.movement import MoveQueue, face_peaks
from floodem.flooding.options import FloodOptions
from floodem.geometry import Box, Zyx


class FloodEnd(enum.StrEnum):
    """Why a flood ended."""

    EXHAUSTED = "exhausted"
    WEAK_SEED = "weak seed"
    MAX_CALLS = "max calls"
    MAX_VOXELS = "max voxels"


@dataclass(slots=True)
class Flood:
    """The moving part of one flood; the logits are on the canvas.

    Attributes
    ----------
    queue
        Where it still wants to go.
    calls
        Network calls so far.
    low, high
        Smallest and largest visited position on each axis.
    """

    queue: MoveQueue
    calls: int = 0
    low: Zyx = field(default=(0, 0, 0))
    high: Zyx = field(default=(0, 0, 0))

    @classmethod
    def begin(cls, canvas: Canvas, seed: Zyx) -> Flood:
        """Plant a seed on the canvas."""
        canvas.plant(seed)
        return cls(MoveQueue(seed, deltas=canvas.deltas), low=seed, high=seed)

    @property
    def seed(self) -> Zyx:
        """Where it started."""
        return self.queue.seed

    def reach(self, canvas: Canvas) -> Box:
        """Return the box of all voxels the flood has written."""
        inside = Box((0, 0, 0), canvas.shape)
        box = Box(self.low, (self.high[0] + 1, self.high[1] + 1, self.high[2] + 1))
        reached = box.grow(canvas.margin).intersection(inside)
        assert reached is not None
        return reached

    def step(self, canvas: Canvas, counters: Counter[str]) -> FloodEnd | None:
        """Visit the next position; return why the flood ended, or None when it goes on."""
        position = self._next_position(canvas, counters)
        if position is None:
            return FloodEnd.EXHAUSTED
        if canvas.logits[self.seed] < canvas.move_logit:
            counters["seed_got_too_weak"] += 1
            return FloodEnd.WEAK_SEED
        if canvas.is_restricted(position):
            counters["skip_restricted_position"] += 1
            return None
        logits = canvas.update(position)
        counters["network_calls"] += 1
        self.calls += 1
        lowest = [min(a, b) for a, b in zip(self.low, position, strict=True)]
        highest = [max(a, b) for a, b in zip(self.high, position, strict=True)]
        self.low = (lowest[0], lowest[1], lowest[2])
        self.high = (highest[0], highest[1], highest[2])
        peaks = face_peaks(logits, deltas=canvas.deltas, threshold_logit=float(canvas.move_logit))
        self.queue.visit(position, peaks)
        return None

    def limit(self, canvas: Canvas, options: FloodOptions) -> FloodEnd | None:
        """Return which limit of the options the flood has reached, or None."""
        if options.max_calls is not None and self.calls >= options.max_calls:
            return FloodEnd.MAX_CALLS
        if options.max_voxels is not None and canvas.filled >= options.max_voxels:
            return FloodEnd.MAX_VOXELS
        return None

    def _next_position(self, canvas: Canvas, counters: Counter[str]) -> Zyx | None:
        while (position := self.queue.pop_unvisited()) is not None:
            if canvas.logits[position] < canvas.move_logit:
                counters["skip_threshold"] += 1
            elif not canvas.is_open(position):
                counters["skip_invalid_position"] += 1
            else:
                return position
        return None

    def state(self, canvas: Canvas) -> dict[str, Any]:
        """Return plain values from which `restore` makes the same flood."""
        return {
            "seed": self.seed,
            "waiting": list(self.queue.waiting),
            "visited": sorted(self.queue.visited),
            "calls": self.calls,
            "filled": canvas.filled,
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def restore(cls, canvas: Canvas, state: dict[str, Any]) -> Flood:
        """Rebuild a flood; the canvas must hold its logits."""
        flood = cls(MoveQueue(_zyx(state["seed"]), deltas=canvas.deltas))
        flood.queue.waiting.clear()
        flood.queue.waiting.extend(_zyx(position) for position in state["waiting"])
        flood.queue.visited.update(_zyx(cell) for cell in state["visited"])
        flood.calls = int(state["calls"])
        canvas.filled = int(state["filled"])
        flood.low, flood.high = _zyx(state["low"]), _zyx(state["high"])
        return flood


def _zyx(values: list[int]) -> Zyx:
    z, y, x = values
    return (z, y, x)
