"""The stage that scores: segmentations and truth in, scores.json and a report out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import RunConflictError
from floodem.files import write_text
from floodem.project.pipeline.agglomerating import MERGE, MERGED_NAME
from floodem.project.pipeline.configuration import Project
from floodem.project.pipeline.digests import seen
from floodem.project.pipeline.flood_tables import SEGMENT
from floodem.project.pipeline.preparing import (
    flat_options,
    image_uri,
    truth_inputs,
    truth_uri,
    volume_mark,
)
from floodem.project.pipeline.segmenting import LABELS_NAME
from floodem.project.pipeline.stage import Output, Stage, Work
from floodem.shapes.source import LabelSource
from floodem.volumes.source import VolumeSource

if TYPE_CHECKING:
    from floodem.evaluation import Evaluation

EVALUATE = "evaluate"
SCORES_NAME, BEFORE_NAME, REPORT_NAME = "scores.json", "scores-before-merging.json", "report.html"
REPORT_SCENE = "report.scene"
_COUNTS = "stages/evaluate"
"""Folders of what was counted, so that a stopped evaluation goes on."""


def final_labels(project: Project) -> tuple[str, str]:
    """Return the name of the last segmentation and of the stage that makes it."""
    if project.agglomerate is not None:
        return MERGED_NAME, MERGE
    return LABELS_NAME, SEGMENT


def evaluate_stage(project: Project) -> Stage:
    """Return the stage that scores the segmentation, also as it was before merges."""
    table = project.evaluate
    if table is None:
        return Stage(name=EVALUATE, table=EVALUATE, skipped="no [evaluate]")
    needs: tuple[str, ...] = ()
    files: dict[str, Callable[[], Any]]
    if table.truth is not None:
        truth = VolumeSource(uri=project.resolved(table.truth))
        files = {table.truth: volume_mark(truth, is_labels=True)}
    else:
        needs, files = truth_inputs(project)
    if table.skeletons is not None:
        skeletons = Path(project.resolved(table.skeletons))
        files[table.skeletons] = lambda: seen(skeletons)
    outputs = [Output(name=SCORES_NAME, kind="scores")]
    made_by: tuple[str, ...] = (SEGMENT,)
    if project.agglomerate is not None:
        outputs.append(Output(name=BEFORE_NAME, kind="scores"))
        made_by = (SEGMENT, MERGE)
    if table.report:
        outputs.append(Output(name=REPORT_NAME, kind="file", is_told=False))
    return Stage(
        name=EVALUATE,
        table=EVALUATE,
        options=flat_options(table, where=EVALUATE),
        files=files,
        needs=(*needs, *made_by),
        outputs=tuple(outputs),
        traces=(_COUNTS, REPORT_SCENE),
        make=_evaluate,
    )


def _evaluate(work: Work) -> Mapping[str, Any]:
    project, table = work.project, work.project.evaluate
    assert table is not None
    name, _ = final_labels(project)
    last = _scored(work, name)
    write_text(work.path(SCORES_NAME), last.to_json() + "\n")
    evaluations = [last]
    if project.agglomerate is not None:
        before = _scored(work, LABELS_NAME)
        write_text(work.path(BEFORE_NAME), before.to_json() + "\n")
        evaluations.insert(0, before)
    if table.report:
        from floodem.project.report import write_report

        merged = ("before merging", "after merging")
        write_report(
            work.path(REPORT_NAME),
            evaluations=evaluations,
            image=image_uri(project),
            names=merged if len(evaluations) > 1 else None,
            title=project.name,
            progress=work.progress,
            notice=work.notice,
            should_stop=work.should_stop,
        )
    numbers = _numbers(last)
    if len(evaluations) > 1:
        numbers |= {f"before: {name}": one for name, one in _numbers(evaluations[0]).items()}
    return numbers


def _scored(work: Work, name: str) -> Evaluation:
    from floodem import evaluation

    project, table = work.project, work.project.evaluate
    assert table is not None
    truth = truth_uri(project) if table.truth is None else project.resolved(table.truth)
    assert truth is not None
    counts = work.path(_COUNTS) / name
    wanted: dict[str, Any] = {
        "box": table.box,
        "border": table.border,
        "ignore": table.ignore,
        "worst": table.worst,
        "cremi_border_nm": table.cremi_border_nm,
        "bootstrap": table.bootstrap,
        "seed": table.seed,
        "voxel_size": project.image.voxel_size,
        "crew": work.crew,
        "work": str(counts),
        "progress": work.progress,
        "should_stop": work.should_stop,
    }
    if table.skeletons is not None:
        wanted["skeletons"] = project.resolved(table.skeletons)
        wanted["merge_nodes"] = table.merge_nodes
    labels = LabelSource(uri=str(work.path(name)))
    try:
        return evaluation.evaluate(labels, LabelSource(uri=truth), **wanted)
    except RunConflictError:  # of other labels: what was counted of them is not wanted any more
        shutil.rmtree(counts, ignore_errors=True)
        return evaluation.evaluate(labels, LabelSource(uri=truth), **wanted)


def _numbers(result: Evaluation) -> dict[str, Any]:
    scores = result.all_truth
    numbers: dict[str, Any] = {
        "Rand error": scores.adapted_rand_error,
        "VOI split": scores.voi_split_bits,
        "VOI merge": scores.voi_merge_bits,
    }
    skeletons = getattr(result, "skeletons", None)
    if skeletons is not None:
        numbers["ERL nm"] = skeletons.erl_nm
        numbers["mergers"] = skeletons.mergers
    return numbers
