"""The validating process: a job file comes in, an outcome file goes out.

Started by `floodem.training.validation.background` as a fresh interpreter, so
that nothing of the training process is inherited: no threads, no state of the
device, no random numbers. It ends with whoever started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from floodem.errors import EXIT_STOPPED, FloodemError

NICENESS = 5
"""Steps of priority below training: a share of a busy core of about a quarter (Linux, CFS)."""


def main(arguments: list[str]) -> None:
    """Do the job of the named file."""
    # Whether Ctrl-C ends the training, and this process with it, is decided there.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    work(Path(arguments[0]))


def work(path: Path) -> None:
    """Flood, score and answer; whatever goes wrong becomes the answer as well."""
    import torch

    from floodem.training.validation.choice import ValidationFailure
    from floodem.training.validation.job import ValidationJob, flood_and_score, write_outcome

    job = ValidationJob.load(path)
    torch.set_num_threads(job.threads)
    began = time.monotonic()
    try:
        write_outcome(job, flood_and_score(job))
        return
    except FloodemError as error:
        reason = str(error)
    except MemoryError:
        reason = "the memory of this machine is not enough: give a smaller validation.box"
    except torch.OutOfMemoryError:
        reason = (
            f"the memory of {job.device} is not enough beside training: set validation.device to "
            "cpu, or give a smaller batch"
        )
    except Exception as error:  # noqa: BLE001 - training goes on, and its user is told
        traceback.print_exc()
        reason = f"this is a bug in floodem: {type(error).__name__}: {error}"
    failure = ValidationFailure(
        step=job.step, hours=job.hours, reason=reason, seconds=time.monotonic() - began
    )
    write_outcome(job, failure)


def _end_with_parent() -> None:
    """Wait until the other end of the pipe is closed, which the system does when it dies."""
    # Not through sys.stdin, whose lock this thread would still hold when the process ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main(sys.argv[1:])
