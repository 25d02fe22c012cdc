"""Floods one after the other: around what is there, on from what was filled, up to the box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import floodem
from array_volume import ArrayVolume
from bright import bright_model, bright_tubes
from floodem.errors import GeometryError, OptionError
from floodem.flooding.flood import FloodEnd
from floodem.flooding.flooder import Flooder
from floodem.flooding.request import SegmentRequest
from floodem.flooding.sampling import sampled_parts, sampled_shape, within_its_box
from floodem.geometry import Box, VoxelSize

OFFSET = (100, 200, 300)
SEED = (105, 206, 320)
OTHER_SEED = (105, 220, 340)
ON_CPU = SegmentRequest(device="cpu")


@pytest.fixture
def volume():
    image, _ = bright_tubes()
    return ArrayVolume(image, offset=OFFSET, voxel_size=VoxelSize(30, 6, 6))


@pytest.fixture
def flooder(volume):
    return Flooder(volume, model=bright_model(), request=ON_CPU)


def test_each_of_many_floods_is_the_one_that_a_fresh_network_makes(flooder, volume):
    flooder.warm_up()
    for seed in (SEED, OTHER_SEED, SEED):
        made = flooder.flood(seed)
        alone = floodem.flood_at(volume, seed, model=bright_model(), request=ON_CPU)
        np.testing.assert_array_equal(made.mask, alone.mask)
        np.testing.assert_array_equal(made.probability, alone.probability)
        assert (made.calls, made.end, made.is_cut) == (alone.calls, alone.end, alone.is_cut)


@pytest.mark.parametrize("as_volume", [True, False])
def test_obstacles_are_gone_around(flooder, volume, as_volume):
    whole = flooder.flood(SEED)
    there = np.zeros(volume.shape, np.uint64)
    there[:, :, 40:] = 2**40
    obstacle = ArrayVolume(there, offset=OFFSET) if as_volume else there
    made = flooder.flood(SEED, obstacles=[obstacle])
    assert not made.mask[:, :, 40:].any()
    assert 0 < made.voxels < whole.voxels
    with pytest.raises(GeometryError, match="lies in an obstacle"):
        flooder.flood((105, 206, 345), obstacles=[obstacle])


def test_a_box_that_is_chosen_has_room_for_the_field_of_view(volume):
    narrow = Flooder(volume, model=bright_model(), request=ON_CPU, reach=2)
    assert narrow.box_around(SEED) == Box((102, 202, 316), (109, 211, 325))
    assert narrow.flood(SEED).voxels > 0


@pytest.mark.parametrize(
    ("seed", "is_near"),
    [
        ((103, 204, 304), False),
        ((102, 204, 304), True),
        ((103, 203, 304), True),
        ((120, 235, 359), False),
        ((121, 235, 359), True),
        ((120, 236, 359), True),
    ],
)
def test_seeds_near_the_border_are_those_from_which_no_flood_begins(flooder, seed, is_near):
    assert flooder.is_near_border(seed) is is_near
    if is_near:
        with pytest.raises(GeometryError, match="nearer to the border"):
            flooder.flood(seed)
    else:
        flooder.flood(seed)


def test_in_an_image_that_is_too_small_no_place_is_better():
    image = np.zeros((24, 8, 64), np.uint8)
    volume = ArrayVolume(image, voxel_size=VoxelSize(30, 6, 6))
    flooder = Flooder(volume, model=bright_model(), request=ON_CPU)
    assert not flooder.is_near_border((0, 0, 0))


def test_an_obstacle_elsewhere_does_not_matter(flooder):
    far = ArrayVolume(np.ones((9, 9, 9), np.uint8), offset=(0, 0, 0))
    np.testing.assert_array_equal(
        flooder.flood(SEED, obstacles=[far]).mask, flooder.flood(SEED).mask
    )


def test_an_array_of_another_shape_than_the_box_is_refused(flooder):
    wrong = np.zeros((3, 3, 3), bool)
    with pytest.raises(GeometryError, match=r"\(3, 3, 3\) voxels .* give one of that shape"):
        flooder.flood(SEED, obstacles=[wrong])
    with pytest.raises(GeometryError, match="give one of that shape"):
        flooder.flood(SEED, continue_from=wrong)


def test_a_flood_goes_on_from_what_another_has_filled(flooder, volume):
    whole = flooder.flood(SEED)
    calls = []
    part = flooder.flood(
        SEED,
        on_step=lambda step: calls.append(step.calls),
        should_stop=lambda: len(calls) == 4,
    )
    assert part.end is None
    assert part.voxels < whole.voxels
    steps = []
    on = flooder.flood(SEED, continue_from=part.mask, on_step=steps.append)
    assert (on.mask & part.mask).sum() == part.voxels
    np.testing.assert_array_equal(on.mask, whole.mask | part.mask)
    assert steps[0].voxels >= part.voxels


def test_what_an_object_has_is_its_own_though_an_obstacle_says_it_is_taken(flooder, volume):
    part = flooder.flood(SEED, box=Box(OFFSET, (124, 240, 340)))
    own = np.zeros(volume.shape, bool)
    own[:, :, :40] = part.mask
    on = flooder.flood(SEED, obstacles=[own.astype(np.uint8)], continue_from=own)
    assert on.voxels > part.voxels


def test_a_weak_seed_leaves_an_object_as_it_was(flooder, volume):
    own = np.zeros(volume.shape, bool)
    own[10:14, 12:15, 18:22] = True
    made = flooder.flood((112, 213, 320), continue_from=own)
    assert made.end is FloodEnd.WEAK_SEED
    np.testing.assert_array_equal(made.mask, own)


def test_an_object_that_reaches_the_border_of_the_box_is_said_to_be_cut():
    image, _ = bright_tubes((12, 14, 300))
    flooder = Flooder(
        ArrayVolume(image, voxel_size=VoxelSize(30, 6, 6)),
        model=bright_model(),
        request=ON_CPU,
        reach=30,
    )
    made = flooder.flood((5, 6, 150))
    assert made.box == Box((0, 0, 120), (12, 14, 181))
    assert made.is_cut
    # Where the image itself ends there is nothing to go on to.
    assert not flooder.flood((5, 6, 150), box=Box((0, 0, 0), (12, 14, 300))).is_cut
    # What it had out there before does not count.
    own = np.zeros(made.box.shape, bool)
    own[..., :28], own[..., -28:] = made.mask[..., :28], made.mask[..., -28:]
    assert not flooder.flood((5, 6, 150), continue_from=own).is_cut


def test_a_step_shows_what_is_filled_so_far(flooder, volume):
    shown = []

    def look(step):
        whole = np.zeros(volume.shape, bool)
        whole[step.reach.slices(origin=OFFSET)] = step.mask()
        shown.append(whole)
        assert np.count_nonzero(whole) == step.voxels
        assert not step.taken.flags.writeable

    made = flooder.flood(SEED, on_step=look)
    np.testing.assert_array_equal(shown[-1], made.mask)
    assert shown[0].sum() < shown[-1].sum()


def test_a_device_that_is_not_there_is_found_out_before_any_flood(volume):
    with pytest.raises(OptionError, match="no device is called 'quick'"):
        Flooder(volume, model=bright_model(), request=SegmentRequest(device="quick"))


def boxes():
    corner = st.tuples(*[st.integers(-20, 20)] * 3)
    return st.builds(
        lambda start, shape: Box.from_shape(shape, start=start),
        corner,
        st.tuples(*[st.integers(1, 25)] * 3),
    )


@settings(max_examples=200)
@given(boxes(), boxes(), st.tuples(*[st.integers(1, 9)] * 3))
def test_every_nth_voxel_of_a_box_is_found_in_another(box, other, step):
    numbers = np.arange(other.size).reshape(other.shape) + 1
    found = np.zeros(sampled_shape(box, step), int)
    parts = sampled_parts(box, other, step=step)
    if parts is not None:
        found[parts[0]] = numbers[parts[1]]
    everything = np.zeros(box.shape, int)
    common = box.intersection(other)
    if common is not None:
        everything[common.slices(origin=box.start)] = numbers[common.slices(origin=other.start)]
    dz, dy, dx = step
    np.testing.assert_array_equal(found, everything[::dz, ::dy, ::dx])


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=4))
def test_a_mask_is_cut_to_what_it_holds(voxels):
    mask = np.zeros((7, 7, 7), bool)
    for voxel in voxels:
        mask[voxel] = True
    cut, box = within_its_box(mask, Box.from_shape((7, 7, 7), start=(10, 20, 30)))
    if not voxels:
        assert box is None
        return
    assert cut.sum() == mask.sum()
    for axis in range(3):
        places = [voxel[axis] for voxel in voxels]
        assert box.start[axis] - (10, 20, 30)[axis] == min(places)
        assert box.shape[axis] == max(places) - min(places) + 1
