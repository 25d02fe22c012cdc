"""What earlier runs of a conversion have left, and what becomes of it.

A plan and the record beside its destination come in; out comes the run to go on
with, the finished one that needs no repeating, or a refusal to mix two.
"""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

from floodem.errors import FloodemError
from floodem.geometry import Box
from floodem.volumes.access import open_volume
from floodem.volumes.conversion.destination import is_in_place
from floodem.volumes.conversion.differences import require_same
from floodem.volumes.conversion.plan import Plan
from floodem.volumes.conversion.receipts import Key, Receipt
from floodem.volumes.conversion.record import (
    ConversionRecord,
    Status,
    level_boxes,
)


class History:
    """The runs before this one.

    Attributes
    ----------
    replaces
        Whether what is at the destination may be replaced: asked for now, or by the
        run that this one goes on with.
    receipts
        Of the blocks that earlier runs have written.
    """

    def __init__(self, plan: Plan, record: ConversionRecord, *, overwrite: bool) -> None:
        self.replaces = overwrite
        self.receipts: dict[Key, Receipt] = {}
        self._plan = plan
        self._record = record
        self._overwrite = overwrite

    def find(self) -> dict[str, Any] | None:
        """Return the record of the run to go on with, or None to begin.

        Raises
        ------
        RunConflictError
            When that run had another source or other options, or its record is damaged.
        """
        plan = self._plan
        before = None if self._overwrite else self._record.running()
        if before is None:
            return None
        is_same = before["identity"] == plain(plan.identity)
        self.replaces = is_same and bool(before["made"]["replaces"])
        if not plan.is_resumable and not (is_same and self.is_over(before)):
            return None
        if plan.work is not None and not plan.work.exists() and not self.is_over(before):
            return None
        self.receipts = self._kept(before)
        if not self.receipts:
            return None
        require_same(before["identity"], plan.identity, destination=plan.location.uri)
        return before

    def find_finished(self) -> dict[str, Any] | None:
        """Return the finished record if it is of this conversion, and the copy is there."""
        record = None if self._overwrite else self._record.finished()
        if record is None or record["identity"] != plain(self._plan.identity):
            return None
        try:
            with open_volume(self._plan.location.uri) as copy:
                is_there = copy.shape == self._plan.part.shape
        except FloodemError:
            return None
        return record if is_there else None

    def is_over(self, before: dict[str, Any]) -> bool:
        """Tell whether a run had put its copy into place, and only its record is unfinished."""
        is_complete = before["status"] == Status.COMMITTING
        return is_complete and is_in_place(before, self._plan.location)

    def clear(self) -> None:
        """Forget what is not finished."""
        self._record.forget_running()
        self.remove_work()

    def remove_work(self) -> None:
        """Remove the place where the copy grew."""
        work = self._plan.work
        if work is not None and work.exists():
            shutil.rmtree(work, ignore_errors=True)

    def _kept(self, before: dict[str, Any]) -> dict[Key, Receipt]:
        """Return the receipts that lie on the grid of the run."""
        boxes = level_boxes(before)
        return {
            key: receipt
            for key, receipt in self._record.journal.read().items()
            if receipt.level < len(boxes) and boxes[receipt.level].contains(receipt.box)
        }


def plain(identity: dict[str, Any]) -> dict[str, Any]:
    """Return an identity as it comes back from a file."""
    values: dict[str, Any] = json.loads(json.dumps(identity))
    return values


def count_blocks(values: dict[str, Any]) -> int:
    """Count the blocks of all levels, by a conversion.json."""
    return sum(
        math.prod(
            -(-n // b) for n, b in zip(Box.parse(one["box"]).shape, one["block"], strict=True)
        )
        for one in values["made"]["levels"]
    )
