"""A block is flooded to its end, or to a stop that loses nothing: a job in, a flooder out.

In: a `Job` and perhaps a checkpoint of the same image, network and options. Out: a
`BlockFlooder` that has used all its seeds. Whoever has it flooded sees to it that no
two do so at once in a process.
"""

from __future__ import annotations

import time
from pathlib import Path

from floodem.assembly.block_record import BlockLog
from floodem.cluster.context import TaskContext
from floodem.cluster.receipts import identity_digest
from floodem.errors import FloodemError, RunConflictError, StoppedError
from floodem.flooding.checkpoint import load_checkpoint, save_checkpoint
from floodem.flooding.drive import add_seeds, flood_on, new_flooder, voxels_done
from floodem.flooding.job import Job


class BlockFlooding:
    """The floods of one block, with their checkpoint, limit and reports.

    Parameters
    ----------
    name
        Of the block, for messages.
    checkpoint
        Where the half-flooded block is kept, or None.
    save_seconds
        How often.
    time_limit_s
        Longest flooding, what was done before a checkpoint included, or None.
    context
        Tells when to stop and takes reports.

    Attributes
    ----------
    flooder
        The floods.
    notices
        What a user may want to know about the seeds.
    """

    def __init__(
        self,
        job: Job,
        *,
        name: str,
        checkpoint: Path | None,
        save_seconds: float,
        time_limit_s: float | None,
        context: TaskContext,
    ) -> None:
        self.flooder = new_flooder(job)
        self.notices: tuple[str, ...] = ()
        self._job, self._name, self._context = job, name, context
        self._checkpoint, self._save_seconds = checkpoint, save_seconds
        self._time_limit_s = time_limit_s
        self._made_from = identity_digest(job.identity)
        self._seconds_before = 0.0
        self._began = time.monotonic()

    def begin(self, log: BlockLog) -> None:
        """Take up the checkpoint, or find the seeds."""
        if self._checkpoint is not None and self._checkpoint.exists():
            try:
                self._seconds_before = load_checkpoint(
                    self._checkpoint, self.flooder, made_from=self._made_from
                )
            except RunConflictError as error:
                log.add(f"the checkpoint is not taken: {error}")
                self.flooder = new_flooder(self._job)
            else:
                done, seeds = self.flooder.seeds_done, len(self.flooder.seeds)
                log.add(f"resumed: {done} of {seeds} seeds are done")
                return
        self.notices = tuple(add_seeds(self._job, self.flooder))

    def go_on(self) -> None:
        """Flood to the end.

        Raises
        ------
        StoppedError
            When the run was told to stop.
        FloodemError
            When the time is over.
        """
        self._began = time.monotonic()
        is_done = flood_on(
            self.flooder,
            save=self._save,
            save_seconds=self._save_seconds,
            report=self._report,
            should_stop=lambda: self._context.should_stop() or self._is_late(),
        )
        if is_done:
            return
        done = f"{self.flooder.seeds_done} of {len(self.flooder.seeds)} seeds are done"
        if self._is_late() and not self._context.should_stop():
            raise FloodemError(
                f"block {self._name} was flooded for {self._time_limit_s:g} s, the "
                f"limit of a block, and {done}: give a larger limit, smaller blocks (--block), or "
                "limit single floods with --max-calls"
            )
        saved = "nothing of the block is saved" if self._checkpoint is None else "all is saved"
        raise StoppedError(f"stopped, {saved}, {done}: run the same command again to go on")

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _is_late(self) -> bool:
        return self._time_limit_s is not None and self._seconds() > self._time_limit_s

    def _save(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(
                self._checkpoint,
                self.flooder,
                made_from=self._made_from,
                seconds=self._seconds(),
            )

    def _report(self) -> None:
        self._context.report(
            {
                "part": "flooding",
                "voxels": voxels_done(self.flooder),
                "of": self.flooder.canvas.segmentation.size,
                "network_calls": self.flooder.counters["network_calls"],
            }
        )
