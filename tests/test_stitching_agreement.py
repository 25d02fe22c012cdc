"""Holding pieces of two blocks against each other."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.assembly.agreement import JoinRule, Verdict, compare_zone
from floodem.errors import GeometryError, OptionError
from floodem.labels import components
from reference.stitching_twin import compared, pieces_by_corners
from stitching_cases import swapped

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)
RULES = st.builds(
    JoinRule,
    agreement=st.sampled_from([0.51, 0.6, 0.75, 1.0]),
    min_shared=st.integers(1, 4),
)


@st.composite
def zones(draw):
    shape = draw(SHAPES)
    ids = st.sampled_from([0, 1, 2, 7, 2**32 - 1])
    return tuple(draw(hnp.arrays(np.uint32, shape, elements=ids)) for _ in range(2))


def rows(pairs):
    verdicts = [Verdict(value).words for value in pairs.verdict.tolist()]
    columns = (pairs.a, pairs.b, pairs.shared, pairs.voxels_a, pairs.voxels_b)
    places = map(tuple, pairs.place.tolist())
    return list(zip(*(one.tolist() for one in columns), verdicts, places, strict=True))


def zone(*texts, deep=1):
    """Write labels as rows of digits, `deep` times behind each other along z."""
    plane = [[int(sign) if sign != "." else 0 for sign in text] for text in texts]
    return np.array([plane] * deep, np.uint32)


def verdicts(a, b, **options):
    found = compare_zone(a, b, rule=JoinRule(**{"min_shared": 1, **options}), start=(0, 0, 0))
    return {(row[0], row[1]): row[5] for row in rows(found)}


@settings(deadline=None)
@given(zones(), RULES, st.tuples(*[st.integers(-9, 9)] * 3))
def test_pairs_equal_those_counted_voxel_by_voxel(labels, rule, start):
    expected = compared(*labels, agreement=rule.agreement, min_shared=rule.min_shared)
    found = rows(compare_zone(*labels, rule=rule, start=start))
    assert sorted(row[:6] for row in found) == sorted(row[:6] for row in expected)
    # Each place is in the voxels that one pair of these numbers shares, and in no two.
    voxels = {place: row[:6] for row in expected for place in row[6]}
    for *row, place in found:
        assert voxels[tuple(a - b for a, b in zip(place, start, strict=True))] == tuple(row)
    places = [row[6] for row in found]
    assert places == sorted(set(places))


@settings(deadline=None)
@given(zones(), RULES)
def test_swapping_the_blocks_swaps_the_columns(labels, rule):
    a, b = labels
    back = [
        (y, x, shared, of_y, of_x, swapped(verdict), place)
        for x, y, shared, of_x, of_y, verdict, place in rows(
            compare_zone(b, a, rule=rule, start=(1, 2, 3))
        )
    ]
    assert back == rows(compare_zone(a, b, rule=rule, start=(1, 2, 3)))


@settings(deadline=None)
@given(zones(), RULES, st.permutations([1, 2, 7, 2**32 - 1]))
def test_what_is_joined_does_not_depend_on_the_values_of_ids(labels, rule, others):
    names = dict(zip([1, 2, 7, 2**32 - 1], others, strict=True)) | {0: 0}
    a, b = labels
    renamed = np.vectorize(names.get, otypes=[np.uint32])(a)
    expected = [
        (names[row[0]], *row[1:]) for row in rows(compare_zone(a, b, rule=rule, start=(0,) * 3))
    ]
    assert rows(compare_zone(renamed, b, rule=rule, start=(0,) * 3)) == expected


@settings(deadline=None)
@given(zones(), RULES)
def test_no_piece_agrees_with_two(labels, rule):
    a, b = (pieces_by_corners(one).astype(np.uint32) for one in labels)
    found = compare_zone(a, b, rule=rule, start=(0, 0, 0))
    joined = found.select(found.verdict == Verdict.JOINED)
    assert len(set(joined.a.tolist())) == len(set(joined.b.tolist())) == len(joined)


@pytest.mark.parametrize("package", ["cc3d", "scipy alone"])
def test_pieces_across_corners_equal_a_plain_flood(monkeypatch, package):
    if package == "cc3d":
        pytest.importorskip("cc3d")
    else:
        monkeypatch.setitem(sys.modules, "cc3d", None)

    @given(hnp.arrays(np.int64, SHAPES, elements=st.sampled_from([0, 1, 2**40])))
    @settings(deadline=None, max_examples=300)
    def check(labels):
        pieces, count = components(labels, connectivity=26)
        np.testing.assert_array_equal(pieces, pieces_by_corners(labels))
        assert count == pieces.max()

    check()


def test_a_merger_in_one_block_joins_one_of_what_it_merged_at_most():
    apart = zone("111111..22", "111111..22")
    merged = zone("5555555555", "5555555555")
    assert verdicts(apart, merged) == {(1, 5): "joined", (2, 5): "little of B"}
    halves = zone("1111..2222", "1111..2222")
    assert verdicts(halves, merged) == {(1, 5): "little of B", (2, 5): "little of B"}
    assert verdicts(merged, halves) == {(5, 1): "little of A", (5, 2): "little of A"}


def test_a_split_in_one_block_joins_the_larger_part_alone():
    assert verdicts(zone("11111111"), zone("44444433")) == {
        (1, 4): "joined",
        (1, 3): "little of A",
    }


def test_two_branches_of_one_segment_are_two_pieces():
    assert verdicts(zone("11..22", "11..22"), zone("33..33", "33..33")) == {
        (1, 3): "joined",
        (2, 3): "joined",
    }


def test_few_voxels_decide_nothing():
    assert verdicts(zone("11."), zone("22."), min_shared=3) == {(1, 2): "too small"}
    assert verdicts(zone("111"), zone("222"), min_shared=3) == {(1, 2): "joined"}


def test_little_of_both_is_refused():
    assert verdicts(zone("1111...."), zone("..2222..")) == {(1, 2): "little of both"}


def test_exactly_the_agreement_is_enough():
    # In floating point 0.55 * 100 is more than 55.
    a, b = np.zeros((1, 1, 145), np.uint32), np.zeros((1, 1, 145), np.uint32)
    a[..., :100], b[..., 45:] = 1, 1
    assert verdicts(a, b, agreement=0.55) == {(1, 1): "joined"}
    assert verdicts(a, b, agreement=0.56) == {(1, 1): "little of both"}


def test_background_and_empty_zones_give_no_pairs():
    assert verdicts(zone("1..."), zone("...1")) == {}
    assert verdicts(zone("...."), zone("....")) == {}


def test_place_lies_in_the_middle():
    solid = np.ones((5, 7, 9), np.uint32)
    found = compare_zone(solid, solid, rule=JoinRule(), start=(100, 200, 300))
    assert found.place.tolist() == [[102, 203, 304]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"agreement": 0.5}, "0.5 is not above 0.5 .* merge"),
        ({"agreement": 1.01}, "1.01 is not above 0.5 and up to 1"),
        ({"agreement": float("nan")}, "nan"),
        ({"min_shared": 0}, "min_shared 0"),
        ({"trim": (0, -1, 0)}, r"trim \(0, -1, 0\)"),
    ],
)
def test_rules_that_could_merge_or_make_no_sense_are_refused(options, sentence):
    with pytest.raises(OptionError, match=sentence):
        JoinRule(**options)


@pytest.mark.usefixtures("unchecked_shapes")
def test_zones_of_two_shapes_are_refused():
    with pytest.raises(GeometryError, match=r"\(1, 1, 2\) and \(1, 1, 3\)"):
        compare_zone(zone("11"), zone("111"), rule=JoinRule(), start=(0, 0, 0))
