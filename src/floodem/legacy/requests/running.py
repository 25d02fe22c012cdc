"""A request is run: image and network in, the old programs' files out.

    <output>/X/Y/seg-X_Y_Z.npz     labels, origins, overlaps, request, counters
    <output>/X/Y/seg-X_Y_Z.prob    quantised probabilities
    <output>/counters.txt          unless one is there

While a run works, ``seg-X_Y_Z.working.h5`` and its record ``...floodem`` stand there
instead, from which a stopped run goes on; so it does from a ``.cpoint`` that an old program
has left. The npz file is written after the probabilities:
where it is, the subvolume is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import DestinationExistsError, RunConflictError, StoppedError
from floodem.flooding.request import Segmentation
from floodem.flooding.segment import segment, state_folder
from floodem.geometry import UNKNOWN_VOXEL_SIZE, Box
from floodem.legacy.requests.counters import with_all_names
from floodem.legacy.requests.image import OldImage
from floodem.legacy.requests.inference import InferenceRun, barriers
from floodem.legacy.requests.old_checkpoint import go_on_from
from floodem.legacy.requests.wire import encode
from floodem.legacy.results.counters import COUNTERS_FILE, write_counters
from floodem.legacy.results.from_run import results_of_run
from floodem.legacy.results.paths import CHECKPOINT, PROBABILITY, existing_path, subvolume_path
from floodem.legacy.results.probabilities import write_probabilities
from floodem.legacy.results.subvolume import read_subvolume, write_subvolume
from floodem.progress import ProgressListener
from floodem.volumes import open_volume

WORKING_SUFFIX = ".working.h5"
_CERTAIN = 255
"""The quantised probability of voxels that an initial segmentation has filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """What became of a request.

    Attributes
    ----------
    path
        The npz file.
    segmentation
        What was computed, or None where the file was there already.
    """

    path: Path
    segmentation: Segmentation | None


def run_request(
    run: InferenceRun,
    *,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> InferenceResult:
    """Segment as a request asks and write the old programs' files.

    Parameters
    ----------
    overwrite
        Replace results that are there, and begin a stopped run again.
    resume
        Take results that are there for this run's, which must be so, and go on with a
        run that was begun with `overwrite`.
    device, dtype
        See `floodem.flooding.request.SegmentRequest`.
    notice
        Called with sentences that a user should read.

    Raises
    ------
    StoppedError
        When `should_stop` said so; the same call goes on from there.
    RunConflictError
        When the results there are another request's, or another process works there.
    FloodemError
        When an input is refused; results that were there before are still there.
    """
    with run.image.open(box=run.segment.box) as image:
        box = image.box if run.segment.box is None else run.segment.box
        target = subvolume_path(run.output, box.start)
        working = target.with_name(target.stem + WORKING_SUFFIX)
        found = existing_path(run.output, box.start)
        is_begun = state_folder(_dataset(working, "labels")).exists()
        if found is not None and not overwrite and not (resume and is_begun):
            if resume:
                _require_same(found, run, box=box)
            notice(_sentence_about(found, resume=resume, is_begun=is_begun))
            return InferenceResult(path=found, segmentation=None)
        old = None if is_begun else existing_path(run.output, box.start, suffix=CHECKPOINT)
        with _naming(target, working=working):
            made = _segment(
                run,
                image,
                working=working,
                old=None if overwrite else old,
                options={"device": device, "dtype": dtype, "overwrite": overwrite},
                listening={"progress": progress, "notice": notice, "should_stop": should_stop},
            )
    _write(run, made, target=target, overwrite=overwrite or resume)
    _remove(working, subvolume_path(run.output, box.start, suffix=CHECKPOINT))
    return InferenceResult(path=target, segmentation=made)


def _segment(
    run: InferenceRun,
    image: OldImage,
    *,
    working: Path,
    old: Path | None,
    options: dict[str, Any],
    listening: dict[str, Any],
) -> Segmentation:
    model, notices = run.model.load(voxel_size=image.voxel_size or UNKNOWN_VOXEL_SIZE)
    for sentence in notices:
        listening["notice"](sentence)
    # Files of the old programs have no voxel size that could be wrong.
    image.voxel_size = image.voxel_size or model.description.voxel_size
    request = dataclasses.replace(
        run.segment,
        barriers=barriers(run, fov=model.description.fov),
        probabilities=_dataset(working, "probabilities"),
        **options,
    )
    labels = _dataset(working, "labels")
    if old is not None:
        go_on_from(
            old,
            image=image,
            model=model,
            labels=labels,
            request=request,
            notice=listening["notice"],
        )
    try:
        return segment(image, labels, model=model, request=request, **listening)
    except StoppedError as stop:
        how = " with --resume in place of --overwrite" if options["overwrite"] else ""
        raise StoppedError(
            f"stopped, all is saved in {working.parent}: run the same command again{how} to go on"
        ) from stop


@contextlib.contextmanager
def _naming(target: Path, *, working: Path) -> Iterator[None]:
    """Say of conflicts about working files which result they are about, and in its words."""
    try:
        yield
    except (RunConflictError, DestinationExistsError) as error:
        sentence = str(error).replace("another destination", "another segmentation_output_dir")
        for name in ("labels", "probabilities"):
            sentence = sentence.replace(_dataset(working, name), f"result {target}")
        raise type(error)(sentence) from error


def _dataset(working: Path, name: str) -> str:
    return f"hdf5://{working}@{name}"


def _require_same(found: Path, run: InferenceRun, *, box: Box) -> None:
    """Refuse to take another request's result for this one's."""
    there = read_subvolume(found)
    if there.segmentation.shape != box.shape:
        raise RunConflictError(
            f"{found} holds {there.segmentation.shape} voxels (z,y,x), and the box has "
            f"{box.shape}: choose another segmentation_output_dir, or --overwrite"
        )
    if there.request != encode(run.message):
        raise RunConflictError(
            f"{found} was made by another request: choose another segmentation_output_dir, or "
            "--overwrite"
        )


def _sentence_about(found: Path, *, resume: bool, is_begun: bool) -> str:
    if resume:
        return f"{found} was finished by an earlier run of this request: nothing was left to do"
    go_on = (
        "--resume goes on with the run that was to replace it"
        if is_begun
        else ("--resume makes sure that it is this request's")
    )
    return f"{found} exists already, and nothing was done: --overwrite computes it again, {go_on}"


def _write(run: InferenceRun, made: Segmentation, *, target: Path, overwrite: bool) -> None:
    """Write what is in the working files in the old programs' form, the npz file last."""
    working = target.with_name(target.stem + WORKING_SUFFIX)
    with (
        open_volume(made.uri) as label_volume,
        open_volume(_dataset(working, "probabilities")) as probability_volume,
    ):
        labels, quantised = label_volume.read(), probability_volume.read()
    # Old readers would drop voxels of an initial segmentation, which no flood has given one.
    quantised[(quantised == 0) & (labels > 0)] = _CERTAIN
    results = results_of_run(made.folder, corner=made.box.start)
    counters = with_all_names(results.counters)
    write_probabilities(target.with_suffix(PROBABILITY), quantised=quantised, overwrite=True)
    write_subvolume(
        target,
        segmentation=labels,
        origins=results.origins,
        overlaps=results.overlaps,
        request=encode(run.message),
        counters=counters,
        overwrite=overwrite,
    )
    counters_file = run.output / COUNTERS_FILE
    if overwrite or not counters_file.exists():
        write_counters(counters_file, counters=counters, overwrite=True)


def _remove(working: Path, checkpoint: Path) -> None:
    """Remove what only an unfinished run needs, the old programs' checkpoint as they did."""
    with contextlib.suppress(OSError):  # what cannot be removed only takes space
        working.unlink(missing_ok=True)
        checkpoint.unlink(missing_ok=True)
        shutil.rmtree(state_folder(_dataset(working, "labels")))
