"""Shift masks on the command line and in blocks: text and fields in, positions out."""

from __future__ import annotations

import contextlib
import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from floodem.errors import FloodemError, GeometryError, OptionError
from floodem.flooding.masks import MaskPlace, ShiftMask, check_masks, parse_mask
from floodem.geometry import Box, VoxelSize

WINDOW = "window=-16:16,-16:17,-16:17"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "shift:s.zarr,threshold=4,window=-1:2,-8:9,-8:9,scale=8",
            ShiftMask(
                uri="s.zarr", threshold=4, window=Box((-1, -8, -8), (2, 9, 9)), scale=8
            ),
        ),
        (
            f"shift: gs://b/a,b.zarr , scale = 32, {WINDOW}",
            ShiftMask(
                uri="gs://b/a,b.zarr ",
                threshold=4,
                window=Box((-16, -16, -16), (16, 17, 17)),
                scale=32,
            ),
        ),
        (
            f"shift:s.h5@field,{WINDOW},threshold=2.5",
            ShiftMask(
                uri="s.h5@field", threshold=2.5, window=Box((-16, -16, -16), (16, 17, 17))
            ),
        ),
    ],
)  # fmt: skip
def test_a_shift_mask_is_read_from_text(text, expected):
    assert parse_mask(text) == expected
    json.dumps(expected.to_json())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shift:s.zarr", "character 13: write ,window="),
        ("shift:", "something is missing"),
        (f"shift:,{WINDOW}", "a URI is missing"),
        ("shift:s.zarr,window=4", "character 21: window: '4' is not a box"),
        ("shift:s.zarr,window=1:0,0:1,0:1", "give the smaller number first"),
        ("shift:s.zarr,window=0:0,0:1,0:1", "is empty"),
        (f"shift:s.zarr,{WINDOW},treshold=4", "'treshold' is unknown (did you mean threshold?)"),
        (f"shift:s.zarr,{WINDOW},{WINDOW}", "'window' is given twice"),
        (f"shift:s.zarr,{WINDOW},threshold=many", "'many' is no number"),
        (f"shift:s.zarr,{WINDOW},threshold=0", "threshold 0 of a shift mask would forbid"),
        (f"shift:s.zarr,{WINDOW},threshold=nan", "would forbid"),
        (f"shift:s.zarr,{WINDOW},scale=1.5", "scale 1.5 is no whole number"),
        (f"shift:s.zarr,{WINDOW},scale=0", "scale 0 of a shift mask is below 1"),
        (f"not shift:s.zarr,{WINDOW}", "a shift mask has no opposite"),
    ],
)
def test_text_that_is_no_shift_mask_is_refused_with_what_to_write(text, says):
    with pytest.raises(OptionError) as refused:
        parse_mask(text)
    assert says in str(refused.value)


@given(st.text(alphabet="shift:,=-12 windowthresholdscalez<.", max_size=60))
def test_any_text_about_shifts_is_a_mask_or_refused(text):
    with contextlib.suppress(FloodemError):
        parse_mask(f"shift:{text}")


def written(path, field):
    with h5py.File(path, "w") as file:
        file["field"] = field
    return f"{path}@field"


def slow_twin(field, rule, position):
    """Look at every voxel of the finest level that the window around a position covers."""
    ranges = [
        range((p + a) * f, (p + b) * f)
        for p, a, b, f in zip(
            position, rule.window.start, rule.window.stop, rule.factors, strict=True
        )
    ]
    for z in ranges[0]:
        for y in ranges[1]:
            for x in ranges[2]:
                at = (z, y // rule.scale, x // rule.scale)
                inside = all(0 <= a < n for a, n in zip(at, field.shape[1:], strict=True))
                if inside and any(abs(int(field[(c, *at)])) >= rule.threshold for c in (0, 1)):
                    return True
    return False


@settings(max_examples=60, deadline=None)
@given(
    field=arrays(
        np.int16, st.tuples(st.just(2), *[st.integers(1, 5)] * 3), elements=st.integers(-9, 9)
    ),
    corner=st.tuples(*[st.integers(0, 4)] * 3),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    window=st.tuples(*[st.tuples(st.integers(-4, 3), st.integers(1, 5))] * 3),
    scale=st.integers(1, 3),
    factors=st.tuples(*[st.integers(1, 3)] * 3),
    threshold=st.integers(1, 9),
)
def test_a_position_is_masked_wherever_the_box_at_hand_begins_and_ends(
    tmp_path_factory, field, corner, shape, window, scale, factors, threshold
):
    address = written(tmp_path_factory.mktemp("shift") / "shift.h5", field)
    starts, sizes = zip(*window, strict=True)
    rule = ShiftMask(
        uri=address,
        window=Box.from_shape(sizes, start=starts),
        threshold=threshold,
        scale=scale,
        factors=factors,
    )
    box = Box.from_shape(shape, start=corner)
    found = rule.masked(MaskPlace(box=box))
    for index in np.ndindex(shape):
        position = tuple(a + b for a, b in zip(corner, index, strict=True))
        assert found[index] == slow_twin(field, rule, position)
        alone = Box.from_shape((1, 1, 1), start=position)
        assert rule.masked(MaskPlace(box=alone)).item() == found[index]


def test_a_confined_mask_differs_near_the_faces_and_only_there(tmp_path):
    field = np.zeros((2, 10, 4, 4), np.int16)
    field[0, 6] = 5
    address = written(tmp_path / "shift.h5", field)
    rule = {"uri": address, "threshold": 4, "window": Box((-3, 0, 0), (3, 1, 1))}
    place = MaskPlace(box=Box((0, 0, 0), (6, 4, 4)))
    assert ShiftMask(**rule).masked(place)[:, 0, 0].tolist() == [False] * 4 + [True] * 2
    assert not ShiftMask(**rule, is_confined=True).masked(place).any()


def test_what_is_not_a_number_is_no_shift(tmp_path):
    field = np.full((2, 3, 3, 3), np.nan, np.float32)
    field[1, 1, 1, 1] = -4
    address = written(tmp_path / "shift.h5", field)
    rule = ShiftMask(uri=address, threshold=4, window=Box((0, 0, 0), (1, 1, 1)))
    masked = rule.masked(MaskPlace(box=Box((0, 0, 0), (3, 3, 3))))
    assert np.argwhere(masked).tolist() == [[1, 1, 1]]


def test_a_scale_that_does_not_fit_the_voxel_sizes_is_refused_before_the_run(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["field"] = np.zeros((2, 4, 4, 4), np.int16)
        file["field"].attrs["voxel_size_nm_zyx"] = [30.0, 48.0, 48.0]
    place = {"box": Box((0, 0, 0), (4, 32, 32)), "voxel_size": VoxelSize(30, 6, 6)}
    text = f"shift:{tmp_path}/s.h5@field,window=-1:2,-8:9,-8:9"
    with pytest.raises(GeometryError, match=r"30,48,48 nm.*does not fit scale 1"):
        check_masks([parse_mask(text)], **place)
    check_masks([parse_mask(f"{text},scale=8")], **place)
