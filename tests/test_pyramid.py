"""Coarser levels: which there are, and what their voxels are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes import convert, create_volume, open_volume
from floodem.volumes.conversion import block_plan, pyramid
from floodem.volumes.conversion.pyramid import downsample, level_factors, read_coarse
from floodem.volumes.pyramid_geometry import level_box, level_voxel_size
from floodem.volumes.volume import Kind
from reference import pyramid as slow
from volume_cases import CASES, Case

LEVELLED = [
    case
    for case in CASES
    if case.name
    in {
        "zarr",
        "zarr3",
        "ome-zarr-0.4",
        "zarr3-sharded",
        "n5",
        "precomputed",
        "precomputed-sharded",
    }
]
SHAPE: Zyx = (9, 22, 17)
OFFSET: Zyx = (-3, 101, -7)
SIZE = VoxelSize(30, 6, 6)


# --- which levels there are ----------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((100, 512, 512), (30, 6, 6), [(1, 2, 2), (1, 4, 4), (2, 8, 8)]),
        ((100, 512, 512), (40, 4, 4), [(1, 2, 2), (1, 4, 4), (1, 8, 8)]),
        ((100, 1024, 1024), (40, 4, 4), [(1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 16, 16)]),
        ((512, 512, 512), (8, 8, 8), [(2, 2, 2), (4, 4, 4), (8, 8, 8)]),
        ((100, 512, 512), (8, 8, 16), [(2, 2, 1), (4, 4, 2), (8, 8, 4), (16, 16, 8)]),
        ((1, 300, 300), (1, 8, 8), [(1, 2, 2), (1, 4, 4), (1, 8, 8)]),
        ((700, 64, 64), (8, 8, 8), []),
    ],
)
def test_levels_follow_the_voxel_size(shape, size, expected) -> None:
    assert list(level_factors(shape, VoxelSize(*size))) == expected


shapes = st.tuples(*[st.integers(1, 3000)] * 3)
sizes = st.none() | st.builds(VoxelSize, *[st.floats(0.5, 500)] * 3)


@given(shapes, sizes)
def test_no_axis_is_halved_before_its_voxels_are_level_with_the_smallest(shape, size) -> None:
    factors = level_factors(shape, size)
    edges = (1.0, 1.0, 1.0) if size is None else size.zyx_nm
    before: Zyx = (1, 1, 1)
    for now in factors:
        lengths = level_box(Box.from_shape(shape), before).shape
        long = [e * f for e, f, n in zip(edges, before, lengths, strict=True) if n > 1]
        halved = [b for a, b in zip(before, now, strict=True) if b != a]
        assert halved
        for edge, a, b, length in zip(edges, before, now, lengths, strict=True):
            assert b in {a, 2 * a}
            is_level = edge * a <= min(long) * pyramid.LEVEL_RATIO
            assert (b == 2 * a) == (length > 1 and is_level)
        before = now
    assert max(level_box(Box.from_shape(shape), before).shape[1:]) <= 64
    if factors:
        second_last = factors[-2] if len(factors) > 1 else (1, 1, 1)
        assert max(level_box(Box.from_shape(shape), second_last).shape[1:]) > 64


def test_as_many_levels_are_made_as_are_asked_for() -> None:
    assert level_factors((64, 64, 64), None, count=2) == ((2, 2, 2), (4, 4, 4))
    assert level_factors((64, 64, 64), None, count=0) == ()
    assert len(level_factors((1, 2, 2), None, count=1)) == 1
    with pytest.raises(OptionError, match="has no 2 coarser levels: ask for 1 or fewer"):
        level_factors((1, 2, 2), None, count=2)
    with pytest.raises(OptionError, match="-1 levels"):
        level_factors((64, 64, 64), None, count=-1)


# --- what is in them -----------------------------------------------------------------

small = st.tuples(*[st.integers(1, 6)] * 3)
starts = st.tuples(*[st.integers(-9, 9)] * 3)
steps = st.tuples(*[st.sampled_from([1, 2])] * 3)


@pytest.mark.parametrize("kind", list(Kind))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_coarse_voxels_are_those_of_a_slow_twin(kind: Kind, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["uint8", "uint16", "uint32", "uint64", "int8", "int64"]))
    few = st.integers(0, 3) if kind is Kind.LABELS else None
    array = data.draw(stn.arrays(np.dtype(name), small, elements=few))
    start, factors = data.draw(starts), data.draw(steps)
    found = downsample(array, start=start, factors=factors, kind=kind)
    expected = slow.downsample(array, start=start, factors=factors, kind=kind.value)
    np.testing.assert_array_equal(found, expected)
    box = Box.from_shape(array.shape, start=start)
    assert found.shape == level_box(box, factors).shape
    assert found.dtype == array.dtype


def test_larger_steps_are_refused() -> None:
    with pytest.raises(OptionError, match=r"not \(1, 4, 4\): go through"):
        downsample(np.zeros((2, 2, 2)), start=(0, 0, 0), factors=(1, 4, 4), kind=Kind.IMAGE)


def test_background_wins_a_tie_and_ids_stay_whole() -> None:
    top = 2**64 - 1
    array = np.array([[[0, top], [top, 0]], [[top, top], [5, 5]]], np.uint64)
    found = downsample(array, start=(0, 0, 0), factors=(1, 2, 2), kind=Kind.LABELS)
    assert found.ravel().tolist() == [0, 5]


def test_means_of_floats_are_not_rounded() -> None:
    array = np.array([[[0.25, 0.5]]], np.float32)
    found = downsample(array, start=(0, 0, 0), factors=(1, 1, 2), kind=Kind.IMAGE)
    assert found.tolist() == [[[0.375]]]


def test_a_level_is_the_same_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.uint8)
    with create_volume(
        tmp_path / "em.zarr", shape=SHAPE, dtype="uint8", offset=OFFSET, chunks=(4, 5, 6)
    ) as volume:
        volume.write(volume.box, array)
        box = level_box(volume.box, (2, 1, 2))
        whole = read_coarse(volume, box, factors=(2, 1, 2), kind=Kind.IMAGE)
        monkeypatch.setattr(pyramid, "PIECE_BYTES", 1)
        pieces = read_coarse(volume, box, factors=(2, 1, 2), kind=Kind.IMAGE)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_array_equal(
        whole, slow.downsample(array, start=OFFSET, factors=(2, 1, 2), kind="image")
    )


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("case", LEVELLED, ids=str)
def test_every_level_of_a_converted_pyramid_is_made_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case, kind: Kind
) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 300)
    array = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint32)
    with create_volume(
        tmp_path / "em.h5", shape=SHAPE, dtype="uint32", offset=OFFSET, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, array)
    to = case.uri(tmp_path / "to")
    options = {"chunks": (2, 3, 4), **case.extra}
    convert(tmp_path / "em.h5", to, pyramid=4, kind=kind, **options)
    factors = ((1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16))
    with open_volume(to) as copy:
        assert len(copy.levels) == 5
        expected, before = array, ((1, 1, 1), *factors)
        for level, own in enumerate(before):
            volume = copy.levels[level]
            assert volume.box == level_box(Box.from_shape(SHAPE, start=OFFSET), own)
            assert volume.voxel_size == level_voxel_size(SIZE, own)
            if level:
                last = before[level - 1]
                step = tuple(a // b for a, b in zip(own, last, strict=True))
                start = level_box(Box.from_shape(SHAPE, start=OFFSET), last).start
                expected = slow.downsample(expected, start=start, factors=step, kind=kind.value)
            np.testing.assert_array_equal(volume.read(), expected)


def test_labels_and_images_are_told_apart_by_type_declaration_and_request(tmp_path: Path) -> None:
    noisy = np.array([[[0, 200], [100, 200]]])
    for dtype, said, asked, coarse in (
        ("uint8", None, None, 125),
        ("uint32", None, None, 200),
        ("uint8", Kind.LABELS, None, 200),
        ("uint32", Kind.IMAGE, None, 125),
        ("uint8", Kind.LABELS, Kind.IMAGE, 125),
        ("float32", None, None, 125),
    ):
        with create_volume(
            tmp_path / "em.h5", shape=(1, 2, 2), dtype=dtype, kind=said, overwrite=True
        ) as volume:
            volume.write(volume.box, noisy.astype(dtype))
        convert(tmp_path / "em.h5", tmp_path / "to.zarr", pyramid=1, kind=asked, overwrite=True)
        with open_volume(tmp_path / "to.zarr", level=1) as level:
            assert level.read().tolist() == [[[coarse]]], (dtype, said, asked)
            assert level.kind == (asked or said)


def test_small_flat_integers_whose_kind_nobody_states_get_no_means(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.array([[[0, 200], [200, 200]]], np.uint8))
    made = convert(tmp_path / "em.npy", tmp_path / "to.zarr", pyramid=1)
    assert any("looks like labels" in notice for notice in made.notices)
    with open_volume(tmp_path / "to.zarr", level=1) as level:
        assert level.read().tolist() == [[[200]]]
        assert level.kind is Kind.LABELS


@pytest.mark.parametrize("name", ["em.h5", "em.npz", "em.npy", "em.tif", "png://sections"])
def test_formats_without_levels_refuse_them_by_name(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "src.npy", np.zeros((2, 90, 90), np.uint8))
    prefix, _, place = name.rpartition("//")
    to = f"{prefix}//{tmp_path / place}" if prefix else str(tmp_path / place)
    with pytest.raises(VolumeFormatError, match="volumes have no levels"):
        convert(tmp_path / "src.npy", to, pyramid="auto")
    assert [entry.name for entry in tmp_path.iterdir()] == ["src.npy"]
