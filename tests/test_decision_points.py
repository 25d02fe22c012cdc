"""Decision points of arrays: those of the slow twin, on every voxel and every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.assembly.agglomeration.points import contacts
from floodem.assembly.agglomeration.points.growing import grow
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.assembly.agglomeration.points.points import DecisionPoints, PointOptions
from floodem.assembly.agglomeration.points.search import find_points_of
from floodem.errors import FloodemError, LabelError, OptionError, VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes import open_volume
from reference import decision_points as twin

SIZES = st.sampled_from(
    [(1.0, 1.0, 1.0), (10.0, 10.0, 10.0), (30.0, 6.0, 6.0), (33.3, 8.1, 8.1), (4.0, 7.3, 29.71)]
)
LARGEST = 2**64 - 1


@st.composite
def labelings(draw, *, side=6, dtype=np.uint64):
    """A few segments, dense or sparse, of one voxel or blocky, and empty space."""
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=side))
    repeat = draw(st.integers(1, 2))
    density = draw(st.sampled_from([0.02, 0.1, 0.4, 0.9]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = np.where(rng.random(shape) < density, rng.integers(1, 5, shape), 0)
    for axis in range(3):
        labels = np.repeat(labels, repeat, axis=axis)[tuple(slice(n) for n in shape)]
    labels = labels.astype(dtype)
    labels[labels == 4] = np.iinfo(dtype).max
    return labels


def as_dict(points):
    """Return the table as the twin gives it."""
    rows = zip(
        points.ids_a.tolist(),
        points.ids_b.tolist(),
        map(tuple, points.positions.tolist()),
        points.distances_nm.tolist(),
        strict=True,
    )
    return {(a, b): (position, distance) for a, b, position, distance in rows}


@given(labelings(), SIZES, st.floats(0, 4))
@settings(max_examples=60, deadline=None)
def test_grown_labels_and_distances_are_the_twins_on_every_voxel(labels, size, voxels):
    max_distance_nm = voxels * max(size)
    lengths = Lengths.of(VoxelSize(*size), max_distance_nm=max_distance_nm)
    grown = grow(labels, lengths=lengths)
    edges = twin.edges_pm(size)
    distances = twin.squared_distances(labels, edges)
    limit = round(max_distance_nm * 1000) ** 2
    expected = twin.watershed(labels, distances, limit)
    np.testing.assert_array_equal(grown.labels, expected)
    for voxel, squared in distances.items():
        if squared <= limit:
            assert int(grown.squared[voxel]) * lengths.unit_pm**2 == squared
        else:
            assert grown.squared[voxel] == lengths.limit + 1


@given(labelings(), SIZES, st.floats(0, 4), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
@example(np.array([[[1, 2, 1, 0, 2]]], np.uint64), (30.0, 6.0, 6.0), 0.0, 0)
@example(np.array([[[1, 1, 2, 2]] * 4] * 2, np.uint64), (30.0, 6.0, 6.0), 1.0, 0)
def test_decision_points_are_the_twins_on_every_pair(labels, size, voxels, min_size):
    max_distance_nm = voxels * max(size)
    found = find_points_of(
        labels, voxel_size=VoxelSize(*size), max_distance_nm=max_distance_nm, min_size=min_size
    )
    assert as_dict(found) == twin.decision_points(
        labels, voxel_size_nm=size, max_distance_nm=max_distance_nm, min_size=min_size
    )


@given(labelings(side=4))
@settings(max_examples=20, deadline=None)
def test_slabs_and_ways_of_sorting_do_not_change_points(labels):
    size = VoxelSize(30, 6, 6)
    whole = find_points_of(labels, voxel_size=size, max_distance_nm=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contacts, "_SLAB_VOXELS", 1)
        patch.setattr(contacts, "_LARGEST_KEY", 10)
        cut = find_points_of(labels, voxel_size=size, max_distance_nm=40)
    assert as_dict(cut) == as_dict(whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64])
def test_the_type_of_the_labels_does_not_matter(dtype):
    labels = np.zeros((3, 3, 9), dtype)
    labels[:, :, :2], labels[:, :, 6:] = 3, 100
    found = find_points_of(labels, voxel_size=VoxelSize(30, 6, 6), max_distance_nm=12)
    assert as_dict(found) == {(3, 100): ((1, 1, 3), 12.0)}


def test_segments_further_apart_than_twice_the_distance_do_not_meet():
    labels = np.zeros((1, 1, 8), np.uint64)
    labels[..., 0], labels[..., 7] = 1, 2
    size = VoxelSize(10, 10, 10)
    assert len(find_points_of(labels, voxel_size=size, max_distance_nm=29.999)) == 0
    assert as_dict(find_points_of(labels, voxel_size=size, max_distance_nm=30)) == {
        (1, 2): ((0, 0, 3), 30.0)
    }


def test_a_small_segment_counts_as_empty_space_between_others():
    labels = np.array([[[1, 1, 0, 9, 0, 2, 2]]], np.uint64)
    size = VoxelSize(10, 10, 10)
    both = find_points_of(labels, voxel_size=size, max_distance_nm=20)
    assert list(as_dict(both)) == [(1, 9), (2, 9)]
    large = find_points_of(labels, voxel_size=size, max_distance_nm=20, min_size=2)
    assert list(as_dict(large)) == [(1, 2)]


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 3, 0), (2, 2, 2), (1, 1, 1)])
@pytest.mark.parametrize("label", [0, LARGEST])
def test_nothing_or_one_segment_has_no_points(shape, label):
    labels = np.full(shape, label, np.uint64)
    assert len(find_points_of(labels, voxel_size=VoxelSize(1, 1, 1), max_distance_nm=3)) == 0


def test_far_corners_are_compared_without_leaving_64_bits():
    # Edges that have no common divisor make the squares as large as they come.
    size = (29.711, 4.037, 4.039)
    labels = np.zeros((3, 9, 700), np.uint64)
    labels[:, :4], labels[:, 4:] = 5, 6
    labels[1, 4, 40:660] = 0
    found = as_dict(find_points_of(labels, voxel_size=VoxelSize(*size), max_distance_nm=1000))
    ties = {(0.0, (z, 3, x)) for z in range(3) for x in range(700)}
    # Across the gap they do not touch, but beside it they do, by diagonal offsets.
    full = labels[:, 4:5] != 0
    ties = {
        (0.0, (z, 3, x))
        for z in range(3)
        for x in range(700)
        if full[z : z + 2, 0, x : x + 2].any()
    }
    assert found[5, 6] == twin.best(ties, twin.edges_pm(size))


@pytest.mark.parametrize("size", [(10.0, 10.0, 10.0), (30.0, 6.0, 6.0)])
def test_points_of_a_published_segmentation_are_the_twins(shared_data, size):
    with open_volume(shared_data / "fib25" / "sample-training2.npz") as volume:
        labels = volume.read()[100:112, 100:140, 60:100]
    found = find_points_of(labels, voxel_size=VoxelSize(*size), max_distance_nm=50)
    expected = twin.decision_points(labels, voxel_size_nm=size, max_distance_nm=50)
    assert len(expected) > 10
    assert as_dict(found) == expected


@pytest.mark.parametrize(
    ("size", "distance"),
    [
        ((10, 10, 10), -1.0),
        ((10, 10, 10), float("nan")),
        ((10, 10, 10), 1e9),
        ((1e-5, 1, 1), 5.0),
        ((1e8, 1, 1), 5.0),
    ],
)
def test_lengths_that_cannot_be_compared_are_refused(size, distance):
    with pytest.raises(OptionError, match="nm"):
        find_points_of(
            np.ones((2, 2, 2), np.uint8), voxel_size=VoxelSize(*size), max_distance_nm=distance
        )


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 2)), np.full((2, 2, 2), -1)])
def test_what_is_no_labels_is_refused(labels):
    with pytest.raises(LabelError, match="label"):
        find_points_of(labels, voxel_size=VoxelSize(1, 1, 1), max_distance_nm=3)


def test_points_come_back_from_their_bytes():
    labels = np.random.default_rng(2).integers(0, 9, (6, 6, 6)).astype(np.uint64)
    points = find_points_of(labels, voxel_size=VoxelSize(30, 6, 6), max_distance_nm=20)
    assert len(points) > 5
    packed = points.pack()
    assert packed == points.pack()
    assert as_dict(DecisionPoints.unpack(packed, uri="points.npz")) == as_dict(points)


@pytest.mark.parametrize("packed", [None, b"", b"nothing"])
def test_bytes_that_are_no_points_are_refused(packed):
    with pytest.raises(VolumeFormatError, match=r"points\.npz"):
        DecisionPoints.unpack(packed, uri="points.npz")


def test_options_come_back_and_what_is_none_is_refused():
    options = PointOptions(max_distance_nm=70.0, min_size=5)
    assert PointOptions.from_json(options.to_json()) == options
    for values in ({"distance": 3}, {"min_size": -1}, {"max_distance_nm": "far"}, ["x"]):
        with pytest.raises(FloodemError):
            PointOptions.from_json(values)
