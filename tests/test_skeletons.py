"""Skeletons of objects in memory: lengths, radii, pieces, and where the lines lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from floodem.errors import GeometryError, OptionError
from floodem.shapes.skeletons import teasar, voxel_graph
from floodem.shapes.skeletons.skeleton import Skeleton, join
from floodem.shapes.skeletons.teasar import TeasarOptions, skeletonize_mask
from floodem.volumes.synthetic import SyntheticOptions, synthesize
from floodem.volumes.synthetic import skeletons as true_skeletons
from reference import voxel_neighbours
from skeleton_cases import (
    ISOTROPIC,
    THICK,
    THIN,
    distances_to,
    is_forest,
    line_length,
    path,
    same,
    straight,
    tubes,
)

SIZES = [ISOTROPIC, THIN, THICK]
DIRECTIONS = [
    (1, 0, 0),
    (0, 0, 1),
    (0, 1, 1),
    (1, 1, 1),
    (0.3, 0.4, 0.87),
    (0.2, 0.9, 0.3),
    (0.8, 0.13, 0.6),
]
FINE = TeasarOptions(const_nm=100)
OPEN = ((True, True),) * 3


@pytest.mark.parametrize("voxel_size", SIZES, ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_straight_tube_has_its_length_and_radius(voxel_size, direction):
    radius = 70.0
    line = straight((130, 120, 125), direction, 1100)
    skeleton = skeletonize_mask(tubes([line], radius, voxel_size), voxel_size=voxel_size)
    assert skeleton.length_nm == pytest.approx(1100, rel=0.03)
    assert len(skeleton.end_points) == 2
    assert not len(skeleton.branch_points)
    # Within half a voxel's diagonal of the true axis, and the radius with it.
    off = np.linalg.norm(voxel_size.zyx_nm) / 2
    course = (line[-1] - line[0]) / 1100
    inner = np.abs((skeleton.vertices_zyx_nm - line[200]) @ course) < 450
    assert distances_to([line], skeleton)[inner].max() < off
    assert np.median(skeleton.radii_nm) == pytest.approx(radius, abs=off)


@pytest.mark.parametrize("flat", [True, False], ids=["flat ends", "round ends"])
@pytest.mark.parametrize("radius", [15.0, 30.0, 90.0])
def test_thin_and_thick_tubes_end_where_the_object_ends(radius, flat):
    line = straight((130, 130, 130), (0.4, 0.5, 0.77), 1200)
    skeleton = skeletonize_mask(
        tubes([line], radius, ISOTROPIC, flat=flat), voxel_size=ISOTROPIC, options=FINE
    )
    caps = 0 if flat else 2 * radius
    assert skeleton.length_nm == pytest.approx(1200 + caps, rel=0.03)
    assert len(skeleton.end_points) == 2


@pytest.mark.parametrize("voxel_size", [ISOTROPIC, THIN], ids=str)
def test_a_bent_tube_has_the_length_of_its_arc(voxel_size):
    turn = np.linspace(0, np.pi, 500)
    arc = np.stack(
        [np.full(500, 150.0), 150 + 400 * np.sin(turn), 600 - 400 * np.cos(turn)], axis=1
    )
    skeleton = skeletonize_mask(tubes([arc], 60, voxel_size), voxel_size=voxel_size)
    assert skeleton.length_nm == pytest.approx(line_length(arc), rel=0.03)
    assert len(skeleton.end_points) == 2
    assert distances_to([arc], skeleton).max() < 30


@pytest.mark.parametrize("voxel_size", SIZES, ids=str)
def test_a_fork_has_three_ends_one_branch_point_and_the_length_of_its_arms(voxel_size):
    middle = (400.0, 800, 700)
    arms = [
        straight(middle, course, 700)
        for course in ((0, -1, -0.2), (0.3, 0.6, -0.75), (-0.2, 0.7, 0.7))
    ]
    skeleton = skeletonize_mask(
        tubes(arms, 60, voxel_size, flat=False), voxel_size=voxel_size, options=FINE
    )
    assert len(skeleton.end_points) == 3
    assert len(skeleton.branch_points) == 1
    assert skeleton.length_nm == pytest.approx(2100 + 3 * 60, rel=0.03)
    fork = skeleton.vertices_zyx_nm[skeleton.branch_points[0]]
    assert np.linalg.norm(fork - middle) < 60


def test_a_neurite_that_folds_back_keeps_both_arms():
    long = [straight((200, y, 100), (0, 0, 1), 1500) for y in (100, 260)]
    lines = [*long, straight((200, 100, 1600), (0, 1, 0), 160)]
    skeleton = skeletonize_mask(tubes(lines, 50, ISOTROPIC, flat=False), voxel_size=ISOTROPIC)
    # The arms are 160 nm apart, nearer than a path covers (300 nm and more).
    assert skeleton.length_nm == pytest.approx(3160 + 100, rel=0.06)
    assert len(skeleton.end_points) == 2


def test_a_ball_becomes_its_diameter():
    grid = np.stack(np.meshgrid(*[np.arange(45)] * 3, indexing="ij"), axis=-1)
    mask = np.linalg.norm(grid - 22, axis=-1) <= 20
    skeleton = skeletonize_mask(mask, voxel_size=ISOTROPIC)
    assert len(skeleton.end_points) == 2
    assert skeleton.length_nm == pytest.approx(400, rel=0.05)
    assert skeleton.radii_nm.max() == pytest.approx(200, rel=0.05)


def test_a_soma_is_one_point_that_its_neurites_reach():
    grid = np.stack(np.meshgrid(*[np.arange(80)] * 3, indexing="ij"), axis=-1)
    mask = np.linalg.norm(grid - 40, axis=-1) <= 20
    mask[38:43, 38:43, :] = True
    options = TeasarOptions(soma_nm=150, const_nm=20, soma_scale=1.2, soma_const_nm=20)
    skeleton = skeletonize_mask(mask, voxel_size=ISOTROPIC, options=options)
    centre = skeleton.vertices_zyx_nm[0]
    assert np.linalg.norm(centre - 405) <= 20
    assert len(skeleton.end_points) == 2
    assert skeleton.length_nm == pytest.approx(800, rel=0.05)
    without = skeletonize_mask(mask, voxel_size=ISOTROPIC)
    assert np.linalg.norm(without.vertices_zyx_nm[0] - 405) > 300


def test_rings_and_holes_do_no_harm():
    turn = np.linspace(0, 2 * np.pi, 600)
    ring = np.stack(
        [np.full(600, 100.0), 450 + 350 * np.sin(turn), 450 + 350 * np.cos(turn)], axis=1
    )
    mask = tubes([ring], 50, ISOTROPIC, flat=False)
    mask[9:11, 44:46, 78:80] = False
    skeleton = skeletonize_mask(mask, voxel_size=ISOTROPIC, options=FINE)
    assert is_forest(skeleton)
    assert len(skeleton.components()) == 1
    assert 0.75 < skeleton.length_nm / line_length(ring) < 1.1
    hollow = np.ones((20, 20, 60), bool)
    hollow[4:16, 4:16, 4:56] = False
    assert is_forest(skeletonize_mask(hollow, voxel_size=ISOTROPIC))


def test_pieces_of_one_object_are_one_tree_each_and_small_ones_can_be_left_out():
    mask = np.zeros((20, 20, 120), bool)
    mask[5:9, 5:9, 5:50] = True
    mask[5:9, 5:9, 60:115] = True
    mask[15, 15, 15] = True
    skeleton = skeletonize_mask(mask, voxel_size=ISOTROPIC)
    assert [len(piece) > 1 for piece in skeleton.components()] == [True, True, False]
    assert is_forest(skeleton)
    large = skeletonize_mask(
        mask, voxel_size=ISOTROPIC, options=TeasarOptions(min_piece_voxels=800)
    )
    assert len(large.components()) == 1
    # The largest stays, however small it is.
    none = skeletonize_mask(
        mask, voxel_size=ISOTROPIC, options=TeasarOptions(min_piece_voxels=10**6)
    )
    assert same(none, large)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (2, 2, 2), (1, 7, 1), (3, 3, 3)])
def test_tiny_objects_have_skeletons_too(shape):
    skeleton = skeletonize_mask(np.ones(shape, bool), voxel_size=THIN, start=(3, 4, 5))
    assert len(skeleton)
    assert is_forest(skeleton)
    low = np.array((3, 4, 5)) * THIN.zyx_nm
    high = low + np.array(shape) * THIN.zyx_nm
    assert (skeleton.vertices_zyx_nm > low).all()
    assert (skeleton.vertices_zyx_nm < high).all()


def test_nothing_has_an_empty_skeleton():
    skeleton = skeletonize_mask(np.zeros((3, 3, 3), bool), voxel_size=THIN)
    assert len(skeleton) == 0
    assert skeleton.length_nm == 0
    assert skeleton.components() == []


def test_an_object_that_the_volume_cuts_goes_up_to_the_face_with_its_whole_radius():
    mask = tubes([straight((150, 150, 0), (0, 0, 1), 1200)], 100, ISOTROPIC)[:, :, :120]
    sides = ((False, False), (False, False), (True, True))
    opened = skeletonize_mask(mask, voxel_size=ISOTROPIC, open_sides=sides)
    x = opened.vertices_zyx_nm[:, 2]
    assert x.min() < 20
    assert x.max() > 1180
    at_face = opened.radii_nm[np.argmax(x)]
    assert at_face == pytest.approx(100, rel=0.1)
    closed = skeletonize_mask(mask, voxel_size=ISOTROPIC)
    assert closed.radii_nm[np.argmax(closed.vertices_zyx_nm[:, 2])] < 30
    whole = np.ones((5, 6, 7), bool)
    assert len(skeletonize_mask(whole, voxel_size=ISOTROPIC, open_sides=OPEN))


def test_a_skeleton_lies_where_the_object_lies_and_is_the_same_twice():
    mask = tubes([straight((130, 120, 125), (0.3, 0.4, 0.87), 700)], 60, THIN)
    at_origin = skeletonize_mask(mask, voxel_size=THIN)
    again = skeletonize_mask(mask, voxel_size=THIN)
    assert same(at_origin, again)
    moved = skeletonize_mask(np.pad(mask, 7), voxel_size=THIN, start=(93, -7, 4))
    by = np.array((100, 0, 11)) * THIN.zyx_nm
    np.testing.assert_allclose(moved.vertices_zyx_nm, at_origin.vertices_zyx_nm + by, atol=1e-2)
    np.testing.assert_array_equal(moved.edges, at_origin.edges)


def test_every_vertex_lies_in_the_object():
    rng = np.random.default_rng(3)
    from scipy.ndimage import gaussian_filter

    mask = gaussian_filter(rng.normal(size=(40, 60, 60)), 3) > 0.02
    skeleton = skeletonize_mask(mask, voxel_size=THIN, options=TeasarOptions(const_nm=30))
    at = np.floor(skeleton.vertices_zyx_nm / THIN.zyx_nm).astype(int)
    assert mask[tuple(at.T)].all()
    assert len(skeleton) > 200


@settings(max_examples=60, deadline=None)
@given(
    mask=arrays.arrays(bool, arrays.array_shapes(min_dims=3, max_dims=3, max_side=7)),
    size=st.sampled_from(SIZES),
)
def test_cells_hang_together_as_their_voxels_do(mask, size):
    depth = voxel_graph.boundary_distance(mask, voxel_size=size)
    graph = voxel_graph.voxel_graph(mask, depth_nm=depth, voxel_size=size)
    cell = voxel_graph.cell_shape(size)
    cells = [tuple(map(int, row)) for row in graph.voxels // cell]
    rows = np.repeat(np.arange(len(cells)), np.diff(graph.starts))
    pairs = {(cells[a], cells[b]) for a, b in zip(rows, graph.neighbours, strict=True)}
    assert pairs == voxel_neighbours.cell_pairs(mask, cell)
    assert graph.counts.sum() == mask.sum()
    expected = sorted(len(piece) for piece in voxel_neighbours.pieces(mask))
    assert sorted(int(piece.counts.sum()) for piece in graph.pieces()) == expected
    at = tuple(graph.voxels.T)
    assert mask[at].all()
    np.testing.assert_allclose(graph.depth_nm, depth[at])


@settings(max_examples=40, deadline=None)
@given(
    mask=arrays.arrays(bool, arrays.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    size=st.sampled_from(SIZES),
    scale=st.sampled_from([0.0, 1.5]),
    const=st.sampled_from([0.0, 20.0]),
    sides=st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 3),
)
def test_any_mask_gives_one_tree_for_each_piece(mask, size, scale, const, sides):
    options = TeasarOptions(scale=scale, const_nm=const)
    skeleton = skeletonize_mask(mask, voxel_size=size, options=options, open_sides=sides)
    assert is_forest(skeleton)
    assert len(skeleton.components()) == len(voxel_neighbours.pieces(mask))
    if len(skeleton):
        at = np.floor(skeleton.vertices_zyx_nm / np.float32(size.zyx_nm)).astype(int)
        assert mask[tuple(at.T)].all()
        assert (skeleton.radii_nm > 0).all()


def test_distances_are_the_same_without_edt(monkeypatch):
    rng = np.random.default_rng(0)
    mask = rng.random((12, 14, 16)) < 0.7
    sides = ((True, False), (False, True), (True, True))
    with_edt = voxel_graph.boundary_distance(mask, voxel_size=THIN, open_sides=sides)
    monkeypatch.setitem(__import__("sys").modules, "edt", None)
    without = voxel_graph.boundary_distance(mask, voxel_size=THIN, open_sides=sides)
    np.testing.assert_allclose(with_edt, without, rtol=1e-5)


def test_skeletons_of_synthetic_tissue_lie_along_the_true_ones():
    options = SyntheticOptions.preset("fib", seed=3, shape=(112, 112, 112))
    labels, size = synthesize(options).labels, options.voxel_size
    compared = 0
    for truth in true_skeletons(options):
        mask = labels == truth.label
        if mask.sum() < 20_000 or len(truth.nodes_zyx_nm) < 40:
            continue
        ours = skeletonize_mask(mask, voxel_size=size, open_sides=OPEN, options=FINE)
        nodes = truth.nodes_zyx_nm
        away = distances_to([np.linspace(nodes[a], nodes[b], 10) for a, b in truth.edges], ours)
        # Where parts of an object touch, its skeleton has shorter ways than the true tree.
        assert np.median(away) < 0.6 * np.median(ours.radii_nm)
        compared += 1
    assert compared >= 3


def test_tubes_around_true_skeletons_have_their_length_and_ends():
    options = SyntheticOptions.preset("fib", seed=3, shape=(112, 112, 112))
    trees = sorted(true_skeletons(options), key=lambda tree: -len(tree.edges))[3:7]
    found = true = 0.0
    for tree in trees:
        nodes = tree.nodes_zyx_nm - tree.nodes_zyx_nm.min(axis=0) + 60
        lines = [np.linspace(nodes[a], nodes[b], 10) for a, b in tree.edges]
        mask = tubes(lines, 20, options.voxel_size, flat=False)
        detail = TeasarOptions(scale=1, const_nm=40)
        ours = skeletonize_mask(mask, voxel_size=options.voxel_size, options=detail)
        ends = int((np.bincount(tree.edges.ravel()) == 1).sum())
        assert abs(len(ours.end_points) - ends) <= 1
        assert distances_to(lines, ours).mean() < 8
        found += ours.length_nm
        true += sum(map(line_length, lines)) + 20 * ends
    # The tubes are five voxels wide, and their lines kink at every node, which those do not show.
    assert 0.9 < found / true < 1.02


def test_a_skeleton_knows_its_length_ends_branches_and_pieces():
    fork = Skeleton(
        np.array([[0, 0, 0], [0, 0, 3], [0, 4, 3], [0, 0, 9], [5, 5, 5]], np.float32),
        np.array([[0, 1], [1, 2], [3, 1]], np.uint32),
        np.ones(5, np.float32),
    )
    assert fork.length_nm == 3 + 4 + 6
    assert fork.branch_points.tolist() == [1]
    assert fork.end_points.tolist() == [0, 2, 3]
    first, alone = fork.components()
    assert first.length_nm == 13
    assert alone.vertices_zyx_nm.tolist() == [[5, 5, 5]]
    twice = join([fork, fork.moved((1, 2, 3))])
    assert twice.length_nm == 26
    assert len(twice.components()) == 4
    assert twice.vertices_zyx_nm[5].tolist() == [1, 2, 3]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("vertices", "edges", "radii", "message"),
    [
        ((2, 2), (1, 2), 2, "vertices of shape"),
        ((2, 3), (1, 3), 2, "edges of shape"),
        ((2, 3), (1, 2), 3, "radii of shape"),
    ],
)
def test_arrays_that_are_no_skeleton_are_refused(vertices, edges, radii, message):
    with pytest.raises(GeometryError, match=message):
        Skeleton(
            np.zeros(vertices, np.float32), np.zeros(edges, np.uint32), np.zeros(radii, np.float32)
        )


def test_an_edge_to_nowhere_is_refused():
    with pytest.raises(GeometryError, match="names vertex 7 of 2"):
        Skeleton(
            np.zeros((2, 3), np.float32), np.array([[0, 7]], np.uint32), np.zeros(2, np.float32)
        )


@pytest.mark.parametrize(
    "wrong", [{"scale": -1}, {"const_nm": float("nan")}, {"soma_nm": 0}, {"soma_scale": -2}]
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        TeasarOptions(**wrong)


def test_paths_are_found_in_little_steps_of_memory(monkeypatch):
    # The search for the next open cell goes on past where it looks ahead.
    mask = tubes([straight((130, 120, 125), (0.3, 0.4, 0.87), 700)], 60, ISOTROPIC)
    whole = skeletonize_mask(mask, voxel_size=ISOTROPIC, options=FINE)
    monkeypatch.setattr(teasar, "_LOOK_AHEAD", 3)
    assert same(whole, skeletonize_mask(mask, voxel_size=ISOTROPIC, options=FINE))


def test_a_line_of_points_is_as_long_as_it_is():
    assert path((0, 0, 0), (0, 3, 4), (12, 3, 4)).length_nm == 17
