"""Skeleton scores of a segmentation: labels and skeletons in, `SkeletonScores` out.

::

    skeletons  -->  nodes in the box  -->  segment of each node  -->  edges judged  -->  scores
    (files, or      (nodes)                (labelling: blocks,        (edges,
     from truth)                            here or by a crew)         mistakes)

The numbers depend on voxels and skeletons alone: not on blocks, crew or restarts.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from floodem.cluster.crew import ALONE, Crew
from floodem.cluster.dask_crew import keeping_cluster
from floodem.errors import GeometryError, OptionError
from floodem.evaluation.bootstrap import drawn_run_lengths, interval
from floodem.evaluation.intervals import Interval
from floodem.evaluation.opening import Labelled, absolute, label_source, opening, require_work
from floodem.evaluation.skeletons.edges import judge_edges
from floodem.evaluation.skeletons.labelling import (
    group_nodes,
    look_up_here,
    look_up_in_tasks,
)
from floodem.evaluation.skeletons.mistakes import find_gaps, worst_mergers, worst_splits
from floodem.evaluation.skeletons.nodes import NumberedSkeleton, SkeletonNodes, gather_nodes
from floodem.evaluation.skeletons.reading import read_skeletons
from floodem.evaluation.skeletons.scores import SkeletonRuns, SkeletonScores
from floodem.geometry import Box, VoxelSize
from floodem.progress import ProgressListener
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.skeletons.swc import Unit
from floodem.shapes.source import LabelSource, require_voxel_size
from floodem.volumes.volume import Volume

Skeletons = str | Path | Mapping[int, Skeleton] | Iterable[NumberedSkeleton]
"""Where skeletons are, or they themselves with their ids."""

PAYS_NODES = 2**20
"""Fewer are looked up in the seconds that other processes take to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonOptions:
    """What is counted along skeletons.

    Attributes
    ----------
    merge_nodes
        A segment joins skeletons when it holds at least so many nodes of two or more.
    worst
        How many splits and how many mergers to list.
    bootstrap
        How often skeletons are drawn for an interval; 0 for none.
    seed
        Of these drawings.
    swc_unit
        Of SWC files that do not say theirs.
    """

    merge_nodes: int = 1
    worst: int = 10
    bootstrap: int = 0
    seed: int = 0
    swc_unit: Unit | None = None

    def __post_init__(self) -> None:
        if self.merge_nodes < 1:
            raise OptionError(
                f"merge_nodes is {self.merge_nodes}: give 1 or more, as a segment without a node "
                "of a skeleton joins nothing"
            )
        if self.worst < 0 or self.bootstrap < 0 or self.seed < 0:
            raise OptionError(
                f"worst {self.worst}, bootstrap {self.bootstrap} and seed {self.seed} must not be "
                "negative"
            )


DEFAULT = SkeletonOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """Who looks up nodes, and how.

    Attributes
    ----------
    crew, work, progress, should_stop
        As `score_skeletons` takes them.
    is_kept
        Whether `work` outlives this call, and may hold what an earlier one did.
    block_voxels
        About how many voxels each process reads at once.
    takes_rest
        Whether this follows on work that shards shared.
    """

    crew: Crew = ALONE
    work: str | None = None
    is_kept: bool = False
    progress: ProgressListener | None = None
    should_stop: Callable[[], bool] = lambda: False
    block_voxels: int | None = None
    takes_rest: bool = False


def score_skeletons(
    segmentation: Labelled,
    skeletons: Skeletons,
    *,
    voxel_size: VoxelSize | None = None,
    box: Box | None = None,
    options: SkeletonOptions = DEFAULT,
    block_voxels: int | None = None,
    crew: Crew = ALONE,
    work: str | Path | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SkeletonScores:
    """Score a segmentation along skeletons of the truth.

    Parameters
    ----------
    segmentation
        Label volume or array (z, y, x; it begins at 0, 0, 0), 0 for background; or where
        it is.
    skeletons
        Skeletons by id, in nanometres of the segmentation's frame; or where they are: a
        folder of precomputed skeletons or SWC files, or an SWC file.
    voxel_size
        Of the segmentation; by default what it states.
    box
        Nodes outside are left out; by default what the segmentation holds.
    options
        What is counted, and what listed.
    block_voxels
        About how many voxels each process reads at once.
    crew
        Who looks up nodes; other processes than this one need an address of the segmentation.
        Fewer than `PAYS_NODES` are looked up in this one, as others take longer to start.
    work
        Folder, or s3:// or gs:// address, for what was looked up: a stopped run goes on with
        it, and other options of the same skeletons begin with it. None: nothing is kept.
    progress, should_stop
        Told of blocks; asked between blocks.

    Raises
    ------
    GeometryError
        When no node lies in the box, or the box not in the segmentation.
    LabelError
        When the segmentation holds no labels, or the skeletons no edge.
    OptionError
        When the voxel size is not known, or crew and work do not fit together.
    RunConflictError, ShardDoneError, StoppedError
        As `floodem.cluster.run_tasks`.
    VolumeFormatError, VolumeNotFoundError, StorageError
        When something cannot be read.
    """
    require_work(crew, work)
    source = label_source(segmentation)
    if source is None and (crew != ALONE or work is not None):
        raise OptionError(
            "nodes in an array or an open volume are looked up in this process, which leaves "
            "nothing behind: give the address of the segmentation with crew or work"
        )
    with opening(segmentation, name="segmentation") as volume, keeping_cluster(crew):
        how = Working(
            crew=crew,
            work=None if work is None else absolute(work),
            is_kept=work is not None,
            progress=progress,
            should_stop=should_stop,
            block_voxels=block_voxels,
        )
        size = require_voxel_size(volume, voxel_size)
        return score_in(
            volume, skeletons, source=source, voxel_size=size, box=box, options=options, how=how
        )


def score_in(
    volume: Volume,
    skeletons: Skeletons,
    *,
    source: LabelSource | None,
    voxel_size: VoxelSize,
    box: Box | None,
    options: SkeletonOptions,
    how: Working,
) -> SkeletonScores:
    """Score an open segmentation; see `score_skeletons`."""
    if box is not None and not volume.box.contains(box):
        raise GeometryError(
            f"box {box} is not inside {volume.uri}, which holds {volume.box} (z,y,x)"
        )
    scored = box or volume.box
    nodes = gather_nodes(_numbered(skeletons, options.swc_unit), box=scored, voxel_size=voxel_size)
    segments = _look_up(volume, nodes, source=source, how=how)
    return scores_of(nodes, segments, options=options)


def scores_of(nodes: SkeletonNodes, segments: Any, *, options: SkeletonOptions) -> SkeletonScores:
    """Score nodes whose segments are known.

    Parameters
    ----------
    segments
        Id of each node's segment, unsigned integers; 0: in none.
    """
    judged = judge_edges(nodes, segments, merge_nodes=options.merge_nodes)
    gaps, gap_count = find_gaps(judged)
    runs = SkeletonRuns(
        ids=nodes.ids,
        squared_runs=judged.squared_runs(),
        lengths_nm=judged.skeleton_lengths(),
    )
    return SkeletonScores(
        skeletons=len(nodes.ids),
        length_nm=judged.length_nm,
        nodes=len(nodes),
        outside=nodes.outside,
        coverage=float(np.mean(np.asarray(segments) != 0)),
        erl_nm=judged.erl_nm(),
        possible_erl_nm=judged.possible_erl_nm(),
        correct=judged.share(judged.is_correct),
        split=judged.share(judged.is_split),
        omitted=judged.share(judged.is_omitted),
        merged=judged.share(judged.is_merged),
        splits=int(judged.is_split.sum()),
        gaps=gap_count,
        mergers=int(judged.joins.sum()),
        merge_nodes=options.merge_nodes,
        erl_interval=_interval(runs, options) if options.bootstrap else None,
        worst_splits=tuple(worst_splits(judged, gaps, limit=options.worst)),
        worst_mergers=tuple(
            worst_mergers(judged, merge_nodes=options.merge_nodes, limit=options.worst)
        ),
        runs=runs,
    )


def _interval(runs: SkeletonRuns, options: SkeletonOptions) -> Interval:
    drawn = drawn_run_lengths(
        runs.squared_runs, runs.lengths_nm, draws=options.bootstrap, seed=options.seed
    )
    return interval(drawn)


def _numbered(skeletons: Skeletons, unit: Unit | None) -> Iterable[NumberedSkeleton]:
    if isinstance(skeletons, str | Path):
        return read_skeletons(skeletons, unit=unit)
    if isinstance(skeletons, Mapping):
        return iter(skeletons.items())
    return skeletons


def _look_up(
    volume: Volume, nodes: SkeletonNodes, *, source: LabelSource | None, how: Working
) -> Any:
    """Return the segment of each node, looked up here or by the crew."""
    blocks = group_nodes(nodes.voxels, volume=volume, block_voxels=how.block_voxels)
    is_small = len(nodes) < PAYS_NODES and how.crew.cluster is None
    crew = replace(how.crew, workers=1) if is_small else how.crew
    if source is None or (crew == ALONE and not how.is_kept):
        return look_up_here(volume, blocks, progress=how.progress, should_stop=how.should_stop)
    with contextlib.ExitStack() as opened:
        work = how.work
        if work is None:
            work = opened.enter_context(tempfile.TemporaryDirectory(prefix="floodem-"))
        return look_up_in_tasks(
            source,
            blocks,
            work=work,
            identity={
                "segmentation": source.identity(volume),
                "nodes": hashlib.sha256(nodes.voxels.tobytes()).hexdigest(),
                "blocks": [len(blocks), how.block_voxels],
            },
            crew=crew,
            takes_rest=how.takes_rest,
            progress=how.progress,
            should_stop=how.should_stop,
        )
