"""What tests have clusters do: functions that workers can import, and commands that start Dask."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from floodem.cluster.context import task_context
from floodem.errors import LabelError


def note_down(argument: tuple[str, int]) -> dict[str, Any]:
    """Append a line to a file, so that a test can count how often a task was done."""
    folder, number = argument
    with open(Path(folder) / f"{number}.log", "a", encoding="ascii") as log:
        log.write(f"{os.getpid()}\n")
    return {"square": number * number}
