"""Consensus splits one segmentation where another one sees several objects, whatever the cut."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from consensus_cases import SMALL, agreed, blobs, over, read, stage_by_stage, store, twin
from floodem.assembly.consensus import ConsensusOptions, make_consensus
from floodem.assembly.consensus.numbering import component_ids, pair_ids
from floodem.assembly.consensus.pieces import BlockPieces, PieceTable
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.labels import OverlapTable, components
from floodem.shapes.source import LabelSource

SHAPE = (13, 16, 18)
KEEPS_ALL = ConsensusOptions(split_min_size=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("consensus")


@pytest.fixture(scope="module")
def labels():
    return blobs(SHAPE, seed=1, offset_id=2**40), blobs(SHAPE, seed=2, step=4)


@pytest.fixture(scope="module")
def files(folder, labels):
    return [store(folder / f"{name}.zarr", one) for name, one in zip("ab", labels, strict=True)]


@st.composite
def cases(draw):
    """Two random label arrays of one shape, a cut, options and an order of the blocks."""
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    dtype = draw(st.sampled_from([np.uint8, np.uint32, np.uint64, np.int64]))
    largest = draw(st.integers(1, 5))
    a, b = (
        draw(hnp.arrays(dtype, shape, elements=st.integers(0, largest), fill=st.just(1)))
        for _ in "ab"
    )
    core = tuple(draw(st.integers(max(1, edge // 2), edge)) for edge in shape)
    options = ConsensusOptions(
        split_components=draw(st.booleans()),
        min_size=draw(st.integers(0, 4)),
        split_min_size=draw(st.integers(0, 6)),
    )
    return a, b, core, options, draw(st.randoms(use_true_random=False))


def shuffled(random):
    def order(count):
        numbers = list(range(count))
        random.shuffle(numbers)
        return numbers

    return order


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_every_voxel_is_as_the_slow_twin_has_it_for_any_cut_and_order(case):
    a, b, core, options, random = case
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = []
        for name, one in (("a", a), ("b", b)):
            np.save(work / f"{name}.npy", one)
            sources.append(LabelSource(uri=str(work / f"{name}.npy")))
        found = stage_by_stage(
            *sources, work / "work", core=core, options=options, order=shuffled(random)
        )
    expected = twin(a, b, options)
    np.testing.assert_array_equal(found, expected)
    for segment in np.unique(found[found > 0]):
        assert len(np.unique(a[found == segment])) == 1, "consensus only splits"
        if options.min_size < 2:
            assert len(np.unique(b[found == segment])) == 1


@pytest.mark.parametrize("options", [SMALL, ConsensusOptions(split_components=False), KEEPS_ALL])
@pytest.mark.parametrize("block", [None, (7, 16, 9), (5, 6, 7)])
def test_larger_volumes_are_as_the_twin_has_them_cut_or_not(
    files, labels, tmp_path, options, block
):
    found = agreed(*files, tmp_path / "out.zarr", options=options, block=block)
    np.testing.assert_array_equal(found, twin(*labels, options))


def test_a_snake_through_all_blocks_is_one_component(tmp_path):
    a = np.zeros((8, 8, 8), np.uint8)
    a[0] = 5
    for row in range(1, 8, 2):
        a[0, row, : -1 if row % 4 == 1 else None] = 0
    a[0, 3::4, 0] = 5
    a[0, 3::4, 1:] = 0
    a[4:] = 9
    a[4:, 4] = 0
    assert components(a)[1] == 3
    uris = store(tmp_path / "a.zarr", a), store(tmp_path / "b.zarr", np.ones_like(a))
    found = agreed(*uris, tmp_path / "out.zarr", options=KEEPS_ALL, block=(4, 3, 3))
    assert (found[0] == a[0]).all()
    np.testing.assert_array_equal(found, twin(a, np.ones_like(a), KEEPS_ALL))


def test_a_segmentation_agrees_with_itself(files, labels, tmp_path):
    whole = components(labels[0])[0].astype(np.uint64)
    uri = store(tmp_path / "whole.zarr", whole)
    found = make_consensus(uri, uri, tmp_path / "out.zarr", options=KEEPS_ALL, block=(7, 8, 9))
    assert (read(found.uri) == whole).all()
    assert found.summary["pairs"] == found.segments == len(np.unique(whole)) - 1
    assert found.summary["kept"] == 1


def test_pieces_are_the_same_with_and_without_the_fast_library(labels, monkeypatch):
    box = Box.from_shape(SHAPE)

    def seen():
        pieces = BlockPieces(labels[0], splits=True)
        return pieces.numbered(pieces.voxels.reshape(-1)), pieces.table(core=box, box=box)

    fast, table = seen()
    monkeypatch.setitem(sys.modules, "cc3d", None)
    slow, other = seen()
    np.testing.assert_array_equal(fast, slow)
    np.testing.assert_array_equal(fast.reshape(SHAPE), components(labels[0])[0])
    for name in ("objects", "voxels", "firsts"):
        np.testing.assert_array_equal(getattr(table, name), getattr(other, name))


def test_the_summary_counts_what_came_in_and_what_is_left(files, labels, tmp_path):
    found = make_consensus(*files, tmp_path / "out.zarr", options=SMALL, block=(7, 8, 9))
    a, b = labels
    expected = twin(a, b, SMALL)
    summary = found.summary
    assert summary["segments"] == len(np.unique(expected[expected > 0]))
    assert summary["objects_a"] == len(np.unique(a[a > 0]))
    assert summary["objects_b"] == len(np.unique(b[b > 0]))
    sizes = np.bincount(components(a)[0].ravel())[1:]
    assert summary["segments_a"] == np.count_nonzero(sizes >= 2)
    assert summary["labelled_a"] == np.count_nonzero(a)
    assert summary["labelled"] == np.count_nonzero(expected)
    assert summary["kept"] == np.count_nonzero(expected) / np.count_nonzero(a)
    assert summary["pairs"] - summary["dropped"] == summary["segments"]
    assert summary["blocks"] == 8
    assert found.box == Box.from_shape(SHAPE)


def test_ids_follow_the_written_rules(tmp_path):
    # One row: object 4 meets B's 7 over 3 voxels, 0 over 3, 2 over 1; object 9 meets 7 and 2.
    a = np.array([[[4, 4, 4, 4, 4, 4, 4, 9, 9, 9]]], np.uint64)
    b = np.array([[[7, 7, 7, 0, 0, 0, 2, 2, 7, 7]]], np.uint64)
    uris = store(tmp_path / "a.zarr", a), store(tmp_path / "b.zarr", b)
    found = agreed(
        *uris,
        tmp_path / "out.zarr",
        options=ConsensusOptions(split_components=False, split_min_size=0),
    )
    # 4 stays with 0 (ties: the smaller id); then (2, 4), (2, 9), (7, 4) are 10, 11, 12.
    assert found.tolist() == [[[12, 12, 12, 4, 4, 4, 10, 11, 9, 9]]]
    dropped = agreed(
        *uris,
        tmp_path / "big.zarr",
        options=ConsensusOptions(split_components=False, split_min_size=2),
    )
    assert dropped.tolist() == [[[10, 10, 10, 4, 4, 4, 0, 0, 9, 9]]], "dropped pairs take no number"


def test_the_largest_component_keeps_its_id_and_the_first_of_equal_ones():
    table = PieceTable(
        objects=np.array([5, 3, 5, 3, 5], np.uint64),
        voxels=np.array([2, 4, 3, 4, 1]),
        firsts=np.array([9, 20, 0, 10, 4]),
    )
    # Rows 0 and 2 are two components of 5 with 3 voxels each: row 4 belongs to row 0.
    ids, cleaned = component_ids(table, np.array([0, 1, 2, 3, 0]), min_size=0)
    assert ids.tolist() == [7, 6, 5, 3, 7]
    assert (cleaned.objects, cleaned.segments, cleaned.largest_id) == (2, 4, 7)
    ids, cleaned = component_ids(table, np.array([0, 1, 2, 3, 0]), min_size=4)
    assert ids.tolist() == [0, 6, 0, 3, 0]
    assert cleaned.largest_id == 6


def test_ids_that_would_pass_64_bits_are_refused():
    table = OverlapTable(
        np.array([2**64 - 1, 2**64 - 1], np.uint64), np.array([0, 1], np.uint64), np.array([2, 1])
    )
    with pytest.raises(LabelError, match="leave no room below 2"):
        pair_ids(table, largest_a=2**64 - 1, split_min_size=0)
    ids = pair_ids(table, largest_a=2**64 - 1, split_min_size=2)
    assert ids.tolist() == [2**64 - 1, 0]


@pytest.mark.parametrize("block", [None, (4, 5, 6)])
@pytest.mark.parametrize(
    ("ratio_a", "ratio_b"),
    [((1, 1, 1), (1, 2, 2)), ((2, 2, 1), (1, 1, 1)), ((1, 2, 1), (3, 1, 1))],
)
def test_the_coarser_voxels_are_repeated(tmp_path, ratio_a, ratio_b, block):
    size = np.array([30, 12, 6])
    start_a, start_b = (2, 3, 1), (1, 2, 1)
    a, b = blobs((7, 6, 9), seed=3), blobs((6, 7, 8), seed=4)
    uris = [
        store(
            tmp_path / f"{name}.zarr",
            labels,
            voxel_size=VoxelSize(*(size * ratio).tolist()),
            offset=start,
        )
        for name, labels, ratio, start in (
            ("a", a, ratio_a, start_a),
            ("b", b, ratio_b, start_b),
        )
    ]
    made = make_consensus(*uris, tmp_path / "out.zarr", options=SMALL, block=block)
    with made.open() as volume:
        assert volume.voxel_size == VoxelSize(30, 12, 6)
        found = volume.read()
    over_a = over(a, start=start_a, ratio=ratio_a, box=made.box)
    over_b = over(b, start=start_b, ratio=ratio_b, box=made.box)
    np.testing.assert_array_equal(found, twin(over_a, over_b, SMALL))
    whole = [
        (low * edge, (low + n) * edge)
        for low, n, edge in zip(start_a, a.shape, ratio_a, strict=True)
    ]
    assert all(
        low <= at and high >= end
        for (low, high), at, end in zip(whole, made.box.start, made.box.stop, strict=True)
    )


def test_a_last_coarse_voxel_of_a_ends_where_b_does(tmp_path):
    a, b = np.full((3, 2, 2), 1, np.uint8), np.full((5, 4, 4), 1, np.uint8)
    uris = [
        store(tmp_path / "a.zarr", a, voxel_size=VoxelSize(20, 20, 20)),
        store(tmp_path / "b.zarr", b, voxel_size=VoxelSize(10, 10, 10)),
    ]
    made = make_consensus(*uris, tmp_path / "out.zarr", options=KEEPS_ALL)
    assert made.box == Box((0, 0, 0), (5, 4, 4))
    assert made.segments == 1


def test_where_b_has_no_voxels_a_stays_as_a_piece_of_its_own(tmp_path):
    a, b = np.full((4, 4, 8), 3, np.uint16), np.full((6, 4, 4), 1, np.uint16)
    uris = [
        store(tmp_path / "a.zarr", a, offset=(10, 0, 0)),
        store(tmp_path / "b.zarr", b, offset=(9, 0, 5)),
    ]
    found = agreed(*uris, tmp_path / "out.zarr", options=KEEPS_ALL, block=(2, 4, 4))
    assert (found[..., :5] == 3).all()
    assert (found[..., 5:] == 4).all()


def test_a_box_is_all_that_counts(files, labels, tmp_path):
    box = Box((2, 3, 4), (11, 15, 16))
    made = make_consensus(*files, tmp_path / "out.zarr", options=SMALL, box=box, block=(5, 6, 7))
    assert made.box == box
    a, b = (one[box.slices()] for one in labels)
    np.testing.assert_array_equal(read(made.uri), twin(a, b, SMALL))


def test_empty_segmentations_give_an_empty_one(tmp_path):
    nothing = np.zeros((4, 4, 4), np.uint8)
    uris = store(tmp_path / "a.zarr", nothing), store(tmp_path / "b.zarr", nothing)
    made = make_consensus(*uris, tmp_path / "out.zarr", block=(2, 4, 4))
    assert made.segments == 0
    assert made.summary["kept"] == 1
    assert not read(made.uri).any()


def test_volumes_that_do_not_lie_over_each_other_are_refused(files, tmp_path):
    far = store(tmp_path / "far.zarr", np.ones((2, 2, 2), np.uint8), offset=(90, 0, 0))
    with pytest.raises(GeometryError, match="share no voxel; correct the offset"):
        make_consensus(files[0], far, tmp_path / "out.zarr")
    with pytest.raises(GeometryError, match="not inside 0:13,0:16,0:18"):
        make_consensus(*files, tmp_path / "out.zarr", box=Box((0, 0, 0), (14, 2, 2)))
    sizes = [
        store(tmp_path / f"{n}.zarr", np.ones((2, 2, 2), np.uint8), voxel_size=VoxelSize(n, 8, 8))
        for n in (20, 30)
    ]
    with pytest.raises(GeometryError, match="20,8,8 nm .* must be whole multiples"):
        make_consensus(*sizes, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr.floodem").exists()


def test_what_holds_no_labels_is_refused(files, tmp_path):
    grey = store(tmp_path / "grey.zarr", np.ones((2, 2, 2), np.float32))
    with pytest.raises(LabelError, match="no labels"):
        make_consensus(files[0], grey, tmp_path / "out.zarr")
    negative = store(tmp_path / "negative.zarr", np.full((2, 2, 2), -1, np.int32))
    with pytest.raises(LabelError, match="negative label -1"):
        make_consensus(files[0], negative, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    with pytest.raises(VolumeNotFoundError):
        make_consensus(files[0], tmp_path / "nowhere.zarr", tmp_path / "out.zarr")


def test_negative_sizes_are_refused():
    with pytest.raises(OptionError, match="split_min_size -1 is negative"):
        ConsensusOptions(split_min_size=-1)


@pytest.mark.parametrize("which", [0, 1])
def test_neither_input_is_overwritten(files, labels, which):
    with pytest.raises(DestinationExistsError, match="left as it is"):
        make_consensus(*files, files[which], overwrite=True)
    assert (read(files[which]) == labels[which]).all()
