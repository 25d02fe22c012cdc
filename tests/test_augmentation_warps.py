"""Warps: image and labels are read at other positions, once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from augmentation_cases import always, numbered_patch
from floodem.training.augmentation.options import FOLD_LIMIT
from floodem.training.augmentation.plan import plan_augmentation
from floodem.training.augmentation.resampling import resample, source_positions, warp
from floodem.training.augmentation.warps import (
    Bending,
    Warp,
    add_shifts,
    affine_matrix,
    bending_field,
    draw_bending,
    draw_shift,
    largest_halves,
    slip,
    translation,
)
from floodem.training.patch import Patch

SHAPE = (5, 9, 7)


def zeros(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Patch:
    image = torch.zeros(shape, dtype=dtype)
    return Patch(image=image, labels=image.int(), weights=image)


def bending(shape: tuple[int, int, int], *, number: int, largest: float, z: float) -> Bending:
    drawn = draw_bending(
        np.random.default_rng(number),
        shape=shape,
        spacing=(16, 16, 16),
        largest=largest,
        largest_z=z,
    )
    return dataclasses.replace(drawn, largest=(z, largest, largest))


def test_a_warp_that_moves_nothing_cuts_the_middle_out():
    patch = numbered_patch((7, 13, 11))
    result = warp(patch, by=Warp(shape=SHAPE))
    assert torch.equal(result.image, patch.image[1:-1, 2:-2, 2:-2])
    assert torch.equal(result.labels, patch.labels[1:-1, 2:-2, 2:-2])


def test_a_quarter_turn_is_exact():
    patch = numbered_patch((3, 9, 9), dtype=torch.float64)
    quarter = affine_matrix(rotation_degrees=90, scale=1, shear=0)
    result = warp(patch, by=Warp(shape=(3, 9, 9), matrix=quarter))
    assert torch.equal(result.labels, patch.labels.rot90(-1, dims=(1, 2)))
    torch.testing.assert_close(result.image, patch.image.rot90(-1, dims=(1, 2)))


def test_a_scale_above_one_shows_more_and_smaller():
    y = torch.arange(-8.0, 9.0)[:, None].expand(17, 17)[None]
    patch = Patch(image=y, labels=y.int(), weights=torch.ones_like(y))
    double = affine_matrix(rotation_degrees=0, scale=2, shear=0)
    result = warp(patch, by=Warp(shape=(1, 9, 9), matrix=double))
    assert result.image[0, :, 0].tolist() == [-8, -6, -4, -2, 0, 2, 4, 6, 8]


def test_shear_moves_rows_sideways_in_proportion():
    x = torch.arange(-8.0, 9.0).expand(17, 17)[None]
    patch = Patch(image=x, labels=x.int(), weights=torch.ones_like(x))
    half = affine_matrix(rotation_degrees=0, scale=1, shear=0.5)
    y = torch.arange(-8.0, 9.0)[:, None].expand(17, 17)[None]
    result = warp(dataclasses.replace(patch, image=y), by=Warp(shape=(1, 5, 5), matrix=half))
    assert result.image[0, 2].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert warp(patch, by=Warp(shape=(1, 5, 5), matrix=half)).image[0, :, 2].tolist() == [0] * 5


@pytest.mark.parametrize("between_sections", [False, True])
def test_resampling_equals_scipy_for_the_image_and_the_nearest_voxel_for_labels(between_sections):
    patch = numbered_patch((6, 8, 7), dtype=torch.float64)
    random = np.random.default_rng(0)
    positions = (
        random.uniform(0, 1, (3, 5, 5, 5)) * (np.array(patch.shape) - 1)[:, None, None, None]
    )
    if not between_sections:
        positions[0] = positions[0].round()
    result = resample(
        patch, positions=torch.from_numpy(positions), between_sections=between_sections
    )
    expected = ndimage.map_coordinates(patch.image.numpy(), positions, order=1)
    np.testing.assert_allclose(result.image.numpy(), expected, atol=1e-12)
    nearest = patch.labels.numpy()[tuple(positions.round().astype(int))]
    assert (result.labels.numpy() == nearest).all()
    assert result.weights.min() == 1


def test_outside_the_source_the_weight_is_0_and_the_image_goes_on_as_at_the_face():
    patch = numbered_patch((1, 5, 5))
    result = warp(patch, by=Warp(shape=(1, 9, 9)))
    assert result.weights.sum() == 25
    assert result.weights[0, 2:7, 2:7].min() == 1
    assert (result.image[0, :3, 4] == patch.image[0, 0, 2]).all()
    assert warp(patch, by=Warp(shape=(3, 5, 5))).weights.sum(dim=(1, 2)).tolist() == [0, 25, 0]


def test_weights_move_with_the_voxels_that_they_weigh():
    patch = numbered_patch((1, 9, 9))
    weights = torch.ones_like(patch.weights)
    weights[0, 6, 2] = 0
    moved = warp(
        dataclasses.replace(patch, weights=weights),
        by=Warp(shape=(1, 9, 9), matrix=affine_matrix(rotation_degrees=90, scale=1, shear=0)),
    )
    assert moved.labels[moved.weights == 0].tolist() == [patch.labels[0, 6, 2]]


@settings(deadline=None, max_examples=60)
@given(
    rotation=st.floats(-180, 180),
    scale=st.floats(0.5, 2),
    shear=st.floats(-1, 1),
    number=st.integers(0, 99),
    z=st.sampled_from([0.0, 2.5]),
)
def test_a_source_of_the_asked_shape_is_never_left(rotation, scale, shear, number, z):
    by = Warp(
        shape=SHAPE,
        matrix=affine_matrix(rotation_degrees=rotation, scale=scale, shear=shear),
        bending=bending(SHAPE, number=number, largest=3.0, z=z),
        shifts=slip(SHAPE[0], section=1, by=(-4, 6)),
    )
    for dtype in (torch.float32, torch.float64):
        source = numbered_patch(by.source_shape(), dtype=dtype)
        assert warp(source, by=by).weights.min() == 1


@settings(deadline=None)
@given(
    half_y=st.integers(0, 40),
    half_x=st.integers(0, 40),
    rotation=st.floats(0, 180),
    scale=st.floats(0, 1),
    shear=st.floats(0, 1),
    shares=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)),
)
def test_no_matrix_reaches_farther_than_the_strengths_say(
    half_y, half_x, rotation, scale, shear, shares
):
    reach_y, reach_x = largest_halves(
        half_y, half_x, rotation_degrees=rotation, scale=scale, shear=shear
    )
    (yy, yx), (xy, xx) = affine_matrix(
        rotation_degrees=rotation * shares[0],
        scale=(1 + scale) ** shares[1],
        shear=shear * shares[2],
    )
    assert abs(yy) * half_y + abs(yx) * half_x <= reach_y + 1e-9
    assert abs(xy) * half_y + abs(xx) * half_x <= reach_x + 1e-9


def test_bending_rests_at_the_centre_and_goes_as_far_as_asked_and_no_farther():
    shape = (9, 33, 25)
    like = torch.zeros((), dtype=torch.float64)
    for number in range(10):
        field = bending_field(
            bending(shape, number=number, largest=3.0, z=1.5), shape=shape, like=like
        )
        assert (field[:, 4, 16, 12] == 0).all()
        largest = field.abs().amax(dim=(1, 2, 3))
        torch.testing.assert_close(largest, torch.tensor([1.5, 3, 3], dtype=torch.float64))


def test_without_a_displacement_along_z_bending_stays_in_its_section():
    shape = (9, 33, 25)
    positions = source_positions(
        Warp(shape=shape, bending=bending(shape, number=0, largest=3.0, z=0.0)), source=zeros(shape)
    )
    assert (positions[0] == torch.arange(9)[:, None, None]).all()


def test_bending_is_smooth_and_folds_nothing_at_its_limit():
    shape, spacing = (17, 49, 49), 16
    least = math.inf
    for number in range(40):
        largest = FOLD_LIMIT * spacing
        by = Warp(shape=shape, bending=bending(shape, number=number, largest=largest, z=largest))
        positions = source_positions(by, source=zeros(shape))
        steps = [positions.diff(dim=1 + axis)[:, :16, :48, :48] for axis in range(3)]
        sizes = torch.linalg.det(torch.stack(steps, dim=-1).permute(1, 2, 3, 0, 4))
        least = min(least, float(sizes.min()))
        assert max(float(s.diff(dim=1 + a).abs().max()) for a, s in enumerate(steps)) < 0.2
    assert least > 0.3


def test_a_slip_moves_one_section_image_and_labels_together():
    patch = numbered_patch((5, 17, 19))
    by = Warp(shape=(5, 9, 9), shifts=slip(5, section=3, by=(2, -4)))
    result = warp(patch, by=by)
    for tensor, moved in ((patch.image, result.image), (patch.labels, result.labels)):
        for z in (0, 1, 2, 4):
            assert torch.equal(moved[z], tensor[z, 4:13, 5:14])
        assert torch.equal(moved[3], tensor[3, 6:15, 1:10])


@pytest.mark.parametrize(
    ("depth", "section", "moved"),
    [(7, 4, [4, 5, 6]), (7, 6, [6]), (7, 2, [0, 1, 2]), (5, 0, [0]), (2, 0, [0])],
)
def test_a_translation_moves_all_sections_from_one_on_away_from_the_centre(depth, section, moved):
    shifts = translation(depth, section=section, by=(1, 2))
    assert [z for z, shift in enumerate(shifts) if shift == (1, 2)] == moved
    assert all(shift in {(0, 0), (1, 2)} for shift in shifts)


def test_the_centre_section_never_moves_and_every_other_one_does_sometimes():
    for depth in (1, 2, 3, 7):
        drawn = [
            draw_shift(np.random.default_rng(number), depth=depth, largest=3)
            for number in range(200)
        ]
        if depth == 1:
            assert set(drawn) == {None}
            continue
        assert {section for section, _ in drawn} == set(range(depth)) - {depth // 2}
        assert {y for _, (y, _) in drawn} == set(range(-3, 4))


def test_shifts_add_up():
    one, other = slip(3, section=0, by=(1, 2)), translation(3, section=0, by=(3, -5))
    assert add_shifts(one, other)[0] == (4, -3)
    assert add_shifts((), other) == add_shifts(other, ()) == other


def test_a_misaligned_example_is_not_blurred():
    for number in range(20):
        drawn = plan_augmentation(
            always("slip", "translation"), patch_shape=SHAPE, seed=0, number=number
        )
        source = numbered_patch(drawn.source_shape)
        result = drawn.apply(source)
        assert torch.equal(result.image, torch.sin(result.labels.float() * 0.7))
