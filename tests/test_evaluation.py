"""Scores against truth: what is counted, and where the mistakes are."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.errors import GeometryError, LabelError, OptionError
from floodem.evaluation import evaluate
from floodem.geometry import Box, VoxelSize
from floodem.volumes.in_memory import ArrayVolume
from reference.scores import rand_precision_and_recall, voi_split_and_merge

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=4)
FEW_IDS = st.integers(0, 4)
LARGEST = 2**64 - 1


@st.composite
def two_labelings(draw):
    shape = draw(SHAPES)
    segmentation, truth = (draw(hnp.arrays(np.uint64, shape, elements=FEW_IDS)) for _ in range(2))
    assume(np.any(truth != 0))
    return segmentation, truth


def volume(labels, *, start=(0, 0, 0), voxel_size=None):
    return ArrayVolume(np.asarray(labels), offset=start, voxel_size=voxel_size)


def row(*labels):
    """One row of voxels along x."""
    return np.array(labels, np.uint64).reshape(1, 1, -1)


@given(two_labelings())
@settings(deadline=None)
def test_scores_equal_those_of_their_definitions(labelings):
    segmentation, truth = labelings
    evaluation = evaluate(segmentation, truth, worst=0)
    counted = truth != 0
    rows = [(evaluation.all_truth, counted)]
    if evaluation.where_both_label is not None:
        rows.append((evaluation.where_both_label, counted & (segmentation != 0)))
    for scores, mask in rows:
        precision, recall = rand_precision_and_recall(segmentation[mask], truth[mask])
        split, merge = voi_split_and_merge(segmentation[mask], truth[mask])
        assert scores.voxels == mask.sum()
        assert scores.rand_precision == pytest.approx(precision)
        assert scores.rand_recall == pytest.approx(recall)
        assert scores.adapted_rand_error == pytest.approx(
            1 - 2 * precision * recall / (precision + recall)
        )
        assert scores.voi_split_bits == pytest.approx(split, abs=1e-12)
        assert scores.voi_merge_bits == pytest.approx(merge, abs=1e-12)


@given(two_labelings())
@settings(deadline=None)  # scikit-image is imported at its first call
def test_variation_of_information_equals_that_of_scikit_image(labelings):
    metrics = pytest.importorskip("skimage.metrics")
    segmentation, truth = labelings
    mask = truth != 0
    scores = evaluate(segmentation, truth, worst=0).all_truth
    split, merge = metrics.variation_of_information(
        truth[mask].astype(np.int64), segmentation[mask].astype(np.int64)
    )
    assert scores.voi_split_bits == pytest.approx(split, abs=1e-12)
    assert scores.voi_merge_bits == pytest.approx(merge, abs=1e-12)


def test_rand_error_agrees_with_scikit_image_on_objects_of_many_voxels():
    # It leaves out the pairs of a voxel with itself, which count little in large
    # objects, and has precision and recall the other way round.
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 6, (8, 8, 8)), 1000, axis=2)
    segmentation = np.where(rng.random((8, 8, 1)) < 0.8, truth, 3)
    scores = evaluate(segmentation, truth, worst=0).all_truth
    error, recall, precision = metrics.adapted_rand_error(truth, segmentation)
    assert 0.05 < error < 0.95
    assert scores.rand_precision != pytest.approx(scores.rand_recall, abs=0.01)
    assert scores.adapted_rand_error == pytest.approx(error, abs=1e-3)
    assert scores.rand_precision == pytest.approx(precision, abs=1e-3)
    assert scores.rand_recall == pytest.approx(recall, abs=1e-3)


@given(two_labelings())
@settings(deadline=None)
def test_a_labeling_scores_perfectly_against_itself(labelings):
    _, truth = labelings
    evaluation = evaluate(truth, truth)
    for scores in (evaluation.all_truth, evaluation.where_both_label):
        assert scores.adapted_rand_error == 0
        assert (scores.rand_precision, scores.rand_recall) == (1, 1)
        assert (scores.voi_split_bits, scores.voi_merge_bits) == (0, 0)
    assert evaluation.coverage == 1
    assert evaluation.worst_splits == evaluation.worst_mergers == ()


@given(two_labelings(), st.permutations([1, 2, 3, 4]))
@settings(deadline=None)
def test_scores_do_not_depend_on_the_ids(labelings, order):
    segmentation, truth = labelings
    other = np.array([0, *(LARGEST - i for i in order)], np.uint64)
    plain = evaluate(segmentation, truth, worst=0).to_dict()
    renamed = evaluate(other[segmentation], other[truth], worst=0).to_dict()
    for key in ("all_truth", "where_both_label"):
        assert (plain[key] is None) == (renamed[key] is None)
        if plain[key] is not None:
            assert renamed[key] == pytest.approx(plain[key], abs=1e-12)


@given(two_labelings(), st.integers(1, 20))
@settings(deadline=None)
def test_reading_in_blocks_changes_nothing(labelings, block_voxels):
    segmentation, truth = labelings
    assert evaluate(segmentation, truth, block_voxels=block_voxels) == evaluate(segmentation, truth)


@given(two_labelings())
@settings(deadline=None)
def test_places_of_mistakes_lie_in_their_parts(labelings):
    segmentation, truth = labelings
    evaluation = evaluate(segmentation, truth)
    for split in evaluation.worst_splits:
        for part in split.largest:
            assert truth[part.position] == split.id
            assert segmentation[part.position] == part.id
    for merger in evaluation.worst_mergers:
        for part in merger.largest:
            assert segmentation[part.position] == merger.id
            assert truth[part.position] == part.id


@given(two_labelings())
@settings(deadline=None)
def test_costs_of_all_mistakes_sum_to_the_variation_of_information(labelings):
    evaluation = evaluate(*labelings, worst=100)
    assume(evaluation.where_both_label is not None)
    scores = evaluation.where_both_label
    for mistakes, whole in (
        (evaluation.worst_splits, scores.voi_split_bits),
        (evaluation.worst_mergers, scores.voi_merge_bits),
    ):
        costs = [mistake.voi_bits for mistake in mistakes]
        assert sum(costs) == pytest.approx(whole, abs=1e-12)
        assert costs == sorted(costs, reverse=True)


def test_a_split_object_is_listed_with_its_parts_and_where_they_meet():
    truth = row(7, 7, 7, 7, 7, 7, 8, 8)
    segmentation = row(1, 1, 1, 0, 2, 2, 3, 3)
    (split,) = evaluate(
        volume(segmentation, start=(5, 0, 10)), volume(truth, start=(5, 0, 10))
    ).worst_splits
    assert (split.id, split.voxels, split.parts) == (7, 5, 2)
    assert [(part.id, part.voxels, part.position) for part in split.largest] == [
        (1, 3, (5, 0, 12)),
        (2, 2, (5, 0, 14)),
    ]


def test_a_merger_is_listed_with_its_objects_and_where_they_meet():
    truth = row(7, 7, 7, 0, 8, 8, 9)
    segmentation = row(1, 1, 1, 1, 1, 1, 3)
    (merger,) = evaluate(segmentation, truth).worst_mergers
    assert (merger.id, merger.voxels, merger.parts) == (1, 5, 2)
    assert [(part.id, part.voxels, part.position) for part in merger.largest] == [
        (7, 3, (0, 0, 2)),
        (8, 2, (0, 0, 4)),
    ]


def test_an_object_in_two_halves_has_two_effective_parts():
    split = evaluate(row(1, 1, 2, 2, 5), row(7, 7, 7, 7, 9)).worst_splits[0]
    assert split.effective_parts == pytest.approx(2)


def test_nearness_is_measured_in_nanometres():
    # Seen from segment 1, one step in z (30 nm) is farther than four steps in x (5 nm each).
    segmentation = np.zeros((2, 1, 6), np.uint64)
    segmentation[0, 0, 0] = segmentation[0, 0, 1] = segmentation[0, 0, 2] = 1
    segmentation[1, 0, 1] = segmentation[0, 0, 5] = 2
    truth = np.ones((2, 1, 6), np.uint64)
    in_voxels = evaluate(segmentation, truth).worst_splits[0].largest[1]
    in_nm = evaluate(volume(segmentation, voxel_size=VoxelSize(30, 5, 5)), volume(truth))
    assert in_voxels.position == (1, 0, 1)
    assert in_nm.worst_splits[0].largest[1].position == (0, 0, 5)


def test_unlabelled_voxels_are_one_segment_in_the_first_row_only():
    evaluation = evaluate(row(0, 0, 1, 2), row(7, 8, 7, 8))
    assert evaluation.all_truth.segments == 3
    assert evaluation.all_truth.voi_merge_bits == pytest.approx(0.5)
    assert evaluation.where_both_label.voi_merge_bits == 0
    assert evaluation.coverage == 0.5


def test_a_segmentation_without_labels_has_no_second_row():
    evaluation = evaluate(row(0, 0, 0), row(7, 7, 8))
    assert evaluation.where_both_label is None
    assert evaluation.coverage == 0
    assert json.loads(evaluation.to_json())["where_both_label"] is None


def test_ignored_truth_does_not_count():
    assert evaluate(row(1, 1, 1), row(7, 8, 0), ignore=(0, 8)).all_truth.voi_merge_bits == 0
    assert evaluate(row(1, 1, 1), row(7, 7, 0), ignore=()).all_truth.objects == 2


def test_truth_with_ignored_labels_only_is_refused():
    with pytest.raises(LabelError, match=r"nothing but ignored labels \[0\] in 0:1,0:1,0:2"):
        evaluate(row(1, 1), row(0, 0))


def test_volumes_are_compared_where_both_have_voxels():
    evaluation = evaluate(
        volume(row(1, 1, 2, 2), start=(0, 0, 10)), volume(row(5, 6, 6), start=(0, 0, 11))
    )
    assert evaluation.box == Box((0, 0, 11), (1, 1, 14))
    assert evaluation.all_truth.adapted_rand_error == 0


def test_volumes_without_a_common_voxel_are_refused_by_their_boxes():
    with pytest.raises(GeometryError, match=r"0:1,0:1,0:2 .* 0:1,0:1,2:4"):
        evaluate(row(1, 1), volume(row(1, 1), start=(0, 0, 2)))


def test_border_is_left_out_at_every_face():
    truth = np.ones((5, 5, 5), np.uint8)
    evaluation = evaluate(truth, truth, border=(2, 1, 0))
    assert evaluation.box == Box((2, 1, 0), (3, 4, 5))
    assert evaluation.all_truth.voxels == 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"border": (0, 0, 3)}, "leaves nothing"),
        ({"border": (0, 0, -1)}, "is negative"),
        ({"box": Box((0, 0, 2), (1, 1, 9))}, "0:1,0:1,2:9 is not inside 0:1,0:1,0:6"),
    ],
)
def test_boxes_and_borders_that_do_not_fit_are_refused(options, message):
    with pytest.raises(GeometryError, match=message):
        evaluate(row(1, 1, 1, 1, 1, 1), row(1, 1, 1, 1, 1, 1), **options)


def test_voxel_sizes_that_differ_are_refused():
    with pytest.raises(GeometryError, match=r"8,8,8 nm .* 16,16,16 nm"):
        evaluate(
            volume(row(1), voxel_size=VoxelSize(8, 8, 8)),
            volume(row(1), voxel_size=VoxelSize(16, 16, 16)),
        )


@pytest.mark.parametrize(
    ("segmentation", "truth", "message"),
    [
        (row(1) * 0.5, row(1), "the segmentation .* float64"),
        (row(1), row(1).astype(np.int8) * -3, "the truth .* negative label -3"),
    ],
)
def test_volumes_that_hold_no_labels_are_refused(segmentation, truth, message):
    with pytest.raises(LabelError, match=message):
        evaluate(segmentation, truth)


def test_arrays_that_are_not_3d_are_refused():
    with pytest.raises(GeometryError, match=r"the truth has shape \(1,\)"):
        evaluate(row(1), np.ones(1, np.uint8))


@pytest.mark.parametrize("options", [{"worst": -1}, {"bootstrap": -1}])
def test_negative_options_are_refused(options):
    with pytest.raises(OptionError, match="must not be negative"):
        evaluate(row(1), row(1), **options)


def test_progress_ends_at_the_whole():
    heard = []
    evaluate(row(1, 2, 1), row(1, 1, 1), block_voxels=1, progress=heard.append)
    ends = {progress.stage: (progress.done, progress.total) for progress in heard}
    assert ends == {"compare": (3, 3), "locate": (9, 9)}


def test_published_segmentation_scores_as_published(shared_data):
    with np.load(shared_data / "fib25" / "sample-training2.npz", allow_pickle=False) as archive:
        segmentation = archive["segmentation"]
    with h5py.File(shared_data / "fib25" / "groundtruth.h5") as file:
        truth = file["bodies"][:]
    evaluation = evaluate(segmentation, truth, border=(16, 16, 16))
    found = [
        (
            round(scores.adapted_rand_error, 4),
            *(round(value, 3) for value in (scores.rand_precision, scores.rand_recall)),
            *(round(value, 3) for value in (scores.voi_split_bits, scores.voi_merge_bits)),
        )
        for scores in (evaluation.all_truth, evaluation.where_both_label)
    ]
    assert found == [(0.0748, 0.957, 0.896, 0.787, 0.478), (0.0440, 0.974, 0.938, 0.578, 0.249)]
    assert round(evaluation.coverage, 3) == 0.953


@pytest.mark.parametrize("label", [-1, 2**64])
def test_ignored_ids_that_no_voxel_can_have_are_refused(label):
    labels = np.ones((2, 2, 2), np.uint64)
    with pytest.raises(OptionError, match=f"{label}.* 0 to 18446744073709551615"):
        evaluate(labels, labels, ignore=(0, label))


def test_a_border_that_leaves_nothing_is_named():
    truth = np.ones((1, 4, 4), np.uint64)
    truth[:, :, 2:] = 2
    with pytest.raises(LabelError, match="nothing but ignored labels.* 40 nm from its borders"):
        evaluate(truth, truth, cremi_border_nm=40.0, voxel_size=VoxelSize(10, 10, 10))
