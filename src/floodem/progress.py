"""What long work tells whoever asked for it: numbers, never text on a screen.

Library functions take ``progress: ProgressListener | None`` and call it now and
then; the command line draws the bar (floodem.cli.progress).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one stage of work has come.

    `done` and `total` count `unit` (for example "voxels"); `total` is None
    where the end is unknown. `note` is a short text with more numbers.
    """

    stage: str
    done: int
    total: int | None
    unit: str
    note: str = ""


ProgressListener = Callable[[Progress], None]
