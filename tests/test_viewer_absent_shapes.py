"""Objects that have no mesh or skeleton are shown as nothing, and nobody waits for them."""

from __future__ import annotations

import urllib.error
import urllib.request

import numpy as np
import pytest

from floodem.errors import VolumeNotFoundError
from floodem.shapes.precomputed import (
    LegacyMeshInfo,
    MeshFolder,
    MeshInfo,
    ShardingSpec,
    SkeletonInfo,
    write_info,
)
from floodem.shapes.skeletons.precomputed import decode_skeleton
from floodem.viewer.absent_shapes import empty_shapes, empty_shapes_below, ids_with_mesh
from floodem.viewer.layers import objects_at_first
from floodem.viewer.serving import Site

LARGEST_ID = 2**64 - 1


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (SkeletonInfo(), f"{LARGEST_ID}"),
        (MeshInfo(), "7.index"),
        (LegacyMeshInfo(), "7:0"),
    ],
)
def test_a_folder_gives_an_empty_shape_for_an_id_and_for_nothing_else(tmp_path, info, name):
    write_info(tmp_path, info)
    absent = empty_shapes(tmp_path)
    assert absent(name)
    for other in ("info", "x", f"{name}x", f"a/{name}", "", "-1", f"{name}\n", "1" * 21):
        assert absent(other) is None


def test_an_empty_skeleton_is_one_without_points(tmp_path):
    write_info(tmp_path, SkeletonInfo())
    skeleton = decode_skeleton(empty_shapes(tmp_path)("3"), uri="3")
    assert len(skeleton) == 0
    assert len(skeleton.edges) == 0


def test_an_empty_mesh_has_no_triangles(tmp_path):
    write_info(tmp_path, MeshInfo())
    (tmp_path / "3.index").write_bytes(empty_shapes(tmp_path)("3.index"))
    (tmp_path / "3").write_bytes(b"")
    mesh = MeshFolder(tmp_path).mesh(3)
    assert not len(mesh.faces)


def test_objects_that_share_files_are_looked_up_there(tmp_path):
    spec = ShardingSpec(preshift_bits=0, hash="identity", minishard_bits=0, shard_bits=0)
    write_info(tmp_path, SkeletonInfo(sharding=spec))
    assert empty_shapes(tmp_path) is None


def test_a_folder_without_info_is_refused(tmp_path):
    with pytest.raises(VolumeNotFoundError):
        empty_shapes(tmp_path)


def test_what_is_there_is_served_and_what_is_not_is_empty(tmp_path):
    pytest.importorskip("neuroglancer")
    write_info(tmp_path, SkeletonInfo())
    (tmp_path / "1").write_bytes(np.arange(4, dtype="<u4").tobytes())

    def ask(address):
        with urllib.request.urlopen(address, timeout=20) as reply:
            return reply.read()

    with Site.start() as site:
        plain = site.serve_folder(tmp_path)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(f"{plain}/2")
        filled = site.serve_folder(tmp_path, absent=empty_shapes(tmp_path))
        assert ask(f"{filled}/1") == np.arange(4, dtype="<u4").tobytes()
        assert ask(f"{filled}/2") == bytes(8)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(f"{filled}/nothing")


def test_ids_that_have_a_mesh_are_told_where_each_has_a_file(tmp_path):
    write_info(tmp_path, MeshInfo())
    for name in ("7", "7.index", f"{LARGEST_ID}.index", "x.index", "8"):
        (tmp_path / name).write_bytes(b"")
    assert ids_with_mesh(tmp_path) == {7, LARGEST_ID}


def test_objects_without_a_mesh_are_not_shown_at_first():
    labels = np.repeat(np.arange(1, 6, dtype=np.uint32), 100).reshape(5, 10, 10)
    assert objects_at_first(labels, among={2, 5, 9}) == [2, 5]
    assert objects_at_first(labels, among=set()) == []


def test_shapes_are_found_below_the_volumes_of_a_folder(tmp_path):
    for place in ("cells/mesh", "cells/skeletons"):
        (tmp_path / place).mkdir(parents=True)
    write_info(tmp_path / "cells" / "mesh", MeshInfo())
    write_info(tmp_path / "cells" / "skeletons", SkeletonInfo())
    absent = empty_shapes_below(tmp_path)
    assert absent("cells/skeletons/5") == bytes(8)
    assert absent("cells/mesh/5.index")
    for other in ("cells/5", "5", "cells/mesh/5", "other/skeletons/5"):
        assert absent(other) is None
