"""One image segmented twice, and what both runs agree on: an image in, one segmentation out.

A network that has gone wrong in one place rarely does so again when the same seeds come in
the opposite order, nor does another network::

    image --seeds forward---> DST.floodem/forward/labels.zarr --+
    image --seeds backward--> DST.floodem/reverse/labels.zarr --+--consensus--> DST

With a second network the runs are called ``first`` and ``second``. Each is a run with a
record of its own, so that a chain that was stopped anywhere goes on there.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Oversegmentation consensus".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.assembly.consensus.make import make_consensus
from floodem.assembly.consensus.options import Consensus, ConsensusOptions
from floodem.assembly.preparation import FLOOD_SLOTS
from floodem.assembly.request import CutOptions
from floodem.assembly.run_record import RunRecord
from floodem.assembly.segment import segment
from floodem.cluster import ALONE, Crew, keeping_cluster
from floodem.cluster.holding import holding
from floodem.errors import OptionError, RunConflictError
from floodem.flooding.addresses import Outputs, require_apart
from floodem.flooding.request import Segmentation, SegmentRequest
from floodem.flooding.seeds import SeedPolicySpec
from floodem.progress import ProgressListener, named_notice, named_progress
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

REVERSE_SEEDS = "reverse-seeds"
"""What asks for the seeds in the opposite order, where a second network may be named."""

_REVERSE_POLICY, _REVERSED = "ReverseCoords", "policy_to_reverse"
_LABELS = "labels.zarr"
_PLACE = "orders"
_REPLACES = f"{_PLACE}/replaces"


def segment_by_consensus(
    image: str | Path | Volume | VolumeSource,
    destination: str | Path,
    *,
    model: str | Path | Model,
    consensus: str | Path = REVERSE_SEEDS,
    options: ConsensusOptions | None = None,
    request: SegmentRequest | None = None,
    cut: CutOptions | None = None,
    crew: Crew = ALONE,
    network: str | None = None,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Segmentation:
    """Segment an image twice and keep what both runs agree on, or go on where this was stopped.

    Parameters
    ----------
    image, model, request, cut, crew, network, progress, notice, should_stop
        As `floodem.assembly.segment.segment`; both runs have the same.
    destination
        Address for the consensus.
    consensus
        ``"reverse-seeds"``: the second run has the seeds of the first in the opposite order.
        Else a model file or name: the second run has that network.
    options
        Of the consensus (`make_consensus`), in which the first run is A.

    Returns
    -------
    Segmentation
        Its summary is that of the consensus, with ``counters`` summed over both runs and
        ``runs``: where they are.

    Raises
    ------
    StoppedError
        When `should_stop` said so; the same call goes on from there.
    ShardDoneError
        When this shard's part of a stage is done and others are still at theirs: shards
        are started three times, for each of the runs and for the consensus.
    DestinationExistsError, RunConflictError
        When something else is at the destination.
    FloodemError
        As `segment`, before anything is written.
    """
    request = SegmentRequest() if request is None else request
    cut = CutOptions() if cut is None else cut
    options = ConsensusOptions() if options is None else options
    uri, record = str(destination), RunRecord(str(destination))
    runs = _runs(record, model=model, consensus=consensus, request=request)
    _require_possible(image, uri, runs=runs, cut=cut, request=request)
    _require_same(record, runs=runs, options=options, request=request)
    floods = replace(crew, slots=FLOOD_SLOTS)
    made = []
    with (
        holding(
            f"{record.address.rstrip('/')}/{_PLACE}",
            crew=crew,
            what=record.destination,
            should_stop=should_stop,
        ),
        keeping_cluster(floods),
    ):
        replaces = _begin_again(record, request, crew=crew)
        for run in runs:
            found = segment(
                image,
                run.destination,
                model=run.model,
                request=run.request,
                cut=replace(cut, levels=0),
                crew=crew,
                network=network,
                progress=named_progress(progress, run.name),
                notice=named_notice(notice, run.name),
                should_stop=should_stop,
            )
            made.append(found)
        agreed = make_consensus(
            runs[0].destination,
            runs[1].destination,
            uri,
            options=options,
            # A cluster that is open for floods has taken its slots.
            crew=floods if crew.cluster is not None else crew,
            block=cut.block,
            levels=cut.levels,
            overwrite=replaces,
            progress=named_progress(progress, "consensus"),
            notice=named_notice(notice, "consensus"),
            should_stop=should_stop,
        )
    return _segmentation(agreed, made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One of the two runs."""

    name: str
    destination: str
    model: str | Path | Model
    request: SegmentRequest


def reversed_seeds(seeds: SeedPolicySpec) -> SeedPolicySpec:
    """Describe the seeds of a policy in the opposite order."""
    if seeds.name == _REVERSE_POLICY:
        args = {name: value for name, value in seeds.args.items() if name != _REVERSED}
        return SeedPolicySpec(seeds.args[_REVERSED], args)
    return SeedPolicySpec(_REVERSE_POLICY, {_REVERSED: seeds.name, **seeds.args})


def _runs(
    record: RunRecord,
    *,
    model: str | Path | Model,
    consensus: str | Path,
    request: SegmentRequest,
) -> tuple[_Run, _Run]:
    """Return the run that is split and the one that splits it."""
    folder = record.address.rstrip("/")
    if str(consensus) == REVERSE_SEEDS:
        names, models = ("forward", "reverse"), (model, model)
        floods = replace(request.options, seeds=reversed_seeds(request.options.seeds))
        requests = (request, replace(request, options=floods))
    else:
        names, models, requests = ("first", "second"), (model, consensus), (request, request)
    first, second = (
        _Run(
            name=name,
            destination=f"zarr://{folder}/{name}/{_LABELS}",
            model=one,
            request=asked,
        )
        for name, one, asked in zip(names, models, requests, strict=True)
    )
    return first, second


def _require_possible(
    image: str | Path | Volume | VolumeSource,
    uri: str,
    *,
    runs: tuple[_Run, _Run],
    cut: CutOptions,
    request: SegmentRequest,
) -> None:
    """Refuse what two runs and a consensus cannot do, or would destroy."""
    from floodem.network.model_file import load_model

    outputs = Outputs(labels=uri)
    outputs.require_possible(may_be_remote=True)
    for run in runs:
        read = image.uri if isinstance(image, VolumeSource) else image
        require_apart(outputs, image=read, model=run.model, request=request)
        if isinstance(run.model, str | Path):
            load_model(run.model)  # the second one is needed hours later
    if request.probabilities is not None:
        raise OptionError(
            f"probabilities ({request.probabilities}) are of a single run, and a consensus has "
            "two: leave them out"
        )
    if request.init_segmentation is not None:
        raise OptionError(
            f"the initial segmentation {request.init_segmentation} stays as it is, and a consensus "
            "splits: leave one of both out, or segment twice and use floodem consensus"
        )
    if cut.joins_again:
        raise OptionError(
            "--join-again is for a single run: join each of the two again where it is, and "
            "combine them with floodem consensus"
        )


def _require_same(
    record: RunRecord,
    *,
    runs: tuple[_Run, _Run],
    options: ConsensusOptions,
    request: SegmentRequest,
) -> None:
    """Refuse before hours of floods what the consensus would be refused for after them."""
    if request.overwrite:
        return
    there = record.read()
    if there is None:
        record.require_free(replaces=open_store(record.address).read(_REPLACES) is not None)
        return
    before = there["identity"]
    sources = [before[name].get("uri") for name in ("a", "b") if isinstance(before.get(name), dict)]
    if sources != [without_secrets(run.destination) for run in runs]:
        raise RunConflictError(
            f"{record.destination} was begun as something else than this consensus: repeat the "
            "earlier command to go on, choose another destination, or begin again with --overwrite"
        )
    if before.get("options") != options.to_json():
        raise RunConflictError(
            f"{record.destination} was begun with {before.get('options')}, now it is "
            f"{options.to_json()}: give both runs, {' and '.join(sources)}, and another "
            "destination to floodem consensus, which floods nothing again"
        )


def _begin_again(record: RunRecord, request: SegmentRequest, *, crew: Crew) -> bool:
    """Forget the earlier consensus, and tell whether it is still to be begun again.

    The runs come first, and the chain may be stopped there: what was asked for is kept until
    the consensus begins.
    """
    store = open_store(record.address)
    if request.overwrite:
        record.clear(crew=crew)
        store.write(_REPLACES, b"")
    return store.read(_REPLACES) is not None and record.read() is None


def _segmentation(agreed: Consensus, made: list[Segmentation]) -> Segmentation:
    counters: Counter[str] = Counter()
    for one in made:
        counters.update(one.summary["counters"])
    summary: Mapping[str, Any] = {
        **{name: value for name, value in agreed.summary.items() if name != "blocks"},
        "counters": dict(counters),
        "cut_short": [],
        "runs": [one.uri for one in made],
    }
    return Segmentation(
        uri=agreed.uri,
        box=agreed.box,
        folder=Path(agreed.folder),
        summary=summary,
        was_finished=agreed.was_finished,
        notices=tuple(dict.fromkeys(notice for one in made for notice in one.notices)),
    )
