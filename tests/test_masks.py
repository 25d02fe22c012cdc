"""Masks: what slow twins give, what text means, and what can never be run."""

from __future__ import annotations

import contextlib
import json
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import floodem.volumes
from floodem.errors import FloodemError, GeometryError, OptionError, VolumeFormatError
from floodem.flooding.masks import (
    CoordinateExpression,
    CoordinateMask,
    ImageMask,
    ValueSelection,
    VolumeMask,
    build_mask,
    check_masks,
    parse_mask,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes.in_memory import ArrayVolume
from reference import masks as twin

IMAGE_NM = VoxelSize(8.0, 4.0, 4.0)


def held_by(volume):
    """Let every address open this volume."""
    return mock.patch.object(floodem.volumes, "open_volume", return_value=volume, create=True)


def mask_of(text, *, box, image=None, voxel_size=None):
    return build_mask([parse_mask(text)], box=box, image=image, voxel_size=voxel_size)


# Conditions that Python and numpy must agree on: whole numbers, and halves in between.
numbers = st.recursive(
    st.one_of(
        st.sampled_from(["x", "y", "z"]),
        st.integers(-20, 20).map(lambda n: f"({n})"),
        st.integers(-40, 40).map(lambda n: f"({n / 2})"),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(["/ 3", "/ -2.5", "/ (1 + 1)"])).map(
            lambda t: f"({t[0]} {t[1]})"
        ),
        inner.map(lambda n: f"-{n}"),
        inner.map(lambda n: f"+{n}"),
    ),
    max_leaves=5,
)
whole_numbers = st.recursive(
    st.sampled_from(["x", "y", "z", "3", "(x + 2 * z)", "-y"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["// 3", "// -4", "% 5", "% -3", "% (2 ** 2)"])).map(
            lambda t: f"({t[0]} {t[1]})"
        ),
        st.tuples(inner, st.integers(0, 3)).map(lambda t: f"({t[0]}) ** {t[1]}"),
    ),
    max_leaves=3,
)
comparison = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
comparisons = st.one_of(
    st.tuples(numbers, comparison, numbers).map(" ".join),
    st.tuples(whole_numbers, comparison, whole_numbers).map(" ".join),
    st.tuples(numbers, comparison, numbers, comparison, numbers).map(" ".join),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        st.tuples(inner, st.sampled_from("&|^"), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        inner.map(lambda c: f"not ({c})"),
    ),
    max_leaves=3,
)
boxes = st.builds(
    lambda start, shape: Box.from_shape(shape, start=start),
    st.tuples(*[st.integers(-30, 30)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
)


@settings(deadline=None, max_examples=150)
@given(conditions, boxes)
@example("(x < 1) ^ (y < 1)", Box((0, 0, 0), (1, 2, 2)))
@example("(x < 1) | (y < 1) and not z > 0", Box((0, 0, 0), (2, 2, 2)))
@example("0 <= x < 2 != y ** 0", Box((-1, -1, -1), (1, 2, 3)))
@example("-x // 3 == z % -4", Box((-9, -2, -9), (9, 1, 9)))
def test_a_condition_holds_where_python_says_so(text, box):
    found = CoordinateExpression(text).over(box)
    for local in np.ndindex(box.shape):
        position = tuple(a + b for a, b in zip(local, box.start, strict=True))
        assert found[local] == twin.holds(text, *position), position


def test_a_condition_over_a_large_box_is_computed_in_pieces(monkeypatch):
    box = Box((5, 6, 7), (15, 16, 17))
    whole = CoordinateExpression("x + y > z * 2 and x % 3 == 0").over(box)
    monkeypatch.setattr("floodem.flooding.masks.expression.VOXELS_AT_ONCE", 250)
    pieces = CoordinateExpression("x + y > z * 2 and x % 3 == 0").over(box)
    np.testing.assert_array_equal(whole, pieces)


def test_an_ellipsoid_can_be_cut_out():
    box = Box((0, 0, 0), (11, 21, 21))
    text = "((z - 5) / 5) ** 2 + ((y - 10) / 10) ** 2 + ((x - 10) / 10) ** 2 > 1"
    outside = CoordinateExpression(text).over(box)
    assert not outside[5, 10, 10]
    assert not outside[5, 10, 1]
    assert outside[0, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "x.real < 3", "x[0] < 3", "abs(x) < 3", "w < 3",
        "True", "None", "'a' < x", "b'a' < x", "f'{x}' < x", "1j < x", "[x] < 3", "(x, y) < z",
        "{x} == y", "x if y else z", "lambda: x", "(x := 3) < y", "x is y", "x in y", "x < ...",
        "x @ y < 3", "x << 2 < 3", "x < 3; y < 3", "x = 3", "await x", "yield x", "*x",
        "x < 3 # and more", "x < 3\nimport os", "ｘ < 3", "x <", "", "()", "1or x", "x < 0x_",
        "x\0<3",
        "x", "x + 3", "x and y", "not x", "~x < 3", "-(x < 3)", "(x < 3) + 1 < 3", "(x < 3) < y",
        "z < 10 & x > 5", "x & 1 == 1", "x ** y < 3", "x ** 9 < 3", "x ** -1 < 3", "x ** 0.5 < 3",
        "x / 0 < 3", "x // (1 - 1) < 3", "x % y < 3", "3 / x < 1", "x // 2.5 < 3", "x % 1.5 < 3",
        "9 ** 8 ** 8 < x", "9007199254740993 < x", "1e999 < x", "1e200 * 1e200 < x",
        "(" * 300 + "x" + ")" * 300 + " < 3", "-" * 900 + "x < 3", "not " * 200 + "x < 3",
        "x < 3 or " * 60 + "y < 3", "x < 3 or " * 200 + "y < 3", "x < " + "9" * 5000,
    ],
)  # fmt: skip
def test_anything_but_a_condition_on_coordinates_is_refused(text):
    with pytest.raises(OptionError) as refused:
        CoordinateExpression(text)
    assert "mask condition" in str(refused.value)


@settings(deadline=None)
@given(st.text(alphabet="xyz019.+-*/%<>=!&|^~() andornot'_[]{},:#\n", max_size=30))
@example("x <\ud8003")
def test_any_text_is_a_condition_or_refused(text):
    with contextlib.suppress(OptionError):
        assert CoordinateExpression(text).over(Box((0, 0, 0), (1, 2, 3))).shape == (1, 2, 3)


def test_a_refused_condition_names_the_place_and_what_is_allowed():
    with pytest.raises(OptionError) as refused:
        CoordinateExpression("z < 10 and foo(x)")
    assert "at character 12: 'foo(x)' is not allowed; it may hold x, y, z" in str(refused.value)


def test_powers_of_powers_take_no_time():
    text = "x" + " % 1" + ") ** 8" * 40 + " < 3"
    assert CoordinateExpression("(" * 40 + text).over(Box((0, 0, 0), (1, 1, 2))).all()


def test_numbers_too_large_to_be_exact_are_refused_before_the_run():
    rule = parse_mask("where: x * y * z < 5")
    check_masks([rule], box=Box((0, 0, 0), (1000, 1000, 1000)))
    far = Box((0, 0, 0), (10**6, 10**6, 10**6))
    with pytest.raises(OptionError, match="too large to be exact"):
        check_masks([rule], box=far)
    with pytest.raises(OptionError, match="too large to be exact"):
        check_masks([parse_mask("where: (x / 2) ** 8 * (y + .5) ** 8 * 1e250 < 5")], box=far)


selections = st.one_of(
    st.builds(ValueSelection, invert=st.booleans()),
    st.builds(
        lambda values, invert: ValueSelection(values=tuple(values), invert=invert),
        st.lists(st.one_of(st.integers(-2, 5), st.sampled_from([0.5, 2.0, 1e40])), min_size=1),
        st.booleans(),
    ),
    st.builds(
        lambda ends, drop, invert: ValueSelection(
            minimum=None if drop == "min" else min(ends),
            maximum=None if drop == "max" else max(ends),
            invert=invert,
        ),
        st.lists(st.sampled_from([-3, 0, 1, 1.5, 3, 2**70]), min_size=2, max_size=2),
        st.sampled_from(["min", "max", ""]),
        st.booleans(),
    ),
)
several = st.lists(selections, min_size=1, max_size=2).map(tuple)
rules = st.one_of(
    st.builds(VolumeMask, uri=st.just("mask.h5"), selections=several, invert=st.booleans()),
    st.builds(ImageMask, selections=several, invert=st.booleans()),
    st.builds(
        CoordinateMask,
        expression=st.sampled_from(["z < 1 and x > 2", "(x + y) % 2 == 0", "y != 3"]),
        invert=st.booleans(),
    ),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(rules, min_size=1, max_size=3),
    boxes,
    st.tuples(*[st.integers(1, 3)] * 3),
    st.sampled_from([np.uint8, np.int16, np.uint64, np.float32, bool]),
    st.tuples(*[st.integers(-15, 5)] * 3),
    st.integers(0, 2**32 - 1),
)
def test_masks_equal_their_slow_twin(rules, box, ratio, dtype, offset, seed):
    rng = np.random.default_rng(seed)
    coarse_nm = VoxelSize(*(r * s for r, s in zip(ratio, IMAGE_NM.zyx_nm, strict=True)))
    volume = ArrayVolume(
        rng.integers(0, 5, (7, 8, 9)).astype(dtype), offset=offset, voxel_size=coarse_nm
    )
    image = rng.integers(0, 5, box.shape).astype(dtype)
    with held_by(volume):
        found = build_mask(rules, box=box, image=image, voxel_size=IMAGE_NM)
    expected = twin.mask(rules, box=box, image=image, volume=volume, ratio=ratio)
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=30)
@given(rules, boxes, st.integers(0, 2**32 - 1))
def test_a_mask_in_two_halves_is_the_mask_of_the_whole(rule, box, seed):
    assume(box.shape[2] > 1)
    image = np.random.default_rng(seed).integers(0, 5, box.shape).astype(np.uint8)
    volume = ArrayVolume(np.arange(4000).reshape(10, 20, 20) % 3, voxel_size=VoxelSize(16, 8, 8))
    with held_by(volume):
        whole = build_mask([rule], box=box, image=image, voxel_size=IMAGE_NM)
        right = Box((*box.start[:2], box.start[2] + 1), box.stop)
        half = build_mask([rule], box=right, image=image[:, :, 1:], voxel_size=IMAGE_NM)
    np.testing.assert_array_equal(half, whole[:, :, 1:])


def test_without_rules_there_is_no_mask():
    assert build_mask([], box=Box((0, 0, 0), (2, 2, 2))) is None


def test_large_labels_are_told_apart_to_the_last_digit():
    labels = np.array([[[2**63, 2**63 + 1, 2**64 - 1]]], dtype=np.uint64)
    exact = ValueSelection(values=(2**63 + 1,))
    assert exact.of(labels).tolist() == [[[False, True, False]]]
    from_there = ValueSelection(minimum=2**63 + 1)
    assert from_there.of(labels).tolist() == [[[False, True, True]]]
    assert ValueSelection(values=(-1, 2**64)).of(labels).sum() == 0
    assert ValueSelection(minimum=0.5, maximum=float(2**63)).of(labels).sum() == 1


def test_a_range_between_whole_labels_holds_those_inside_it():
    labels = np.array([[[1, 2, 3]]], dtype=np.uint64)
    inside = ValueSelection(minimum=1.5, maximum=2.5)
    assert inside.of(labels).tolist() == [[[False, True, False]]]


def test_fractions_are_compared_in_the_type_of_the_volume():
    stored = np.array([[[0.1, 0.2]]], dtype=np.float32)
    assert ValueSelection(values=(0.1,)).of(stored).tolist() == [[[True, False]]]
    assert ValueSelection(maximum=1e300).of(stored).all()


def test_a_mask_reaches_only_as_far_as_its_volume_and_is_zero_beyond():
    volume = ArrayVolume(np.ones((2, 2, 2), np.uint8), offset=(0, 0, 2))
    box = Box((0, 0, 0), (2, 2, 5))
    with held_by(volume):
        assert mask_of("m.h5", box=box)[0, 0].tolist() == [False, False, True, True, False]
        assert mask_of("!m.h5", box=box)[0, 0].tolist() == [True, True, False, False, True]
        assert not mask_of("m.h5", box=Box((9, 9, 9), (10, 10, 10))).any()


def test_a_mask_that_lies_elsewhere_is_refused_before_the_run():
    with (
        held_by(ArrayVolume(np.ones((2, 2, 2), np.uint8), offset=(50, 0, 0))),
        pytest.raises(GeometryError, match="check its offset"),
    ):
        check_masks([parse_mask("m.h5")], box=Box((0, 0, 0), (10, 10, 10)))


@pytest.mark.parametrize("voxel_size", [VoxelSize(8, 4, 6), VoxelSize(4, 4, 4), VoxelSize(8, 4, 1)])
def test_a_mask_whose_voxels_are_no_multiples_of_the_images_is_refused(voxel_size):
    volume = ArrayVolume(np.ones((9, 9, 9), np.uint8), voxel_size=voxel_size)
    for apply in (check_masks, build_mask):
        with held_by(volume), pytest.raises(GeometryError, match="whole multiple"):
            apply([parse_mask("m.h5")], box=Box((0, 0, 0), (3, 3, 3)), voxel_size=IMAGE_NM)


def test_a_mask_of_anything_but_numbers_is_refused():
    volume = ArrayVolume(np.ones((3, 3, 3), np.complex64))
    with held_by(volume), pytest.raises(VolumeFormatError, match="complex64"):
        check_masks([parse_mask("m.h5")], box=Box((0, 0, 0), (3, 3, 3)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m.h5", VolumeMask(uri="m.h5")),
        ("not m.h5", VolumeMask(uri="m.h5", invert=True)),
        (r"!C:\data\m.h5@raw", VolumeMask(uri=r"C:\data\m.h5@raw", invert=True)),
        (
            r"volume:C:\data\m.h5:raw,values=1|3",
            VolumeMask(
                uri=r"C:\data\m.h5:raw", selections=(ValueSelection(values=(1, 3)),)
            ),
        ),
        (
            "volume:zarr://gs://bucket/a,b.zarr, min=1 , max=4.5,channel=2",
            VolumeMask(
                uri="zarr://gs://bucket/a,b.zarr",
                selections=(ValueSelection(minimum=1, maximum=4.5, channel=2),),
            ),
        ),
        ("volume:not a mask.h5", VolumeMask(uri="not a mask.h5")),
        ("volume:image:0.h5", VolumeMask(uri="image:0.h5")),
        ("image:max=-3", ImageMask(selections=(ValueSelection(maximum=-3),))),
        ("not image: values=255", ImageMask(
            selections=(ValueSelection(values=(255,)),), invert=True
        )),
        ("where: z < 10 and x > 5", CoordinateMask(expression="z < 10 and x > 5")),
        ("! where:not z<10", CoordinateMask(expression="not z<10", invert=True)),
        ("not.h5", VolumeMask(uri="not.h5")),
        ("where.h5", VolumeMask(uri="where.h5")),
    ],
)  # fmt: skip
def test_a_mask_is_read_from_text(text, expected):
    assert parse_mask(text) == expected
    json.dumps(expected.to_json())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "character 1: something is missing"),
        ("not ", "something is missing"),
        ("volume:", "character 8: something is missing"),
        ("volume:,min=1", "a URI is missing"),
        ("where:", "something is missing"),
        ("where: z <", "mask condition"),
        ("m.h5,values=1", "write volume:"),
        ("image:", "something is missing"),
        ("image:10", "'10' is no setting"),
        ("image:channel=0", "by values or min and max"),
        ("image:min=a", "character 11: 'a' is no number"),
        ("image:min=1,mxa=2", "character 13: 'mxa' is unknown (did you mean max?)"),
        ("image:min=1,min=2", "'min' is given twice"),
        ("image:values=1||2", "'' is no number"),
        ("image:values=1,min=2", "give one of them"),
        ("image:min=3,max=2", "lies above"),
        ("image:min=nan", "not finite"),
        ("volume:m.h5,channel=-1", "whole numbers from 0"),
        ("volume:m.h5,channel=x", "no number"),
    ],
)
def test_text_that_is_no_mask_is_refused_with_what_is_possible(text, says):
    with pytest.raises(OptionError) as refused:
        parse_mask(text)
    assert says in str(refused.value)


@given(st.text(max_size=40) | st.text(alphabet="not!volumeimagewhere:,=|19 mxyz<", max_size=40))
def test_any_text_is_a_mask_or_refused(text):
    with contextlib.suppress(FloodemError):
        parse_mask(text)


def test_the_record_of_a_mask_says_all_that_decides_about_it():
    rule = VolumeMask(
        uri="m.h5@a",
        selections=(
            ValueSelection(values=(1, 2), invert=True), ValueSelection(minimum=0, channel=1),
        ),
        invert=True,
    )  # fmt: skip
    assert rule.to_json() == {
        "kind": "volume",
        "uri": "m.h5@a",
        "selections": [{"values": [1, 2], "invert": True}, {"channel": 1, "min": 0}],
        "invert": True,
    }
    assert ImageMask(selections=(ValueSelection(maximum=3),)).to_json() == {
        "kind": "image", "selections": [{"max": 3}], "invert": False,
    }  # fmt: skip
    assert CoordinateMask(expression="x < 3").to_json() == {
        "kind": "where", "expression": "x < 3", "invert": False,
    }  # fmt: skip


def test_a_coarse_mask_in_a_file_lies_over_the_image(tmp_path):
    with floodem.volumes.create_volume(
        tmp_path / "mask.npz", shape=(2, 2, 2), dtype=np.uint8, voxel_size=VoxelSize(16, 8, 8)
    ) as volume:
        volume.write(volume.box, np.arange(8, dtype=np.uint8).reshape(2, 2, 2))
    rule = parse_mask(f"volume:{tmp_path / 'mask.npz'},values=1")
    box = Box((0, 0, 0), (4, 4, 4))
    check_masks([rule], box=box, voxel_size=IMAGE_NM)
    found = build_mask([rule], box=box, voxel_size=IMAGE_NM)
    assert np.argwhere(found).min(axis=0).tolist() == [0, 0, 2]
    assert np.argwhere(found).max(axis=0).tolist() == [1, 1, 3]
