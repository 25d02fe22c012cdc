"""A run that an old program was stopped in goes on here: its ``.cpoint`` in, a run of ours out.

The record of a run that has got as far is written, from which `segment` then goes on as
from its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from floodem.flooding.addresses import Outputs
from floodem.flooding.request import SegmentRequest
from floodem.flooding.run_folder import RunFolder, RunStatus
from floodem.flooding.segment import state_folder
from floodem.legacy.results.cpoint import read_cpoint
from floodem.legacy.results.resuming import restore
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model


def go_on_from(
    checkpoint: Path,
    *,
    image: Volume,
    model: Model,
    labels: str,
    request: SegmentRequest,
    notice: Callable[[str], None],
) -> None:
    """Begin a run to `labels` in the state of an old program's checkpoint.

    Parameters
    ----------
    checkpoint
        A ``.cpoint`` file; nothing in it is executed.
    labels
        Destination of the run; nothing is there yet.

    Raises
    ------
    RunConflictError
        When the checkpoint is of another block, or another process works there.
    FloodemError
        When it is damaged, or the job is refused.
    """
    from floodem.flooding.checkpoint import save_checkpoint
    from floodem.flooding.drive import new_flooder
    from floodem.flooding.job import prepare_job

    folder = RunFolder(state_folder(labels), destination=labels)
    probabilities = None if request.probabilities is None else str(request.probabilities)
    outputs = Outputs(labels=labels, probabilities=probabilities)
    state = read_cpoint(checkpoint)
    job = prepare_job(image, model, request=request, folder=folder.path)
    flooder = new_flooder(job)
    restore(flooder, state)
    with folder.hold():
        folder.begin(
            {"identity": job.identity, "about": {**job.about, **outputs.to_json()}},
            status=RunStatus.BEGUN,
            save=lambda path: save_checkpoint(path, flooder),
        )
        folder.log(f"begun from {checkpoint}: {flooder.seeds_done} seeds are done")
    notice(
        f"{checkpoint} of the old program is gone on with: {flooder.seeds_done} of "
        f"{len(flooder.seeds)} seeds are done"
    )
