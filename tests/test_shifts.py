"""Shifts between sections: planted ones are found, to a voxel, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shift_cases
from floodem.errors import OptionError
from floodem.geometry import Box
from floodem.project.matching import LEAST_QUALITY, Matching, Section, match
from floodem.project.shift_blocks import ShiftBlock

SMALL = Matching(stride=16, patch=80, search=16)
EDGE = 192
SQUARES = EDGE // SMALL.stride


def measured(sections, *, matching=SMALL, core=None, offset=(0, 0, 0)):
    """Return the field (y, x; z, rows, columns) of sections that begin at an offset."""
    box = Box.from_shape(sections.shape, start=offset)
    edges = (1, matching.stride, matching.stride)
    first = tuple(a // b for a, b in zip(box.start, edges, strict=True))
    last = tuple(-(-a // b) for a, b in zip(box.stop, edges, strict=True))
    block = ShiftBlock(
        read=lambda part: sections[part.slices(origin=offset)],
        image_box=box,
        core=core or Box(first, last),
        matching=matching,
    )
    return block.measure()


def prepared(section, matching=SMALL):
    room = matching.margin
    padded = np.pad(section, room)
    inside = np.pad(np.ones(section.shape, bool), room)
    return Section.prepare(padded, inside=inside)


@pytest.fixture(scope="module")
def canvas():
    return shift_cases.tissue(6, edge=EDGE)


@pytest.mark.parametrize("jump", [(0, 0), (7, -3), (-12, 12), (16, 0), (0, -16)])
def test_a_section_that_jumps_is_found_to_a_voxel_everywhere(canvas, jump):
    at = 3
    sections = shift_cases.cut(canvas, [(0, 0)] * at + [jump] * (6 - at))
    field, counts = measured(sections)
    for z in range(5):
        wanted = jump if z == at - 1 else (0, 0)
        for component, shift in zip(field[:, z], wanted, strict=True):
            assert np.abs(component - shift).max() <= 1
        assert counts[z].lost == counts[z].empty == 0
    assert counts[5].empty == SQUARES**2
    assert not field[:, 5].any()


def test_a_local_shear_is_found_where_it_is(canvas):
    sections = shift_cases.cut(canvas, [(0, 0)] * 6)
    sections[3:] = [shift_cases.sheared(one, most=12) for one in sections[3:]]
    field, _ = measured(sections)
    y, x = field[:, 2]
    rows = (np.arange(SQUARES) + 0.5) / SQUARES
    wanted = np.clip(rows * 2 - 1, 0, 1) * 12
    # A patch of 5 squares holds several shifts, and shows that of most of its voxels.
    inner = slice(2, -2)
    assert np.abs(x[inner] - wanted[inner, None]).max() <= 2.5
    assert np.abs(np.median(x[inner], axis=1) - wanted[inner]).max() <= 1.5
    assert np.abs(y).max() <= 1
    assert np.abs(x[:4]).max() <= 1


@settings(max_examples=15, deadline=None)
@given(
    gain=st.floats(0.3, 1.2),
    offset=st.floats(-25, 15),
    slope=st.floats(-0.1, 0.1),
    jump=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
)
def test_a_jump_of_contrast_and_brightness_is_no_shift(canvas, gain, offset, slope, jump):
    shifted = canvas.copy()
    ramp = slope * np.arange(canvas.shape[2])
    shifted[1] = (shifted[1] - 128) * gain + 128 + offset + ramp
    sections = shift_cases.cut(shifted[:2], [(0, 0), jump])
    shifts, quality = match(prepared(sections[0]), prepared(sections[1]), matching=SMALL)
    assert (quality >= LEAST_QUALITY).mean() > 0.9
    good = quality >= LEAST_QUALITY
    off = np.abs(shifts - np.array(jump)[:, None, None]).max(axis=0)
    assert (off[good] <= 1).mean() > 0.97


@pytest.mark.parametrize("grey", [0, 255, 90])
def test_an_empty_section_is_passed_over_and_hides_no_jump(canvas, grey):
    sections = shift_cases.cut(canvas, [(0, 0)] * 3 + [(8, -5)] * 3)
    sections[2] = grey
    field, counts = measured(sections)
    for z in (1, 2):
        assert np.abs(field[0, z] - 8).max() <= 1
        assert np.abs(field[1, z] + 5).max() <= 1
    assert np.abs(field[:, [0, 3, 4]]).max() <= 1
    assert [one.lost for one in counts] == [0] * 6


def test_what_is_empty_too_long_has_no_shift(canvas):
    long = np.concatenate([canvas, canvas])
    sections = shift_cases.cut(long, [(0, 0)] * 3 + [(8, -5)] * 9)
    sections[3:8] = 0
    field, counts = measured(sections)
    assert not field[:, 2:7].any()
    assert [one.empty for one in counts[2:8]] == [SQUARES**2] * 6 or counts[2].empty == SQUARES**2
    assert sum(one.lost for one in counts) == 0


def test_half_a_section_without_a_picture_leaves_the_other_half(canvas):
    sections = shift_cases.cut(canvas, [(0, 0)] * 3 + [(6, 6)] * 3)
    sections[3, :, : EDGE // 2] = 0
    field, counts = measured(sections)
    right = field[:, 2, :, SQUARES // 2 :]
    assert np.abs(right - 6).max() <= 1
    assert counts[2].lost == 0


def test_noise_without_tissue_is_empty_and_other_tissue_is_lost(canvas):
    rng = np.random.default_rng(3)
    noise = rng.normal(128, 20, (2, EDGE, EDGE)).astype(np.uint8)
    _, counts = measured(noise)
    assert counts[0].empty == SQUARES**2
    other = shift_cases.tissue(1, edge=EDGE, seed=9)
    sections = shift_cases.cut(np.stack([canvas[0], other[0]]), [(0, 0)] * 2)
    field, counts = measured(sections)
    assert counts[0].lost > 0.7 * SQUARES**2
    assert counts[0].lost + counts[0].largest.sum() == SQUARES**2
    # whatever is lost is larger than all that was looked for
    assert (field[:, 0] == SMALL.lost).all(axis=0).sum() == counts[0].lost


def test_a_field_does_not_depend_on_how_it_is_cut_nor_on_where_the_image_begins(canvas):
    sections = shift_cases.cut(canvas, [(0, 0), (0, 0), (5, 3), (5, 3), (5, 3), (-4, 1)])
    sections[3, 40:90] = 0
    offset = (7, 32, -48)
    whole, counts = measured(sections, offset=offset)
    moved, _ = measured(sections)
    assert (whole == moved).all()
    box = Box((7, 2, -3), (13, 2 + SQUARES, -3 + SQUARES))
    parts = np.zeros_like(whole)
    lost = 0
    for z in (7, 10):
        for y in (2, 7):
            core = Box((z, y, -3), (z + 3, y + 5 if y == 2 else 2 + SQUARES, -3 + SQUARES))
            part, some = measured(sections, core=core, offset=offset)
            parts[:, *core.slices(origin=box.start)] = part
            lost += sum(one.lost for one in some)
    # The filters' rounding may tip a patch in which two shifts fit as well.
    assert (parts != whole).mean() < 0.002
    assert abs(lost - sum(one.lost for one in counts)) <= 2


def test_squares_that_the_image_fills_in_part_are_compared_by_that_part(canvas):
    sections = shift_cases.cut(canvas[:2], [(0, 0), (4, 4)])[:, 5:, 3:]
    field, _ = measured(sections, offset=(0, 5, 3))
    assert field.shape == (2, 2, SQUARES, SQUARES)
    assert np.abs(field[:, 0] - 4).max() <= 1


def test_floats_of_any_scale_and_holes_are_compared(canvas):
    sections = shift_cases.cut(canvas[:2], [(0, 0), (4, -4)]).astype(np.float32)
    plain, _ = measured(sections)
    sections *= np.float32(1e25)
    sections[0, 60:110, 60:110] = np.nan
    field, _ = measured(sections)
    assert np.abs(field[:, 0] - np.array([4, -4])[:, None, None]).max() <= 1
    assert (field == plain).mean() > 0.9


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"stride": 0}, "stride 0 is not from 1 to"),
        ({"search": 5000}, "search 5000 is not from 1 to"),
        ({"patch": 128}, "patch 128 is no odd multiple of stride 32: give for example 160"),
    ],
)
def test_impossible_patches_are_refused_with_what_to_give(given, says):
    with pytest.raises(OptionError) as refused:
        Matching(**given)
    assert says in str(refused.value)
