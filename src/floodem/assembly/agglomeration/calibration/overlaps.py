"""How a base segmentation lies over truth: two volumes in, one table of overlaps out.

The voxels are read once, block by block, by whatever crew; every rule is then judged from
the table alone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from floodem.cluster import ALONE, Crew, keeping_cluster
from floodem.errors import OptionError
from floodem.evaluation.alignment import Alignment, align
from floodem.evaluation.blocks import TABLE_VERSION, Comparison
from floodem.evaluation.comparison import PAYS_VOXELS
from floodem.evaluation.passes import Passes, PassesHere, PassesInTasks
from floodem.geometry import Box, Zyx
from floodem.labels import OverlapTable
from floodem.progress import ProgressListener
from floodem.shapes.source import LabelSource
from floodem.volumes.servers.addresses import is_remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """Which voxels of a base segmentation and of truth are laid over each other, and by whom.

    Attributes
    ----------
    box
        Only these voxels; None: all that both hold.
    border
        Voxels left out at each face of that, z, y, x.
    crew
        Who counts.
    work
        Folder or address for what was counted, to go on with; shards and clusters need one.
    progress, should_stop
        Told of voxels; asked between blocks.
    """

    box: Box | None = None
    border: Zyx = (0, 0, 0)
    crew: Crew = ALONE
    work: str | Path | None = None
    progress: ProgressListener | None = None
    should_stop: Callable[[], bool] = lambda: False


def count_overlaps(
    segmentation: LabelSource, truth: LabelSource, *, counting: Counting
) -> OverlapTable:
    """Count which segments lie on which objects of the truth.

    Returns
    -------
    OverlapTable
        Segments as `ids_a`, truth objects as `ids_b`; background and truth 0 included.

    Raises
    ------
    GeometryError
        When the volumes have no voxel in common, or `box` or `border` does not fit them.
    LabelError
        When a volume does not hold labels.
    OptionError
        When a shard or cluster has no `work`.
    RunConflictError, ShardDoneError, StoppedError, StorageError
        As `floodem.evaluation.evaluate`.
    """
    crew, work = counting.crew, counting.work
    if work is None and (crew.shard is not None or crew.cluster is not None):
        raise OptionError(
            "shards and clusters leave what they count in a folder that all of them see: name it "
            "with --work (work)"
        )
    with contextlib.ExitStack() as opened:
        alignment = align(
            opened.enter_context(segmentation.open()),
            opened.enter_context(truth.open()),
            box=counting.box,
            border=counting.border,
        )
        if crew.cluster is None and alignment.box.size < PAYS_VOXELS:
            crew = replace(crew, workers=1)
        passes: Passes
        if crew == ALONE and work is None:
            passes = PassesHere(
                alignment, progress=counting.progress, should_stop=counting.should_stop
            )
        else:
            if work is None:
                work = opened.enter_context(tempfile.TemporaryDirectory(prefix="floodem-"))
            opened.enter_context(keeping_cluster(crew))
            passes = _in_tasks(
                alignment, (segmentation, truth), counting=replace(counting, crew=crew, work=work)
            )
        return passes.table()


def _in_tasks(
    alignment: Alignment, sources: tuple[LabelSource, LabelSource], *, counting: Counting
) -> PassesInTasks:
    work = str(counting.work)
    segmentation, truth = sources
    return PassesInTasks(
        Comparison(
            segmentation=segmentation,
            truth=truth,
            blocks=alignment.blocks,
            work=work if is_remote(work) else os.path.abspath(work),
        ),
        crew=counting.crew,
        identity={
            "version": TABLE_VERSION,
            "segmentation": segmentation.identity(alignment.segmentation),
            "truth": truth.identity(alignment.truth),
        },
        progress=counting.progress,
        should_stop=counting.should_stop,
    )
