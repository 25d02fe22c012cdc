"""Boxes, voxel sizes and tilings, against sets of voxels written out in full."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.errors import FloodemError, GeometryError
from floodem.geometry import Box, VoxelSize, Zyx, parse_zyx, tiles

Voxels = frozenset[Zyx]

small = st.integers(-6, 6)
lengths = st.integers(0, 5)
triples = st.tuples(small, small, small)


@st.composite
def boxes(draw: Any) -> Box:
    start = draw(triples)
    shape = draw(st.tuples(lengths, lengths, lengths))
    return Box.from_shape(shape, start=start)


def voxels(box: Box) -> Voxels:
    """The slow twin: every voxel of a box by name."""
    ranges = [range(a, b) for a, b in zip(box.start, box.stop, strict=True)]
    return frozenset(itertools.product(*ranges))


@given(boxes(), boxes())
def test_an_intersection_holds_the_voxels_of_both(a: Box, b: Box) -> None:
    common = a.intersection(b)
    assert (frozenset() if common is None else voxels(common)) == voxels(a) & voxels(b)
    assert common is None or common.size > 0


@given(boxes(), boxes())
def test_a_box_contains_another_when_all_its_voxels_are_inside(a: Box, b: Box) -> None:
    assert a.contains(b) == (voxels(b) <= voxels(a))


@given(boxes(), triples)
def test_a_box_contains_the_points_it_is_made_of(box: Box, point: Zyx) -> None:
    assert box.contains_point(point) == (point in voxels(box))


@given(boxes())
def test_size_and_shape_count_voxels(box: Box) -> None:
    assert box.size == len(voxels(box)) == int(np.prod(box.shape))


@given(boxes(), st.tuples(lengths, lengths, lengths))
def test_growing_and_shrinking_again_gives_the_same_box(box: Box, margin: Zyx) -> None:
    z, y, x = margin
    assert box.grow(margin).grow((-z, -y, -x)) == box


@given(boxes(), st.tuples(lengths, lengths, lengths))
def test_shrinking_below_nothing_is_refused(box: Box, margin: Zyx) -> None:
    z, y, x = margin
    if all(2 * m <= length for m, length in zip(margin, box.shape, strict=True)):
        assert box.grow((-z, -y, -x)).grow(margin) == box
    else:
        with pytest.raises(GeometryError):
            box.grow((-z, -y, -x))


@given(boxes(), triples)
def test_translating_moves_every_voxel(box: Box, by: Zyx) -> None:
    moved = {tuple(a + b for a, b in zip(voxel, by, strict=True)) for voxel in voxels(box)}
    assert voxels(box.translate(by)) == moved


@st.composite
def box_in_box(draw: Any) -> tuple[Box, Box]:
    whole = draw(boxes())
    bounds = [
        sorted(draw(st.tuples(st.integers(a, b), st.integers(a, b))))
        for a, b in zip(whole.start, whole.stop, strict=True)
    ]
    (z0, z1), (y0, y1), (x0, x1) = bounds
    return whole, Box((z0, y0, x0), (z1, y1, x1))


@given(box_in_box())
def test_slices_cut_the_box_out_of_an_array(pair: tuple[Box, Box]) -> None:
    whole, inner = pair
    array = np.zeros(whole.shape, bool)
    array[inner.slices(origin=whole.start)] = True
    found = {
        tuple(int(i) + o for i, o in zip(index, whole.start, strict=True))
        for index in np.argwhere(array)
    }
    assert found == voxels(inner)


@given(boxes())
def test_a_box_reads_back_from_its_text(box: Box) -> None:
    assert Box.parse(str(box)) == box


@given(triples)
def test_a_triple_reads_back_from_its_text(triple: Zyx) -> None:
    assert parse_zyx(",".join(str(number) for number in triple)) == triple
    assert parse_zyx(" , ".join(str(number) for number in triple)) == triple


@given(st.text(alphabet="0123456789:,-. x", max_size=16))
def test_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for parse in (Box.parse, VoxelSize.parse, parse_zyx):
        with contextlib.suppress(FloodemError):
            parse(text)


@pytest.mark.parametrize(
    "text", ["", "0:1", "0:1,0:1", "0:1,0:1,0:1,0:1", "a:b,0:1,0:1", "0:1,0:1,0-1", "1:0,0:1,0:1"]
)
def test_a_text_that_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(GeometryError):
        Box.parse(text)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "1.5,2,3", "a,b,c"])
def test_a_text_that_is_no_triple_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(GeometryError, match="z,y,x"):
        parse_zyx(text)


@given(st.tuples(*[st.floats(1e-3, 1e6)] * 3))
def test_a_voxel_size_keeps_its_order(sizes: tuple[float, float, float]) -> None:
    size = VoxelSize.parse(",".join(repr(length) for length in sizes))
    assert size.zyx_nm == sizes
    assert (size.z_nm, size.y_nm, size.x_nm) == sizes


@pytest.mark.parametrize("text", ["0,1,1", "-1,1,1", "nan,1,1", "inf,1,1", "1,1", "a,1,1", ""])
def test_a_voxel_size_that_is_not_positive_is_refused(text: str) -> None:
    with pytest.raises(GeometryError):
        VoxelSize.parse(text)


cores = st.tuples(*[st.integers(1, 4)] * 3)
margins = st.tuples(*[st.integers(0, 3)] * 3)


@given(boxes(), cores, margins)
def test_cores_of_tiles_partition_the_box(box: Box, core: Zyx, margin: Zyx) -> None:
    cut = list(tiles(box, core=core, margin=margin))
    assert sum(tile.core.size for tile in cut) == box.size
    assert frozenset().union(*(voxels(tile.core) for tile in cut)) == voxels(box)


@given(boxes(), cores, margins)
def test_a_halo_is_what_lies_within_the_margin_of_its_core(
    box: Box, core: Zyx, margin: Zyx
) -> None:
    for tile in tiles(box, core=core, margin=margin):
        near = voxels(tile.core.grow(margin))
        assert voxels(tile.halo) == near & voxels(box)


@given(boxes(), cores)
def test_tiles_come_in_c_order_and_no_larger_than_asked(box: Box, core: Zyx) -> None:
    cut = [tile.core for tile in tiles(box, core=core)]
    assert [tile.start for tile in cut] == sorted(tile.start for tile in cut)
    assert all(a <= b for tile in cut for a, b in zip(tile.shape, core, strict=True))


@pytest.mark.parametrize(("core", "margin"), [((0, 1, 1), (0, 0, 0)), ((1, 1, 1), (0, -1, 0))])
def test_impossible_tilings_are_refused(core: Zyx, margin: Zyx) -> None:
    with pytest.raises(GeometryError):
        list(tiles(Box.from_shape((2, 2, 2)), core=core, margin=margin))
