"""The stages before any network: image and labels as the user has them in, as stages read them out.

Where a project file says nothing but where they are, they are used in place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from floodem.project.pipeline.checking import deciding
from floodem.project.pipeline.configuration import Project
from floodem.project.pipeline.digests import MOST_FILES
from floodem.project.pipeline.stage import Output, Stage, Work
from floodem.project.pipeline.tables import ImageTable, LabelsTable
from floodem.shapes.source import source_identity
from floodem.training.configuration.tables import to_plain
from floodem.volumes.conversion.fingerprint import fingerprint
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Kind

PREPARE, TRUTH = "prepare", "truth"
IMAGE_NAME, TRUTH_NAME = "image.zarr", "truth.zarr"
_BETWEEN = "stages/image.zarr"
"""What is converted before its contrast is equalised."""


def flat_options(table: Any, *, where: str) -> dict[str, Any]:
    """Return the options of a table that decide its result, by dotted key."""
    values = to_plain(table)
    return {
        f"{where}.{name}": value
        for name, value in values.items()
        if name in deciding(table) and name != "source"
    }


def volume_mark(source: VolumeSource, *, is_labels: bool = False) -> Callable[[], Any]:
    """Return a function that tells a volume from a changed one, without reading all of it."""

    def look() -> Any:
        with source.open() as volume:
            if is_labels:
                return source_identity(volume)
            return fingerprint(volume, most_files=MOST_FILES)

    return look


def source_of(project: Project, table: ImageTable | LabelsTable) -> VolumeSource:
    """Return where a table's volume lies."""
    return VolumeSource(
        uri=project.resolved(table.source),
        level=table.level,
        channel=table.channel,
        axes=table.axes,
        allow_external=table.allow_external,
    )


def image_uri(project: Project) -> str:
    """Return the address of the image that later stages read."""
    if project.image.is_copied:
        return str(project.folder / IMAGE_NAME)
    return project.resolved(project.image.source)


def labels_of(project: Project) -> LabelsTable | None:
    """Return the table of labels, cut as the image where it says nothing else."""
    labels, box = project.labels, project.image.box
    if labels is None or labels.box is not None or box is None:
        return labels
    return replace(labels, box=box)


def truth_uri(project: Project) -> str | None:
    """Return the address of the true labels that later stages read."""
    labels = labels_of(project)
    if labels is None:
        return None
    return str(project.folder / TRUTH_NAME) if labels.is_copied else project.resolved(labels.source)


def image_inputs(project: Project) -> tuple[tuple[str, ...], dict[str, Callable[[], Any]]]:
    """Return which stage or which file the image comes from."""
    if project.image.is_copied:
        return (PREPARE,), {}
    return (), {project.image.source: volume_mark(source_of(project, project.image))}


def truth_inputs(project: Project) -> tuple[tuple[str, ...], dict[str, Callable[[], Any]]]:
    """Return which stage or which file the true labels come from."""
    labels = labels_of(project)
    if labels is None:
        return (), {}
    if labels.is_copied:
        return (TRUTH,), {}
    return (), {labels.source: volume_mark(source_of(project, labels), is_labels=True)}


def prepare_stage(project: Project) -> Stage:
    """Return the stage that makes the image ready."""
    table = project.image
    if not table.is_copied:
        return Stage(name=PREPARE, table="image", skipped="the image is used as it is")
    return Stage(
        name=PREPARE,
        table="image",
        options=flat_options(table, where="image"),
        files={table.source: volume_mark(source_of(project, table))},
        outputs=(Output(name=IMAGE_NAME, kind="volume"),),
        traces=(_BETWEEN, f"{_BETWEEN}.floodem"),
        make=_prepare,
    )


def truth_stage(project: Project) -> Stage:
    """Return the stage that makes the labels ready."""
    table = labels_of(project)
    if table is None or not table.is_copied:
        why = "no [labels]" if table is None else "the labels are used as they are"
        return Stage(name=TRUTH, table="labels", skipped=why)
    return Stage(
        name=TRUTH,
        table="labels",
        options=flat_options(table, where="labels"),
        files={table.source: volume_mark(source_of(project, table), is_labels=True)},
        outputs=(Output(name=TRUTH_NAME, kind="volume"),),
        make=_prepare_truth,
    )


def _prepare(work: Work) -> Mapping[str, Any]:
    from floodem.volumes import clahe

    project, table = work.project, work.project.image
    source, destination = source_of(project, table), str(work.path(IMAGE_NAME))
    if table.clahe is None:
        return _copied(work, table, destination)
    how: dict[str, Any] = {
        "overwrite": work.overwrite,
        "progress": work.progress,
        "should_stop": work.should_stop,
    }
    contrast: dict[str, Any] = {
        "block": table.clahe.block,
        "bins": table.clahe.bins,
        "slope": table.clahe.slope,
        "value_range": table.clahe.range,
        "kind": Kind.IMAGE,
        **how,
    }
    only_cut = replace(
        table, box=None, axes=None, channel=None, level=0, clahe=None, allow_external=False
    )
    if not only_cut.is_copied:
        opened: dict[str, Any] = {
            "channel": source.channel,
            "level": source.level,
            "axes": source.axes,
            "allow_external": source.allow_external,
        }
        clahe(source.uri, destination, box=table.box, **opened, **contrast)
        return _size(destination)
    between = work.path(_BETWEEN)
    _copied(work, table, str(between))
    clahe(str(between), destination, **contrast)
    for left in (between, between.with_name(f"{between.name}.floodem")):
        shutil.rmtree(left, ignore_errors=True)
    return _size(destination)


def _prepare_truth(work: Work) -> Mapping[str, Any]:
    table = labels_of(work.project)
    assert table is not None
    return _copied(work, table, str(work.path(TRUTH_NAME)))


def _copied(work: Work, table: ImageTable | LabelsTable, destination: str) -> Mapping[str, Any]:
    from floodem.volumes import convert

    source = source_of(work.project, table)
    is_image = isinstance(table, ImageTable)
    convert(
        source.uri,
        destination,
        box=table.box,
        voxel_size=table.voxel_size,
        offset=table.offset,
        dtype=table.dtype if isinstance(table, ImageTable) else None,
        window=table.window if isinstance(table, ImageTable) else None,
        axes=source.axes,
        channel=source.channel,
        level=source.level,
        kind=Kind.IMAGE if is_image else Kind.LABELS,
        allow_external=source.allow_external,
        overwrite=work.overwrite,
        progress=work.progress,
        should_stop=work.should_stop,
    )
    return _size(destination)


def _size(uri: str) -> Mapping[str, Any]:
    from floodem.volumes import open_volume

    with open_volume(uri) as volume:
        return {"voxels": volume.box.size}
