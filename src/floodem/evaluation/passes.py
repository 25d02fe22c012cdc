"""Passes over all blocks of a comparison: counts and places of parts come out, added up.

In this process they are counted one after the other; as tasks
(floodem.evaluation.blocks) by whatever crew, with receipts in a work folder, so that
what was stopped goes on. Both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from floodem.cluster import Task, run_tasks
from floodem.cluster.crew import Crew
from floodem.cluster.receipts import identity_digest
from floodem.errors import StoppedError
from floodem.evaluation.alignment import Alignment
from floodem.evaluation.blocks import Comparison, CountTask, SearchTask, count_task, search_task
from floodem.evaluation.places import Finding, PartKey, Search, search_block, worth_reading
from floodem.labels import OverlapCounter, OverlapTable, contingency
from floodem.progress import Progress, ProgressListener
from floodem.shapes.source import close_source

_SEARCHES = 3
"""What `floodem.evaluation.places.facing_voxels` makes."""


class Passes(Protocol):
    """Who goes over the blocks."""

    def table(self) -> OverlapTable:
        """Return which labels lie on each other, over all blocks."""

    def look(self, search: Search) -> Iterator[Finding]:
        """Yield what there is in each block of the parts that are looked for."""


class PassesHere:
    """Passes over open volumes in this process."""

    def __init__(
        self,
        alignment: Alignment,
        *,
        progress: ProgressListener | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._alignment = alignment
        self._telling = _Telling(progress, voxels=alignment.box.size, blocks=len(alignment.blocks))
        self._should_stop = should_stop
        self._holders: dict[PartKey, set[int]] = {}

    def table(self) -> OverlapTable:
        """Return which labels lie on each other, over all blocks."""
        counter, done = OverlapCounter(), 0
        for block in self._alignment.blocks:
            self._require_going_on()
            counter.add(contingency(*self._alignment.read(block)))
            done += block.size
            self._telling.compared(done)
        return counter.table()

    def look(self, search: Search) -> Iterator[Finding]:
        """Yield what there is in each block of the parts that are looked for.

        Blocks in which an earlier search found none of them are not read again, nor those that
        are too far away.
        """
        blocks = self._alignment.blocks
        is_known = self._holders.keys() >= set(search.parts)
        wanted = worth_reading(search, self._holders, box_of=blocks.__getitem__) if is_known else ()
        for number in sorted(wanted) if is_known else range(len(blocks)):
            self._require_going_on()
            labels = self._alignment.read(blocks[number])
            for finding in search_block(*labels, block=blocks[number], search=search):
                self._holders.setdefault(search.parts[finding[0]], set()).add(number)
                yield finding
            self._telling.located(number + 1)
        self._telling.next_search()

    def _require_going_on(self) -> None:
        if self._should_stop():
            raise StoppedError("stopped before all voxels were compared: run it again")


class PassesInTasks:
    """Passes as tasks with receipts.

    Parameters
    ----------
    comparison
        What is compared, and where tasks leave what they count.
    identity
        What the two volumes are, as JSON values.
    """

    def __init__(
        self,
        comparison: Comparison,
        *,
        crew: Crew,
        identity: Mapping[str, Any],
        progress: ProgressListener | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._comparison = comparison
        self._crew = crew
        grid = comparison.blocks
        self._identity = {**identity, "blocks": {**asdict(grid), "box": str(grid.box)}}
        self._telling = _Telling(progress, voxels=grid.box.size, blocks=len(grid))
        self._should_stop = should_stop
        self._holders: dict[PartKey, set[int]] = {}

    def table(self) -> OverlapTable:
        """Return which labels lie on each other, over all blocks."""
        voxels = self._comparison.blocks.box.size
        tasks = [
            _task(CountTask(comparison=self._comparison, number=number))
            for number in range(len(self._comparison))
        ]
        self._run(
            count_task,
            tasks,
            folder="counts/receipts",
            identity={"kind": "counts", **self._identity},
            progress=lambda done, total: self._telling.compared(_share(voxels, done, total)),
        )
        counter = OverlapCounter()
        for number in range(len(tasks)):
            counter.add(self._comparison.read_table(number))
        return counter.table()

    def look(self, search: Search) -> Iterator[Finding]:
        """Yield what there is in each block of the parts; others need not be read again."""
        blocks = len(self._comparison.blocks)
        tasks = [
            _task(SearchTask(comparison=self._comparison, number=number, search=search))
            for number in sorted(
                worth_reading(
                    search, self._holding(set(search.parts)), box_of=self._comparison.box_of
                )
            )
        ]
        identity = {"kind": "places", "search": asdict(search), **self._identity}
        results = self._run(
            search_task,
            tasks,
            folder=f"places-{identity_digest(identity)[:16]}",
            identity=identity,
            progress=lambda done, total: self._telling.located(_share(blocks, done, total)),
            takes_rest=True,
        )
        self._telling.next_search()
        for result in results:
            yield from result["findings"]

    def _holding(self, parts: set[PartKey]) -> Mapping[PartKey, Collection[int]]:
        """Return the numbers of the tasks whose tables hold each of the parts."""
        if not self._holders.keys() >= parts:
            objects = np.array(sorted({truth for _, truth in parts}), np.uint64)
            for number in range(len(self._comparison)):
                table = self._comparison.read_table(number)
                table = table.select(np.isin(table.ids_b, objects))
                pairs = zip(table.ids_a.tolist(), table.ids_b.tolist(), strict=True)
                for part in parts.intersection(pairs):
                    self._holders.setdefault(part, set()).add(number)
        return self._holders

    def _run(
        self, function: Any, tasks: Sequence[Task], *, folder: str, **how: Any
    ) -> list[dict[str, Any]]:
        try:
            return run_tasks(
                function,
                tasks,
                receipts=f"{self._comparison.work}/{folder}",
                crew=self._crew,
                should_stop=self._should_stop,
                **how,
            )
        finally:
            close_source()


def _share(whole: int, done: int, total: int) -> int:
    """Return how much of the whole some tasks are; a shard may have none."""
    return whole * done // total if total else whole


def _task(argument: CountTask | SearchTask) -> Task:
    return Task(key=f"{argument.number:06}", argument=argument)


class _Telling:
    """Reports how far the passes are."""

    def __init__(self, progress: ProgressListener | None, *, voxels: int, blocks: int) -> None:
        self._progress = progress
        self._voxels = voxels
        self._blocks = blocks
        self._searches_done = 0

    def compared(self, voxels: int) -> None:
        if self._progress is not None:
            self._progress(
                Progress(stage="compare", done=voxels, total=self._voxels, unit="voxels")
            )

    def located(self, blocks: int) -> None:
        if self._progress is not None:
            done = self._searches_done * self._blocks + blocks
            total = _SEARCHES * self._blocks
            self._progress(Progress(stage="locate", done=done, total=total, unit="blocks"))

    def next_search(self) -> None:
        self._searches_done += 1
