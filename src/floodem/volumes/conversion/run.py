"""One conversion from its begin, or from where it stopped, to its end.

A plan comes in; a volume at the destination and a finished record go out. The
order is what keeps a process that is killed anywhere from doing harm: record,
blocks and their receipts, comparison, the volume into place, and the finished
record last.
"""

from __future__ import annotations

from collections.abc import Callable
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
from floodem.labels.runs import Ids
from floodem.progress import ProgressListener
from floodem.volumes.access import create_volume, open_volume
from floodem.volumes.conversion.block_plan import block_shape, coarse_voxel_bytes, voxel_bytes
from floodem.volumes.conversion.block_reading import Reader
from floodem.volumes.conversion.destination import moved_by, serves_threads
from floodem.volumes.conversion.history import History, count_blocks, plain
from floodem.volumes.conversion.plan import Plan
from floodem.volumes.conversion.receipts import Receipt
from floodem.volumes.conversion.recoding import Recoding, table_from_csv, table_to_csv
from floodem.volumes.conversion.record import ConversionRecord, Status, level_boxes
from floodem.volumes.conversion.result import Conversion
from floodem.volumes.conversion.steps import Steps, Tally
from floodem.volumes.parallel import usable_threads
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.volume import Volume

_STOPS = (StoppedError, StorageError, ResourceError)
"""After these the same call can succeed; other refusals would end it again."""


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
        self._resumed = 0
        self._is_in_place = False
        self.record = ConversionRecord(plan.location)
        self._history = History(plan, self.record, overwrite=overwrite)
        self._steps: Steps | None = None

    def make(self) -> Conversion:
        """Do what is left to do; the record must be held."""
        history = self._history
        before = history.find()
        self._resumed = len(history.receipts)
        if before is not None and history.is_over(before):
            self._let_go()
            # What was there before may have been left where the copy grew.
            history.remove_work()
            self._is_in_place = True
            return self._conclude(before)
        if before is None:
            finished = history.find_finished()
            if finished is not None:
                return self._result(finished, was_finished=True)
            history.clear()
        try:
            return self._conclude(self._write(before))
        except FloodemError as error:
            if isinstance(error, _STOPS):
                self._keep(error)
            else:
                history.clear()
            raise
        except BaseException as error:
            self._keep(error)
            raise

    def _keep(self, error: BaseException) -> None:
        """Leave what the next run can go on with, and say so where the error does not."""
        receipts = self._history.receipts
        if self._is_in_place:
            return
        if not (self._plan.is_resumable and receipts):
            if not self._plan.location.is_remote:
                self._history.clear()
        elif isinstance(error, StorageError | ResourceError):
            raise type(error)(f"{error}; {self._how_to_go_on()}") from error

    def _how_to_go_on(self) -> str:
        if not self._plan.is_resumable:
            return "the copy is written as a whole, and the same command begins again"
        without = " without --overwrite" if self._overwrite else ""
        return f"what is written is kept, run the same command again{without} to go on"

    # --- the work --------------------------------------------------------------------

    def _write(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """Write the copy and put it into place; return what its record says."""
        plan = self._plan
        steps = self._prepare()
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
                self._is_in_place = True
            except BaseException:
                copy.discard()
                raise
        return values

    def _prepare(self) -> Steps:
        """Return the steps of this run, which count together."""
        if self._steps is not None:
            return self._steps
        plan, receipts = self._plan, self._history.receipts
        sizes = [level_box(plan.box, factors).size for factors in ((1, 1, 1), *plan.factors)]
        tally = Tally(
            total=2 * sum(sizes) + (plan.part.size if plan.options.relabel else 0),
            listener=self._progress,
            should_stop=self._should_stop,
            how_to_go_on=self._how_to_go_on(),
            unit=f"voxels {'counted, ' if plan.options.relabel else ''}written and read back",
        )
        tally.add(sum(receipt.box.size for receipt in receipts.values()), "")
        self._steps = Steps(
            journal=self.record.journal,
            receipts=receipts,
            tally=tally,
            threads=self._threads,
            writes_in_threads=plan.writes_in_threads,
            is_lossy=plan.is_lossy,
        )
        return self._steps

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
            overwrite=self._history.replaces,
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
            "replaces": self._history.replaces,
            "labels": None if old_ids is None else len(old_ids),
            "levels": levels,
        }
        values = {"identity": plain(plan.identity), "made": made}
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

    def _conclude(self, values: dict[str, Any]) -> Conversion:
        """Check a copy that is in place where it was not checked before, and finish its record."""
        if not self._plan.is_resumable:
            with open_volume(self._plan.location.uri) as copy:
                self._compare(self._prepare(), copy, values=values)
        self.record.finish(values, self._history.receipts)
        return self._result(values, was_finished=False)

    def _result(self, values: dict[str, Any], *, was_finished: bool) -> Conversion:
        plan, made = self._plan, values["made"]
        return Conversion(
            uri=plan.location.uri,
            format=made["format"],
            kind=plan.declared_kind,
            record=self.record.address,
            levels=len(made["levels"]),
            blocks=count_blocks(values),
            resumed_blocks=count_blocks(values) if was_finished else self._resumed,
            labels=made["labels"],
            is_lossy=made["is_lossy"],
            was_finished=was_finished,
            notices=(*plan.source.notices, *plan.notices),
        )
