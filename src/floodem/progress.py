"""What long work tells whoever asked for it: numbers, never text on a screen.

Library functions take ``progress: ProgressListener | None`` and call it now and
then; the command line draws the bar (floodem.cli.progress).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


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


def named_progress(listener: ProgressListener | None, name: str) -> ProgressListener | None:
    """Return a listener that puts a name in front of each stage; None where nobody listens."""
    if listener is None:
        return None
    return lambda report: listener(replace(report, stage=f"{name}: {report.stage}"))


def named_notice(notice: Callable[[str], None] | None, name: str) -> Callable[[str], None] | None:
    """Return one that puts a name in front of each sentence; None where nobody listens."""
    if notice is None:
        return None
    return lambda sentence: notice(f"{name}: {sentence}")
