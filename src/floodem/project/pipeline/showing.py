"""The stages that make results visible: meshes of the objects, and a folder for the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from floodem.project.pipeline.configuration import Project
from floodem.project.pipeline.evaluating import EVALUATE, SCORES_NAME, final_labels
from floodem.project.pipeline.preparing import flat_options, image_inputs, image_uri
from floodem.project.pipeline.stage import Output, Stage, Work
from floodem.shapes.source import LabelSource

MESH, SCENE = "mesh", "scene"
MESHES_NAME, SCENE_NAME = "meshes", "scene"


def mesh_stage(project: Project) -> Stage:
    """Return the stage that meshes the last segmentation."""
    table = project.mesh
    if table is None:
        return Stage(name=MESH, table=MESH, skipped="no [mesh]")
    _, made_by = final_labels(project)
    return Stage(
        name=MESH,
        table=MESH,
        options=flat_options(table, where=MESH),
        needs=(made_by,),
        outputs=(Output(name=MESHES_NAME, kind="folder"),),
        make=_mesh,
    )


def scene_stage(project: Project) -> Stage:
    """Return the stage that puts image, segmentation and shapes into one folder."""
    table = project.scene
    if table is None:
        return Stage(name=SCENE, table=SCENE, skipped="no [scene]")
    needs, files = image_inputs(project)
    if project.segment is not None:
        needs = (*needs, final_labels(project)[1])
    if project.evaluate is not None:
        needs = (*needs, EVALUATE)
    if _has_meshes(project):
        needs = (*needs, MESH)
    options = flat_options(table, where=SCENE)
    options[f"{SCENE}.title"] = table.title or project.name
    return Stage(
        name=SCENE,
        table=SCENE,
        options=options,
        files=files,
        needs=needs,
        outputs=(Output(name=SCENE_NAME, kind="folder"),),
        make=_scene,
    )


def _has_meshes(project: Project) -> bool:
    """Tell whether the stage of meshes makes what a scene can take over."""
    return project.mesh is not None and project.mesh.format is None and not project.mesh.sharded


def _mesh(work: Work) -> Mapping[str, Any]:
    from floodem.shapes.meshes.job import mesh_segmentation
    from floodem.shapes.meshes.options import MeshOptions

    table = work.project.mesh
    assert table is not None
    name, _ = final_labels(work.project)
    made = mesh_segmentation(
        LabelSource(uri=str(work.path(name))),
        str(work.path(MESHES_NAME)),
        options=MeshOptions(
            ids=table.ids,
            min_voxels=table.min_voxels,
            voxel_size=work.project.image.voxel_size,
            max_error_nm=table.error,
            block_edge=table.block_size,
            file_format=table.format,
            is_sharded=table.sharded,
        ),
        crew=work.crew,
        overwrite=work.overwrite,
        progress=work.progress,
        should_stop=work.should_stop,
    )
    for sentence in made.notices:
        work.notice(sentence)
    return {"objects": made.objects, "triangles": made.triangles[0] if made.triangles else 0}


def _scene(work: Work) -> Mapping[str, Any]:
    from floodem.viewer.scenes import MAKE, NONE, SceneOptions, make_scene

    project, table = work.project, work.project.scene
    assert table is not None
    segmentations: dict[str, str] = {}
    if project.segment is not None:
        segmentations = {"labels": str(work.path(final_labels(project)[0]))}
    made = make_scene(
        work.path(SCENE_NAME),
        images={"image": image_uri(project)},
        segmentations=segmentations,
        options=SceneOptions(
            meshes=work.path(MESHES_NAME) if _has_meshes(project) else MAKE,
            skeletons=MAKE if table.skeletons else NONE,
            is_sharded=table.sharded,
            title=table.title or project.name,
            scores=work.path(SCORES_NAME) if project.evaluate is not None else None,
            has_client=table.client,
            workers=work.crew.workers,
        ),
        overwrite=work.overwrite,
        progress=work.progress,
        notice=work.notice,
        should_stop=work.should_stop,
    )
    objects = sum(made.summary.get("objects", {}).values())
    return {"layers": len(made.layers), "objects": int(objects)}
