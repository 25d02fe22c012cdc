"""A job is flooded to its end: seeds, steps, checkpoints and progress.

In: a `Job` and its `RunFolder`, perhaps with a checkpoint. Out: a `BlockFlooder`
that has used all its seeds, or `StoppedError` with everything saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from floodem.errors import StoppedError
from floodem.flooding.block import BlockFlooder
from floodem.flooding.canvas import Canvas
from floodem.flooding.checkpoint import load_checkpoint, save_checkpoint
from floodem.flooding.job import Job
from floodem.flooding.predictor import Predictor
from floodem.flooding.run_folder import RunFolder, RunStatus
from floodem.flooding.seeds import make_policy, seed_positions
from floodem.flooding.seeds.explicit import EXPLICIT
from floodem.progress import Progress, ProgressListener

REPORT_SECONDS = 0.2


def flood_block(
    job: Job,
    folder: RunFolder,
    *,
    record: Mapping[str, Any],
    overwrite: bool,
    checkpoint_seconds: float,
    progress: ProgressListener | None,
    notice: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> BlockFlooder:
    """Flood until all seeds are used, saving the state now and then.

    Parameters
    ----------
    record
        For run.json, where a run begins.
    overwrite
        Begin a run also where one is.

    Raises
    ------
    StoppedError
        When `should_stop` says so; the state is saved.
    StorageError
        When a checkpoint cannot be written; the one before is still there.
    """
    flooder = new_flooder(job)
    notices = list(job.notices)
    reporter = _Reporter(progress, flooder)
    if folder.has_run() and not overwrite and folder.checkpoint.exists():
        load_checkpoint(folder.checkpoint, flooder)
        folder.log(f"resumed: {flooder.seeds_done} of {len(flooder.seeds)} seeds are done")
    else:
        reporter.seeking()
        notices += add_seeds(job, flooder)
        _save_first(flooder, folder, record=record, overwrite=overwrite)
    for sentence in notices:
        notice(sentence)
    reporter.begin()
    is_done = flood_on(
        flooder,
        save=lambda: save_checkpoint(folder.checkpoint, flooder),
        save_seconds=checkpoint_seconds,
        report=reporter.report,
        should_stop=should_stop,
    )
    if not is_done:
        done = f"{flooder.seeds_done} of {len(flooder.seeds)} seeds are done"
        folder.log(f"stopped: {done}")
        without = " without --overwrite" if overwrite else ""
        raise StoppedError(
            f"stopped, all is saved, {done}: run the same command again{without} to go on"
        )
    save_checkpoint(folder.checkpoint, flooder)
    reporter.report(last=True)
    return flooder


def flood_on(
    flooder: BlockFlooder,
    *,
    save: Callable[[], None],
    save_seconds: float,
    report: Callable[[], None],
    should_stop: Callable[[], bool],
) -> bool:
    """Flood until all seeds are used, or until told to stop.

    Parameters
    ----------
    save
        Keeps the state; called every `save_seconds`, and before a stop.
    report, should_stop
        Called after each step.

    Returns
    -------
    bool
        Whether all seeds are used.
    """
    saved = time.monotonic()
    while flooder.advance():
        report()
        is_stopping = should_stop()
        if is_stopping or time.monotonic() - saved >= save_seconds:
            save()
            saved = time.monotonic()
        if is_stopping:
            return False
    return True


def _save_first(
    flooder: BlockFlooder, folder: RunFolder, *, record: Mapping[str, Any], overwrite: bool
) -> None:
    if folder.has_run() and not overwrite:  # all but the checkpoint is there
        save_checkpoint(folder.checkpoint, flooder)
        return
    folder.begin(
        record,
        status=RunStatus.REPLACING if overwrite else RunStatus.BEGUN,
        save=lambda path: save_checkpoint(path, flooder),
    )
    folder.log(f"begun with {len(flooder.seeds)} seeds")


def new_flooder(job: Job) -> BlockFlooder:
    """Return the flooder of a job before its first step, without seeds."""
    canvas = Canvas(
        job.image,
        Predictor(job.model, device=job.device, dtype=job.dtype),
        options=job.options,
        deltas=job.model.description.deltas,
        restricted=job.closed(),
    )
    if job.initial is not None:
        canvas.segmentation[...] = job.initial
    return BlockFlooder(canvas, job.options, seed_mask=job.seed_mask)


def add_seeds(job: Job, flooder: BlockFlooder) -> list[str]:
    """Find the seeds of a new flooder; return what the user may want to know about them."""
    context = job.seed_context(flooder.canvas.segmentation)
    spec = job.options.seeds
    flooder.add_seeds(seed_positions(spec, context))
    notices = []
    if spec.name == EXPLICIT:
        dropped = len(make_policy(spec)(context)) - len(flooder.seeds)
        if dropped:
            notices.append(
                f"{dropped} of the given seeds lie outside box {job.box} or nearer to its border "
                f"than half the field of view, {context.margin} voxels (z,y,x): not used"
            )
    if not len(flooder.seeds):
        notices.append(f"{spec.name} found no seed in box {job.box}: there are no segments")
    return notices


def voxels_done(flooder: BlockFlooder) -> int:
    """Return how many voxels of the block need no more work, as far as one can tell.

    Floods fill most voxels from the first few seeds; the many seeds that are left then
    lie in segments. Whichever is further on says how much work is left.
    """
    voxels = flooder.canvas.segmentation.size
    by_seeds = voxels * flooder.next_seed // max(len(flooder.seeds), 1)
    return min(max(_filled(flooder), by_seeds), voxels)


def _filled(flooder: BlockFlooder) -> int:
    filled = flooder.counters["voxels_segmented"]
    return filled if flooder.flood is None else filled + flooder.canvas.filled


class _Reporter:
    """Tells the listener a few times a second how far the block is."""

    def __init__(self, listener: ProgressListener | None, flooder: BlockFlooder) -> None:
        self._listener = listener
        self._flooder = flooder
        self.begin()

    def seeking(self) -> None:
        """Say that seeds are looked for."""
        if self._listener is not None:
            self._listener(Progress(stage="finding seeds", done=0, total=None, unit="seeds"))

    def begin(self) -> None:
        """Count network calls per second from here."""
        self._began = self._reported = time.monotonic()
        self._calls_before = self._flooder.counters["network_calls"]

    def report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._listener is None or (now - self._reported < REPORT_SECONDS and not last):
            return
        self._reported = now
        flooder = self._flooder
        voxels = flooder.canvas.segmentation.size
        calls = flooder.counters["network_calls"] - self._calls_before
        self._listener(
            Progress(
                stage="flooding",
                done=voxels if last else voxels_done(flooder),
                total=voxels,
                unit="voxels",
                note=f"{_filled(flooder) / voxels:.1%} filled, {len(flooder.origins)} segments, "
                f"seed {flooder.next_seed} of {len(flooder.seeds)}, "
                f"{calls / (now - self._began):.1f} network calls/s",
            )
        )
