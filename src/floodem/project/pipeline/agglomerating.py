"""The stages that join segments: the graph of merges, and the volume that they are applied to.

They are two, because rules and decisions of people change the second alone: the graph's
scores, which cost the network calls, stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.project.pipeline.configuration import Project
from floodem.project.pipeline.flood_tables import (
    AGGLOMERATE,
    SEGMENT,
    AgglomerateTable,
    flood_options,
)
from floodem.project.pipeline.graphs import decisions, decisions_digest
from floodem.project.pipeline.preparing import flat_options, image_inputs, image_uri
from floodem.project.pipeline.segmenting import LABELS_NAME, model_inputs, model_of
from floodem.project.pipeline.stage import Output, Stage, Work
from floodem.shapes.source import LabelSource
from floodem.training.configuration.tables import to_plain
from floodem.volumes.source import VolumeSource

MERGE = "merge"
GRAPH_NAME, MERGED_NAME = "merges.sqlite", "merged.zarr"
_RULE = "rule"
_RESEGMENTATION = {
    "radius": "radius",
    "analysis_radius": "analysis_radius",
    "exclusion_radius": "exclusion_radius",
    "max_retries": "max_retries",
    "recovery": "recovery_fraction",
    "terminate_early": "terminate_early",
}
"""Keys of floods at a point, and what `ResegmentationOptions` call them."""

_FLOODS = ("init_activation", "pad", "move_threshold", "segment_threshold")
"""Options of the segmentation that also decide how points are flooded again."""


def agglomerate_stage(project: Project) -> Stage:
    """Return the stage that floods again where segments touch, and scores the pairs."""
    table = project.agglomerate
    if table is None or project.segment is None:
        return Stage(name=AGGLOMERATE, table=AGGLOMERATE, skipped="no [agglomerate]")
    needs, files = image_inputs(project)
    more, models = model_inputs(project)
    scoring = {
        name: value
        for name, value in flat_options(table, where=AGGLOMERATE).items()
        if name != f"{AGGLOMERATE}.{_RULE}"
    }
    floods = to_plain(project.segment)
    scoring |= {f"{SEGMENT}.{name}": floods[name] for name in _FLOODS}
    scoring[f"{AGGLOMERATE}.dtype"] = table.dtype or project.segment.dtype
    return Stage(
        name=AGGLOMERATE,
        table=AGGLOMERATE,
        options=scoring,
        files=files | models,
        needs=(*needs, *more, SEGMENT),
        outputs=(Output(name=GRAPH_NAME, kind="graph"),),
        make=_agglomerate,
    )


def merge_stage(project: Project) -> Stage:
    """Return the stage that writes the merged segmentation."""
    table = project.agglomerate
    if table is None:
        return Stage(name=MERGE, table=AGGLOMERATE, skipped="no [agglomerate]")
    options: dict[str, Any] = {}
    if table.rule is not None:
        rule = to_plain(table.rule)
        options = {f"{AGGLOMERATE}.{_RULE}.{name}": value for name, value in rule.items()}
    return Stage(
        name=MERGE,
        table=AGGLOMERATE,
        options=options,
        files={
            f"decisions in {GRAPH_NAME}": _decisions_mark(
                project.folder / GRAPH_NAME, with_rule=table.rule is None
            )
        },
        needs=(SEGMENT, AGGLOMERATE),
        outputs=(Output(name=MERGED_NAME, kind="volume"),),
        make=_merge,
    )


def _decisions_mark(path: Path, *, with_rule: bool) -> Callable[[], Any]:
    return lambda: decisions_digest(path, with_rule=with_rule) if path.exists() else None


def _agglomerate(work: Work) -> Mapping[str, Any]:
    from floodem.assembly.agglomeration.agglomerate import agglomerate
    from floodem.assembly.agglomeration.points.points import PointOptions
    from floodem.assembly.agglomeration.preparation import AgglomerationOptions
    from floodem.flooding.options import FloodOptions

    project, table = work.project, work.project.agglomerate
    assert table is not None
    assert project.segment is not None
    network = None if project.model is None else project.model.network
    if network is not None:
        from floodem.network.registry import register_network

        register_network(network)
    floods = flood_options(project.segment, base=project.base)
    labels = LabelSource(uri=str(work.path(LABELS_NAME)))
    image = VolumeSource(uri=image_uri(project))
    options = AgglomerationOptions(
        points=PointOptions(max_distance_nm=table.max_distance, min_size=table.min_size),
        resegmentation=_changes(table),
        floods=FloodOptions(
            init_activation=floods.init_activation,
            pad_value=floods.pad_value,
            move_threshold=floods.move_threshold,
            segment_threshold=floods.segment_threshold,
            disco_seed_threshold=table.disco_seed_threshold,
        ),
        rule=table.rule or MergeRule(),
        box=table.box,
        block=table.block,
        device=table.device or project.segment.device,
        dtype=table.dtype or project.segment.dtype,
    )
    graph = work.path(GRAPH_NAME)
    if work.overwrite:
        _keep_decisions(graph, work.notice)
    made = agglomerate(
        labels,
        image,
        graph,
        model=model_of(project),
        options=options,
        network=network,
        crew=work.flooding_crew,
        overwrite=work.overwrite,
        progress=work.progress,
        notice=work.notice,
        should_stop=work.should_stop,
    )
    return {"points": made.points, "merges": made.merges, "calls": made.calls}


def _changes(table: AgglomerateTable) -> dict[str, Any]:
    """Return what the file says of floods at a point; what it leaves out suits the voxels."""
    said = {field: getattr(table, name) for name, field in _RESEGMENTATION.items()}
    return {field: value for field, value in said.items() if value is not None}


def _keep_decisions(graph: Path, notice: Callable[[str], None]) -> None:
    """Put a graph aside in which people decided something, before it is made again."""
    if not graph.exists() or not decisions(graph):
        return
    number = 1
    while (aside := graph.with_name(f"merges-earlier-{number}.sqlite")).exists():
        number += 1
    graph.rename(aside)
    notice(f"{graph} held decisions of yours about other segments: it is kept as {aside}")


def _merge(work: Work) -> Mapping[str, Any]:
    from floodem.assembly.agglomeration.graph.applying import apply_merges
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph

    table, graph = work.project.agglomerate, work.path(GRAPH_NAME)
    assert table is not None
    if table.rule is not None:
        with SegmentGraph.open(graph, writable=True) as opened:
            if opened.rule != table.rule:
                opened.set_rule(table.rule, note=f"of {work.project.path.name}")
    made = apply_merges(
        graph,
        str(work.path(MERGED_NAME)),
        crew=work.crew,
        overwrite=work.overwrite,
        progress=work.progress,
        notice=work.notice,
        should_stop=work.should_stop,
    )
    return {"joined": made.joined, "into": made.wholes}
