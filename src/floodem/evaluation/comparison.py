"""Score a segmentation against truth: two label volumes in, an `Evaluation` out.

One pass over both volumes, block by block, counts which labels lie on each other;
scores and the worst mistakes come from those counts alone, and passes over the blocks
that hold the worst mistakes find where they lie. Blocks are compared in this process or
by a crew (floodem.evaluation.passes). docs/scores.md says what is counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from floodem.cluster.crew import ALONE, Crew
from floodem.cluster.dask_crew import keeping_cluster
from floodem.errors import LabelError, OptionError
from floodem.evaluation.alignment import BLOCK_VOXELS, Alignment, align
from floodem.evaluation.blocks import TABLE_VERSION, Comparison
from floodem.evaluation.mistakes import Mistake, worst_mergers, worst_splits
from floodem.evaluation.objects import ObjectCosts, object_costs
from floodem.evaluation.passes import Passes, PassesHere, PassesInTasks
from floodem.evaluation.places import PartKey, facing_voxels
from floodem.evaluation.scores import Scores, scores
from floodem.geometry import Box, Zyx
from floodem.labels.runs import Labels
from floodem.progress import ProgressListener
from floodem.shapes.source import LabelSource
from floodem.volumes.in_memory import ArrayVolume
from floodem.volumes.servers.addresses import is_remote
from floodem.volumes.volume import Volume

FORMAT_VERSION = 1

PAYS_VOXELS = 2**27
"""Fewer are compared in the seconds that other processes take to start, as one process decodes
chunks in several threads (benchmarks/results/evaluation.md)."""

Labelled = Volume | Labels | LabelSource | str | Path
"""Labels in memory, open, or by their address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a segmentation is worth against truth, and where it goes wrong.

    Attributes
    ----------
    segmentation, truth
        The names of the volumes.
    segmentation_box, truth_box
        What they hold, z, y, x.
    box
        The voxels compared: what both hold, less the border.
    border, ignore
        As given: voxels left out at each face (z, y, x) and truth ids left out.
    coverage
        Share of the truth's voxels that the segmentation labels, 0 to 1.
    all_truth
        Scores over all voxels that truth labels; unlabelled voxels of the
        segmentation count as one segment.
    where_both_label
        Scores over the voxels that both label; None where there are none.
    worst_splits, worst_mergers
        The costliest mistakes where both label, the worst first.
    object_costs
        What each object of the truth costs over all truth.
    """

    segmentation: str
    truth: str
    segmentation_box: Box
    truth_box: Box
    box: Box
    border: Zyx
    ignore: tuple[int, ...]
    coverage: float
    all_truth: Scores
    where_both_label: Scores | None
    worst_splits: tuple[Mistake, ...]
    worst_mergers: tuple[Mistake, ...]
    object_costs: ObjectCosts | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings and lists, with a format version."""
        both = self.where_both_label
        return {
            "format": "floodem evaluation",
            "version": FORMAT_VERSION,
            "segmentation": {"uri": self.segmentation, "box_zyx": str(self.segmentation_box)},
            "truth": {"uri": self.truth, "box_zyx": str(self.truth_box)},
            "box_zyx": str(self.box),
            "border_zyx": list(self.border),
            "ignore": list(self.ignore),
            "coverage": self.coverage,
            "all_truth": asdict(self.all_truth),
            "where_both_label": None if both is None else asdict(both),
            "worst_splits": [_mistake_dict(split, part="segment") for split in self.worst_splits],
            "worst_mergers": [
                _mistake_dict(merger, part="object") for merger in self.worst_mergers
            ],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def evaluate(
    segmentation: Labelled,
    truth: Labelled,
    *,
    box: Box | None = None,
    border: Zyx = (0, 0, 0),
    ignore: Sequence[int] = (0,),
    worst: int = 10,
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
        When `worst` or an ignored id is negative, or crew and work do not fit together.
    RunConflictError
        When `work` is of other volumes or voxels.
    ShardDoneError
        When this shard is done and others are not: the last one returns the scores.
    StoppedError
        When it was told to stop.
    """
    if worst < 0 or any(label < 0 for label in ignore):
        raise OptionError(f"worst {worst} and ignored ids {list(ignore)} must not be negative")
    with contextlib.ExitStack() as opened:
        sources = _sources(segmentation, truth, crew=crew, work=work)
        alignment = align(
            opened.enter_context(_opening(segmentation, name="segmentation")),
            opened.enter_context(_opening(truth, name="truth")),
            box=box,
            border=border,
            block_voxels=block_voxels,
        )
        crew = _crew_for(alignment, crew)
        passes: Passes
        if sources is None or (crew == ALONE and work is None):
            passes = PassesHere(alignment, progress=progress, should_stop=should_stop)
        else:
            if work is None:
                work = opened.enter_context(tempfile.TemporaryDirectory(prefix="floodem-"))
            opened.enter_context(keeping_cluster(crew))
            passes = PassesInTasks(
                Comparison(
                    segmentation=sources[0],
                    truth=sources[1],
                    blocks=alignment.blocks,
                    work=_absolute(work),
                ),
                crew=crew,
                identity=_identity(alignment, sources),
                progress=progress,
                should_stop=should_stop,
            )
        return _evaluated(alignment, passes, ignore=ignore, worst=worst, border=border)


def _evaluated(
    alignment: Alignment, passes: Passes, *, ignore: Sequence[int], worst: int, border: Zyx
) -> Evaluation:
    found = passes.table()
    found = found.select(~np.isin(found.ids_b, np.array(ignore, dtype=np.uint64)))
    if not len(found):
        raise LabelError(
            f"{alignment.truth.uri} holds nothing but ignored labels {list(ignore)} in "
            f"{alignment.box} (z,y,x): choose another box or ignore fewer"
        )
    both = found.select(found.ids_a != 0)
    splits, mergers = worst_splits(both, limit=worst), worst_mergers(both, limit=worst)
    splits, mergers = _located(alignment, passes, splits=splits, mergers=mergers)
    return Evaluation(
        segmentation=alignment.segmentation.uri,
        truth=alignment.truth.uri,
        segmentation_box=alignment.segmentation.box,
        truth_box=alignment.truth.box,
        box=alignment.box,
        border=border,
        ignore=tuple(ignore),
        coverage=int(both.counts.sum()) / int(found.counts.sum()),
        all_truth=scores(found),
        where_both_label=scores(both) if len(both) else None,
        worst_splits=tuple(splits),
        worst_mergers=tuple(mergers),
        object_costs=object_costs(found),
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
    if (crew.shard is not None or crew.cluster is not None) and work is None:
        raise OptionError(
            "shards and clusters leave what they count in a folder that all of them see: name it "
            "with --work (work)"
        )
    sources = _source(segmentation), _source(truth)
    if sources[0] is None or sources[1] is None:
        if crew != ALONE or work is not None:
            raise OptionError(
                "arrays and open volumes are compared in this process and leave nothing behind: "
                "give addresses of both volumes with crew or work"
            )
        return None
    return sources[0], sources[1]


def _source(labels: Labelled) -> LabelSource | None:
    if isinstance(labels, str | Path):
        return LabelSource(uri=str(labels))
    return labels if isinstance(labels, LabelSource) else None


def _opening(labels: Labelled, *, name: str) -> AbstractContextManager[Volume]:
    """Open an address, to be closed again; what is open already stays open."""
    source = _source(labels)
    if source is not None:
        return source.open()
    if isinstance(labels, Volume):
        return contextlib.nullcontext(labels)
    assert isinstance(labels, np.ndarray)
    return contextlib.nullcontext(ArrayVolume(labels, uri=name))


def _crew_for(alignment: Alignment, crew: Crew) -> Crew:
    """Return the crew, or this process alone where others would take longer to start."""
    is_small = alignment.box.size < PAYS_VOXELS or len(alignment.blocks) == 1
    return replace(crew, workers=1) if is_small and crew.cluster is None else crew


def _absolute(work: str | Path) -> str:
    """Return an address that means the same to workers elsewhere."""
    return str(work) if is_remote(str(work)) else os.path.abspath(work)


def _identity(alignment: Alignment, sources: tuple[LabelSource, LabelSource]) -> dict[str, Any]:
    return {
        "version": TABLE_VERSION,
        "segmentation": sources[0].identity(alignment.segmentation),
        "truth": sources[1].identity(alignment.truth),
    }


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


def _mistake_dict(mistake: Mistake, *, part: str) -> dict[str, Any]:
    whole = "object" if part == "segment" else "segment"
    return {
        whole: mistake.id,
        "voxels": mistake.voxels,
        f"{part}s": mistake.parts,
        f"effective_{part}s": mistake.effective_parts,
        "voi_bits": mistake.voi_bits,
        "largest": [
            {
                part: piece.id,
                "voxels": piece.voxels,
                "position_zyx": None if piece.position is None else list(piece.position),
            }
            for piece in mistake.largest
        ],
    }
