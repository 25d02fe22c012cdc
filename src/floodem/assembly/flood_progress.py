"""How far the flooding of many blocks is: reports of blocks in, one line of progress out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from floodem.assembly.blocks import BlockPlan
from floodem.progress import Progress, ProgressListener


class FloodProgress:
    """Adds up finished blocks and those that are at work.

    Parameters
    ----------
    plan
        The blocks; halos count, since they are flooded too.
    listener
        Told whenever something is known.
    """

    def __init__(self, plan: BlockPlan, listener: ProgressListener) -> None:
        self._total = plan.voxels_with_halos
        self._listener = listener
        self._blocks = self._finished = 0
        self._at_work: dict[str, tuple[int, int]] = {}
        self._calls = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def done(self, finished: int, total: int) -> None:
        """Note how many of the blocks are finished."""
        with self._lock:
            self._finished, self._blocks = finished, total
            self._tell()

    def reported(self, key: str, values: Mapping[str, Any]) -> None:
        """Note how far one block is."""
        with self._lock:
            before = self._at_work.get(key, (0, 0))
            voxels = int(values.get("voxels", before[0]))
            self._at_work[key] = (voxels, int(values.get("network_calls", before[1])))
            self._tell()

    def ended(self, key: str) -> None:
        """Note that a block is no longer at work."""
        with self._lock:
            self._calls += self._at_work.pop(key, (0, 0))[1]

    def _tell(self) -> None:
        done = self._total * self._finished // max(self._blocks, 1)
        done += sum(voxels for voxels, _ in self._at_work.values())
        calls = self._calls + sum(calls for _, calls in self._at_work.values())
        seconds = max(time.monotonic() - self._began, 1e-9)
        self._listener(
            Progress(
                stage="flooding blocks",
                done=min(done, self._total),
                total=self._total,
                unit="voxels",
                note=f"{self._finished} of {self._blocks} blocks, {len(self._at_work)} at work, "
                f"{calls / seconds:.1f} network calls/s",
            )
        )
