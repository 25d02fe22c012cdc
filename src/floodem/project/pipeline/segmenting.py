"""The stages that make and use a network: training, and the segmentation of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from floodem.cluster import ALONE
from floodem.errors import VolumeNotFoundError
from floodem.project.pipeline.addresses import looks_like_path
from floodem.project.pipeline.configuration import TRAIN, Project
from floodem.project.pipeline.digests import file_digest
from floodem.project.pipeline.flood_tables import (
    CSV,
    REVERSE_SEEDS,
    SEGMENT,
    flood_options,
    mask_rules,
)
from floodem.project.pipeline.preparing import (
    flat_options,
    image_inputs,
    image_uri,
    volume_mark,
)
from floodem.project.pipeline.stage import Output, Stage, Work
from floodem.project.pipeline.training import MODEL_NAME
from floodem.volumes.source import VolumeSource

LABELS_NAME = "labels.zarr"


def model_of(project: Project) -> str:
    """Return the network's file or name."""
    if project.model is None:
        return str(project.folder / MODEL_NAME)
    if project.model.file is not None:
        return project.resolved(project.model.file)
    assert project.model.name is not None
    return project.model.name


def model_inputs(project: Project) -> tuple[tuple[str, ...], dict[str, Callable[[], Any]]]:
    """Return which stage or which file the network comes from."""
    if project.model is None:
        return (TRAIN,), {}
    model = model_of(project)
    named = project.model.file or project.model.name
    return (), {str(named): lambda: _model_mark(model)}


def _model_mark(model: str) -> str:
    from floodem.network.named import named_model, unknown_model

    if Path(model).is_file():
        return file_digest(Path(model))
    data = None if looks_like_path(model) else named_model(model)
    if data is None:
        raise VolumeNotFoundError(unknown_model(model))
    import hashlib

    return hashlib.sha256(data).hexdigest()


def segment_stage(project: Project) -> Stage:
    """Return the stage that floods the image and joins its blocks."""
    table = project.segment
    if table is None:
        return Stage(name=SEGMENT, table=SEGMENT, skipped="no [segment]")
    needs, files = image_inputs(project)
    more, models = model_inputs(project)
    files |= models
    for text in (*table.mask, *table.seed_mask):
        for rule in mask_rules([text], base=project.base):
            if isinstance(getattr(rule, "uri", None), str):
                files[text] = volume_mark(VolumeSource(uri=rule.uri))
    if table.init_segmentation is not None:
        initial = VolumeSource(uri=project.resolved(table.init_segmentation))
        files[table.init_segmentation] = volume_mark(initial, is_labels=True)
    if table.seeds.strip().lower().endswith(CSV):
        seeds = Path(project.resolved(table.seeds.strip()))
        files[table.seeds] = lambda: file_digest(seeds)
    if table.consensus not in (None, REVERSE_SEEDS):
        second = _second(project, str(table.consensus))
        files[str(table.consensus)] = lambda: _model_mark(second)
    return Stage(
        name=SEGMENT,
        table=SEGMENT,
        options=flat_options(table, where=SEGMENT),
        files=files,
        needs=(*needs, *more),
        outputs=(Output(name=LABELS_NAME, kind="volume"),),
        make=_segment,
    )


def _second(project: Project, consensus: str) -> str:
    """Return what the second run of a consensus has: other seeds, or another network."""
    return project.resolved(consensus) if looks_like_path(consensus) else consensus


def _segment(work: Work) -> Mapping[str, Any]:
    from floodem.assembly.request import CutOptions
    from floodem.assembly.segment import is_cut, segment
    from floodem.flooding.request import SegmentRequest

    project, table = work.project, work.project.segment
    assert table is not None
    network = None if project.model is None else project.model.network
    if network is not None:
        from floodem.network.registry import register_network

        register_network(network)
    initial = table.init_segmentation
    request = SegmentRequest(
        options=flood_options(table, base=project.base),
        box=table.box,
        masks=mask_rules(table.mask, base=project.base),
        seed_masks=mask_rules(table.seed_mask, base=project.base),
        init_segmentation=None if initial is None else project.resolved(initial),
        device=table.device,
        dtype=table.dtype,
        overwrite=work.overwrite,
        checkpoint_seconds=table.checkpoint_seconds,
    )
    cut = CutOptions(
        block=table.block,
        halo=table.halo,
        agreement=table.agreement,
        min_shared=table.min_shared,
    )
    image, destination = VolumeSource(uri=image_uri(project)), str(work.path(LABELS_NAME))
    # Workers cut a volume that would stay whole, and cuts decide the result; workers must not.
    crew = work.flooding_crew
    if crew != ALONE and not is_cut(image, destination, request=request, cut=cut, crew=ALONE):
        work.notice("the image is one block, which one process floods: give block = [z, y, x]")
        crew = ALONE
    how: dict[str, Any] = {
        "model": model_of(project),
        "request": request,
        "cut": cut,
        "crew": crew,
        "network": network,
        "progress": work.progress,
        "notice": work.notice,
        "should_stop": work.should_stop,
    }
    if table.consensus is None:
        made: Any = segment(image, destination, **how)
    else:
        from floodem.assembly.consensus.options import ConsensusOptions
        from floodem.assembly.consensus.seed_orders import segment_by_consensus

        size = table.split_min_size
        options = ConsensusOptions() if size is None else ConsensusOptions(split_min_size=size)
        second = _second(project, table.consensus)
        made = segment_by_consensus(image, destination, consensus=second, options=options, **how)
    return _numbers(made.summary)


def _numbers(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    found: dict[str, Any] = {"segments": int(summary["segments"])}
    counters = summary.get("counters")
    if isinstance(counters, Mapping) and "network_calls" in counters:
        found["calls"] = int(counters["network_calls"])
    elif "network_calls" in summary:
        found["calls"] = int(summary["network_calls"])
    if "covered" in summary:
        found["covered"] = float(summary["covered"])
    return found
