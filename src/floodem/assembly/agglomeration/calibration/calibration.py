"""Thresholds fitted on labelled data: a segment graph and truth in, the rule that is best out.

::

    base + truth --(one pass)--> overlaps --+--> objects of segments --> which edges are right
    graph -------------------------> edges -+--> every rule of a grid --> VOI --> the best rule

No network is asked and no voxel read a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt64

from floodem.assembly.agglomeration.calibration.overlaps import Counting, count_overlaps
from floodem.assembly.agglomeration.calibration.search import grid, held_out, try_rules
from floodem.assembly.agglomeration.calibration.truth import EdgeTruth, assign, judge
from floodem.assembly.agglomeration.graph.base import opened_base
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.merging import merged_ids, smallest_of_components
from floodem.assembly.agglomeration.graph.records import EdgeTable
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.errors import LabelError, OptionError
from floodem.evaluation.scores import Scores, scores
from floodem.labels import OverlapTable
from floodem.labels.overlaps import merge_tables
from floodem.progress import ProgressListener
from floodem.shapes.source import LabelSource

FEW_RIGHT_EDGES = 100
"""A fit on fewer hangs on single edges: one of a hundred moves recall by a hundredth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """What a good rule is.

    Attributes
    ----------
    purity
        A segment belongs to a truth object that has at least this share of its voxels that
        truth labels; others are unclear.
    max_merge_bits
        How much VOI merge the merges may add to that of the base. A hundredth of a bit is
        what ragged edges of right merges add.
    folds
        Groups of truth objects for the cross-validation; 0 or 1: none.
    ignore
        Truth ids whose voxels do not count.
    """

    purity: float = 0.8
    max_merge_bits: float = 0.01
    folds: int = 5
    ignore: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not 0 < self.purity <= 1:
            raise OptionError(f"purity {self.purity} is no share: give more than 0, up to 1")
        if not self.max_merge_bits >= 0:
            raise OptionError(
                f"{self.max_merge_bits} bits of VOI merge are negative: give 0 or more"
            )
        if self.folds < 0 or any(label < 0 for label in self.ignore):
            raise OptionError(
                f"folds {self.folds} and ignored ids {list(self.ignore)} must not be negative"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one rule makes of the segmentation.

    Attributes
    ----------
    rule
        None for the base segmentation.
    accepted
        Edges that it accepts, of all.
    right, wrong
        Of those whose segments have clear objects: the same one, or two.
    precision
        Share of right ones among both; None where there are none.
    recall
        Share of the right edges that it accepts; None where there are no right edges.
    scores
        Of the merged segmentation, over all voxels that truth labels.
    """

    rule: MergeRule | None
    accepted: int
    right: int
    wrong: int
    precision: float | None
    recall: float | None
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How the fit does on objects that it has not seen.

    Attributes
    ----------
    rules
        Fitted without each fold in turn.
    voi_split_bits, voi_merge_bits
        Of each fold's objects under the rule that was fitted without them, all added up:
        comparable with the scores of the whole.
    """

    rules: tuple[MergeRule, ...]
    voi_split_bits: float
    voi_merge_bits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A rule fitted on labelled data, and how it compares.

    Attributes
    ----------
    rule
        The fitted one.
    outcomes
        By name: ``base``, ``default``, ``in force`` where that is another one, ``fitted``.
    held_out
        None where there are not enough objects, or none was asked for.
    edges, clear_edges, right_edges
        All edges, those between segments of clear objects, and those within one object.
    segments, unclear_segments
        Segments where truth was compared, and those that belong to no object clearly.
    tried
        How many rules were compared.
    """

    rule: MergeRule
    outcomes: dict[str, Outcome]
    held_out: HeldOut | None
    edges: int
    clear_edges: int
    right_edges: int
    segments: int
    unclear_segments: int
    tried: int

    @property
    def has_few(self) -> bool:
        """Whether there are so few right edges that the fit is not to be trusted."""
        return self.right_edges < FEW_RIGHT_EDGES

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def calibrate_graph(
    graph: str | Path,
    truth: str | Path | LabelSource,
    *,
    segmentation: str | Path | LabelSource | None = None,
    options: CalibrationOptions | None = None,
    counting: Counting | None = None,
) -> Calibration:
    """Fit the thresholds of a graph's rule on labelled data; the graph is not changed.

    Parameters
    ----------
    graph
        The file of a segment graph.
    truth
        Labels of the same voxels, in the frame of the base segmentation.
    segmentation
        Where the base segmentation is now, if it was moved or copied.
    options
        What a good rule is.
    counting
        Which voxels count, and who counts them.

    Raises
    ------
    LabelError
        When truth labels no voxel there.
    OtherWorkError
        When the base segmentation is another one or was changed.
    FloodemError
        When something else is refused.
    """
    counting = Counting() if counting is None else counting
    with SegmentGraph.open(graph) as opened:
        header, rule, edges = opened.header, opened.rule, opened.edges()
    source = segmentation
    if source is not None and not isinstance(source, LabelSource):
        source = replace(header.segmentation, uri=str(source))
    with opened_base(header, source) as (base, _):
        pass
    there = truth if isinstance(truth, LabelSource) else LabelSource(uri=str(truth))
    table = count_overlaps(base, there, counting=counting)
    return fit_rule(
        edges,
        table,
        rule=rule,
        options=options,
        progress=counting.progress,
        should_stop=counting.should_stop,
    )


def fit_rule(
    edges: EdgeTable,
    overlaps: OverlapTable,
    *,
    rule: MergeRule | None = None,
    options: CalibrationOptions | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Calibration:
    """Find the thresholds whose merges fit truth best.

    The best rule has the lowest sum of VOI split and merge among those that add little VOI
    merge to the base; among equals the most careful one is taken. What people decided about
    single edges does not count here.

    Parameters
    ----------
    edges
        Of the graph.
    overlaps
        Base segments as `ids_a`, truth objects as `ids_b`.
    rule
        The one in force, to be compared as well.

    Raises
    ------
    LabelError
        When truth labels no voxel.
    StoppedError
        When it was told to stop.
    """
    options = CalibrationOptions() if options is None else options
    assignment = assign(overlaps, purity=options.purity, ignore=options.ignore)
    truth = judge(edges, assignment)
    table = overlaps.select(~np.isin(overlaps.ids_b, np.array(options.ignore, np.uint64)))
    if not len(table):
        raise LabelError(
            f"truth holds nothing but ignored labels {list(options.ignore)} where it was compared: "
            "choose another box or ignore fewer"
        )
    default, in_force = MergeRule(), MergeRule() if rule is None else rule
    tried = try_rules(
        edges,
        table,
        rules=grid(edges, also=(default, in_force)),
        folds=max(1, options.folds),
        progress=progress,
        should_stop=should_stop,
    )
    fitted = tried.rules[tried.best(max_merge_bits=options.max_merge_bits)]
    rules: dict[str, MergeRule | None] = {"base": None, "default": default}
    if in_force != default:
        rules["in force"] = in_force
    rules["fitted"] = fitted
    found = list(held_out(tried, max_merge_bits=options.max_merge_bits))
    return Calibration(
        rule=fitted,
        outcomes={
            name: _outcome(one, edges, truth=truth, table=table) for name, one in rules.items()
        },
        held_out=_added_up(found),
        edges=len(edges),
        clear_edges=int(truth.is_clear.sum()),
        right_edges=int(truth.is_right.sum()),
        segments=len(assignment.segments),
        unclear_segments=assignment.unclear,
        tried=len(tried.rules),
    )


def merged_table(
    table: OverlapTable,
    mapping: tuple[UInt64[np.ndarray, "ids"], UInt64[np.ndarray, "ids"]],
) -> OverlapTable:
    """Return the overlaps of the merged segmentation.

    Parameters
    ----------
    table
        Base segments as `ids_a`.
    mapping
        Ascending old ids, and the new ones (`SegmentGraph.mapping`).
    """
    return merge_tables([OverlapTable(merged_ids(table.ids_a, mapping), table.ids_b, table.counts)])


def _outcome(
    rule: MergeRule | None, edges: EdgeTable, *, truth: EdgeTruth, table: OverlapTable
) -> Outcome:
    accepted: Bool[np.ndarray, "edges"] = (
        np.zeros(len(edges), np.bool_) if rule is None else rule.accepts(edges.columns)
    )
    right = int(np.count_nonzero(accepted & truth.is_right))
    wrong = int(np.count_nonzero(accepted & truth.is_clear & ~truth.is_right))
    all_right = int(truth.is_right.sum())
    mapping = smallest_of_components(edges.ids_a[accepted], edges.ids_b[accepted])
    return Outcome(
        rule=rule,
        accepted=int(accepted.sum()),
        right=right,
        wrong=wrong,
        precision=right / (right + wrong) if right + wrong else None,
        recall=right / all_right if all_right else None,
        scores=scores(merged_table(table, mapping)),
    )


def _added_up(found: list[tuple[MergeRule, float, float]]) -> HeldOut | None:
    if not found:
        return None
    return HeldOut(
        rules=tuple(rule for rule, _, _ in found),
        voi_split_bits=sum(split for _, split, _ in found),
        voi_merge_bits=sum(merge for _, _, merge in found),
    )
