"""The main job on one block: an image and a model in, a segmentation on disk out.

Opens and checks everything before anything is written, floods the block from
all its seeds, saves its state now and then, and writes labels, the record of
the run and, last, the receipt. Called again with the same arguments it goes on
where it was, or says that all is done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import DestinationExistsError, VolumeFormatError, VolumeNotFoundError
from floodem.flooding.request import Segmentation, SegmentRequest
from floodem.flooding.run_folder import SUFFIX, RunFolder
from floodem.progress import ProgressListener
from floodem.volumes import open_volume
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.flooding.job import Job
    from floodem.network.model_file import Model


def segment(
    image: str | Path | Volume,
    destination: str | Path,
    *,
    model: str | Path | Model,
    request: SegmentRequest | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Segmentation:
    """Segment an image, or go on with a run that was stopped.

    Parameters
    ----------
    image
        Address or open volume, z, y, x.
    destination
        Address for the labels (uint64). Beside it the folder
        ``DESTINATION.floodem`` holds the record of the run.
    model
        Model file or loaded model.
    should_stop
        Asked between two network calls; when it answers True the state is saved
        and the run ends with `StoppedError`.

    Raises
    ------
    StoppedError
        When `should_stop` said so; the same call goes on from there.
    DestinationExistsError
        When something is at the destination that no run of floodem has made.
    RunConflictError
        When another process works there, or the run there had other options.
    FloodemError
        When an input is refused; nothing was written then.
    """
    from floodem.flooding.job import prepare_job
    from floodem.network.model_file import Model, load_model

    request = SegmentRequest() if request is None else request
    destination = str(destination)
    folder = RunFolder(state_folder(destination), destination=destination)
    _refuse_foreign(destination, folder, overwrite=request.overwrite)
    model = model if isinstance(model, Model) else load_model(model)
    if isinstance(image, Volume):
        job = prepare_job(image, model, request=request, folder=folder.path)
    else:
        with open_volume(image) as volume:
            job = prepare_job(volume, model, request=request, folder=folder.path)
    with folder.hold():
        _refuse_foreign(destination, folder, overwrite=request.overwrite)
        return _run(job, folder, request=request, progress=progress, should_stop=should_stop)


def _run(
    job: Job,
    folder: RunFolder,
    *,
    request: SegmentRequest,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
) -> Segmentation:
    from floodem.flooding.drive import flood_block
    from floodem.flooding.results import write_results

    if request.overwrite:
        folder.clear()
    record = {"identity": job.identity, "about": job.about}
    if folder.has_run():
        folder.require_same(job.identity)
        receipt = folder.read_receipt(job.box)
        if receipt is not None and is_there(folder.destination):
            return _made(job, folder, summary=receipt["summary"], was_finished=True)
    else:
        folder.write_run({"status": "begun", **record})
        folder.log(f"begun: {job.about['image']}, box {job.box}")
    flooder = flood_block(
        job,
        folder,
        checkpoint_seconds=request.checkpoint_seconds,
        progress=progress,
        should_stop=should_stop,
    )
    summary = write_results(
        flooder,
        folder,
        box=job.box,
        voxel_size=job.voxel_size,
        probabilities=request.probabilities,
    )
    folder.write_run({"status": "done", **record, "summary": summary})
    folder.write_receipt(job.box, {"identity": job.identity, "summary": summary})
    folder.log(f"done: {summary['segments']} segments, {summary['covered']:.1%} covered")
    folder.checkpoint.unlink(missing_ok=True)
    return _made(job, folder, summary=summary, was_finished=False)


def _made(
    job: Job, folder: RunFolder, *, summary: dict[str, Any], was_finished: bool
) -> Segmentation:
    return Segmentation(
        uri=folder.destination,
        box=job.box,
        folder=folder.path,
        summary=summary,
        was_finished=was_finished,
        notices=tuple(job.notices),
    )


def state_folder(destination: str) -> Path:
    """Return where the record of a run to this destination is kept.

    Raises
    ------
    VolumeFormatError
        When the destination is remote.
    """
    location = parse_location(destination)
    if location.is_remote:
        raise VolumeFormatError(
            f"{destination} is remote: segment to a local address, then copy it with "
            "`floodem convert`"
        )
    dataset = (location.dataset or "").strip("/").replace("/", "_")
    path = location.local
    return path.with_name(path.name + (f"@{dataset}" if dataset else "") + SUFFIX)


def is_there(uri: str) -> bool:
    """Tell whether a volume is at this address."""
    try:
        open_volume(uri).close()
    except VolumeNotFoundError:
        return False
    return True


def _refuse_foreign(destination: str, folder: RunFolder, *, overwrite: bool) -> None:
    if not overwrite and not folder.has_run() and is_there(destination):
        raise DestinationExistsError(
            f"{destination} exists already and no run of floodem made it: choose another "
            "destination or --overwrite"
        )
