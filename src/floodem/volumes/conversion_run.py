"""One conversion from its begin, or from where it stopped, to its end.

A plan comes in; a volume at the destination and a finished record go out. The
order is what keeps a process that is killed anywhere from doing harm: record,
blocks and their receipts, comparison, the volume into place, and the finished
record last.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import floodem
from floodem.errors import (
    FloodemError,
    ResourceError,
    StoppedError,
    StorageError,
)
from floodem.geometry import Box
from floodem.labels.runs import Ids
from floodem.progress import ProgressListener
from floodem.volumes.access import create_volume, open_volume
from floodem.volumes.block_plan import block_shape, coarse_voxel_bytes, voxel_bytes
from floodem.volumes.block_reading import Reader
from floodem.volumes.conversion_plan import Plan
from floodem.volumes.conversion_record import (
    ConversionRecord,
    Status,
    level_boxes,
    require_same,
)
from floodem.volumes.conversion_steps import Steps, Tally
from floodem.volumes.destination import is_in_place, moved_by, serves_threads
from floodem.volumes.parallel import usable_threads
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.receipts import Key, Receipt
from floodem.volumes.recoding import Recoding, table_from_csv, table_to_csv
from floodem.volumes.volume import Kind, Volume

_SHOWN_DAMAGES = 3
_STOPS = (StoppedError, StorageError, ResourceError)
"""After these the same call can succeed; other refusals would end it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion has made.

    Attributes
    ----------
    uri, format
        Its address, and the name of its format.
    kind
        What the source or the caller said that its values mean, if they did.
    record
        Address of the folder with the receipts.
    levels
        How many levels it has.
    blocks
        How many blocks over all levels; `resumed_blocks` of them by earlier runs.
    labels
        How many objects were numbered anew; None where labels were not.
    is_lossy
        Whether the format gives back other values than it was given.
    was_finished
        Whether an earlier call had made all of it.
    notices
        What is odd about the source but no reason to refuse.
    """

    uri: str
    format: str
    kind: Kind | None
    record: str
    levels: int
    blocks: int
    resumed_blocks: int
    labels: int | None
    is_lossy: bool
    was_finished: bool
    notices: tuple[str, ...]


class Run:
    """One call of `convert`; see there for the parameters."""

    def __init__(
        self,
        plan: Plan,
        *,
        threads: int | None,
        overwrite: bool,
        progress: ProgressListener | None,
        should_stop: Callable[[], bool],
        let_go: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._threads = usable_threads(threads)
        self._overwrite = overwrite
        self._progress = progress
        self._should_stop = should_stop
        self._let_go = let_go
        self._replaces = overwrite
        self.record = ConversionRecord(plan.location)

    def make(self) -> Conversion:
        """Do what is left to do; the record must be held."""
        plan = self._plan
        before = self._earlier_run()
        if before is None:
            finished = None if self._overwrite else self._finished()
            if finished is not None:
                return self._result(finished, resumed=_count(finished), was_finished=True)
        elif before["status"] == Status.COMMITTING and is_in_place(before, plan.location):
            receipts = self._receipts(before)
            self._let_go()
            # What was there before may have been left where the copy grew.
            self._remove_work()
            return self._conclude(before, receipts, resumed=len(receipts))
        receipts = {} if before is None else self._receipts(before)
        resumed = len(receipts)
        if before is None:
            self._clear()
        try:
            values = self._write(before, receipts)
            return self._conclude(values, receipts, resumed=resumed)
        except FloodemError as error:
            if not isinstance(error, _STOPS):
                self._clear()
                raise
            self._keep(error, receipts)
            raise
        except BaseException as error:
            self._keep(error, receipts)
            raise

    # --- the work --------------------------------------------------------------------

    def _write(self, before: dict[str, Any] | None, receipts: dict[Key, Receipt]) -> dict[str, Any]:
        """Write the copy and put it into place; return what its record says."""
        plan = self._plan
        steps = self._steps(receipts)
        reader = Reader(plan.source, serves_threads=plan.reads_in_threads, threads=self._threads)
        with reader:
            old_ids = self._old_ids(steps, reader, before)
            recoding = plan.recoding(old_ids)
            copy = self._open_copy(recoding.dtype, is_begun=before is not None)
            try:
                values = before or self._begin(copy, old_ids)
                self._fill(steps, reader, copy, values=values, recoding=recoding)
                if plan.is_resumable:
                    self._compare(steps, copy, values=values)
                    steps.journal.close()
                inode = plan.work.stat().st_ino if plan.work is not None else None
                values["made"]["inode"] = inode
                self.record.state(values, status=Status.COMMITTING)
                self._let_go()
                copy.close()
            except BaseException:
                copy.discard()
                raise
        return values

    def _steps(self, receipts: dict[Key, Receipt]) -> Steps:
        plan = self._plan
        sizes = [level_box(plan.box, factors).size for factors in ((1, 1, 1), *plan.factors)]
        tally = Tally(
            total=2 * sum(sizes) + (plan.part.size if plan.options.relabel else 0),
            listener=self._progress,
            should_stop=self._should_stop,
            how_to_go_on=self._how_to_go_on(),
        )
        tally.add(sum(receipt.box.size for receipt in receipts.values()), "")
        return Steps(
            journal=self.record.journal,
            receipts=receipts,
            tally=tally,
            threads=self._threads,
            writes_in_threads=plan.writes_in_threads,
            is_lossy=plan.is_lossy,
        )

    def _old_ids(self, steps: Steps, reader: Reader, before: dict[str, Any] | None) -> Ids | None:
        """Return the ids that are numbered anew, from the table of an earlier run or counted."""
        plan = self._plan
        if not plan.options.relabel:
            return None
        table = self.record.read_table() if before is not None else None
        known = None if table is None else table_from_csv(table)
        if known is not None:
            steps.tally.add(plan.part.size, "counting labels")
            return known
        if before is None and not plan.location.is_remote:
            # What the destination refuses, it is to refuse before the labels are counted.
            asked = plan.options.dtype
            self._create(np.dtype(np.uint32 if asked is None else asked), work=None).discard()
        block = block_shape(
            plan.part.shape,
            chunks=plan.source.chunks,
            itemsize=voxel_bytes(plan.source.dtype, plan.source.dtype),
        )
        return steps.count_ids(reader, plan.part, block=block)

    def _open_copy(self, dtype: np.dtype[Any], *, is_begun: bool) -> Volume:
        plan = self._plan
        if is_begun and plan.location.is_remote:
            return open_volume(plan.location.uri, writable=True)
        return self._create(dtype, work=plan.work)

    def _create(self, dtype: np.dtype[Any], *, work: Path | None) -> Volume:
        plan, options = self._plan, self._plan.options
        return create_volume(
            plan.location.uri,
            shape=plan.part.shape,
            dtype=dtype,
            voxel_size=plan.voxel_size,
            offset=plan.box.start,
            chunks=options.chunks,
            shards=options.shards,
            encoding=options.encoding,
            levels=plan.factors,
            kind=plan.declared_kind,
            overwrite=self._replaces,
            work=work,
        )

    def _begin(self, copy: Volume, old_ids: Ids | None) -> dict[str, Any]:
        """State what is made, and in which blocks: a resumed run cuts them alike."""
        plan = self._plan
        levels = []
        for level, volume in enumerate(copy.levels):
            itemsize = voxel_bytes(plan.source.dtype, copy.dtype)
            source_chunks = plan.source.chunks
            if level > 0:
                itemsize = coarse_voxel_bytes(copy.dtype, plan.steps[level - 1])
                source_chunks = (1, 1, 1)
            block = block_shape(
                volume.shape,
                chunks=volume.chunks,
                itemsize=itemsize,
                source_chunks=source_chunks,
            )
            levels.append(
                {"box": str(volume.box), "block": list(block), "chunks": list(volume.chunks)}
            )
        made = {
            "floodem": floodem.__version__,
            "format": plan.location.format,
            "dtype": copy.dtype.name,
            "voxel_size": None if copy.voxel_size is None else list(copy.voxel_size.zyx_nm),
            "kind": copy.kind,
            "is_lossy": plan.is_lossy,
            "replaces": self._replaces,
            "labels": None if old_ids is None else len(old_ids),
            "levels": levels,
        }
        values = {"identity": _plain(plan.identity), "made": made}
        self.record.begin(values)
        if old_ids is not None:
            self.record.write_table(table_to_csv(old_ids))
        return values

    def _fill(
        self,
        steps: Steps,
        reader: Reader,
        copy: Volume,
        *,
        values: dict[str, Any],
        recoding: Recoding,
    ) -> None:
        plan = self._plan
        blocks = [tuple(level["block"]) for level in values["made"]["levels"]]
        z, y, x = (b - a for a, b in zip(plan.part.start, copy.offset, strict=True))
        steps.copy(reader, copy, to_copy=(z, y, x), recoding=recoding, block=blocks[0])
        for level, factors in enumerate(plan.steps, start=1):
            steps.coarsen(
                copy.levels[level - 1],
                copy.levels[level],
                level=level,
                factors=factors,
                kind=plan.kind(copy.dtype),
                block=blocks[level],
            )

    def _compare(self, steps: Steps, copy: Volume, *, values: dict[str, Any]) -> None:
        """Read the copy back.

        Raises
        ------
        StorageError
            When it is not what was written; those blocks are to be written again.
        """
        wrong: list[Receipt] = []
        boxes = level_boxes(values)
        is_safe = serves_threads(self._plan.location)
        for level, (volume, box) in enumerate(zip(copy.levels, boxes, strict=True)):
            moved = moved_by(volume, box, location=self._plan.location)
            with Reader(volume, serves_threads=is_safe, threads=self._threads) as reader:
                wrong += steps.compare(reader, level=level, moved=moved)
        for receipt in wrong:
            steps.journal.revoke(receipt)
            del steps.receipts[receipt.key]
        if wrong:
            first = wrong[0]
            raise StorageError(
                f"{len(wrong)} blocks of {self._plan.location.uri} read back otherwise than they "
                f"were written, the first at level {first.level}, box {first.box} (z,y,x): check "
                "the disk"
            )

    # --- the end ---------------------------------------------------------------------

    def _conclude(
        self, values: dict[str, Any], receipts: dict[Key, Receipt], *, resumed: int
    ) -> Conversion:
        """Check a copy that is in place where it was not checked before, and finish its record."""
        plan = self._plan
        if not plan.is_resumable:
            with open_volume(plan.location.uri) as copy:
                self._compare(self._steps(receipts), copy, values=values)
        self.record.finish(values, receipts)
        return self._result(values, resumed=resumed, was_finished=False)

    def _result(self, values: dict[str, Any], *, resumed: int, was_finished: bool) -> Conversion:
        plan, made = self._plan, values["made"]
        return Conversion(
            uri=plan.location.uri,
            format=made["format"],
            kind=plan.declared_kind,
            record=self.record.address,
            levels=len(made["levels"]),
            blocks=_count(values),
            resumed_blocks=resumed,
            labels=made["labels"],
            is_lossy=made["is_lossy"],
            was_finished=was_finished,
            notices=plan.source.notices,
        )

    # --- what earlier runs have left -------------------------------------------------

    def _earlier_run(self) -> dict[str, Any] | None:
        """Return the record of the run to go on with, or None to begin."""
        if self._overwrite:
            return None
        plan = self._plan
        before = self.record.running()
        if before is None:
            return None
        is_same = before["identity"] == _plain(plan.identity)
        self._replaces = is_same and bool(before["made"].get("replaces"))
        if not plan.is_resumable:
            is_over = before["status"] == Status.COMMITTING and is_in_place(before, plan.location)
            return before if is_same and is_over else None
        is_lost = (
            plan.work is not None
            and not plan.work.exists()
            and not is_in_place(before, plan.location)
        )
        if is_lost or not self.record.journal.read():
            return None
        require_same(before["identity"], plan.identity, destination=plan.location.uri)
        return before

    def _finished(self) -> dict[str, Any] | None:
        """Return the finished record if it is of this conversion, and the copy is there."""
        record = self.record.finished()
        if record is None or record["identity"] != _plain(self._plan.identity):
            return None
        try:
            with open_volume(self._plan.location.uri) as copy:
                is_there = copy.shape == self._plan.part.shape
        except FloodemError:
            return None
        return record if is_there else None

    def _receipts(self, before: dict[str, Any]) -> dict[Key, Receipt]:
        """Return the receipts of an earlier run that lie on its grid."""
        boxes = level_boxes(before)
        return {
            key: receipt
            for key, receipt in self.record.journal.read().items()
            if receipt.level < len(boxes) and boxes[receipt.level].contains(receipt.box)
        }

    def _clear(self) -> None:
        """Forget what an earlier run, or this one, has not finished."""
        self.record.forget_running()
        self._remove_work()

    def _remove_work(self) -> None:
        work = self._plan.work
        if work is not None and work.exists():
            shutil.rmtree(work, ignore_errors=True)

    def _keep(self, error: BaseException, receipts: dict[Key, Receipt]) -> None:
        if not (self._plan.is_resumable and receipts):
            if not self._plan.location.is_remote:
                self._clear()
        elif isinstance(error, StorageError | ResourceError):
            raise type(error)(f"{error}; {self._how_to_go_on()}") from error

    def _how_to_go_on(self) -> str:
        if not self._plan.is_resumable:
            return "the copy is written as a whole, and the same command begins again"
        without = " without --overwrite" if self._overwrite else ""
        return f"what is written is kept, run the same command again{without} to go on"


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
    """Return an identity as it comes back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _count(values: dict[str, Any]) -> int:
    """Count the blocks of all levels."""
    return sum(
        math.prod(
            -(-n // b) for n, b in zip(Box.parse(one["box"]).shape, one["block"], strict=True)
        )
        for one in values["made"]["levels"]
    )
