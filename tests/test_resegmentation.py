"""Two floods at a decision point, and what they say about its segments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from hypothesis.extra.numpy import arrays as hypothesis_arrays

from array_volume import ArrayVolume
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.resegmentation.floods import depths_nm
from floodem.assembly.agglomeration.resegmentation.resegmenter import (
    ResegmentationOptions,
    Resegmenter,
)
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.errors import GeometryError, LabelError, OptionError, StoppedError
from floodem.flooding.options import FloodOptions
from floodem.geometry import VoxelSize
from resegmentation_cases import (
    SMALL,
    bright,
    forgetful,
    halved,
    model_of,
    noise,
    resegmenter,
    tubes,
    twin,
    wavering,
)

MIDDLE = (6, 12, 16)
NETWORKS = (bright, forgetful, wavering)
DISCO_OFF = FloodOptions(disco_seed_threshold=-1)


def agreed(image, labels, *, ids, position=MIDDLE, **choices) -> PointScores:
    """Return the scores, which must be those of the slow twin."""
    found = resegmenter(image, labels, **choices).score(*ids, position)
    expected = twin(image, labels, **choices).score(*ids, position)
    assert dataclasses.asdict(found) == pytest.approx(expected, rel=1e-12, abs=0)
    return found


def accepted(scores: PointScores) -> bool:
    columns = {name: np.array([value]) for name, value in dataclasses.asdict(scores).items()}
    return bool(MergeRule().accepts(columns)[0])


def changed(**changes) -> ResegmentationOptions:
    return dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_untidy_images_equal_those_of_the_slow_twin(network, seed):
    image, labels = noise(seed)
    z, y, x = MIDDLE
    ids = np.unique(labels[z - 2 : z + 3, y - 3 : y + 4, x - 5 : x + 6])
    agreed(image, labels, ids=ids[ids > 0][:2].tolist(), network=network)


def test_two_halves_of_one_tube_are_one():
    image, labels = tubes()
    scores = agreed(image, halved(labels), ids=(1, 101))
    assert scores.iou > 0.95
    assert accepted(scores)


def test_two_tubes_with_a_wall_between_them_are_two():
    image, labels = tubes(centers=((6, 7), (6, 17)), radius=(2, 3))
    scores = agreed(image, labels, ids=(1, 2))
    assert scores.iou == 0
    assert scores.a_covers_a > 0.9
    assert scores.b_covers_b > 0.9
    assert not accepted(scores)


def test_floods_go_around_other_segments():
    image, labels = tubes()
    labels = halved(labels)
    open_way = agreed(image, labels, ids=(1, 101))
    labels[:, :, 14:19][labels[:, :, 14:19] > 0] = 50
    barred = agreed(image, labels, ids=(1, 101))
    assert open_way.a_covers_b > 0.9
    assert barred.a_covers_b == 0
    assert barred.iou < 0.5


def test_the_next_seed_is_tried_where_a_flood_stays_small():
    image, labels = tubes()
    labels = halved(labels)
    image[:, :, 9:11] = -1  # a thick piece, which comes first, and the rest
    image[4:9, 8:17, 3:9] = 1
    image[:, :, 11:33] = np.where(image[:, :, 11:33] > 0, 1, -1)
    labels[2:11, 5:20, 2:9] = 1
    scores = agreed(image, labels, ids=(1, 101), options=changed(analysis_radius=(4, 7, 4)))
    assert scores.seeds_a > 1
    assert scores.recovered_a


def test_a_side_that_no_seed_recovers_is_left_after_as_many_tries_as_were_asked_for():
    image, labels = tubes()
    labels = halved(labels)
    image[:, :, :16] = -1
    scores = agreed(image, labels, ids=(1, 101), options=changed(max_retries=3))
    assert scores.seeds_a == 3
    assert not scores.recovered_a
    assert scores.recovered_b
    assert not accepted(scores)


def test_seeds_end_where_all_of_the_segment_was_tried():
    image, labels = tubes()
    labels = halved(labels)
    image[:, :, :16] = -1
    options = changed(max_retries=100, exclusion_radius=(6, 10, 14))
    assert agreed(image, labels, ids=(1, 101), options=options).seeds_a == 1


@pytest.mark.parametrize("case", ["side A is not recovered", "A does not reach B"])
def test_the_second_side_is_left_out_when_the_first_has_decided(case):
    image, labels = tubes()
    labels = halved(labels)
    if case == "side A is not recovered":
        image[:, :, :16] = -1
    else:
        image[:, :, 15:17] = -1
    early = agreed(image, labels, ids=(1, 101), options=changed(terminate_early=True))
    late = agreed(image, labels, ids=(1, 101))
    assert (early.seeds_b, early.size_b, early.iou, early.recovered_b) == (0, 0, 0, False)
    assert late.seeds_b > 0
    assert early.a_covers_a == late.a_covers_a
    assert early.calls < late.calls


def test_a_first_side_that_covers_both_does_not_end_early():
    image, labels = tubes()
    early = agreed(image, halved(labels), ids=(1, 101), options=changed(terminate_early=True))
    assert early.iou > 0.95


def test_the_smaller_segment_may_be_the_first_side():
    image, labels = tubes()
    image[:, :, 15:17] = -1
    labels = halved(labels)
    labels[:, :, 20:][labels[:, :, 20:] == 101] = 0
    options = changed(terminate_early=True, smaller_first=True)
    turned = agreed(image, labels, ids=(1, 101), options=options)
    assert (turned.seeds_a, turned.size_a) == (0, 0)
    assert turned.seeds_b > 0
    late = agreed(image, labels, ids=(1, 101))
    assert (turned.b_covers_b, turned.size_b) == (late.b_covers_b, late.size_b)


def test_voxels_that_steps_give_up_are_counted():
    image, labels = tubes()
    labels = halved(labels)
    assert agreed(image, labels, ids=(1, 101), network=bright).deleted_a == 0
    assert agreed(image, labels, ids=(1, 101), network=forgetful).deleted_a > 0
    assert agreed(image, labels, ids=(1, 101), network=wavering).deleted_b > 0


def test_nothing_counts_as_given_up_without_the_rule_against_mergers():
    image, labels = tubes()
    for network in (forgetful, wavering):
        scores = agreed(image, halved(labels), ids=(1, 101), network=network, flood=DISCO_OFF)
        assert (scores.deleted_a, scores.deleted_b) == (0, 0)


def test_steps_outside_of_the_analysis_box_do_not_count():
    image, labels = tubes()
    labels = halved(labels)
    everywhere = agreed(image, labels, ids=(1, 101), network=forgetful)
    options = changed(analysis_radius=(4, 7, 3))
    near = agreed(image, labels, ids=(1, 101), network=forgetful, options=options)
    assert 0 < near.deleted_a < everywhere.deleted_a


@pytest.mark.parametrize("position", [(6, 12, 3), (2, 8, 16), (10, 16, 30), (6, 12, 32)])
def test_surroundings_are_cut_at_the_border(position):
    image, labels = tubes()
    agreed(image, halved(labels, at=max(4, min(28, position[2]))), ids=(1, 101), position=position)


def test_no_flood_begins_where_the_cut_surroundings_hold_no_field_of_view():
    image, labels = tubes()
    options = changed(radius=(6, 10, 3), analysis_radius=(4, 7, 2))
    scores = agreed(image, halved(labels, at=2), ids=(1, 101), position=(6, 12, 1), options=options)
    assert (scores.seeds_a, scores.seeds_b, scores.calls, scores.iou) == (0, 0, 0, 0)


def test_a_segment_without_a_voxel_near_the_point_is_not_flooded():
    image, labels = tubes()
    scores = agreed(image, halved(labels), ids=(1, 7))
    assert (scores.seeds_b, scores.b_covers_b, scores.a_covers_b, scores.iou) == (0, 0, 0, 0)
    assert scores.recovered_a


def test_no_seed_lies_near_the_point_when_so_asked():
    image, labels = tubes()
    options = changed(init_exclusion_radius=(6, 10, 14))
    assert agreed(image, halved(labels), ids=(1, 101), options=options).calls == 0
    options = changed(init_exclusion_radius=(2, 2, 4))
    assert agreed(image, halved(labels), ids=(1, 101), options=options).iou > 0.95


@settings(deadline=None, max_examples=50)
@given(
    mask=hypothesis_arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=5)),
    edges=st.tuples(*[st.sampled_from([4.0, 6.5, 30.0])] * 3),
)
def test_depths_are_distances_to_the_nearest_voxel_outside(mask, edges):
    depths = depths_nm(mask, VoxelSize(*edges))
    assert (depths[~mask] == 0).all()
    outside = np.argwhere(~mask) if not mask.all() else np.argwhere(~np.pad(mask, 1)) - 1
    for voxel in np.argwhere(mask):
        nearest = ((((outside - voxel) * edges) ** 2).sum(axis=1).min()) ** 0.5
        assert depths[tuple(voxel)] == pytest.approx(nearest, rel=1e-12)


def test_a_mask_without_surface_is_deepest_in_the_middle():
    depths = depths_nm(np.ones((3, 21, 5), np.bool_), VoxelSize(30, 6, 6))
    assert depths.max() == depths[1, 10, 2] == 3 * 6
    assert depths[0, 0, 0] == 6


def test_a_point_does_not_know_which_came_before_it():
    image, labels = noise(4)
    one = resegmenter(image, labels, network=wavering)
    points = [((1, 2), (6, 10, 14)), ((2, 3), (5, 9, 10)), ((1, 4), (7, 12, 18))]
    forwards = [one.score(*ids, position) for ids, position in points]
    backwards = [one.score(*ids, position) for ids, position in reversed(points)]
    assert forwards == backwards[::-1]
    assert sum(scores.calls for scores in forwards) > 20


def test_sides_change_places_with_the_ids():
    image, labels = tubes(centers=((6, 7), (6, 17)), radius=(2, 3))
    there, back = (resegmenter(image, labels).score(*ids, MIDDLE) for ids in ((1, 2), (2, 1)))
    assert (there.a_covers_a, there.size_a) == (back.b_covers_b, back.size_b)


def test_the_segmentation_may_be_a_part_of_the_image():
    image, labels = tubes()
    labels = halved(labels)
    inner = (slice(1, 12), slice(2, 24), slice(3, 31))
    part = ArrayVolume(labels[inner], offset=(11, 22, 33))
    both = Resegmenter(
        ArrayVolume(image, offset=(10, 20, 30)), part, model=model_of(bright), options=SMALL
    )
    alone = resegmenter(image[inner], labels[inner])
    assert both.score(1, 101, (16, 32, 46)) == alone.score(1, 101, (5, 10, 13))


def test_each_volume_is_read_once_for_a_point():
    image, labels = tubes()
    one = resegmenter(image, halved(labels))
    one.score(1, 101, MIDDLE)
    assert [len(one.image.reads), len(one.segmentation.reads)] == [1, 1]


def test_ids_beyond_32_bits_are_told_apart():
    image, labels = tubes()
    labels = halved(labels, far=2**32)
    labels[labels > 0] += np.uint64(2**63)
    assert resegmenter(image, labels).score(2**63 + 1, 2**63 + 2**32 + 1, MIDDLE).iou > 0.95


def test_points_and_ids_that_make_no_sense_are_refused():
    image, labels = tubes()
    one = resegmenter(image, labels)
    with pytest.raises(LabelError, match="1 and 1 are no two segments"):
        one.score(1, 1, MIDDLE)
    with pytest.raises(LabelError, match="0 and 5 are no two segments"):
        one.score(0, 5, MIDDLE)
    with pytest.raises(GeometryError, match=r"\(13, 12, 16\) \(z,y,x\) is outside"):
        one.score(1, 2, (13, 12, 16))


def test_a_flood_stops_when_told_to():
    image, labels = tubes()
    with pytest.raises(StoppedError, match="run the same command again"):
        resegmenter(image, halved(labels)).score(1, 101, MIDDLE, should_stop=lambda: True)


def test_volumes_that_do_not_belong_together_are_refused():
    image, labels = tubes()
    model = model_of(bright)
    with pytest.raises(GeometryError, match="no voxel in common"):
        Resegmenter(ArrayVolume(image), ArrayVolume(labels, offset=(99, 0, 0)), model=model)
    with pytest.raises(LabelError, match="holds float32, not labels"):
        Resegmenter(ArrayVolume(image), ArrayVolume(image), model=model)
    with pytest.raises(GeometryError, match=r"does not hold the network's field of view"):
        Resegmenter(
            ArrayVolume(image),
            ArrayVolume(labels),
            model=model,
            options=ResegmentationOptions(radius=(1, 9, 9), analysis_radius=(1, 1, 1)),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": (3, 3, 3)}, "smaller than analysis_radius"),
        ({"exclusion_radius": (0, -1, 0)}, "negative"),
        ({"init_exclusion_radius": (0, -1, 0)}, "negative"),
        ({"max_retries": 0}, "tries no seed"),
        ({"recovery_fraction": 1.5}, "no fraction"),
        ({"recovery_fraction": float("nan")}, "no fraction"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        changed(**changes)


def test_radii_suit_voxels_and_network():
    flat = ResegmentationOptions.suited(VoxelSize(16, 8, 8), fov=(17, 33, 33))
    assert (flat.radius, flat.analysis_radius) == ((25, 50, 50), (17, 34, 34))
    assert flat.exclusion_radius == (4, 8, 8)
    assert ResegmentationOptions.suited(VoxelSize(10, 10, 10)) == ResegmentationOptions()
    flatter = ResegmentationOptions.suited(VoxelSize(30, 6, 6), fov=(17, 33, 33))
    assert flatter.radius == (15, 50, 50)  # 7 and half a field of view
    flatter.require_room((17, 33, 33))
    assert flatter.to_json()["radius"] == [15, 50, 50]
