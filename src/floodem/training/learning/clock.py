"""Where the time of a step goes: marks come in, seconds by part go out.

On a card the marks are events of its queue, so that measuring does not stop it.
"""

from __future__ import annotations

import time

import torch


class StepClock:
    """Adds up the time between marks, by the name of the part that ends there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_card = device.type == "cuda"
        self._marks: list[tuple[str | None, float | torch.cuda.Event]] = []

    def begin(self) -> None:
        """Begin a step: what went before belongs to no part."""
        self._marks.append((None, self._now()))

    def end_of(self, part: str) -> None:
        """Say that a part ends here."""
        self._marks.append((part, self._now()))

    def take(self) -> dict[str, float]:
        """Return the seconds of each part, and begin again at zero; waits for the card."""
        if self._is_card:
            torch.cuda.synchronize(self._device)
        seconds: dict[str, float] = {}
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                seconds[part] = seconds.get(part, 0.0) + _between(before, now)
        self._marks.clear()
        return seconds

    def _now(self) -> float | torch.cuda.Event:
        if not self._is_card:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


def _between(before: float | torch.cuda.Event, now: float | torch.cuda.Event) -> float:
    if isinstance(before, float) or isinstance(now, float):
        assert isinstance(before, float)
        assert isinstance(now, float)
        return now - before
    milliseconds: float = before.elapsed_time(now)
    return milliseconds / 1e3
