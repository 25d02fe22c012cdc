"""Score a segmentation against truth: two label volumes in, an `Evaluation` out.

One pass over both volumes, block by block, counts which labels lie on each other;
scores and the worst mistakes come from those counts alone, and three more passes
find where the mistakes lie. docs/scores.md says what is counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from floodem.errors import LabelError, OptionError
from floodem.evaluation.alignment import BLOCK_VOXELS, Alignment, LabelArray, align
from floodem.evaluation.mistakes import Mistake, worst_mergers, worst_splits
from floodem.evaluation.places import PartKey, facing_voxels
from floodem.evaluation.scores import Scores, scores
from floodem.geometry import Box, Zyx
from floodem.labels import OverlapCounter, OverlapTable, contingency
from floodem.labels.runs import Labels
from floodem.progress import Progress, ProgressListener
from floodem.volumes.volume import Volume

FORMAT_VERSION = 1


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
    segmentation: Volume | Labels,
    truth: Volume | Labels,
    *,
    box: Box | None = None,
    border: Zyx = (0, 0, 0),
    ignore: Sequence[int] = (0,),
    worst: int = 10,
    block_voxels: int = BLOCK_VOXELS,
    progress: ProgressListener | None = None,
) -> Evaluation:
    """Compare a segmentation with truth, voxel by voxel.

    Volumes are laid over each other by their own frames (arrays begin at 0, 0, 0)
    and compared over what both hold.

    Parameters
    ----------
    segmentation, truth
        Label volumes or arrays (z, y, x) of any integer type, 0 for background.
    box
        Compare only these voxels.
    border
        Voxels left out at each face of what is compared, z, y, x.
    ignore
        Truth ids whose voxels do not count; empty to count all.
    worst
        How many splits and how many mergers to list and locate; 0 for none.
    block_voxels
        How many voxels to hold in memory at once; the result does not depend on it.

    Raises
    ------
    GeometryError
        When the volumes have no voxel in common, their voxel sizes differ, or
        `box` or `border` does not fit them.
    LabelError
        When a volume does not hold labels, or no voxel is left to score.
    OptionError
        When `worst` or an ignored id is negative.
    """
    if worst < 0 or any(label < 0 for label in ignore):
        raise OptionError(f"worst {worst} and ignored ids {list(ignore)} must not be negative")
    alignment = align(
        _as_volume(segmentation, name="segmentation"),
        _as_volume(truth, name="truth"),
        box=box,
        border=border,
        block_voxels=block_voxels,
    )
    counted = _count(alignment, progress)
    counted = counted.select(~np.isin(counted.ids_b, np.array(ignore, dtype=np.uint64)))
    if not len(counted):
        raise LabelError(
            f"{alignment.truth.uri} holds nothing but ignored labels {list(ignore)} in "
            f"{alignment.box} (z,y,x): choose another box or ignore fewer"
        )
    both = counted.select(counted.ids_a != 0)
    splits, mergers = worst_splits(both, limit=worst), worst_mergers(both, limit=worst)
    splits, mergers = _located(alignment, splits, mergers, progress=progress)
    return Evaluation(
        segmentation=alignment.segmentation.uri,
        truth=alignment.truth.uri,
        segmentation_box=alignment.segmentation.box,
        truth_box=alignment.truth.box,
        box=alignment.box,
        border=border,
        ignore=tuple(ignore),
        coverage=int(both.counts.sum()) / int(counted.counts.sum()),
        all_truth=scores(counted),
        where_both_label=scores(both) if len(both) else None,
        worst_splits=tuple(splits),
        worst_mergers=tuple(mergers),
    )


def _as_volume(labels: Volume | Labels, *, name: str) -> Volume:
    return labels if isinstance(labels, Volume) else LabelArray(labels, name=name)


def _count(alignment: Alignment, progress: ProgressListener | None) -> OverlapTable:
    counter = OverlapCounter()
    done = 0
    for block in alignment.blocks:
        counter.add(contingency(*alignment.read(block)))
        done += block.size
        if progress is not None:
            total = alignment.box.size
            progress(Progress(stage="compare", done=done, total=total, unit="voxels"))
    return counter.table()


def _located(
    alignment: Alignment,
    splits: Sequence[Mistake],
    mergers: Sequence[Mistake],
    *,
    progress: ProgressListener | None,
) -> tuple[list[Mistake], list[Mistake]]:
    pairs = [*(_split_keys(split) for split in splits), *(_merger_keys(m) for m in mergers)]
    if not pairs:
        return [], []
    places = facing_voxels(alignment, pairs, progress=progress)
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
