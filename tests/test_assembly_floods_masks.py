"""Masks of blocks are those of the whole volume, wherever a block begins and however coarse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flood_cases import write_volume
from floodem.assembly.block_masks import masks_without_image, with_image
from floodem.errors import GeometryError
from floodem.flooding.masks import ShiftMask, check_masks, parse_mask
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume

WHOLE = Box((-7, 10, 23), (17, 49, 66))
NM = VoxelSize(30, 6, 6)

quiet = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def parts(draw):
    """Return a box inside the whole one."""
    start, stop = [], []
    for low, high in zip(WHOLE.start, WHOLE.stop, strict=True):
        start.append(draw(st.integers(low, high - 1)))
        stop.append(draw(st.integers(start[-1] + 1, high)))
    return Box(tuple(start), tuple(stop))


def coarse_mask(folder, ratio, *, seed=0):
    """Write a mask on voxels `ratio` times as large that covers most of the whole box."""
    lows = [at // by for at, by in zip(WHOLE.start, ratio, strict=True)]
    highs = [-(-at // by) - 1 for at, by in zip(WHOLE.stop, ratio, strict=True)]
    shape = [max(high - low, 1) for low, high in zip(lows, highs, strict=True)]
    array = (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)
    size = VoxelSize(*(a * b for a, b in zip(NM.zyx_nm, ratio, strict=True)))
    uri = folder / f"mask-{'-'.join(map(str, ratio))}-{seed}.zarr"
    if not uri.exists():
        write_volume(uri, array, offset=tuple(lows), voxel_size=size)
    return str(uri), array, tuple(lows)


def masked(rules, box):
    request = SegmentRequest(masks=rules)
    found = masks_without_image(request, box=box, voxel_size=NM).restricted
    assert found is not None
    return found


@quiet
@given(box=parts(), ratio=st.tuples(*[st.integers(1, 5)] * 3))
def test_a_coarser_mask_lies_where_it_does_voxel_by_voxel(tmp_path, box, ratio):
    uri, array, lows = coarse_mask(tmp_path, ratio)
    rule = parse_mask(uri)
    check_masks([rule], box=WHOLE, voxel_size=NM)
    expected = np.zeros(box.shape, bool)
    for place in np.ndindex(box.shape):
        at = [
            (p + start) // by - low
            for p, start, by, low in zip(place, box.start, ratio, lows, strict=True)
        ]
        if all(0 <= a < size for a, size in zip(at, array.shape, strict=True)):
            expected[place] = array[tuple(at)]
    np.testing.assert_array_equal(masked([rule], box), expected)


@quiet
@given(
    box=parts(),
    ratio=st.tuples(*[st.integers(1, 5)] * 3),
    scale=st.integers(1, 4),
    window=st.tuples(*[st.tuples(st.integers(-6, 0), st.integers(1, 6))] * 3),
)
def test_a_blocks_masks_are_cut_out_of_the_whole_volumes(tmp_path, box, ratio, scale, window):
    uri, _, _ = coarse_mask(tmp_path, ratio)
    field = shift_field(tmp_path, scale)
    rules = [
        parse_mask(f"volume:{uri},values=1"),
        parse_mask("where: (x + y) % 7 == 0 and z > 3"),
        ShiftMask(
            uri=field,
            window=Box(tuple(a for a, _ in window), tuple(b for _, b in window)),
            threshold=4,
            scale=scale,
        ),
    ]
    for rule in rules:
        whole = masked([rule], WHOLE)
        assert whole.any()
        assert not whole.all()
        np.testing.assert_array_equal(
            masked([rule], box), whole[box.slices(origin=WHOLE.start)], err_msg=str(rule)
        )


def shift_field(folder, scale):
    """Write a field of shifts, two channels, over the whole box."""
    uri = folder / f"shift-{scale}.npy"
    if not uri.exists():
        shape = (2, WHOLE.stop[0], *(-(-edge // scale) for edge in WHOLE.stop[1:]))
        random = np.random.default_rng(scale)
        large = random.choice([-5, 5], shape) * (random.random(shape) < 0.002)
        np.save(uri, (random.integers(-3, 4, shape) + large).astype(np.int16))
    return str(uri)


def test_masks_that_fit_the_image_are_added_to_those_that_do_not_look_at_it():
    request = SegmentRequest(
        masks=[parse_mask("where: z < 0"), parse_mask("image:min=200")],
        seed_masks=[parse_mask("image:max=10")],
        barriers=[parse_mask("where: x > 60")],
    )
    raw = np.random.default_rng(0).integers(0, 256, WHOLE.shape).astype(np.uint8)
    before = masks_without_image(request, box=WHOLE, voxel_size=NM)
    assert before.seed_mask is None
    masks = with_image(before, request, box=WHOLE, raw=raw)
    below = np.broadcast_to((np.arange(-7, 17) < 0)[:, None, None], WHOLE.shape)
    np.testing.assert_array_equal(masks.restricted, below | (raw >= 200))
    np.testing.assert_array_equal(masks.seed_mask, raw <= 10)
    np.testing.assert_array_equal(masks.barrier, before.barrier)


def test_the_open_share_counts_where_a_field_of_view_may_be_centred():
    box = Box((0, 0, 0), (10, 10, 10))
    request = SegmentRequest(
        masks=[parse_mask("where: z < 2")],
        seed_masks=[parse_mask("where: z < 9")],
        barriers=[parse_mask("where: z >= 5")],
    )
    masks = masks_without_image(request, box=box, voxel_size=None)
    assert masks.open_share() == pytest.approx(0.3)
    assert masks_without_image(SegmentRequest(), box=box, voxel_size=None).open_share() == 1.0


def test_a_mask_whose_voxels_are_no_whole_multiple_is_refused_before_the_run(tmp_path):
    uri = str(tmp_path / "mask.zarr")
    with create_volume(uri, shape=(9, 9, 9), dtype=np.uint8, voxel_size=VoxelSize(45, 6, 6)):
        pass
    with pytest.raises(GeometryError, match="whole multiple"):
        check_masks([parse_mask(uri)], box=WHOLE, voxel_size=NM)
