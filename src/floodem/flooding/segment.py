"""The main job on one block: an image and a model in, a segmentation on disk out.

Opens and checks everything before anything is written, floods the block from
all its seeds, saves its state now and then, and writes labels, the record of
the run and, last, the receipt. Called again with the same arguments it goes on
where it was, or says that all is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.counting import counted
from floodem.errors import (
    DestinationExistsError,
    ResourceError,
    RunConflictError,
    StorageError,
)
from floodem.flooding.addresses import Outputs, is_there, require_apart
from floodem.flooding.request import Segmentation, SegmentRequest
from floodem.flooding.run_folder import SUFFIX, RunFolder, RunStatus
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
    notice: Callable[[str], None] | None = None,
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
    notice
        Called with each sentence of `Segmentation.notices` as soon as it is known.
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
    outputs = Outputs(
        labels=str(destination),
        probabilities=None if request.probabilities is None else str(request.probabilities),
    )
    outputs.require_possible()
    require_apart(outputs, image=image, model=model, request=request)
    folder = RunFolder(state_folder(outputs.labels), destination=outputs.labels)
    folder.require_uncut()
    _refuse_foreign(outputs, folder, overwrite=request.overwrite)
    model = model if isinstance(model, Model) else load_model(model)
    notices: list[str] = []

    def say(sentence: str) -> None:
        notices.append(sentence)
        if notice is not None:
            notice(sentence)

    with contextlib.ExitStack() as stack:
        volume = image if isinstance(image, Volume) else stack.enter_context(open_volume(image))
        job = prepare_job(volume, model, request=request, folder=folder.path)
    with folder.hold():
        _refuse_foreign(outputs, folder, overwrite=request.overwrite)
        summary, was_finished = _run(
            job,
            folder,
            outputs,
            request=request,
            progress=progress,
            notice=say,
            should_stop=should_stop,
        )
    return Segmentation(
        uri=outputs.labels,
        box=job.box,
        folder=folder.path,
        summary=summary,
        was_finished=was_finished,
        notices=tuple(notices),
    )


def _run(
    job: Job,
    folder: RunFolder,
    outputs: Outputs,
    *,
    request: SegmentRequest,
    progress: ProgressListener | None,
    notice: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> tuple[dict[str, Any], bool]:
    """Return the summary, and whether an earlier call had done all the work."""
    from floodem.flooding.drive import flood_block
    from floodem.flooding.results import require_creatable, write_results

    record = {"identity": job.identity, "about": {**job.about, **outputs.to_json()}}
    if folder.has_run() and not request.overwrite:
        folder.require_same(job.identity)
        receipt = folder.read_receipt(job.box)
        if receipt is not None and is_there(outputs.labels):
            _require_probabilities(outputs, folder)
            folder.forget_checkpoint()
            for sentence in job.notices:
                notice(sentence)
            return receipt["summary"], True
    require_creatable(outputs, box=job.box, voxel_size=job.voxel_size)
    with _saying_how_to_go_on(folder, overwrite=request.overwrite):
        flooder = flood_block(
            job,
            folder,
            record=record,
            overwrite=request.overwrite,
            checkpoint_seconds=request.checkpoint_seconds,
            progress=progress,
            notice=notice,
            should_stop=should_stop,
        )
        folder.write_run(record, status=RunStatus.WRITING)
        summary = write_results(
            flooder, folder, outputs=outputs, box=job.box, voxel_size=job.voxel_size
        )
        folder.write_run({**record, "summary": summary}, status=RunStatus.DONE)
        folder.write_receipt(job.box, {"identity": job.identity, "summary": summary})
    folder.forget_checkpoint()
    folder.log(f"done: {counted(summary['segments'], 'segment')}, {summary['covered']:.1%} covered")
    return summary, False


@contextlib.contextmanager
def _saying_how_to_go_on(folder: RunFolder, *, overwrite: bool) -> Iterator[None]:
    try:
        yield
    except (ResourceError, StorageError) as error:
        if not folder.checkpoint.exists():
            raise
        without = " without --overwrite" if overwrite else ""
        raise type(error)(
            f"{error}; what was computed is saved, and the same command{without} goes on"
        ) from error


def state_folder(destination: str) -> Path:
    """Return where the record of a run to this local destination is kept."""
    location = parse_location(destination)
    dataset = (location.dataset or "").strip("/").replace("/", "_")
    path = location.local
    return path.with_name(path.name + (f"@{dataset}" if dataset else "") + SUFFIX)


def _refuse_foreign(outputs: Outputs, folder: RunFolder, *, overwrite: bool) -> None:
    """Keep what is at a destination and was not put there by the run in this folder."""
    if overwrite:
        return
    ours: tuple[Any, ...] = ()
    if folder.has_run():
        run = folder.read_run()
        if run.get("status") != RunStatus.BEGUN:
            ours = (outputs.labels, _probabilities_in(run))
    for uri in outputs.addresses():
        if uri not in ours and is_there(uri):
            raise DestinationExistsError(
                f"{uri} exists already and no run of floodem made it: choose another "
                "destination or --overwrite"
            )


def _require_probabilities(outputs: Outputs, folder: RunFolder) -> None:
    """Refuse to call a run finished that has not written the probabilities asked for."""
    wanted = outputs.probabilities
    if wanted is None or (_probabilities_in(folder.read_run()) == wanted and is_there(wanted)):
        return
    raise RunConflictError(
        f"{outputs.labels} is finished, but without {wanted}: begin again with --overwrite, or "
        "choose another destination"
    )


def _probabilities_in(run: Mapping[str, Any]) -> Any:
    about = run.get("about")
    return about.get("probabilities") if isinstance(about, dict) else None
