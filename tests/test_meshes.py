"""Meshes of labels in memory: where surfaces lie, that they are closed, how they get lighter."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import cKDTree

from floodem.errors import DependencyError, GeometryError, LabelError
from floodem.geometry import VoxelSize
from floodem.shapes.meshes import (
    Lattice,
    Mesh,
    coarser,
    default_error_nm,
    object_meshes,
    simplified,
)
from floodem.shapes.meshes import mesh as mesh_module
from floodem.shapes.meshes.pinches import without_pinches
from mesh_cases import (
    ANISOTROPIC,
    ISOTROPIC,
    ball,
    edge_counts,
    is_watertight,
    normals_zyx,
    tissue,
)

LARGEST_ID = 2**64 - 1

# Two tetrahedra, outward, on one edge (0, 1) each with corners of its own.
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
CORNERS = np.array([[0, 0, 0], [4, 0, 0], [1, 3, 1], [1, 1, 3]], np.float32)


def only(labels: np.ndarray, **options) -> Mesh:
    ((_, mesh),) = object_meshes(labels, **options)
    return mesh


@pytest.mark.parametrize("voxel_size", [ISOTROPIC, ANISOTROPIC], ids=str)
@pytest.mark.parametrize("is_lighter", [False, True])
def test_a_ball_has_its_volume_and_looks_outwards(voxel_size: VoxelSize, is_lighter: bool) -> None:
    labels = ball(150, voxel_size)
    error = default_error_nm(voxel_size) if is_lighter else None
    mesh = only(labels, voxel_size=voxel_size, max_error_nm=error)
    assert mesh.volume_nm3 == pytest.approx(4 / 3 * np.pi * 150**3, rel=0.02)
    centre = np.array(labels.shape) / 2 * voxel_size.zyx_nm
    middles = mesh.vertices_zyx_nm[mesh.faces].mean(axis=1) - centre
    normals = normals_zyx(mesh)
    inwards = (normals * middles).sum(axis=1) < 0
    # A step of the voxels may come to hang over by a little.
    assert np.linalg.norm(normals[inwards], axis=1).sum() / 2 < 0.005 * mesh.area_nm2
    assert not inwards.any() or is_lighter
    assert is_watertight(mesh)


def test_writers_get_counter_clockwise_triangles_in_x_y_z() -> None:
    mesh = only(ball(60, ANISOTROPIC), voxel_size=ANISOTROPIC)
    vertices_xyz, faces = mesh.as_xyz()
    a, b, c = vertices_xyz.astype(np.float64)[faces.T]
    assert (a * np.cross(b, c)).sum() / 6 == pytest.approx(mesh.volume_nm3, rel=1e-5)
    back = Mesh.from_xyz(vertices_xyz, faces)
    np.testing.assert_array_equal(back.vertices_zyx_nm, mesh.vertices_zyx_nm)
    np.testing.assert_array_equal(back.faces, mesh.faces)


def test_a_voxel_reaches_from_its_position_to_the_next() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3] = 7
    mesh = only(labels, voxel_size=ANISOTROPIC, start=(10, 20, 30))
    assert mesh.box_nm == ((11 * 30, 22 * 6, 33 * 6), (12 * 30, 23 * 6, 34 * 6))
    assert is_watertight(mesh)


def test_neighbours_meet_where_their_voxels_do() -> None:
    labels = np.ones((6, 6, 6), np.uint16)
    labels[3:] = 2
    low, high = (mesh for _, mesh in object_meshes(labels, voxel_size=ISOTROPIC))
    assert low.box_nm == ((0, 0, 0), (30, 60, 60))
    assert high.box_nm == ((30, 0, 0), (60, 60, 60))


def test_objects_cut_by_the_border_are_closed_only_when_asked() -> None:
    labels = tissue(1, (20, 22, 24))
    for (label, closed), (same, open_) in zip(
        object_meshes(labels, voxel_size=ISOTROPIC),
        object_meshes(labels, voxel_size=ISOTROPIC, is_closed=False),
        strict=True,
    ):
        assert label == same
        assert (edge_counts(closed) == 2).all()
        assert (edge_counts(open_) == 1).any()


@settings(deadline=None, max_examples=60)
@given(labels=arrays.arrays(np.uint8, (5, 6, 4), elements=st.integers(0, 3)))
def test_any_labels_have_closed_meshes_in_their_boxes(labels: np.ndarray) -> None:
    found = dict(object_meshes(labels, voxel_size=ANISOTROPIC))
    assert sorted(found) == sorted({*np.unique(labels).tolist()} - {0})
    for label, mesh in found.items():
        assert (edge_counts(mesh) == 2).all()
        assert mesh.volume_nm3 > 0
        where = np.argwhere(labels == label)
        low, high = where.min(axis=0), where.max(axis=0) + 1
        np.testing.assert_allclose(mesh.box_nm, [low * (30, 6, 6), high * (30, 6, 6)])


@settings(deadline=None, max_examples=40)
@given(
    labels=arrays.arrays(np.uint8, (6, 6, 6), elements=st.integers(0, 2)),
    error=st.floats(1, 40),
)
def test_lighter_meshes_of_any_labels_are_watertight(labels: np.ndarray, error: float) -> None:
    for _, mesh in object_meshes(labels, voxel_size=ISOTROPIC, max_error_nm=error):
        assert is_watertight(mesh)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_ids_come_out_as_they_are(dtype: type) -> None:
    largest = int(np.iinfo(dtype).max)
    labels = np.zeros((3, 3, 9), dtype)
    labels[1, 1, 1], labels[1, 1, 4], labels[1, 1, 7] = largest, 3, 5
    assert [label for label, _ in object_meshes(labels, voxel_size=ISOTROPIC)] == [3, 5, largest]
    for ids in ([largest, 5], {largest, 5, LARGEST_ID, 77}):
        found = [label for label, _ in object_meshes(labels, voxel_size=ISOTROPIC, ids=ids)]
        assert found == [5, largest]
    ((one, _),) = object_meshes(labels, voxel_size=ISOTROPIC, ids=[largest])
    assert one == largest


def test_arrays_without_objects_have_no_meshes() -> None:
    for shape in [(0, 3, 3), (1, 1, 1), (4, 4, 4)]:
        assert not list(object_meshes(np.zeros(shape, np.uint32), voxel_size=ISOTROPIC))
    assert not list(
        object_meshes(np.ones((1, 9, 9), np.uint8), voxel_size=ISOTROPIC, is_closed=False)
    )


@pytest.mark.parametrize("bad", [np.ones((3, 3, 3)), np.full((3, 3, 3), -1)])
def test_values_that_are_no_labels_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(LabelError, match=r"labels"):
        list(object_meshes(bad, voxel_size=ISOTROPIC))


@pytest.mark.parametrize("library", ["zmesh", "pyfqmr"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DependencyError, match=r"pip install floodem\[shapes\]"):
        list(object_meshes(ball(60, ISOTROPIC), voxel_size=ISOTROPIC, max_error_nm=10))


def test_simplification_leaves_open_borders_alone_to_the_last_bit() -> None:
    labels = tissue(2, (30, 30, 30))
    for _, mesh in object_meshes(labels, voxel_size=VoxelSize(9.1, 7.3, 3.7), is_closed=False):
        lighter = simplified(mesh, max_error_nm=10)
        assert len(lighter.faces) < len(mesh.faces) / 2
        assert borders(lighter) == borders(mesh)


def borders(mesh: Mesh) -> set[bytes]:
    edges = np.concatenate([mesh.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    _, first, counts = np.unique(
        np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True
    )
    return {mesh.vertices_zyx_nm[edge].tobytes() for edge in edges[first[counts == 1]]}


@pytest.mark.parametrize("error", [5.0, 10.0, 20.0])
def test_simplification_stays_within_its_error(error: float) -> None:
    for _, mesh in object_meshes(tissue(3, (30, 30, 30)), voxel_size=ISOTROPIC):
        lighter = coarser(mesh, max_error_nm=error)
        assert (edge_counts(lighter) == 2).all()
        assert lighter.volume_nm3 == pytest.approx(mesh.volume_nm3, rel=0.01)
        # Vertices of marching cubes lie half a voxel apart, so their surface is as near.
        away, _ = cKDTree(mesh.vertices_zyx_nm).query(samples(lighter))
        assert away.max() < error + 5


def samples(mesh: Mesh) -> np.ndarray:
    weights = np.random.default_rng(0).dirichlet((1, 1, 1), (len(mesh.faces), 20))
    return np.einsum("fsc,fcd->fsd", weights, mesh.vertices_zyx_nm[mesh.faces]).reshape(-1, 3)


def test_flat_faces_need_no_vertices_inside() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[3:27, 5:25, 4:26] = 1
    mesh = only(labels, voxel_size=ISOTROPIC)
    lighter = simplified(mesh, max_error_nm=0.01)
    assert len(lighter.faces) < len(mesh.faces) / 8
    assert lighter.volume_nm3 == pytest.approx(mesh.volume_nm3, rel=1e-4)


def test_simplification_ends_at_the_number_of_faces_asked_for() -> None:
    mesh = only(ball(150, ISOTROPIC), voxel_size=ISOTROPIC)
    lighter = simplified(mesh, max_error_nm=100, target_faces=500)
    assert 450 <= len(lighter.faces) <= 500


def test_an_object_too_small_to_be_lighter_stays() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 1
    mesh = only(labels, voxel_size=ISOTROPIC)
    lighter = coarser(mesh, max_error_nm=1000)
    assert lighter.volume_nm3 == pytest.approx(mesh.volume_nm3)
    assert len(lighter.faces) == 8
    assert coarser(Mesh.empty(), max_error_nm=1).is_empty


def tetrahedra_on_one_edge(turns: list[float]) -> Mesh:
    """Tetrahedra around the z axis that share the vertices 0 and 1."""
    vertices, faces = [CORNERS[:2]], []
    for number, turn in enumerate(turns):
        c, s = np.cos(turn), np.sin(turn)
        vertices.append(CORNERS[2:] @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]))
        faces.append(np.where(TETRAHEDRON > 1, TETRAHEDRON + 2 * number, TETRAHEDRON))
    return Mesh(
        np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.uint32)
    )


@pytest.mark.parametrize("turns", [[0, np.pi], [0, 2, 4], [0, 1.4]])
def test_solids_that_share_an_edge_are_parted(turns: list[float]) -> None:
    mesh = tetrahedra_on_one_edge(turns)
    assert (edge_counts(mesh) > 2).any()
    parted = without_pinches(mesh, max_shift_nm=1)
    assert is_watertight(parted)
    assert len(parted.faces) == len(mesh.faces) + 2 * len(turns)
    # Each solid shrinks a little, as its edge moves inwards.
    assert 0.9 * mesh.volume_nm3 < parted.volume_nm3 < mesh.volume_nm3


def test_hollows_that_share_an_edge_are_parted() -> None:
    solid = tetrahedra_on_one_edge([0, np.pi])
    hollow = Mesh(solid.vertices_zyx_nm, np.ascontiguousarray(solid.faces[:, ::-1]))
    parted = without_pinches(hollow, max_shift_nm=1)
    assert (edge_counts(parted) == 2).all()
    assert parted.volume_nm3 == pytest.approx(hollow.volume_nm3, rel=0.15)


def test_edges_move_no_further_than_allowed() -> None:
    mesh = tetrahedra_on_one_edge([0, np.pi])
    parted = without_pinches(mesh, max_shift_nm=0.01)
    new = parted.vertices_zyx_nm[len(mesh.vertices_zyx_nm) :]
    assert np.linalg.norm(new - [2, 0, 0], axis=1).max() <= 0.0101


def test_faces_back_to_back_are_dropped() -> None:
    mesh = tetrahedra_on_one_edge([0])
    flat = np.array([[0, 1, 2], [0, 2, 1], [2, 1, 0]], np.uint32)
    both = Mesh(mesh.vertices_zyx_nm, np.concatenate([mesh.faces, flat[:2]]))
    left = without_pinches(both, max_shift_nm=1)
    assert len(left.faces) == 4
    assert (edge_counts(left) == 2).all()
    assert left.volume_nm3 == pytest.approx(mesh.volume_nm3)
    twice = Mesh(mesh.vertices_zyx_nm, flat)
    assert len(without_pinches(twice, max_shift_nm=1).faces) == 1


def test_open_edges_with_three_faces_are_left() -> None:
    mesh = tetrahedra_on_one_edge([0, np.pi])
    fan = Mesh(mesh.vertices_zyx_nm, mesh.faces[[0, 1, 4]])
    np.testing.assert_array_equal(without_pinches(fan, max_shift_nm=1).faces, fan.faces)


def test_volume_surface_and_box_of_a_known_solid() -> None:
    mesh = Mesh(CORNERS[:, [0, 1, 2]], TETRAHEDRON.astype(np.uint32))
    assert mesh.volume_nm3 == pytest.approx(4 * 8 / 6)
    assert mesh.box_nm == ((0, 0, 0), (4, 3, 3))
    flat = Mesh(
        np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0]], np.float32), np.array([[0, 1, 2]], np.uint32)
    )
    assert flat.area_nm2 == pytest.approx(6)
    far = Mesh((CORNERS + 1e6).astype(np.float32), TETRAHEDRON.astype(np.uint32))
    assert far.volume_nm3 == pytest.approx(mesh.volume_nm3, rel=1e-6)
    nothing = Mesh.concatenate([])
    assert nothing.is_empty
    assert (nothing.volume_nm3, nothing.area_nm2, nothing.box_nm) == (0, 0, None)


@settings(deadline=None)
@given(
    places=arrays.arrays(np.float32, (12, 3), elements=st.sampled_from([0.0, -0.0, 0.5, 1e6])),
    faces=arrays.arrays(np.uint32, (9, 3), elements=st.integers(0, 11)),
)
@pytest.mark.parametrize("is_colliding", [False, True])
def test_welding_joins_what_is_in_one_place(
    places: np.ndarray, faces: np.ndarray, is_colliding: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_colliding:
            patch.setattr(mesh_module, "_MULTIPLIERS", (np.uint64(0), np.uint64(0)))
        welded = Mesh(places, faces).welded()
    corners = [tuple(map(tuple, places[face].tolist())) for face in faces]
    kept = [one for one in corners if len(set(one)) == 3]
    assert [tuple(map(tuple, one)) for one in welded.vertices_zyx_nm[welded.faces].tolist()] == kept
    assert len(welded.vertices_zyx_nm) == len({place for one in kept for place in one})


def test_meshes_are_put_side_by_side() -> None:
    one = tetrahedra_on_one_edge([0])
    both = Mesh.concatenate([one, one, Mesh.empty()])
    assert both.volume_nm3 == pytest.approx(2 * one.volume_nm3)
    assert len(both.welded().vertices_zyx_nm) == 4


def test_more_vertices_than_32_bits_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_module, "MAX_VERTICES", 7)
    with pytest.raises(GeometryError, match="8 vertices"):
        Mesh.concatenate([tetrahedra_on_one_edge([0])] * 2)


def test_rounding_moves_vertices_by_half_a_step_at_most() -> None:
    mesh = only(ball(60, ANISOTROPIC), voxel_size=VoxelSize(3.3, 1.7, 2.9))
    lattice = Lattice(step_nm=(0.5, 0.3, 0.7), origin_nm=(1, 2, 3))
    moved = mesh.rounded(lattice).vertices_zyx_nm - mesh.vertices_zyx_nm
    assert (np.abs(moved) <= np.array([0.25, 0.15, 0.35]) + 1e-4).all()
    steps = (mesh.rounded(lattice).vertices_zyx_nm - (1, 2, 3)) / (0.5, 0.3, 0.7)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
