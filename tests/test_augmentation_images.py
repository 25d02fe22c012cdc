"""Grey levels and defects of sections: each changes what it says and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from augmentation_cases import always, numbered_patch
from floodem.training.augmentation.grey import (
    Levels,
    add_noise,
    adjust_levels,
    blur,
    draw_levels,
)
from floodem.training.augmentation.plan import plan_augmentation
from floodem.training.augmentation.sections import (
    Region,
    defocus_sections,
    draw_regions,
    lose_sections,
    region_mask,
)

SHAPE = (5, 21, 17)


def image(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(SHAPE, generator=generator, dtype=dtype)


def test_contrast_multiplies_and_brightness_adds():
    result = adjust_levels(image(), levels=[Levels(factor=1.5, offset=-0.25)])
    torch.testing.assert_close(result, image() * 1.5 - 0.25)


def test_gamma_keeps_the_darkest_the_brightest_and_the_order():
    for exponent in (0.6, 1.7):
        result = adjust_levels(image(torch.float64), levels=[Levels(exponent=exponent)])
        assert math.isclose(result.min(), image(torch.float64).min())
        assert math.isclose(result.max(), image(torch.float64).max())
        assert torch.equal(result.flatten().argsort(), image(torch.float64).flatten().argsort())
        darker = result.mean() < image(torch.float64).mean()
        assert darker == (exponent > 1)


def test_levels_that_change_nothing_change_nothing():
    torch.testing.assert_close(adjust_levels(image(), levels=[Levels()]), image())


def test_each_section_has_levels_of_its_own():
    levels = [Levels(offset=float(z)) for z in range(5)]
    result = adjust_levels(image(), levels=levels)
    torch.testing.assert_close(result - image(), torch.arange(5.0)[:, None, None].expand(SHAPE))


def test_an_even_image_keeps_its_level():
    even = torch.full(SHAPE, 0.7)
    result = adjust_levels(even, levels=[Levels(exponent=1.4, offset=0.1)])
    torch.testing.assert_close(result, even + 0.1)


def test_drawn_levels_keep_to_their_strengths_and_reach_them():
    random = np.random.default_rng(0)
    drawn = [draw_levels(random, contrast=0.2, brightness=0.4, gamma=1.0) for _ in range(2000)]
    for values, low, high in (
        ([d.factor for d in drawn], 0.8, 1.2),
        ([d.offset for d in drawn], -0.4, 0.4),
        ([d.exponent for d in drawn], 0.5, 2.0),
    ):
        assert low <= min(values) < low + 0.02
        assert high - 0.02 < max(values) <= high


def test_noise_has_its_standard_deviation_and_follows_from_its_seed():
    large = torch.zeros((20, 64, 64))
    noise = add_noise(large, stddev=0.3, seed=5)
    assert abs(float(noise.std()) - 0.3) < 0.005
    assert abs(float(noise.mean())) < 0.005
    assert torch.equal(noise, add_noise(large, stddev=0.3, seed=5))
    assert not torch.equal(noise, add_noise(large, stddev=0.3, seed=6))


def test_blur_equals_scipy_inside_and_keeps_sections_apart():
    result = blur(image(torch.float64), stddev=1.25).numpy()
    expected = ndimage.gaussian_filter(image(torch.float64).numpy(), (0, 1.25, 1.25))
    np.testing.assert_allclose(result[:, 5:-5, 5:-5], expected[:, 5:-5, 5:-5], atol=1e-12)


def test_blur_keeps_an_even_image_even_up_to_its_faces():
    even = torch.full(SHAPE, 0.7, dtype=torch.float64)
    torch.testing.assert_close(blur(even, stddev=3.0), even)


def test_blur_of_no_width_changes_nothing():
    assert torch.equal(blur(image(), stddev=0), image())


def test_a_missing_section_is_even_and_the_others_are_as_before():
    result = lose_sections(image(), regions=[Region(z=1), Region(z=4)], fill=-2.0)
    assert (result[[1, 4]] == -2).all()
    assert torch.equal(result[[0, 2, 3]], image()[[0, 2, 3]])


def test_a_partly_missing_section_is_so_on_one_side_of_a_line():
    region = Region(z=2, edge=(10.0, 8.0, 0.0))
    result = lose_sections(image(), regions=[region], fill=-2.0)
    assert (result[2, :, 8:] == -2).all()
    assert torch.equal(result[2, :, :8], image()[2, :, :8])
    down = region_mask(Region(z=2, edge=(9.5, 8.0, math.pi / 2)), like=image())
    assert down.sum(dim=1).tolist() == [0] * 10 + [17] * 11


def test_an_out_of_focus_section_is_blurred_and_the_others_are_as_before():
    result = defocus_sections(
        image(), regions=[Region(z=1), Region(z=3, edge=(10.0, 8.0, 0.0))], stddev=2.0
    )
    blurred = blur(image(), stddev=2.0)
    torch.testing.assert_close(result[1], blurred[1])
    torch.testing.assert_close(result[3, :, 8:], blurred[3, :, 8:])
    assert torch.equal(result[3, :, :8], image()[3, :, :8])
    assert torch.equal(result[[0, 2, 4]], image()[[0, 2, 4]])


def test_drawn_regions_are_different_sections_and_spare_the_whole_one():
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        regions = draw_regions(random, shape=SHAPE, most=3, partial=0.5, whole=2)
        sections = [region.z for region in regions]
        assert 1 <= len(set(sections)) == len(sections) <= 3
        seen |= set(sections)
    assert seen == {0, 1, 3, 4}


@pytest.mark.parametrize(("partial", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_as_many_regions_are_partial_as_asked(partial, share):
    random = np.random.default_rng(1)
    regions = [draw_regions(random, shape=SHAPE, most=1, partial=partial)[0] for _ in range(500)]
    assert abs(sum(region.edge is not None for region in regions) / 500 - share) < 0.08


def test_where_there_is_no_section_to_lose_none_is_lost():
    random = np.random.default_rng(1)
    assert draw_regions(random, shape=(1, 9, 9), most=2, partial=0.5, whole=0) == ()
    assert len(draw_regions(random, shape=(1, 9, 9), most=2, partial=0.5)) == 1


def test_the_centre_section_is_never_missing():
    options = always("missing", missing_sections=4, missing_fill=9.0)
    for number in range(50):
        drawn = plan_augmentation(options, patch_shape=SHAPE, seed=2, number=number)
        result = drawn.apply(numbered_patch(SHAPE))
        assert (result.image == 9).any()
        assert not (result.image[2] == 9).any()
