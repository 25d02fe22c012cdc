"""A merged volume: a segment graph and its base segmentation in, labels with merged ids out.

The base is read and stays as it is. Every block is read, its segments get the ids of their
wholes, and it is written, by whatever crew::

    graph --> mapping of ids (DST.floodem/mapping/merges.npz) --+
    base segmentation --(block by block)------------------------+--> DST, and the ids in it

What was stopped goes on, as long as the merges are the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from floodem.assembly.agglomeration.graph.base import identity_of, opened_base
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.merging import merged_ids
from floodem.assembly.agglomeration.graph.records import GraphHeader
from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.columns import pack_columns, unpack_columns
from floodem.assembly.destination import LabelDestination
from floodem.assembly.label_run import LabelRun, label_run
from floodem.assembly.output_chunks import USUAL_CHUNK
from floodem.assembly.run_record import RunRecord
from floodem.assembly.writing import PIECE_VOXELS, ChunkSums, pieces, require_going_on
from floodem.cluster import ALONE, Crew, Task
from floodem.errors import OptionError, OtherWorkError
from floodem.flooding.addresses import would_replace
from floodem.flooding.run_folder import RunStatus
from floodem.geometry import Zyx, block_edges
from floodem.labels import require_labels
from floodem.labels.runs import Labels, runs, sizes
from floodem.progress import ProgressListener
from floodem.shapes.source import LabelSource, close_source, opened_source
from floodem.volumes import open_volume
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

APPLY_VERSION = 1
"""Of the written labels; a run that was begun by another version is begun again."""

_MAPPING = "mapping/merges.npz"

_IDS_WAITING = 2**20
"""So many ids are counted at once at least; they take 8 MiB."""

Mapping64 = tuple[UInt64[np.ndarray, "ids"], UInt64[np.ndarray, "ids"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A merged volume.

    Attributes
    ----------
    uri
        Where it is.
    segments
        How many segments it has.
    joined
        How many base segments became part of a larger one.
    wholes
        How many merged segments they became.
    voxels, labelled
        How many voxels the volume has, and how many of them are no background.
    was_finished
        Whether an earlier call had made it already.
    """

    uri: str
    segments: int
    joined: int
    wholes: int
    voxels: int
    labelled: int
    was_finished: bool


def apply_merges(
    graph: str | Path,
    destination: str | Path,
    *,
    segmentation: str | Path | LabelSource | None = None,
    block: Zyx | None = None,
    crew: Crew = ALONE,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Applied:
    """Write the segmentation in which all merges of a graph are done.

    Parameters
    ----------
    graph
        The file of a segment graph.
    destination
        Where the labels (uint64) go: any format that holds them. Beside it,
        ``DESTINATION.floodem`` holds the record of the run.
    segmentation
        Where the base segmentation is now, if it was moved or copied.
    block
        Edges of what a task writes, z, y, x; None: proposed from the volume.
    crew
        Who does it.
    overwrite
        Begin again, and replace what is there.

    Raises
    ------
    OtherWorkError
        When the base segmentation is another one or was changed, or the volume at the
        destination was made, or begun, with other merges.
    OptionError
        When the destination is the base segmentation, its image or the graph.
    ShardDoneError
        When this shard's part is done and others are still at theirs.
    StoppedError
        When it was told to stop; the same call goes on.
    FloodemError
        When something is refused; the base and the graph are as before.
    """
    with SegmentGraph.open(graph) as opened:
        header, mapping = opened.header, opened.mapping()
    asked = None if segmentation is None else _source(segmentation, header)
    with opened_base(header, asked) as (source, volume):
        identity = {
            "kind": "merges",
            "version": APPLY_VERSION,
            "base": {"uri": without_secrets(source.uri), **identity_of(source, volume)},
            "mapping": _digest(mapping),
        }
        plan = _plan(volume, block)
        voxel_size = volume.voxel_size or header.voxel_size
    uri = str(destination)
    _require_apart(uri, graph=str(graph), base=source.uri, image=header.about.get("image"))
    if not overwrite:
        _require_these_merges(uri, identity, graph=str(graph))
    with label_run(
        uri,
        plan=plan,
        voxel_size=voxel_size,
        identity=identity,
        about={"graph": str(Path(graph).absolute()), "base": without_secrets(source.uri)},
        overwrite=overwrite,
        crew=crew,
        progress=progress,
        notice=notice or (lambda _: None),
        should_stop=should_stop,
    ) as run:
        summary = run.summary()
        was_finished = summary is not None
        if summary is None:
            summary = _written(run, source, mapping)
    return Applied(uri=uri, was_finished=was_finished, **summary)


def require_destination(
    destination: str | Path,
    *,
    graph: str | Path,
    segmentation: LabelSource,
    image: str,
    overwrite: bool = False,
) -> None:
    """Refuse a place where no merged volume could be written, before a graph is computed.

    Parameters
    ----------
    graph, segmentation, image
        The graph that is to be made, and from what.
    overwrite
        Whether what is there may be replaced.

    Raises
    ------
    OptionError
        When it is one of these.
    DestinationExistsError
        When something is there that no run of floodem has made.
    FloodemError
        When such labels cannot be written there.
    """
    uri = str(destination)
    _require_apart(uri, graph=str(graph), base=segmentation.uri, image=image)
    with segmentation.open() as volume:
        LabelDestination.choose(
            uri, plan=_plan(volume, None), voxel_size=volume.voxel_size, overwrite=overwrite
        ).require_possible()
    RunRecord(uri).require_free(replaces=overwrite)


def _require_apart(uri: str, *, graph: str, base: str, image: object) -> None:
    """Refuse to replace what a graph and its volume are made from, whatever may be overwritten."""
    output = parse_location(uri)
    read = {"base segmentation": base, "segment graph": graph, "image": image}
    for what, address in read.items():
        if isinstance(address, str) and would_replace(output, address):
            raise OptionError(
                f"{uri} is the {what}, which stays as it is: choose another destination"
            )


def _require_these_merges(uri: str, identity: Mapping[str, Any], *, graph: str) -> None:
    """Refuse a destination that was made from the same base before decisions of today."""
    there = RunRecord(uri).read()
    if there is None:
        return
    now = json.loads(json.dumps(identity))
    if there["identity"] != now and {**there["identity"], "mapping": now["mapping"]} == now:
        made = "made" if there["status"] == RunStatus.DONE else "begun"
        raise OtherWorkError(
            f"{uri} was {made} before these decisions, with other merges than {graph} has now: "
            "give another destination, or --overwrite to replace it"
        )


def _plan(volume: Volume, block: Zyx | None) -> BlockPlan:
    core = block or _core(volume.shape)
    return BlockPlan(box=volume.box, core=core, margin=(0, 0, 0), least=(1, 1, 1))


def _written(run: LabelRun, source: LabelSource, mapping: Mapping64) -> dict[str, Any]:
    """Write all blocks that are not written yet, and return the summary."""
    # The same bytes from every shard, so that it does not matter who is last.
    packed = pack_columns(dict(zip(("old", "new"), mapping, strict=True)), version=APPLY_VERSION)
    open_store(run.work).write(_MAPPING, packed)
    digest = _digest(mapping)
    tasks = [
        Task(
            key=block.key,
            argument=MergeTask(
                base=source,
                block=block,
                work=run.work,
                mapping=digest,
                target=run.destination.target,
            ),
        )
        for block in run.destination.plan
    ]
    try:
        if run.crew.shard is not None:
            run.destination.create()
            run.stage("labels", write_merged_task, tasks, says="writing labels")
        with run.resting() as rest:
            written = rest.write(write_merged_task, tasks)
            summary = {
                "segments": _count_segments(rest, tasks),
                "joined": len(mapping[0]),
                "wholes": len(np.unique(mapping[1])),
                "voxels": sum(one["voxels"] for one in written),
                "labelled": sum(one["labelled"] for one in written),
            }
            rest.done(summary)
    finally:
        close_source()
    return summary


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeTask:
    """One block of a merged volume.

    Attributes
    ----------
    base
        The base segmentation.
    work
        Address of the run's folder, with the mapping of ids.
    mapping
        Its digest.
    target
        Address of the volume to be filled.
    """

    base: LabelSource
    block: Block
    work: str
    mapping: str
    target: str


def write_merged_task(task: MergeTask) -> dict[str, Any]:
    """Write the core of a block with the ids of merged segments.

    Returns
    -------
    dict
        ``voxels`` of the core, how many are ``labelled``, and ``crc32c`` (as
        `floodem.assembly.writing.write_core_task`).

    Raises
    ------
    LabelError
        When the base holds negative numbers or no integers.
    VolumeFormatError
        When the mapping of ids is damaged.
    StorageError
        When the disk or the server refuses.
    StoppedError
        When the run was told to stop.
    """
    core = task.block.core
    mapping = _read_mapping(task.work, task.mapping)
    base = opened_source(task.base)
    labelled = 0
    with open_volume(task.target, writable=True, stores_background=True) as target:
        sums, seen = ChunkSums(core, chunks=target.chunks), np.zeros(0, np.uint64)
        for piece in pieces(core, chunks=target.chunks):
            require_going_on()
            labels = base.read(piece)
            require_labels(labels, what=f"the segmentation {base.uri}")
            found = renamed(labels, mapping)
            target.write(piece, found)
            sums.add(piece, found)
            labelled += int(np.count_nonzero(found))
            seen = np.union1d(seen, sizes(found)[0])
    packed = pack_columns({"ids": seen[seen != 0]}, version=APPLY_VERSION)
    open_store(task.work).write(_ids_of(task.block), packed)
    return {"voxels": core.size, "labelled": labelled, "crc32c": sums.total()}


def renamed(labels: Labels, mapping: Mapping64) -> UInt64[np.ndarray, "..."]:
    """Return labels with merged ids, of the same shape; ids that are not merged stay.

    Parameters
    ----------
    mapping
        Ascending old ids, and the new ones (`SegmentGraph.mapping`).
    """
    starts, lengths = runs(labels)
    values = merged_ids(labels.reshape(-1)[starts].astype(np.uint64), mapping)
    return np.repeat(values, lengths).reshape(labels.shape)


def _ids_of(block: Block) -> str:
    return f"mapping/{block.key}.npz"


def _count_segments(run: LabelRun, tasks: Sequence[Task]) -> int:
    """Count the ids that blocks have written, each once."""
    store, seen = open_store(run.work), np.zeros(0, np.uint64)
    waiting: list[UInt64[np.ndarray, "ids"]] = []
    rows = 0
    for task in tasks:
        name = _ids_of(task.argument.block)
        found = unpack_columns(
            store.read(name),
            like={"ids": np.zeros(0, np.uint64)},
            version=APPLY_VERSION,
            what="a list of ids",
            uri=f"{run.work}/{name}",
        )
        waiting.append(found["ids"])
        rows += len(found["ids"])
        # Sorted only when there are twice as many, so that the whole takes n log n.
        if rows > max(len(seen), _IDS_WAITING):
            seen, waiting, rows = np.unique(np.concatenate([seen, *waiting])), [], 0
    return len(np.unique(np.concatenate([seen, *waiting])))


@functools.lru_cache(maxsize=1)
def _read_mapping(work: str, digest: str) -> Mapping64:
    """Return the mapping of a run; the next block of this process needs it too."""
    found = unpack_columns(
        open_store(work).read(_MAPPING),
        like={"old": np.zeros(0, np.uint64), "new": np.zeros(0, np.uint64)},
        version=APPLY_VERSION,
        what="a mapping of merges",
        uri=f"{work}/{_MAPPING}",
    )
    mapping = found["old"], found["new"]
    if _digest(mapping) != digest:
        raise OptionError(f"{work}/{_MAPPING} is of other merges: begin again with --overwrite")
    return mapping


def _digest(mapping: Mapping64) -> str:
    digest = hashlib.sha256()
    for ids in mapping:
        digest.update(np.ascontiguousarray(ids, "<u8").tobytes())
    return digest.hexdigest()


def _core(shape: Zyx) -> Zyx:
    """Choose blocks of whole chunks from the volume alone, so that all shards choose the same."""
    return block_edges((USUAL_CHUNK,) * 3, reach=shape, voxels=PIECE_VOXELS)


def _source(segmentation: str | Path | LabelSource, header: GraphHeader) -> LabelSource:
    if isinstance(segmentation, LabelSource):
        return segmentation
    return replace(header.segmentation, uri=str(segmentation))
