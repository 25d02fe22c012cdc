"""All stages of a project, in an order in which each comes after what it is made from."""

from __future__ import annotations

from floodem.project.pipeline.agglomerating import agglomerate_stage, merge_stage
from floodem.project.pipeline.configuration import Project
from floodem.project.pipeline.evaluating import evaluate_stage
from floodem.project.pipeline.preparing import prepare_stage, truth_stage
from floodem.project.pipeline.segmenting import segment_stage
from floodem.project.pipeline.showing import mesh_stage, scene_stage
from floodem.project.pipeline.stage import Stage
from floodem.project.pipeline.training import train_stage

_STAGES = (
    prepare_stage,
    truth_stage,
    train_stage,
    segment_stage,
    agglomerate_stage,
    merge_stage,
    evaluate_stage,
    mesh_stage,
    scene_stage,
)

STAGE_NAMES = (
    *("prepare", "truth", "train", "segment", "agglomerate", "merge"),
    *("evaluate", "mesh", "scene"),
)
"""In the order in which they run."""


def stages_of(project: Project) -> tuple[Stage, ...]:
    """Return the stages of a project, those that are skipped included."""
    return tuple(make(project) for make in _STAGES)
