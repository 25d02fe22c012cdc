"""Meshes and skeletons beside a segmentation: which folders are taken, and for which layer."""

from __future__ import annotations

import json
from contextlib import ExitStack

import numpy as np
import pytest

from floodem.errors import (
    OptionError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import VoxelSize
from floodem.viewer import Kind, RemoteLayer
from floodem.viewer.object_folders import Shape, ShapeFolder, find_shapes, shapes_of_volume
from floodem.viewer.opening import open_layers
from floodem.volumes import create_volume
from viewer_cases import MemoryVolume, noise, two_objects

MESHES = {"@type": "neuroglancer_multilod_draco", "vertex_quantization_bits": 16}
SKELETONS = {"@type": "neuroglancer_skeletons"}
PROPERTIES = {"inline": {"ids": [], "properties": []}, "@type": "neuroglancer_segment_properties"}


def made(folder, info):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "info").write_text(json.dumps(info))
    return folder


def test_a_folder_of_meshes_is_taken_with_the_properties_in_it(tmp_path):
    folder = made(tmp_path / "m", MESHES)
    made(folder / "segment_properties", PROPERTIES)
    assert find_shapes(folder) == [
        ShapeFolder(folder, Shape.MESH),
        ShapeFolder(folder / "segment_properties", Shape.PROPERTIES),
    ]


def test_a_folder_of_folders_gives_all_of_them(tmp_path):
    made(tmp_path / "mesh", MESHES)
    made(tmp_path / "skeletons", SKELETONS)
    assert [one.shape for one in find_shapes(tmp_path)] == [Shape.MESH, Shape.SKELETON]


def test_a_volume_names_its_own(tmp_path):
    volume = made(tmp_path / "seg", {"scales": [], "mesh": "m_64", "skeletons": "gone"})
    made(volume / "m_64", MESHES)
    assert shapes_of_volume(volume) == [ShapeFolder(volume / "m_64", Shape.MESH)]
    assert find_shapes(volume) == shapes_of_volume(volume)


def test_the_type_is_found_at_the_end_of_long_properties(tmp_path):
    long = {"inline": {"ids": [str(n) for n in range(100_000)]}, "@type": MESHES["@type"]}
    assert find_shapes(made(tmp_path, long)) == [ShapeFolder(tmp_path, Shape.MESH)]


def test_a_volume_that_points_out_of_itself_is_not_followed(tmp_path):
    made(tmp_path / "private", MESHES)
    volume = made(tmp_path / "seg", {"scales": [], "mesh": "../private"})
    with pytest.raises(UnsafeFileError, match="lies outside of it"):
        shapes_of_volume(volume)


@pytest.mark.parametrize("info", [None, {"scales": []}, PROPERTIES, {"@type": "other"}])
def test_a_folder_without_shapes_is_refused(tmp_path, info):
    if info is not None:
        made(tmp_path, info)
    with pytest.raises(VolumeFormatError, match="neither meshes nor skeletons"):
        find_shapes(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no folder"):
        find_shapes(tmp_path / "gone")


def test_an_info_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "info").write_text("{")
    with pytest.raises(VolumeFormatError, match="cannot be read as JSON"):
        shapes_of_volume(tmp_path)


SIZE = VoxelSize(8, 8, 8)


def opened(*asked, shapes):
    with ExitStack() as stack:
        return open_layers(list(asked), stack, shapes=shapes)


def seg(name="memory"):
    return Kind.SEGMENTATION, MemoryVolume(two_objects(np.uint32), uri=name, voxel_size=SIZE)


def test_one_segmentation_gets_all_folders(tmp_path):
    meshes, skeletons = made(tmp_path / "m", MESHES), made(tmp_path / "s", SKELETONS)
    image = (Kind.IMAGE, MemoryVolume(noise("u1"), uri="em", voxel_size=SIZE))
    em, labels = opened(image, seg(), shapes=([meshes], [skeletons, "precomputed://https://h/s"]))
    assert em.shapes == ()
    assert labels.shapes == (
        ShapeFolder(meshes, Shape.MESH),
        ShapeFolder(skeletons, Shape.SKELETON),
        "precomputed://https://h/s",
    )
    assert not labels.is_meshed_here


def test_skeletons_alone_leave_the_meshes_on_demand(tmp_path):
    (labels,) = opened(seg(), shapes=([], [made(tmp_path, SKELETONS)]))
    assert labels.is_meshed_here


def test_several_segmentations_get_one_each_in_their_order(tmp_path):
    folders = [made(tmp_path / name, MESHES) for name in "ab"]
    first, second, third = opened(seg("a"), seg("b"), seg("c"), shapes=(folders,))
    assert [one.path for one in first.shapes + second.shapes] == folders
    assert third.shapes == ()
    with pytest.raises(OptionError, match="3 folders of shapes are given for 2"):
        opened(seg("a"), seg("b"), shapes=([*folders, folders[0]],))


def test_without_a_segmentation_they_are_a_layer_of_their_own(tmp_path):
    folder = made(tmp_path / "cells", MESHES)
    (layer,) = opened(shapes=([folder],))
    assert isinstance(layer, RemoteLayer)
    assert (layer.name, layer.kind) == ("cells", Kind.SEGMENTATION)
    assert layer.source == ShapeFolder(folder, Shape.MESH)


def test_a_precomputed_segmentation_brings_its_own_meshes(tmp_path):
    uri = f"precomputed://{tmp_path / 'seg'}"
    with create_volume(uri, shape=(8, 8, 8), dtype=np.uint32, voxel_size=SIZE) as volume:
        volume.write(volume.box, np.ones((8, 8, 8), np.uint32))
    info = json.loads((tmp_path / "seg" / "info").read_text())
    made(tmp_path / "seg", info | {"mesh": "mesh"})
    made(tmp_path / "seg" / "mesh", MESHES)
    (layer,) = opened((Kind.SEGMENTATION, uri), shapes=())
    assert layer.shapes == (ShapeFolder(tmp_path / "seg" / "mesh", Shape.MESH),)
    assert layer.public is None
