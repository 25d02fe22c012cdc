"""Levels of pyramids: where they lie, and how each chunked format keeps them."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import pyramid_geometry
from floodem.volumes.pyramid_geometry import finest_box, level_box, level_voxel_size

positions = st.tuples(*[st.integers(-50, 50)] * 3)
lengths = st.tuples(*[st.integers(1, 40)] * 3)
factors_zyx = st.tuples(*[st.integers(1, 9)] * 3)


def test_the_examples_of_the_geometry_hold() -> None:
    assert doctest.testmod(pyramid_geometry) == doctest.TestResults(failed=0, attempted=3)


@given(positions, lengths, factors_zyx)
def test_a_level_covers_the_box_and_no_voxel_more_than_needed(start, shape, factors) -> None:
    box = Box.from_shape(shape, start=start)
    coarse = level_box(box, factors)
    covered = {
        axis: sorted({i // factors[axis] for i in range(box.start[axis], box.stop[axis])})
        for axis in range(3)
    }
    for axis in range(3):
        assert covered[axis] == list(range(coarse.start[axis], coarse.stop[axis]))
    assert finest_box(coarse, factors).contains(box)


@given(positions, lengths, factors_zyx, factors_zyx)
def test_levels_of_levels_lie_where_their_product_does(start, shape, first, second) -> None:
    box = Box.from_shape(shape, start=start)
    both = tuple(int(f) for f in np.multiply(first, second))
    assert level_box(level_box(box, first), second) == level_box(box, both)


def test_an_unknown_voxel_size_stays_unknown_in_every_level() -> None:
    assert level_voxel_size(None, (2, 2, 2)) is None
    assert level_voxel_size(VoxelSize(30, 6, 4), (1, 2, 2)) == VoxelSize(30, 12, 8)


@pytest.mark.parametrize("factors", [(0, 1, 1), (1, -2, 1)])
def test_factors_that_are_not_positive_are_refused(factors) -> None:
    with pytest.raises(OptionError, match="not positive"):
        level_box(Box((0, 0, 0), (1, 1, 1)), factors)
    with pytest.raises(OptionError, match="not positive"):
        level_voxel_size(None, factors)
