"""Whatever volume goes from one format into another comes out as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.geometry import Box, VoxelSize
from floodem.volumes import convert, create_volume, open_volume
from floodem.volumes.volume import Kind
from volume_cases import ALL_DTYPES, CASES, Case

LARGEST_IDS = (2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)

FROM_1_TO_9 = st.integers(1, 9)
PLACES = st.integers(-100, 1000)
# Sizes that every format can hold exactly, in nanometres.
SIZES = st.sampled_from([4.0, 6.0, 8.0, 9.25, 16.0, 30.0, 40.5])


@st.composite
def arrays(draw: st.DrawFn, dtype: str) -> np.ndarray:
    """Volumes of background, with few values or many, and with ids that floats cannot hold."""
    shape = (draw(FROM_1_TO_9), draw(FROM_1_TO_9), draw(FROM_1_TO_9))
    if draw(st.booleans()):
        array = draw(
            hnp.arrays(dtype, shape, elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False))
        )
    else:
        array = np.zeros(shape, dtype)
    if dtype == "uint64" and draw(st.booleans()):
        array.flat[0] = draw(st.sampled_from(LARGEST_IDS))
    return array


def cases_with(dtype: str) -> st.SearchStrategy[Case]:
    return st.sampled_from([case for case in CASES if dtype in case.dtypes])


def keeps_kind(case: Case) -> bool:
    return case.keeps_kind and case.keeps_position


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), dtype=st.sampled_from(ALL_DTYPES))
def test_a_volume_that_went_through_two_formats_is_as_it_was(
    data: st.DataObject, dtype: str
) -> None:
    array = data.draw(arrays(dtype))
    first, second = data.draw(cases_with(dtype)), data.draw(cases_with(dtype))
    voxel_size = VoxelSize(data.draw(SIZES), data.draw(SIZES), data.draw(SIZES))
    offset = (data.draw(PLACES), data.draw(PLACES), data.draw(PLACES))
    # Ids are whole numbers, and precomputed refuses others.
    kinds = [None, Kind.IMAGE] if dtype.startswith("float") else [None, Kind.IMAGE, Kind.LABELS]
    kind = data.draw(st.sampled_from(kinds))
    with tempfile.TemporaryDirectory() as folder:
        source, destination = first.uri(Path(folder, "a")), second.uri(Path(folder, "b"))
        with create_volume(
            source,
            shape=array.shape,
            dtype=dtype,
            voxel_size=voxel_size,
            offset=offset,
            kind=kind,
            **first.extra,
        ) as volume:
            volume.write(volume.box, array)
        # What the first format has no room for is given again.
        convert(source, destination, voxel_size=voxel_size, offset=offset)
        with open_volume(destination) as copy:
            assert copy.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(copy.read(), array)
            if second.keeps_position:
                assert copy.voxel_size == voxel_size
                assert copy.box == Box.from_shape(array.shape, start=offset)
            if kind is not None and keeps_kind(first) and keeps_kind(second):
                assert copy.kind == kind
