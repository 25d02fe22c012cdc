"""Model files as training goes on, as many as the old program kept: each checkpoint comes in.

The newest five stay, and of older ones one for each hour.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from floodem.files import replacing
from floodem.legacy.training.start import model_path

KEPT_NEWEST = 5
"""The default of TensorFlow's saver."""

KEPT_EVERY_S = 3600.0
"""What the old network asked of it."""


class ModelFiles:
    """Writes ``model.ckpt-STEP.safetensors`` files into a folder.

    It removes only what it wrote itself: what was there before stays.

    Parameters
    ----------
    first
        Step at which the run began; its own steps are added to it.
    clock
        Seconds, increasing.
    """

    def __init__(
        self, folder: Path, *, first: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._first, self._clock = folder, first, clock
        self._written: deque[tuple[float, Path]] = deque()
        self._next_kept = clock() + KEPT_EVERY_S

    def save(self, step: int, model: Path) -> None:
        """Copy the model file of a step of the run.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        path = self.path(step)
        if step == 0 and self._first:
            return  # what the run began with is there
        with replacing(path) as partial:
            shutil.copyfile(model, partial)
        self._written = deque(one for one in self._written if one[1] != path)
        self._written.append((self._clock(), path))
        while len(self._written) > KEPT_NEWEST:
            written, old = self._written.popleft()
            if written >= self._next_kept:
                self._next_kept += KEPT_EVERY_S
                continue
            with contextlib.suppress(OSError):  # it only takes space
                old.unlink()

    def path(self, step: int) -> Path:
        """Return where the model file of a step of the run is."""
        return model_path(self._folder, step=self._first + step)
