"""Numbers on their way: normalised images as the networks know them, and types never narrowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.errors import LabelError, OptionError
from floodem.volumes import normalise
from floodem.volumes.volume import as_dtype

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
FLOATS = ("float32", "float64")
STATISTICS = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    hnp.arrays(st.sampled_from(["uint8", "uint16", "float32"]), (2, 3, 4)),
    STATISTICS,
    st.floats(1e-3, 1e6),
)
@np.errstate(all="ignore")
def test_normalised_images_equal_the_formula_in_float32_bit_by_bit(
    image: np.ndarray, mean: float, stddev: float
) -> None:
    """The slow twin goes voxel by voxel with numpy's own float32 scalars."""
    expected = np.empty(image.shape, np.float32)
    for index, value in np.ndenumerate(image):
        expected[index] = (np.float32(value) - np.float32(mean)) / np.float32(stddev)
    before = image.copy()
    found = normalise(image, mean=mean, stddev=stddev)
    assert found.dtype == np.float32
    assert found.tobytes() == expected.tobytes() or np.array_equal(found, expected, equal_nan=True)
    np.testing.assert_array_equal(image, before)
    with np.errstate(all="ignore"):
        whole = (image.astype(np.float32) - mean) / stddev
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    ("mean", "stddev"), [(0, 0), (0, -1), (0, np.nan), (np.nan, 1), (0, np.inf)]
)
def test_statistics_that_cannot_be_are_refused(mean: float, stddev: float) -> None:
    with pytest.raises(OptionError):
        normalise(np.zeros((1, 1, 1), np.uint8), mean=mean, stddev=stddev)


@given(st.data(), st.sampled_from(INTEGERS), st.sampled_from(INTEGERS + FLOATS))
def test_whole_numbers_change_type_exactly_or_not_at_all(
    data: st.DataObject, source: str, target: str
) -> None:
    info = np.iinfo(source)
    values = data.draw(st.lists(st.integers(int(info.min), int(info.max)), max_size=4))
    array = np.array(values, dtype=source)
    if target in FLOATS:
        exact = 2 ** (24 if target == "float32" else 53)
        low, high = -exact, exact
    else:
        low, high = int(np.iinfo(target).min), int(np.iinfo(target).max)
    if source == target or all(low <= value <= high for value in values):
        found = as_dtype(array, np.dtype(target))
        assert found.dtype == np.dtype(target)
        assert [int(value) for value in found] == values
    else:
        with pytest.raises(LabelError, match="choose a wider type"):
            as_dtype(array, np.dtype(target))


@pytest.mark.parametrize("target", [*INTEGERS, "float32"])
def test_real_numbers_are_not_narrowed(target: str) -> None:
    with pytest.raises(LabelError, match="without loss"):
        as_dtype(np.zeros(3, np.float64), np.dtype(target))


def test_real_numbers_may_widen() -> None:
    assert as_dtype(np.float32([0.1]), np.dtype(np.float64))[0] == np.float32(0.1)
