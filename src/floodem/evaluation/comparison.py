"""Score a segmentation against truth: two label volumes in, an `Evaluation` out.

One pass over both volumes, block by block, counts which labels lie on each other;
scores and the worst mistakes come from those counts alone, and passes over the blocks
that hold the worst mistakes find where they lie. Blocks are compared in this process or
by a crew (floodem.evaluation.passes). docs/scores.md says what is counted.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from floodem.cluster.crew import ALONE, Crew
from floodem.cluster.dask_crew import keeping_cluster
from floodem.errors import LabelError, OptionError
from floodem.evaluation.alignment import BLOCK_VOXELS, Alignment, align
from floodem.evaluation.blocks import TABLE_VERSION, Comparison
from floodem.evaluation.bootstrap import score_intervals
from floodem.evaluation.borders import LEFT_OUT
from floodem.evaluation.intervals import Interval
from floodem.evaluation.mistakes import Mistake, worst_mergers, worst_splits
from floodem.evaluation.objects import ObjectCosts, object_costs
from floodem.evaluation.opening import Labelled, absolute, label_source, opening, require_work
from floodem.evaluation.passes import Passes, PassesHere, PassesInTasks
from floodem.evaluation.places import PartKey, facing_voxels
from floodem.evaluation.result import Evaluation
from floodem.evaluation.scores import scores
from floodem.evaluation.skeletons.from_truth import FROM_TRUTH, truth_skeletons
from floodem.evaluation.skeletons.scores import SkeletonScores
from floodem.evaluation.skeletons.scoring import (
    SkeletonOptions,
    Skeletons,
    Working,
    score_in,
)
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.progress import ProgressListener
from floodem.shapes.skeletons.swc import Unit
from floodem.shapes.source import LabelSource, require_voxel_size

_LARGEST_ID = 2**64 - 1

PAYS_VOXELS = 2**27
"""Fewer are compared in the seconds that other processes take to start, as one process decodes
chunks in several threads (benchmarks/results/evaluation.md)."""


def evaluate(
    segmentation: Labelled,
    truth: Labelled,
    *,
    box: Box | None = None,
    border: Zyx = (0, 0, 0),
    ignore: Sequence[int] = (0,),
    worst: int = 10,
    cremi_border_nm: float | None = None,
    skeletons: Skeletons | None = None,
    merge_nodes: int = 1,
    swc_unit: Unit | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    voxel_size: VoxelSize | None = None,
    block_voxels: int = BLOCK_VOXELS,
    crew: Crew = ALONE,
    work: str | Path | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Compare a segmentation with truth, voxel by voxel.

    Volumes are laid over each other by their own frames (arrays begin at 0, 0, 0)
    and compared over what both hold. The numbers depend on the voxels alone: not on
    blocks, crew or restarts.

    Parameters
    ----------
    segmentation, truth
        Label volumes or arrays (z, y, x) of any integer type, 0 for background; or
        where they are: addresses, or with more to say (level, channel, ...) a `LabelSource`.
    box
        Compare only these voxels.
    border
        Voxels left out at each face of what is compared, z, y, x.
    ignore
        Truth ids whose voxels do not count; empty to count all.
    worst
        How many splits and how many mergers to list and locate; 0 for none.
    cremi_border_nm
        Voxels so near to borders of the truth in their section are left out, and so is
        truth 2^64 - 1 (floodem.evaluation.borders); None: none are.
    skeletons
        Score along them, too: skeletons by id, their address, or `FROM_TRUTH`, which makes
        them of the truth and leaves out ignored ids. Nodes in the box compared count.
    merge_nodes
        A segment joins skeletons when it holds so many nodes of two or more.
    swc_unit
        Of SWC files that do not say theirs.
    bootstrap
        How often objects (and skeletons) are drawn again for intervals; 0 for none.
    seed
        Of these drawings.
    voxel_size
        Of both volumes, where they are wrong or do not say it.
    block_voxels
        How many voxels each process holds in memory at once.
    crew
        Who compares the blocks; other processes than this one need addresses. Less than
        `PAYS_VOXELS` are compared in this one, as others take longer to start.
    work
        Folder, or s3:// or gs:// address, for what was counted: a stopped run goes on
        with it, and other scores of the same voxels (`ignore`, `worst`) begin with it.
        Shards and clusters need one that all of them see. None: nothing is kept.
    progress, should_stop
        Told of voxels and blocks; asked between blocks.

    Raises
    ------
    GeometryError
        When the volumes have no voxel in common, their voxel sizes differ, or
        `box` or `border` does not fit them.
    LabelError
        When a volume does not hold labels, or no voxel is left to score.
    OptionError
        When `worst` is negative or an ignored id no label, or crew and work do not fit together.
    RunConflictError
        When `work` is of other volumes or voxels.
    ShardDoneError
        When this shard is done and others are not: the last one returns the scores.
    StoppedError
        When it was told to stop.
    """
    if any(not 0 <= label <= _LARGEST_ID for label in ignore):
        raise OptionError(f"ignored ids {list(ignore)} are not all from 0 to {_LARGEST_ID}")
    options = SkeletonOptions(
        merge_nodes=merge_nodes, worst=worst, bootstrap=bootstrap, seed=seed, swc_unit=swc_unit
    )
    with contextlib.ExitStack() as opened:
        sources = _sources(segmentation, truth, crew=crew, work=work)
        alignment = align(
            opened.enter_context(opening(segmentation, name="segmentation")),
            opened.enter_context(opening(truth, name="truth")),
            box=box,
            border=border,
            cremi_border_nm=cremi_border_nm,
            voxel_size=voxel_size,
            block_voxels=block_voxels,
        )
        is_kept = work is not None
        is_made = isinstance(skeletons, str) and skeletons == FROM_TRUTH
        if work is None and sources is not None and (crew != ALONE or is_made):
            work = opened.enter_context(tempfile.TemporaryDirectory(prefix="floodem-"))
        opened.enter_context(keeping_cluster(crew))
        how = Working(
            crew=crew,
            work=None if work is None else absolute(work),
            is_kept=is_kept,
            progress=progress,
            should_stop=should_stop,
        )
        passes = _passes(alignment, sources, how=how)
        result = _evaluated(alignment, passes, ignore=ignore, options=options, border=border)
        if skeletons is None:
            return result
        along = _along(alignment, sources, skeletons, ignore=ignore, options=options, how=how)
        return replace(result, skeletons=along)


def _passes(
    alignment: Alignment, sources: tuple[LabelSource, LabelSource] | None, *, how: Working
) -> Passes:
    """Return who goes over the blocks: this process, or a crew that leaves its counts behind."""
    crew = _crew_for(alignment, how.crew)
    if sources is None or how.work is None or (crew == ALONE and not how.is_kept):
        return PassesHere(alignment, progress=how.progress, should_stop=how.should_stop)
    return PassesInTasks(
        Comparison(
            segmentation=sources[0],
            truth=sources[1],
            blocks=alignment.blocks,
            work=how.work,
            border_radius=alignment.border_radius,
        ),
        crew=crew,
        identity=_identity(alignment, sources),
        progress=how.progress,
        should_stop=how.should_stop,
    )


def _evaluated(
    alignment: Alignment,
    passes: Passes,
    *,
    ignore: Sequence[int],
    options: SkeletonOptions,
    border: Zyx,
) -> Evaluation:
    found = passes.table()
    left_out = [*ignore, *([] if alignment.border_radius is None else [LEFT_OUT])]
    found = found.select(~np.isin(found.ids_b, np.array(left_out, dtype=np.uint64)))
    if not len(found):
        near = alignment.cremi_border_nm
        apart = "" if near is None else f" and voxels up to {near:g} nm from its borders"
        raise LabelError(
            f"{alignment.truth.uri} holds nothing but ignored labels {list(ignore)}{apart} in "
            f"{alignment.box} (z,y,x): choose another box or ignore fewer"
        )
    both = found.select(found.ids_a != 0)
    splits = worst_splits(both, limit=options.worst)
    mergers = worst_mergers(both, limit=options.worst)
    splits, mergers = _located(alignment, passes, splits=splits, mergers=mergers)
    costs = object_costs(found)
    return Evaluation(
        segmentation=alignment.segmentation.uri,
        truth=alignment.truth.uri,
        segmentation_box=alignment.segmentation.box,
        truth_box=alignment.truth.box,
        box=alignment.box,
        border=border,
        ignore=tuple(ignore),
        cremi_border_nm=alignment.cremi_border_nm,
        coverage=int(both.counts.sum()) / int(found.counts.sum()),
        all_truth=scores(found),
        where_both_label=scores(both) if len(both) else None,
        intervals=_intervals(costs, options),
        intervals_where_both=_intervals(object_costs(both), options),
        draws=options.bootstrap,
        seed=options.seed,
        worst_splits=tuple(splits),
        worst_mergers=tuple(mergers),
        object_costs=costs,
    )


def _intervals(costs: ObjectCosts, options: SkeletonOptions) -> Mapping[str, Interval]:
    if not options.bootstrap or not len(costs.ids):
        return {}
    return score_intervals(costs, draws=options.bootstrap, seed=options.seed)


def _along(
    alignment: Alignment,
    sources: tuple[LabelSource, LabelSource] | None,
    skeletons: Skeletons,
    *,
    ignore: Sequence[int],
    options: SkeletonOptions,
    how: Working,
) -> SkeletonScores:
    """Score along skeletons in the box compared, those of truth made first where asked for."""
    size = require_voxel_size(alignment.segmentation, alignment.voxel_size)
    how = replace(how, takes_rest=True)
    if isinstance(skeletons, str) and skeletons == FROM_TRUTH:
        if sources is None:
            raise OptionError(
                "skeletons are made of a truth with an address: write it to a file, or give "
                "skeletons"
            )
        skeletons = truth_skeletons(sources[1], voxel_size=size, leave_out=ignore, how=how)
    return score_in(
        alignment.segmentation,
        skeletons,
        source=None if sources is None else sources[0],
        voxel_size=size,
        box=alignment.box,
        options=options,
        how=how,
    )


def _sources(
    segmentation: Labelled, truth: Labelled, *, crew: Crew, work: str | Path | None
) -> tuple[LabelSource, LabelSource] | None:
    """Return where both volumes are, None where one is open already.

    Raises
    ------
    OptionError
        When who is to compare them cannot.
    """
    require_work(crew, work)
    sources = label_source(segmentation), label_source(truth)
    if sources[0] is None or sources[1] is None:
        if crew != ALONE or work is not None:
            raise OptionError(
                "arrays and open volumes are compared in this process and leave nothing behind: "
                "give addresses of both volumes with crew or work"
            )
        return None
    return sources[0], sources[1]


def _crew_for(alignment: Alignment, crew: Crew) -> Crew:
    """Return the crew, or this process alone where others would take longer to start."""
    is_small = alignment.box.size < PAYS_VOXELS or len(alignment.blocks) == 1
    return replace(crew, workers=1) if is_small and crew.cluster is None else crew


def _identity(alignment: Alignment, sources: tuple[LabelSource, LabelSource]) -> dict[str, Any]:
    identity = {
        "version": TABLE_VERSION,
        "segmentation": sources[0].identity(alignment.segmentation),
        "truth": sources[1].identity(alignment.truth),
    }
    radius = alignment.border_radius
    return identity if radius is None else identity | {"border_radius": radius}


def _located(
    alignment: Alignment,
    passes: Passes,
    *,
    splits: Sequence[Mistake],
    mergers: Sequence[Mistake],
) -> tuple[list[Mistake], list[Mistake]]:
    pairs = [*(_split_keys(split) for split in splits), *(_merger_keys(m) for m in mergers)]
    if not pairs:
        return [], []
    places = facing_voxels(passes.look, pairs, voxel_size=alignment.voxel_size)
    located = [
        mistake.with_positions(place)
        for mistake, place in zip([*splits, *mergers], places, strict=True)
    ]
    return located[: len(splits)], located[len(splits) :]


def _split_keys(split: Mistake) -> tuple[PartKey, PartKey]:
    first, second = split.largest
    return (first.id, split.id), (second.id, split.id)


def _merger_keys(merger: Mistake) -> tuple[PartKey, PartKey]:
    first, second = merger.largest
    return (merger.id, first.id), (merger.id, second.id)
