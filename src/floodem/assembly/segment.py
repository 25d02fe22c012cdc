"""The main job on a volume of any size: an image and a model in, one segmentation out.

A volume that fits in memory stays one block (floodem.flooding.segment) unless it is
asked for otherwise; everything else goes through the stages of `floodem.assembly`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.preparation import FLOOD_SLOTS, Prepared, prepare
from floodem.assembly.request import CutOptions
from floodem.assembly.run_record import RunRecord
from floodem.assembly.sources import InitialLabels
from floodem.assembly.stages import run_stages
from floodem.cluster import ALONE, Crew, keeping_cluster
from floodem.cluster.holding import holding
from floodem.cluster.surroundings import visible_cards
from floodem.errors import OptionError, RunConflictError
from floodem.flooding.addresses import Outputs, require_apart
from floodem.flooding.job import MEMORY_BYTES_PER_VOXEL
from floodem.flooding.request import Segmentation, SegmentRequest
from floodem.flooding.segment import segment as segment_block
from floodem.geometry import Box
from floodem.memory import available_memory
from floodem.progress import ProgressListener
from floodem.volumes.location import parse_location
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model


def segment(
    image: str | Path | Volume | VolumeSource,
    destination: str | Path,
    *,
    model: str | Path | Model,
    request: SegmentRequest | None = None,
    cut: CutOptions | None = None,
    crew: Crew = ALONE,
    network: str | None = None,
    initial: InitialLabels | None = None,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Segmentation:
    """Segment an image of any size, or go on with a run that was stopped.

    Parameters
    ----------
    image
        Address or open volume, z, y, x. What is cut into blocks needs an address.
    destination
        Address for the labels (uint64). Beside it the folder
        ``DESTINATION.floodem`` holds the record of the run.
    model
        Model file, its name, or a loaded model. What is cut needs a file or name.
    cut
        How a volume is cut; by default only one that does not fit in memory is.
    crew
        Who does the work; anyone but this process alone cuts the volume.
    network
        Code of another package that the model names (``PACKAGE:FACTORY``), for workers.
    initial
        Labels that are there already, perhaps coarser ones, instead of those of the request.
    notice
        Called with each sentence of `Segmentation.notices` as soon as it is known.
    should_stop
        Asked between two network calls; when it answers True the state is saved
        and the run ends with `StoppedError`.

    Raises
    ------
    StoppedError
        When `should_stop` said so; the same call goes on from there.
    ShardDoneError
        When this shard's part is done and others are still at theirs.
    TasksFailedError
        When blocks failed; the others are done, and the same call repeats those.
    DestinationExistsError
        When something is at the destination that no run of floodem has made.
    RunConflictError
        When another process works there, or the run there had other options.
    FloodemError
        When an input is refused; nothing was written then.
    """
    request = SegmentRequest() if request is None else request
    cut = CutOptions() if cut is None else cut
    Outputs(labels=str(destination)).require_possible(may_be_remote=True)
    if not is_cut(image, destination, request=request, cut=cut, crew=crew, initial=initial):
        with ExitStack() as opened:
            return segment_block(
                opened.enter_context(image.open()) if isinstance(image, VolumeSource) else image,
                destination,
                model=model,
                request=request,
                progress=progress,
                notice=notice,
                should_stop=should_stop,
            )
    notices: list[str] = []

    def say(sentence: str) -> None:
        notices.append(sentence)
        if notice is not None:
            notice(sentence)

    uri = str(destination)
    record = RunRecord(uri)
    prepared = prepare_cut(
        image,
        destination,
        model=model,
        request=request,
        cut=cut,
        crew=crew,
        network=network,
        initial=initial,
    )
    for sentence in prepared.notices:
        say(sentence)
    if crew == ALONE:
        crew = Crew(workers=max(1, len(visible_cards())))
    crew = replace(crew, slots=FLOOD_SLOTS)
    with (
        holding(
            record.address,
            crew=crew,
            what=record.destination,
            should_stop=should_stop,
            notice=say,
        ) as hold,
        keeping_cluster(crew),
    ):
        made = run_stages(
            prepared,
            record,
            uri=uri,
            overwrite=request.overwrite,
            cut=cut,
            crew=crew,
            progress=progress,
            notice=say,
            should_stop=lambda: should_stop() or hold.is_lost(),
        )
    return replace(made, notices=tuple(notices))


def prepare_cut(
    image: str | Path | Volume | VolumeSource,
    destination: str | Path,
    *,
    model: str | Path | Model,
    request: SegmentRequest,
    cut: CutOptions,
    crew: Crew,
    network: str | None = None,
    initial: InitialLabels | None = None,
) -> Prepared:
    """Check everything that a cut run needs and plan its blocks; nothing is written.

    Raises
    ------
    FloodemError
        When anything is refused.
    """
    from floodem.network.model_file import load_model

    if not isinstance(model, str | Path):
        raise OptionError(
            "a loaded model cannot be sent to the blocks of a large volume: give its file"
        )
    uri = str(destination)
    outputs = Outputs(labels=uri)
    outputs.require_possible(may_be_remote=True)
    source = as_source(image)
    require_apart(outputs, image=source.uri, model=model, request=request)
    record = RunRecord(uri)
    earlier = None if request.overwrite else record.read()
    if cut.joins_again and (request.overwrite or earlier is None):
        raise OptionError(
            f"{record.destination} has no flooded blocks to join again, or they are to be "
            "replaced: run without --join-again"
        )
    return prepare(
        source,
        str(model),
        loaded=load_model(model),
        work=record.address,
        request=request,
        cut=cut,
        crew=crew,
        network=network,
        initial=initial,
        earlier=BlockPlan.from_json(earlier["plan"]["cut"]) if earlier else None,
    )


def as_source(image: str | Path | Volume | VolumeSource) -> VolumeSource:
    """Return where an image lies, so that other processes can open it too."""
    if isinstance(image, VolumeSource):
        return image
    return VolumeSource(uri=image.uri if isinstance(image, Volume) else str(image))


def is_cut(
    image: str | Path | Volume | VolumeSource,
    destination: str | Path,
    *,
    request: SegmentRequest,
    cut: CutOptions,
    crew: Crew,
    initial: InitialLabels | None = None,
) -> bool:
    """Tell whether a volume is cut: for its size, its destination, its crew, or on demand."""
    if cut.is_asked or crew != ALONE or initial is not None:
        return True
    if parse_location(destination).is_remote:
        return True
    if not request.overwrite:
        before = _was_cut(destination)
        if before is not None:
            return before
    box = request.box or _box(image)
    free = available_memory()
    return free is not None and box.size * MEMORY_BYTES_PER_VOXEL > free


def _was_cut(destination: str | Path) -> bool | None:
    """Tell how a run was begun there, whatever memory is free by now; None: none was."""
    try:
        return None if RunRecord(str(destination)).read() is None else True
    except RunConflictError:  # of an uncut one, which says best what is wrong
        return False


def _box(image: str | Path | Volume | VolumeSource) -> Box:
    if isinstance(image, Volume):
        return image.box
    with as_source(image).open() as volume:
        return volume.box
