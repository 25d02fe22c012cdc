"""What Chromium draws in 3-D: meshes and skeletons beside a volume, and scenes among others."""

from __future__ import annotations

import numpy as np
import pytest

import floodem
from floodem.geometry import VoxelSize
from floodem.viewer import Look, layers
from floodem.volumes import create_volume
from viewer_cases import noise

WINDOW = (700, 600)
SIZE = VoxelSize(20, 10, 10)


def two_tubes():
    labels = np.zeros((60, 80, 80), np.uint64)
    labels[:, 10:30, 10:30] = 3
    labels[20:40, 45:65, :] = 2**40
    return labels


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory):
    """Two tubes as a precomputed volume that names its meshes."""
    pytest.importorskip("zmesh")
    from floodem.shapes.meshes.job import mesh_segmentation

    folder = tmp_path_factory.mktemp("seg") / "seg"
    uri = f"precomputed://{folder}"
    with create_volume(uri, shape=(60, 80, 80), dtype=np.uint64, voxel_size=SIZE) as volume:
        volume.write(volume.box, two_tubes())
    mesh_segmentation(uri, folder / "mesh")
    return folder


@pytest.fixture(scope="module")
def skeletons(segmentation):
    from floodem.shapes.skeletons.job import SkeletonRequest, skeletonize
    from floodem.shapes.source import LabelSource

    folder = segmentation.with_name("skeletons")
    request = SkeletonRequest(min_voxels=1)
    skeletonize(LabelSource(uri=f"precomputed://{segmentation}"), folder, request=request)
    return folder


def drawn_in_3d(chromium, *sources, name, selected=(3, 2**40), layers=1, **options):
    look = Look(selected=selected, layout="3d")
    with floodem.view(*sources, view_size_wh=WINDOW, look=look, **options) as viewer:
        with viewer.client.txn() as state:
            state.show_default_annotations = False
            state.show_axis_lines = False
        page = chromium.show(viewer, layers=layers)
        (panel,) = page.panels().values()
        assert page.complaints() == []
        page.save(name)
    return panel


def test_a_large_precomputed_segmentation_shows_the_meshes_it_names(
    chromium, segmentation, monkeypatch
):
    monkeypatch.setattr(layers, "MESH_VOXELS", 1000)
    uri = f"segmentation=precomputed://{segmentation}"
    panel = drawn_in_3d(chromium, uri, name="own-meshes")
    assert panel.share_coloured() > 0.05
    one = drawn_in_3d(chromium, uri, name="own-mesh", selected=(3,))
    assert 0.01 < one.share_coloured() < 0.8 * panel.share_coloured()


def test_meshes_in_a_folder_lie_where_those_made_on_demand_do(chromium, segmentation, tmp_path):
    array = two_tubes()
    beside = drawn_in_3d(
        chromium,
        array,
        name="beside",
        meshes=[segmentation / "mesh"],
        voxel_size=SIZE,
    )
    demanded = drawn_in_3d(chromium, array, name="demanded", voxel_size=SIZE)
    both = beside.coloured() & demanded.coloured()
    either = beside.coloured() | demanded.coloured()
    assert demanded.share_coloured() > 0.05
    assert both.sum() / either.sum() > 0.97


def test_objects_without_shapes_are_selected_and_nothing_waits_for_them(
    chromium, segmentation, tmp_path
):
    from floodem.shapes.meshes.job import MeshOptions, mesh_segmentation
    from floodem.shapes.precomputed import SkeletonInfo, write_info

    uri = f"precomputed://{segmentation}"
    mesh_segmentation(uri, tmp_path / "mesh", options=MeshOptions(ids=(3,)))
    (tmp_path / "skeletons").mkdir()
    write_info(tmp_path / "skeletons", SkeletonInfo())
    panel = drawn_in_3d(
        chromium,
        two_tubes(),
        name="without-shapes",
        meshes=[tmp_path / "mesh"],
        skeletons=[tmp_path / "skeletons"],
        voxel_size=SIZE,
    )
    assert panel.share_coloured() > 0.01


def test_skeletons_are_drawn_along_the_objects(chromium, segmentation, skeletons):
    lines = drawn_in_3d(chromium, name="skeletons", skeletons=[skeletons], selected=())
    assert lines.colours(share=2e-4) >= 2
    assert 0.0005 < lines.share_coloured() < 0.1
    with_volume = drawn_in_3d(
        chromium, two_tubes(), name="skeletons-and-meshes", skeletons=[skeletons], voxel_size=SIZE
    )
    assert with_volume.share_coloured() > 0.05


def test_meshes_without_a_volume_are_looked_at_where_they_are(chromium, segmentation):
    meshes = segmentation / "mesh"
    alone = drawn_in_3d(chromium, name="meshes-alone", meshes=[meshes], selected=())
    beside = drawn_in_3d(
        chromium, two_tubes(), name="beside", meshes=[meshes], voxel_size=SIZE, selected=()
    )
    assert alone.share_coloured() > 0.05
    assert alone.share_coloured() == pytest.approx(beside.share_coloured(), rel=0.2)


@pytest.fixture(scope="module")
def scene(segmentation, tmp_path_factory):
    from floodem.viewer.scenes import SceneOptions, make_scene

    folder = tmp_path_factory.mktemp("scene")
    uri = str(folder / "em.zarr")
    with create_volume(uri, shape=(60, 80, 80), dtype=np.uint8, voxel_size=SIZE) as volume:
        volume.write(volume.box, noise(np.uint8, shape=volume.shape))
    return make_scene(
        folder / "out",
        images=[uri],
        segmentations=[f"precomputed://{segmentation}"],
        options=SceneOptions(),
    ).folder


def test_a_scene_is_shown_with_its_state(chromium, scene):
    with floodem.view(scene, view_size_wh=WINDOW) as viewer:
        page = chromium.show(viewer, layers=2)
        panels = page.panels()
        assert panels["xy"].share_textured() > 0.05
        assert panels["xy"].colours() >= 2
        assert panels["3d"].share_coloured() > 0.1
        assert page.complaints() == []
        page.save("scene")


def test_a_scene_and_a_volume_are_shown_together(chromium, scene):
    extra = np.zeros((60, 80, 80), np.uint32)
    extra[25:35, 5:75, 35:40] = 9
    with floodem.view(scene, extra, voxel_size=SIZE, view_size_wh=WINDOW) as viewer:
        page = chromium.show(viewer, layers=3)
        names = [layer["name"] for layer in page.state()["layers"]]
        assert len(set(names)) == 3
        assert page.panels()["xy"].colours() >= 3
        assert page.complaints() == []
        page.save("scene-and-volume")
