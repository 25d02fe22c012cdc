"""What is written is read back, in every format, type and place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    StorageError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes import Volume, create_volume, open_volume
from volume_cases import CASES, Case

EVERY_DTYPE = [
    pytest.param(case, dtype, id=f"{case}-{dtype}") for case in CASES for dtype in case.dtypes
]
SHAPE: Zyx = (5, 9, 11)
VOXEL_SIZE = VoxelSize(30.5, 6, 4)
OFFSET: Zyx = (-3, 40, 1000)


def extremes(dtype: str, shape: Zyx = SHAPE) -> np.ndarray:
    """Values from the smallest to the largest of the type, zeros among them."""
    kind = np.dtype(dtype)
    array = np.zeros(shape, kind)
    if kind.kind == "f":
        values = [np.finfo(kind).min, -0.5, np.pi, np.finfo(kind).max, np.finfo(kind).tiny]
    else:
        info = np.iinfo(kind)
        values = [info.min, 1, info.max // 3, info.max - 1, info.max]
    array.ravel()[: 5 * (array.size // 5) : 5] = np.resize(
        np.asarray(values, kind), array.size // 5
    )
    return array


def write(case: Case, folder: Path, array: np.ndarray, **facts: Any) -> str:
    uri = case.uri(folder)
    facts = {"voxel_size": VOXEL_SIZE, **case.extra, **facts}
    with create_volume(uri, shape=array.shape, dtype=array.dtype, **facts) as volume:
        volume.write(volume.box, array)
    return uri


def assert_equal(volume: Volume, array: np.ndarray) -> None:
    found = volume.read()
    assert found.dtype == array.dtype
    assert found.flags.c_contiguous
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(("case", "dtype"), EVERY_DTYPE)
def test_values_places_and_sizes_come_back(tmp_path: Path, case: Case, dtype: str) -> None:
    array = extremes(dtype)
    uri = write(case, tmp_path, array, offset=OFFSET)
    with open_volume(uri) as volume:
        assert volume.dtype == np.dtype(dtype)
        assert volume.shape == SHAPE
        if case.keeps_position:
            assert volume.offset == OFFSET
            assert volume.voxel_size == VOXEL_SIZE
        else:
            assert volume.offset == (0, 0, 0)
            assert volume.voxel_size is None
        assert_equal(volume, array)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_read_belongs_to_the_reader(tmp_path: Path, case: Case) -> None:
    array = extremes(case.dtype)
    with open_volume(write(case, tmp_path, array)) as volume:
        volume.read()[...] = 1
        assert_equal(volume, array)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_folder_holds_nothing_else_afterwards(tmp_path: Path, case: Case) -> None:
    folder = tmp_path / "alone"
    write(case, folder, extremes(case.dtypes[0]))
    assert [entry.name for entry in folder.iterdir()] == [
        Path(case.place.split("@")[0].split(":")[0]).parts[0]
    ]


@pytest.mark.parametrize("case", [c for c in CASES if "uint64" in c.dtypes], ids=str)
def test_ids_beyond_2_to_the_53_stay_apart(tmp_path: Path, case: Case) -> None:
    first = 2**53
    array = np.arange(first, first + 990, dtype=np.uint64).reshape(9, 10, 11)
    with open_volume(write(case, tmp_path, array)) as volume:
        assert len(np.unique(volume.read())) == 990


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_never_written_is_background(tmp_path: Path, case: Case) -> None:
    uri = case.uri(tmp_path)
    create_volume(uri, shape=SHAPE, dtype=case.dtypes[0], voxel_size=VOXEL_SIZE).close()
    with open_volume(uri) as volume:
        assert_equal(volume, np.zeros(SHAPE, case.dtypes[0]))


@pytest.mark.parametrize("case", [c for c in CASES if not c.needs_voxel_size], ids=str)
def test_an_unknown_voxel_size_stays_unknown(tmp_path: Path, case: Case) -> None:
    uri = write(case, tmp_path, extremes(case.dtypes[0]), voxel_size=None, offset=(0, 2, 3))
    with open_volume(uri) as volume:
        assert volume.voxel_size is None
        assert volume.offset == ((0, 2, 3) if case.keeps_position else (0, 0, 0))


def test_precomputed_refuses_an_unknown_voxel_size(tmp_path: Path) -> None:
    with pytest.raises(VolumeFormatError, match="must state a voxel size"):
        create_volume(f"precomputed://{tmp_path / 'em'}", shape=SHAPE, dtype="uint8")
    assert not list(tmp_path.iterdir())


REFUSED = [
    (case, dtype)
    for case in CASES
    for dtype in ("uint8", "uint32", "uint64", "int64", "float32", "float64")
    if dtype not in case.dtypes
]


@pytest.mark.parametrize(("case", "dtype"), REFUSED, ids=str)
def test_a_type_that_a_format_cannot_hold_is_refused(
    tmp_path: Path, case: Case, dtype: str
) -> None:
    with pytest.raises(VolumeFormatError, match=f"not {dtype}"):
        create_volume(case.uri(tmp_path), shape=SHAPE, dtype=dtype, voxel_size=VOXEL_SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["complex64", "nonsense", "O", "U4", "bool"])
def test_a_type_that_is_no_number_is_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(OptionError):
        create_volume(tmp_path / "em.zarr", shape=SHAPE, dtype=dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_non_ascii_folders_with_spaces_work(tmp_path: Path, case: Case) -> None:
    folder = tmp_path / "生体 データ 100% #1"
    array = extremes(case.dtypes[0])
    with open_volume(write(case, folder, array)) as volume:
        assert_equal(volume, array)


@st.composite
def part(draw: Any, case: Case) -> Box:
    """A box inside SHAPE; whole sections where the format is written by them."""
    bounds = []
    for axis, length in enumerate(SHAPE):
        if case.by_section and axis > 0:
            bounds.append((0, length))
        else:
            a, b = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
            bounds.append((a, b))
    (z0, z1), (y0, y1), (x0, x1) = bounds
    return Box((z0, y0, x0), (z1, y1, x1)).translate(OFFSET)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_boxes_written_and_read_agree_with_an_array(
    tmp_path: Path, case: Case, data: st.DataObject
) -> None:
    """The slow twin is one array in memory, indexed as numpy does."""
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    uri = case.uri(tmp_path / "work")
    chunks = data.draw(st.none() | st.tuples(*[st.integers(1, 6)] * 3))
    twin = np.zeros(SHAPE, case.dtypes[-1])
    with create_volume(
        uri, shape=SHAPE, dtype=twin.dtype, voxel_size=VOXEL_SIZE, offset=OFFSET, chunks=chunks
    ) as volume:
        for value in range(1, data.draw(st.integers(1, 4)) + 1):
            box = data.draw(part(case))
            array = np.arange(box.size, dtype=twin.dtype).reshape(box.shape) % 100 + value
            volume.write(box, array)
            twin[box.slices(origin=OFFSET)] = array
            seen = data.draw(part(case))
            np.testing.assert_array_equal(volume.read(seen), twin[seen.slices(origin=OFFSET)])
    with open_volume(uri) as volume:
        origin = volume.offset
        for _ in range(3):
            box = data.draw(part(CASES[0])).translate((-OFFSET[0], -OFFSET[1], -OFFSET[2]))
            np.testing.assert_array_equal(volume.read(box.translate(origin)), twin[box.slices()])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_boxes_outside_and_arrays_of_another_shape_are_refused(tmp_path: Path, case: Case) -> None:
    array = extremes(case.dtypes[0])
    with open_volume(write(case, tmp_path, array)) as volume:
        for box in (volume.box.translate((0, 0, 1)), volume.box.grow((0, 1, 0))):
            with pytest.raises(GeometryError, match="is not inside"):
                volume.read(box)
    with create_volume(
        case.uri(tmp_path), shape=SHAPE, dtype=array.dtype, voxel_size=VOXEL_SIZE, overwrite=True
    ) as volume:
        with pytest.raises(GeometryError, match="is not inside"):
            volume.write(volume.box.translate((1, 0, 0)), array)
        with pytest.raises(GeometryError, match="does not fill"):
            volume.write(volume.box, array[1:])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, case: Case) -> None:
    info = np.iinfo(case.dtype)
    with create_volume(
        case.uri(tmp_path), shape=SHAPE, dtype=case.dtype, voxel_size=VOXEL_SIZE
    ) as volume:
        volume.write(volume.box, np.full(SHAPE, info.max, np.int64))
        for wrong in (info.max + 1, info.min - 1, 0.5):
            with pytest.raises(LabelError):
                volume.write(volume.box, np.full(SHAPE, wrong))
        np.testing.assert_array_equal(volume.read(), info.max)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_existing_volume_is_not_overwritten_unasked(tmp_path: Path, case: Case) -> None:
    uri = write(case, tmp_path, extremes(case.dtype))
    before = contents(tmp_path)
    with pytest.raises(DestinationExistsError, match="left as it is"):
        create_volume(uri, shape=(1, 2, 3), dtype=case.dtype, voxel_size=VOXEL_SIZE)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_overwriting_replaces_only_when_the_new_one_is_complete(tmp_path: Path, case: Case) -> None:
    old = extremes(case.dtype)
    uri = write(case, tmp_path, old)
    before = contents(tmp_path)
    shape: Zyx = (2, 3, 4)
    volume = create_volume(uri, shape=shape, dtype="uint16", voxel_size=VOXEL_SIZE, overwrite=True)
    volume.write(volume.box, np.ones(shape, np.uint16))
    with open_volume(uri) as still:
        assert_equal(still, old)
    volume.close()
    with open_volume(uri) as now:
        assert_equal(now, np.ones(shape, np.uint16))
    assert contents(tmp_path) != before


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("overwrites", [False, True])
def test_a_failure_while_writing_leaves_what_was_there(
    tmp_path: Path, case: Case, overwrites: bool
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    if overwrites:
        write(case, folder, extremes(case.dtype))
    before = contents(folder)

    def fail() -> None:
        with create_volume(
            case.uri(folder), shape=SHAPE, dtype=case.dtype, voxel_size=VOXEL_SIZE, overwrite=True
        ) as volume:
            volume.write(volume.box, np.ones(SHAPE, case.dtype))
            raise RuntimeError("something else went wrong")

    with pytest.raises(RuntimeError, match="something else"):
        fail()
    assert contents(folder) == before
    assert overwrites or not list(folder.iterdir())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_closing_and_discarding_twice_does_nothing(tmp_path: Path, case: Case) -> None:
    uri = case.uri(tmp_path)
    volume = create_volume(uri, shape=SHAPE, dtype=case.dtype, voxel_size=VOXEL_SIZE)
    volume.close()
    volume.close()
    volume.discard()
    with open_volume(uri) as there:
        assert there.shape == SHAPE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_volume_opened_for_reading_refuses_writes(tmp_path: Path, case: Case) -> None:
    with (
        open_volume(write(case, tmp_path, extremes(case.dtype))) as volume,
        pytest.raises(StorageError, match="for reading only"),
    ):
        volume.write(volume.box, np.zeros(SHAPE, case.dtype))


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if not c.name.startswith(("zarr", "ome-zarr", "n5", "precomputed"))],
    ids=str,
)
def test_formats_without_chunks_of_their_own_are_not_opened_writable(
    tmp_path: Path, case: Case
) -> None:
    uri = write(case, tmp_path, extremes(case.dtype))
    with pytest.raises(StorageError, match="cannot be changed in place"):
        open_volume(uri, writable=True)


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, -1, 1)])
def test_a_shape_without_voxels_is_refused(tmp_path: Path, shape: Zyx) -> None:
    with pytest.raises(GeometryError, match="not positive"):
        create_volume(tmp_path / "em.zarr", shape=shape, dtype="uint8")


def test_a_channel_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for case in CASES:
        uri = write(case, tmp_path / case.name, extremes(case.dtype))
        with open_volume(uri, channel=0) as volume:
            assert volume.shape == SHAPE
        with pytest.raises(OptionError, match="has no channel 1"):
            open_volume(uri, channel=1)
    with pytest.raises(OptionError, match="negative"):
        open_volume(uri, channel=-1)
