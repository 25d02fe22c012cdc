"""TensorBoard, where it is installed: the same numbers and pictures under the reference's names.

google/ffn's tracker calls them ``moves/all/correct``, ``moves/r=8/missed``,
``eval/all/f1`` and ``final_xy/0``; dashboards made for it go on working.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floodem.training.record.pictures import PLANES, Example, draw_plane
from floodem.training.validation.score import ValidationScore

MISSING = (
    "report.html has all curves; TensorBoard events are written too where tensorboard is "
    "installed (pip install tensorboard)"
)

_BY_DISTANCE = re.compile(r"moves_(correct|missed|spurious|total)_by_distance_(\d+)")
_TAGS = {
    "moves_correct": "moves/all/correct",
    "moves_missed": "moves/all/missed",
    "moves_spurious": "moves/all/spurious",
    "moves_total": "moves/total",
    "examples": "eval/patches",
    **{
        name: f"eval/all/{name}"
        for name in ("accuracy", "precision", "recall", "specificity", "f1")
    },
}


def is_installed() -> bool:
    """Tell whether events can be written."""
    return importlib.util.find_spec("tensorboard") is not None


def tag(name: str) -> str:
    """Return what TensorBoard calls a number."""
    found = _BY_DISTANCE.fullmatch(name)
    if found:
        return f"moves/r={found[2]}/{found[1]}"
    return _TAGS.get(name, name)


class Events:
    """Writes event files into a folder.

    Parameters
    ----------
    purge_after
        Events of later steps, left by an earlier run, are hidden; None: there are none.
    """

    def __init__(self, folder: Path, *, purge_after: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        after = None if purge_after is None else purge_after + 1
        self._writer: Any = SummaryWriter(log_dir=str(folder), purge_step=after)

    def steps(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of one step; those that are not finite are left out."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(tag(name), value, step)

    def validation(self, score: ValidationScore) -> None:
        """Write the numbers of a validation."""
        for name, value in score.to_dict().items():
            if name not in {"step", "hours"}:
                self._writer.add_scalar(f"validation/{name}", value, score.step)

    def picture(self, step: int, example: Example) -> None:
        """Write the three planes of an example."""
        for plane in PLANES:
            pixels = draw_plane(example, plane)
            self._writer.add_image(f"final_{plane}/0", pixels, step, dataformats="HW")

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()
