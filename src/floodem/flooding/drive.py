"""A job is flooded to its end: seeds, steps, checkpoints and progress.

In: a `Job` and its `RunFolder`, perhaps with a checkpoint. Out: a `BlockFlooder`
that has used all its seeds, or `StoppedError` with everything saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from floodem.errors import StoppedError
from floodem.flooding.block import BlockFlooder
from floodem.flooding.canvas import Canvas
from floodem.flooding.checkpoint import load_checkpoint, save_checkpoint
from floodem.flooding.job import Job
from floodem.flooding.predictor import Predictor
from floodem.flooding.run_folder import RunFolder
from floodem.flooding.seeds import seed_positions
from floodem.flooding.seeds.combined import policy_stages
from floodem.progress import Progress, ProgressListener

REPORT_SECONDS = 0.2


def flood_block(
    job: Job,
    folder: RunFolder,
    *,
    checkpoint_seconds: float,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
) -> BlockFlooder:
    """Flood until all seeds are used, saving the state now and then.

    Raises
    ------
    StoppedError
        When `should_stop` says so; the state is saved.
    StorageError
        When a checkpoint cannot be written; the one before is still there.
    """
    flooder = _new_flooder(job)
    stages = policy_stages(job.options.seeds)
    stage = 0
    if folder.checkpoint.exists():
        stage = load_checkpoint(folder.checkpoint, flooder)
        folder.log(f"resumed at seed {flooder.next_seed} of {len(flooder.seeds)}")
    reporter = _Reporter(progress, flooder)
    saved = time.monotonic()
    while True:
        while flooder.advance():
            reporter.report()
            stopping = should_stop()
            if stopping or time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(folder.checkpoint, flooder, stage=stage)
                saved = time.monotonic()
            if stopping:
                folder.log(f"stopped at seed {flooder.next_seed} of {len(flooder.seeds)}")
                raise StoppedError(
                    f"stopped; {flooder.next_seed} of {len(flooder.seeds)} seeds are done and "
                    "saved: run the same command again to go on"
                )
        if stage == len(stages):
            break
        context = job.seed_context(flooder.canvas.segmentation)
        flooder.add_seeds(seed_positions(stages[stage], context))
        stage += 1
        save_checkpoint(folder.checkpoint, flooder, stage=stage)
    save_checkpoint(folder.checkpoint, flooder, stage=stage)
    reporter.report(last=True)
    return flooder


def _new_flooder(job: Job) -> BlockFlooder:
    canvas = Canvas(
        job.image,
        Predictor(job.model, device=job.device, dtype=job.dtype),
        options=job.options,
        deltas=job.model.description.deltas,
        restricted=job.restricted,
    )
    if job.initial is not None:
        canvas.segmentation[...] = job.initial
    return BlockFlooder(canvas, job.options, seed_mask=job.seed_mask)


class _Reporter:
    """Tells the listener a few times a second how far the block is."""

    def __init__(self, listener: ProgressListener | None, flooder: BlockFlooder) -> None:
        self._listener = listener
        self._flooder = flooder
        self._began = self._reported = time.monotonic()
        self._calls_before = flooder.counters["network_calls"]

    def report(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._listener is None or (now - self._reported < REPORT_SECONDS and not last):
            return
        self._reported = now
        flooder = self._flooder
        filled = flooder.counters["voxels_segmented"]
        if flooder.flood is not None:
            filled += flooder.canvas.filled
        size = flooder.canvas.segmentation.size
        calls = flooder.counters["network_calls"] - self._calls_before
        self._listener(
            Progress(
                stage="flooding",
                done=flooder.next_seed,
                total=len(flooder.seeds),
                unit="seeds",
                note=f"{filled / size:.1%} of {size:,} voxels filled, "
                f"{len(flooder.origins)} segments, {calls / (now - self._began):.1f} calls/s",
            )
        )
