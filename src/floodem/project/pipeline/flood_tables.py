"""What a project file says of floods: tables ``segment`` and ``agglomerate`` in, flood options out.

As in `floodem.project.pipeline.tables`, the text of each key is its line in the documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.errors import OptionError
from floodem.flooding.masks import parse_mask
from floodem.flooding.options import FloodOptions
from floodem.flooding.seeds import parse_seeds
from floodem.geometry import Box, Zyx
from floodem.project.pipeline.addresses import resolved
from floodem.project.pipeline.checking import about

SEGMENT, AGGLOMERATE = "segment", "agglomerate"
REVERSE_SEEDS = "reverse-seeds"
CSV = ".csv"
"""How a name ends that is a file of seeds, not a policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTable:
    """How the image is flooded. Table ``segment``; see docs/segmenting.md."""

    box: Box | None = field(default=None, metadata=about("Part of the image; default: all."))
    seeds: str = field(
        default="PolicyPeaks", metadata=about("Seed policy with arguments, or a CSV file.")
    )
    mask: tuple[str, ...] = field(
        default=(), metadata=about("Where no field of view may be centred.")
    )
    seed_mask: tuple[str, ...] = field(default=(), metadata=about("Where no seed may lie."))
    init_segmentation: str | None = field(
        default=None, metadata=about("Labels that are there already and stay.")
    )
    init_activation: float = field(default=0.95, metadata=about("Probability at a seed."))
    pad: float | None = field(
        default=None, metadata=about("Probability of untouched voxels; default: the model's.")
    )
    move_threshold: float | None = field(
        default=None, metadata=about("Probability to move on from; default: the model's.")
    )
    segment_threshold: float = field(
        default=0.6, metadata=about("Probability from which a voxel is in the segment.")
    )
    min_segment_size: int = field(default=1000, metadata=about("Smaller ones are dropped."))
    min_boundary_dist: Zyx = field(
        default=(1, 1, 1), metadata=about("Seeds this near to a segment are skipped.")
    )
    disco_seed_threshold: float = field(
        default=0.0, metadata=about("The rule against mergers; negative: off.")
    )
    seed_anisotropy: tuple[float, float, float] = field(
        default=(1.0, 1.0, 1.0), metadata=about("Relative voxel edges for seed distances.")
    )
    max_calls: int | None = field(default=None, metadata=about("Network calls of one flood."))
    max_voxels: int | None = field(default=None, metadata=about("Voxels of one flood."))
    dtype: str = field(
        default="auto", metadata=about("auto (float32), float32, bfloat16 or float16.")
    )
    consensus: str | None = field(
        default=None,
        metadata=about(
            f'"{REVERSE_SEEDS}": flood twice, in both orders, and keep what agrees; or another '
            "network, for the second time."
        ),
    )
    split_min_size: int | None = field(
        default=None,
        metadata=about("Smaller pieces of a consensus are dropped; default: 1000."),
    )
    block: Zyx | None = field(
        default=None, metadata=about("Cut into blocks of these voxels; default: if it must be.")
    )
    halo: Zyx | None = field(default=None, metadata=about("Voxels looked at around a block."))
    agreement: float = field(
        default=0.6, metadata=about("Part of two blocks' pieces that must be shared to be one.")
    )
    min_shared: int = field(default=10, metadata=about("Least voxels that they share."))
    device: str = field(default="auto", metadata=about("auto, cpu, cuda or cuda:N.", decides=False))
    checkpoint_seconds: float = field(
        default=60.0, metadata=about("Save the state this often.", decides=False)
    )

    def __post_init__(self) -> None:
        if self.split_min_size is not None and self.consensus is None:
            raise OptionError(
                f"split_min_size {self.split_min_size} is for pieces of a consensus: say which"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgglomerateTable:
    """How segments are joined. Table ``agglomerate``; what is left out suits the voxels."""

    max_distance: float = field(
        default=50.0, metadata=about("How far apart two segments may be, in nm.")
    )
    min_size: int = field(default=0, metadata=about("Segments of fewer voxels take no part."))
    radius: Zyx | None = field(
        default=None, metadata=about("Voxels around a point that floods may fill.")
    )
    analysis_radius: Zyx | None = field(
        default=None, metadata=about("Voxels around a point in which floods are judged.")
    )
    exclusion_radius: Zyx | None = field(
        default=None, metadata=about("Voxels around a failed seed without another.")
    )
    max_retries: int | None = field(default=None, metadata=about("Most seeds of one side."))
    recovery: float | None = field(
        default=None, metadata=about("Part of its own segment that a flood must cover.")
    )
    terminate_early: bool | None = field(
        default=None, metadata=about("Leave out the second flood where the first says no.")
    )
    disco_seed_threshold: float = field(
        default=0.0, metadata=about("As of segment; negative: nothing counts as taken back.")
    )
    box: Box | None = field(default=None, metadata=about("Only points in this part."))
    dtype: str | None = field(default=None, metadata=about("Default: that of segment."))
    block: Zyx | None = field(
        default=None, metadata=about("Blocks in which points are looked for.", decides=False)
    )
    device: str | None = field(
        default=None, metadata=about("Default: that of segment.", decides=False)
    )
    rule: MergeRule | None = field(
        default=None,
        metadata=about("When two segments are one: iou, coverage, deleted, distance_nm."),
    )


def mask_rules(texts: Sequence[str], *, base: Path) -> list[Any]:
    """Return the rules of masks, their volumes looked for from the project file's folder."""
    rules = []
    for text in texts:
        rule = parse_mask(text)
        if is_dataclass(rule) and isinstance(getattr(rule, "uri", None), str):
            there = resolved(rule.uri, base=base)
            rule = replace(rule, uri=there)
        rules.append(rule)
    return rules


def flood_options(table: SegmentTable, *, base: Path) -> FloodOptions:
    """Return how objects are flooded.

    Raises
    ------
    FloodemError
        When a number is out of its range, or the seeds are not understood.
    """
    seeds = table.seeds.strip()
    if seeds.lower().endswith(CSV):
        seeds = resolved(seeds, base=base)
    return FloodOptions(
        init_activation=table.init_activation,
        pad_value=table.pad,
        move_threshold=table.move_threshold,
        segment_threshold=table.segment_threshold,
        min_segment_size=table.min_segment_size,
        min_boundary_dist=table.min_boundary_dist,
        disco_seed_threshold=table.disco_seed_threshold,
        max_calls=table.max_calls,
        max_voxels=table.max_voxels,
        seeds=parse_seeds(seeds),
        seed_anisotropy=table.seed_anisotropy,
    )
