"""Pure functions on label arrays: overlap tables, components, other numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from floodem.errors import GeometryError, LabelError
from floodem.labels import (
    OverlapCounter,
    compact,
    components,
    contingency,
    label_dtype,
    merge_tables,
    relabel,
    require_labels,
    sizes,
)
from reference.scores import pairs_by_voxel, pieces_by_flood

LARGEST = 2**64 - 1
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)
# Few different ids, so that they meet; some of them at the end of the type.
IDS = st.sampled_from([0, 1, 2, 3, 2**32, LARGEST - 1, LARGEST])


def as_dict(table):
    rows = zip(table.ids_a.tolist(), table.ids_b.tolist(), table.counts.tolist(), strict=True)
    return {(a, b): count for a, b, count in rows}


@st.composite
def two_labelings(draw):
    shape = draw(SHAPES)
    return tuple(draw(hnp.arrays(np.uint64, shape, elements=IDS)) for _ in range(2))


@given(two_labelings())
def test_overlap_table_counts_every_voxel_once(labelings):
    table = contingency(*labelings)
    assert as_dict(table) == pairs_by_voxel(*labelings)
    assert list(as_dict(table)) == sorted(as_dict(table))


@given(two_labelings(), st.integers(0, 5))
def test_tables_of_two_halves_add_up_to_the_whole(labelings, cut):
    a, b = labelings
    halves = [contingency(a[..., :cut], b[..., :cut]), contingency(a[..., cut:], b[..., cut:])]
    counter = OverlapCounter()
    for half in reversed(halves):
        counter.add(half)
    whole = as_dict(contingency(a, b))
    assert list(as_dict(merge_tables(halves)).items()) == list(whole.items())
    assert list(as_dict(counter.table()).items()) == list(whole.items())


def test_counting_of_no_blocks_is_an_empty_table():
    assert len(OverlapCounter().table()) == 0


def test_overlap_table_mixes_integer_types_and_strided_arrays():
    a = np.arange(8, dtype=np.uint8).reshape(2, 2, 2).transpose(2, 1, 0)
    b = np.arange(8, dtype=np.int64).reshape(2, 2, 2)
    assert as_dict(contingency(a, b)) == pairs_by_voxel(a, b)


def test_overlap_table_refuses_shapes_that_differ():
    with pytest.raises(GeometryError, match=r"\(1, 1, 2\) and \(1, 1, 3\)"):
        contingency(np.zeros((1, 1, 2), np.uint8), np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("values", [[0.5], [True], [1j]])
def test_values_that_are_no_integers_are_no_labels(values):
    with pytest.raises(LabelError, match="the truth holds"):
        require_labels(np.array(values), what="the truth")


def test_negative_labels_are_refused_with_their_value():
    with pytest.raises(LabelError, match="negative label -7"):
        sizes(np.array([3, -7, 0], dtype=np.int16))


@given(hnp.arrays(np.uint64, SHAPES, elements=IDS))
def test_sizes_count_each_label(labels):
    ids, counts = sizes(labels)
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {
        int(label): int(np.sum(labels == label)) for label in np.unique(labels)
    }


@given(hnp.arrays(np.uint64, SHAPES, elements=IDS))
def test_compact_relabel_is_a_bijection_in_the_order_of_the_ids(labels):
    renamed, old_ids = compact(labels)
    assert renamed.dtype == np.uint32
    assert old_ids.tolist() == [label for label in np.unique(labels).tolist() if label]
    back = relabel(
        renamed, old_ids=np.arange(1, len(old_ids) + 1, dtype=np.uint64), new_ids=old_ids
    )
    np.testing.assert_array_equal(back, labels)


def test_relabel_takes_the_wider_type_when_an_id_needs_it():
    ids = np.array([1], np.uint64)
    labels = np.array([[[0, 1]]], np.uint8)
    assert relabel(labels, old_ids=ids, new_ids=ids * 2**32).dtype == np.uint64
    assert relabel(labels, old_ids=ids, new_ids=ids * (2**32 - 1)).dtype == np.uint32


def test_relabel_refuses_a_label_it_was_given_no_id_for():
    with pytest.raises(LabelError, match="label 9 has no new id"):
        relabel(np.array([9], np.uint8), old_ids=np.uint64([8]), new_ids=np.uint64([1]))


@pytest.mark.parametrize("new_ids", [[1, 1], [0, 1], [1]])
def test_relabel_refuses_to_join_objects(new_ids):
    with pytest.raises(LabelError, match="new_ids must hold 2 different ids"):
        relabel(np.array([1, 2]), old_ids=np.uint64([1, 2]), new_ids=np.uint64(new_ids))


@pytest.mark.parametrize("largest", [-1, 2**64])
def test_ids_outside_uint64_are_refused(largest):
    with pytest.raises(LabelError, match=str(largest)):
        label_dtype(largest)


@pytest.mark.parametrize("package", ["cc3d", "scipy alone"])
def test_components_equal_a_plain_flood(monkeypatch, package):
    if package == "cc3d":
        pytest.importorskip("cc3d")
    else:
        monkeypatch.setitem(sys.modules, "cc3d", None)

    @given(hnp.arrays(np.int64, SHAPES, elements=st.sampled_from([0, 1, 2**40])))
    def check(labels):
        pieces, count = components(labels)
        assert pieces.dtype == np.uint32
        np.testing.assert_array_equal(pieces, pieces_by_flood(labels))
        assert count == pieces.max()

    check()


def test_components_need_three_axes():
    with pytest.raises(GeometryError, match=r"\(3, 3\) is not 3-D"):
        components(np.zeros((3, 3), np.uint8))
