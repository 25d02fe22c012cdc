"""The stages of a cut run, one after the other: what is prepared in, a segmentation out.

::

    floods -> pairs -> numbers -> labels -> level-1, level-2, ... -> finished
    (blocks)  (blocks)  (once)    (blocks)   (blocks)

Each stage has its receipts in ``DST.floodem/receipts``; one that is complete is not
done again. Of several shards each floods its part, and the one that comes last does
what follows.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from floodem.assembly.block_store import BlockStore
from floodem.assembly.destination import LabelDestination
from floodem.assembly.flood_progress import FloodProgress
from floodem.assembly.floods import flood_block_task
from floodem.assembly.label_run import LabelRun
from floodem.assembly.numbering import number_segments
from floodem.assembly.pairs import PairTask, compare_block_task
from floodem.assembly.preparation import Prepared
from floodem.assembly.request import CutOptions
from floodem.assembly.run_record import RunRecord
from floodem.assembly.sources import close_sources
from floodem.assembly.summary import summarise
from floodem.assembly.writing import write_core_task, write_tasks
from floodem.cluster import Crew, Task, run_tasks
from floodem.errors import StoppedError
from floodem.files import remove_partial_files, storage_error
from floodem.flooding.request import Segmentation
from floodem.progress import Progress, ProgressListener
from floodem.volumes.servers.addresses import is_remote

_NUMBERS = "numbers"


def run_stages(
    prepared: Prepared,
    record: RunRecord,
    *,
    uri: str,
    overwrite: bool,
    cut: CutOptions,
    crew: Crew,
    progress: ProgressListener | None,
    notice: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> Segmentation:
    """Do everything that is not done yet; only for who holds the run's folder.

    Parameters
    ----------
    prepared
        What the blocks have in common.
    uri
        Where the labels go.
    notice
        Called with what is to be known of the crew, such as the loss of a worker.

    Raises
    ------
    FloodemError
        See `floodem.assembly.segment.segment`.
    """
    begins_again = overwrite or cut.joins_again
    destination = LabelDestination.choose(
        uri,
        plan=prepared.plan,
        voxel_size=prepared.voxel_size,
        levels=cut.levels,
        overwrite=begins_again,
    )
    destination.require_possible()
    there = None if begins_again else record.read()
    if begins_again:
        record.clear(crew=crew, keeps_floods=cut.joins_again)
    labels = LabelRun(
        record=record,
        destination=destination,
        identity={"floods": prepared.floods, "joins": prepared.joins},
        crew=crew,
        progress=progress,
        notice=notice,
        should_stop=should_stop,
    )
    begun = record.begin(
        labels.identity,
        plan={**destination.to_json(), "cut": prepared.plan.to_json()},
        about={**prepared.about, "destination": uri},
        replaces=begins_again,
    )
    summary = record.summary() if there is not None else None
    was_finished = summary is not None
    if summary is None:
        placed = replace(destination, replaces=bool(begun["replaces"]))
        summary = _make(prepared, replace(labels, destination=placed))
    return Segmentation(
        uri=uri,
        box=prepared.plan.box,
        folder=Path(record.address),
        summary=summary,
        was_finished=was_finished,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _NumberTask:
    store: BlockStore
    floods: Sequence[Mapping[str, Any]]
    progress: ProgressListener | None
    should_stop: Callable[[], bool]

    def tell(self, report: Progress) -> None:
        """Pass progress on, and end the work when it is to stop; it is then repeated whole."""
        if self.should_stop():
            raise StoppedError("stopped while ids were given: run the same command again to go on")
        if self.progress is not None:
            self.progress(report)


def _number(task: _NumberTask) -> dict[str, Any]:
    """Give all segments their ids, with large files on a local disk."""
    with _scratch(task.store.address) as scratch:
        found = number_segments(task.store, floods=task.floods, scratch=scratch, progress=task.tell)
    return asdict(found)


@contextlib.contextmanager
def _scratch(work: str) -> Iterator[Path]:
    """Give an empty local folder, of a local run in its own; a killed process leaves it there."""
    if is_remote(work):
        with tempfile.TemporaryDirectory(prefix="floodem-", ignore_cleanup_errors=True) as made:
            yield Path(made)
        return
    folder = Path(work) / "scratch"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("make", folder, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(prepared: Prepared, run: LabelRun) -> dict[str, Any]:
    """Do the stages that are left and return the summary."""
    floods = _floods(prepared, run)
    if not any(flood["segments"] for flood in floods):
        run.notice(
            "no block has a segment: masks or the image leave no seed, or all floods were too "
            "small; blocks/KEY.seeds.csv and .log say why"
        )
    with run.resting() as rest:
        return _assemble(prepared, rest, floods=floods)


def _assemble(
    prepared: Prepared, run: LabelRun, *, floods: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Make one segmentation of blocks that are flooded, and return the summary."""
    store = prepared.store
    pairs = [
        Task(key=block.key, argument=PairTask(store=store, block=block, rule=prepared.rule))
        for block in prepared.plan
    ]
    run.stage("pairs", compare_block_task, pairs, says="comparing blocks")
    # Numbering needs a local disk, and so is done by this process.
    numbers = run.once(
        _NUMBERS,
        _number,
        _NumberTask(store=store, floods=floods, progress=run.progress, should_stop=run.should_stop),
    )
    written = run.write(write_core_task, write_tasks(run.destination, store=store))
    summary = summarise(store, floods=floods, numbers=numbers, written=written)
    run.done(summary)
    return summary


def _floods(prepared: Prepared, run: LabelRun) -> list[dict[str, Any]]:
    listener = None
    if run.progress is not None:
        listener = FloodProgress(prepared.plan, run.progress)
    if run.crew.shard is None and not is_remote(run.work):
        remove_partial_files(Path(run.work) / "blocks")

    begun = False

    def tell(done: int, total: int) -> None:
        nonlocal begun
        if done and not begun:
            run.notice(f"going on: {done} of {total} blocks are flooded already")
        begun = True
        if listener is not None:
            listener.done(done, total)

    def hear(key: str, values: Mapping[str, Any]) -> None:
        if not key:  # it is about the crew
            run.notice(str(values["note"]))
        elif listener is not None:
            listener.reported(key, values)

    try:
        return run_tasks(
            flood_block_task,
            prepared.flood_tasks(),
            receipts=run.receipts("floods"),
            identity=prepared.floods,
            crew=run.crew,
            progress=tell,
            reported=hear,
            ended=None if listener is None else listener.ended,
            should_stop=run.should_stop,
            keeps_going=True,
        )
    finally:
        close_sources()
