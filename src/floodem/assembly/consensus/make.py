"""The consensus of two segmentations of any size: two addresses in, one label volume out.

::

    pieces ---> touching ---> ids-a, ids-b ---> pairs ---> labels -> levels -> in place
    (blocks)    (blocks)      (once each)       (once)     (blocks)

Every stage has its receipts in ``DST.floodem``, so that a run that was stopped anywhere
goes on there. The voxels do not depend on how the volume is cut, nor on who does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.consensus.gathering import (
    CleanTask,
    Gathering,
    PairTask,
    clean,
    number_pairs,
)
from floodem.assembly.consensus.options import Consensus, ConsensusOptions
from floodem.assembly.consensus.overlay import Overlay, lay_over
from floodem.assembly.consensus.tables import ConsensusTables
from floodem.assembly.consensus.tasks import (
    SIDES,
    BlockTask,
    find_pieces_task,
    find_touching_task,
    write_consensus_task,
)
from floodem.assembly.label_run import LabelRun, label_run
from floodem.assembly.output_chunks import USUAL_CHUNK
from floodem.cluster import ALONE, Crew, Task
from floodem.errors import DestinationExistsError
from floodem.flooding.addresses import would_replace
from floodem.geometry import Box, Zyx, block_edges
from floodem.progress import ProgressListener
from floodem.shapes.source import LabelSource, close_source
from floodem.volumes.location import parse_location

BLOCK_VOXELS = 2**24
"""Voxels of a block where none is asked for; a task takes 25 to 35 bytes for each."""

_CHUNKS = (USUAL_CHUNK, USUAL_CHUNK, USUAL_CHUNK)


def make_consensus(
    a: str | Path | LabelSource,
    b: str | Path | LabelSource,
    destination: str | Path,
    *,
    options: ConsensusOptions | None = None,
    box: Box | None = None,
    crew: Crew = ALONE,
    block: Zyx | None = None,
    levels: int | Literal["auto"] = "auto",
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Consensus:
    """Split the objects of one segmentation where another one sees several.

    Every pair (object of A, object of B) that shares voxels becomes a segment. It lies in
    one object of each, so that a merger of either is undone where the other one has none.
    Voxels without an object in A have none in the result; where only A has one, the pair is
    (A's id, 0).

    First, each of the two is cleaned within the box:

    1. Objects are split into 6-connected components (`ConsensusOptions.split_components`).
       The largest one keeps the object's id; of equally large ones the one whose first voxel
       in C order comes first. The others are numbered on from the largest id of that
       segmentation, in the order of (object's id, first voxel in C order).
    2. What has fewer voxels than `ConsensusOptions.min_size` becomes background.

    Then the pairs get their ids. A's id stays with its largest partner; of equally large
    ones with that of the smaller id in B, of which 0 is one. The others are numbered on from
    the largest id that is left in A, in the order of (id in B, id in A). Pieces with fewer
    voxels than `ConsensusOptions.split_min_size` become background and take no number.

    Parameters
    ----------
    a, b
        The segmentation that is split, and the one that splits it. Both lie in one frame,
        and their voxel sizes are the same or whole multiples on each axis: voxels of the
        coarser one are repeated, and all sizes count voxels of the finer one. Where B has no
        voxels it counts as 0. Where one states no voxel size they are taken for the same.
    destination
        Address for the labels (uint64), which lie where A lies.
    box
        Part of A, in voxels of the finer one; what is outside does not count at all.
    crew
        Who does the work.
    block
        Edges of a block, z, y, x; by default about 2**24 voxels. The labels do not depend
        on it.
    levels
        Coarser levels of the result; ``"auto"``: as many as it takes, where the format has
        them.
    overwrite
        Begin again, and replace what is there.
    notice
        Called with what is to be known of the crew, such as the loss of a worker.
    should_stop
        Asked between tasks; when it answers True the run ends with `StoppedError`, and the
        same call goes on.

    Returns
    -------
    Consensus
        What was made.

    Raises
    ------
    StoppedError
        When `should_stop` said so.
    ShardDoneError
        When this shard's part is done and others are still at theirs.
    DestinationExistsError
        When something is at the destination that no run of floodem has made, or it is one
        of the two.
    RunConflictError
        When another process works there, or the run there was of something else.
    GeometryError
        When the two do not lie over each other, or their voxels do not fit.
    LabelError
        When one holds no labels, or ids would reach 2**64.
    FloodemError
        When anything else is refused; nothing was written then.

    Notes
    -----
    Blocks are read and written by tasks. One process brings their tables together and
    holds them in memory: about 100 MB for each million pieces (what a block has of an object),
    and the same for each million pairs.

    References
    ----------
    Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Oversegmentation
    consensus".
    """
    options = ConsensusOptions() if options is None else options
    uri = str(destination)
    source_a, source_b = _source(a), _source(b)
    _require_apart(uri, a=source_a, b=source_b)
    overlay, identity = lay_over(source_a, source_b, box=box)
    plan = BlockPlan(
        box=overlay.box,
        core=block or block_edges(_CHUNKS, reach=overlay.box.shape, voxels=BLOCK_VOXELS),
        margin=(0, 0, 0),
    )
    with label_run(
        uri,
        plan=plan,
        voxel_size=overlay.voxel_size,
        identity={"kind": "consensus", **identity, "options": options.to_json()},
        about={"a": source_a.uri, "b": source_b.uri},
        overwrite=overwrite,
        crew=crew,
        progress=progress,
        notice=notice or _say_nothing,
        should_stop=should_stop,
        levels=levels,
    ) as run:
        summary = run.summary()
        was_finished = summary is not None
        if summary is None:
            summary = _made(run, overlay, options=options)
        return Consensus(
            uri=uri,
            box=plan.box,
            folder=run.work,
            summary=summary,
            was_finished=was_finished,
        )


def _say_nothing(sentence: str) -> None:
    """Tell nobody."""


def _source(given: str | Path | LabelSource) -> LabelSource:
    return given if isinstance(given, LabelSource) else LabelSource(uri=str(given))


def _require_apart(uri: str, *, a: LabelSource, b: LabelSource) -> None:
    output = parse_location(uri)
    for source in (a, b):
        if would_replace(output, source.uri):
            raise DestinationExistsError(
                f"{uri} is one of the segmentations that are compared and was left as it is: "
                "choose another destination"
            )


def _made(run: LabelRun, overlay: Overlay, *, options: ConsensusOptions) -> dict[str, Any]:
    """Do the stages that are left and return the summary."""
    plan = run.destination.plan
    tables = ConsensusTables(address=run.work, plan=plan)
    splits = options.split_components
    tasks = [
        Task(
            key=block.key,
            argument=BlockTask(
                overlay=overlay,
                tables=tables,
                block=block,
                splits=splits,
                target=run.destination.target,
            ),
        )
        for block in plan
    ]
    try:
        counts = run.stage("pieces", find_pieces_task, tasks, says="comparing blocks")
        with run.resting() as rest:
            if splits and len(plan) > 1:
                rest.stage("touching", find_touching_task, tasks, says="looking over faces")
            numbers = _numbered(rest, tables, counts=counts, options=options)
            written = rest.write(write_consensus_task, tasks)
            labelled_a = sum(count["labelled_a"] for count in counts)
            labelled = sum(block["labelled"] for block in written)
            summary = {
                **numbers,
                "labelled_a": labelled_a,
                "labelled": labelled,
                "kept": labelled / labelled_a if labelled_a else 1.0,
                "covered": labelled / plan.box.size,
                "blocks": len(plan),
            }
            rest.done(summary)
    finally:
        close_source()
    return summary


def _numbered(
    run: LabelRun,
    tables: ConsensusTables,
    *,
    counts: Sequence[Mapping[str, Any]],
    options: ConsensusOptions,
) -> dict[str, Any]:
    """Give all pieces and pairs their ids, and return how many there are."""
    gathering = Gathering(
        tables=tables, counts=counts, progress=run.progress, should_stop=run.should_stop
    )
    a, b = (
        run.once(
            f"ids-{side}",
            clean,
            CleanTask(
                gathering=gathering,
                side=side,
                splits=options.split_components,
                min_size=options.min_size,
            ),
        )
        for side in SIDES
    )
    pairs = run.once(
        "pairs",
        number_pairs,
        PairTask(
            gathering=gathering,
            largest_a=a["largest_id"],
            split_min_size=options.split_min_size,
        ),
    )
    return {
        **pairs,
        "objects_a": a["objects"],
        "objects_b": b["objects"],
        "segments_a": a["segments"],
        "segments_b": b["segments"],
    }
