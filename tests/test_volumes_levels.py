"""Levels of pyramids: where they lie, and how each chunked format keeps them."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import OptionError, StorageError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.volumes import Volume, create_volume, open_volume, pyramid_geometry
from floodem.volumes.inspection.info import inspect
from floodem.volumes.pyramid_geometry import finest_box, level_box, level_voxel_size
from floodem.volumes.volume import Kind

positions = st.tuples(*[st.integers(-50, 50)] * 3)
lengths = st.tuples(*[st.integers(1, 40)] * 3)
factors_zyx = st.tuples(*[st.integers(1, 9)] * 3)


def test_the_examples_of_the_geometry_hold() -> None:
    assert doctest.testmod(pyramid_geometry) == doctest.TestResults(failed=0, attempted=3)


@given(positions, lengths, factors_zyx)
def test_a_level_covers_the_box_and_no_voxel_more_than_needed(start, shape, factors) -> None:
    box = Box.from_shape(shape, start=start)
    coarse = level_box(box, factors)
    covered = {
        axis: sorted({i // factors[axis] for i in range(box.start[axis], box.stop[axis])})
        for axis in range(3)
    }
    for axis in range(3):
        assert covered[axis] == list(range(coarse.start[axis], coarse.stop[axis]))
    assert finest_box(coarse, factors).contains(box)


@given(positions, lengths, factors_zyx, factors_zyx)
def test_levels_of_levels_lie_where_their_product_does(start, shape, first, second) -> None:
    box = Box.from_shape(shape, start=start)
    both = tuple(int(f) for f in np.multiply(first, second))
    assert level_box(level_box(box, first), second) == level_box(box, both)


def test_an_unknown_voxel_size_stays_unknown_in_every_level() -> None:
    assert level_voxel_size(None, (2, 2, 2)) is None
    assert level_voxel_size(VoxelSize(30, 6, 4), (1, 2, 2)) == VoxelSize(30, 12, 8)


@pytest.mark.parametrize("factors", [(0, 1, 1), (1, -2, 1)])
def test_factors_that_are_not_positive_are_refused(factors) -> None:
    with pytest.raises(OptionError, match="not positive"):
        level_box(Box((0, 0, 0), (1, 1, 1)), factors)
    with pytest.raises(OptionError, match="not positive"):
        level_voxel_size(None, factors)


# --- what the chunked formats keep of them ------------------------------------------------

SHAPE = (5, 6, 7)
ARRAY = np.arange(210, dtype=np.uint32).reshape(SHAPE)
LEVELS = ((1, 2, 2), (2, 4, 4))
FORMATS = ("zarr", "zarr3", "n5", "precomputed")


def create(uri: str, **facts: Any) -> Volume:
    facts = {
        "shape": SHAPE,
        "dtype": "uint32",
        "voxel_size": VoxelSize(30, 6, 4),
        "offset": (10, 21, 30),
        "chunks": (2, 3, 4),
        "levels": LEVELS,
    } | facts
    return create_volume(uri, **facts)


def fill(volume: Volume) -> None:
    for number, level in enumerate(volume.levels):
        level.write(level.box, np.full(level.shape, number + 1, np.uint32))


@pytest.mark.parametrize("format_", FORMATS)
def test_levels_that_were_written_come_back_where_they_lie(tmp_path: Path, format_: str) -> None:
    uri = f"{format_}://{tmp_path / 'em'}"
    with create(uri, kind=Kind.LABELS) as volume:
        fill(volume)
    for number, factors in enumerate(((1, 1, 1), *LEVELS)):
        with open_volume(uri, level=number) as level:
            assert level.box == level_box(Box.from_shape(SHAPE, start=(10, 21, 30)), factors)
            assert level.voxel_size == level_voxel_size(VoxelSize(30, 6, 4), factors)
            assert level.kind is Kind.LABELS
            assert level.uri == uri
            assert (level.read() == number + 1).all()
            assert [each.box.shape for each in level.levels] == [(5, 6, 7), (5, 4, 4), (3, 2, 3)]
    with pytest.raises(OptionError, match="has no level 3"):
        open_volume(uri, level=3)


@pytest.mark.parametrize("format_", FORMATS)
def test_levels_are_filled_in_place(tmp_path: Path, format_: str) -> None:
    uri = f"{format_}://{tmp_path / 'em'}"
    create(uri).close()
    with open_volume(uri, level=1, writable=True) as volume:
        fill(volume)
    with open_volume(uri) as volume:
        assert [int(level.read().max()) for level in volume.levels] == [1, 2, 3]


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_is_written_to_a_level_after_the_volume_was_closed(
    tmp_path: Path, format_: str
) -> None:
    volume = create(f"{format_}://{tmp_path / 'em'}")
    level = volume.levels[1]
    volume.discard()
    with pytest.raises(StorageError, match="reading only"):
        level.write(level.box, np.zeros(level.shape, np.uint32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([(1, 0, 2)], "not positive"),
        ([(1, 1, 1)], "coarser"),
        ([(2, 2, 2), (2, 2, 2)], "coarser"),
        ([(1, 4, 4), (2, 2, 8)], "coarser"),
    ],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_levels_that_do_not_become_coarser_are_refused(
    tmp_path: Path, format_: str, levels: list[tuple[int, int, int]], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        create(f"{format_}://{tmp_path / 'em'}", levels=levels)
    assert not list(tmp_path.iterdir())


@given(
    start=positions,
    shape=lengths,
    factors=factors_zyx.filter(lambda factors: max(factors) > 1),
    format_=st.sampled_from(FORMATS),
)
@settings(deadline=None, max_examples=40)
def test_every_level_lies_where_the_geometry_says(start, shape, factors, format_) -> None:
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{format_}://{folder}/em"
        create(uri, shape=shape, offset=start, chunks=None, levels=[factors]).close()
        with open_volume(uri) as volume:
            assert volume.levels[1].box == level_box(volume.box, factors)
            assert volume.levels[1].voxel_size == level_voxel_size(volume.voxel_size, factors)


# --- a place to grow in -------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_a_discarded_volume_is_taken_up_again_where_it_grew(tmp_path: Path, format_: str) -> None:
    uri, work = f"{format_}://{tmp_path / 'em'}", tmp_path / "em.growing"
    volume = create(uri, work=work)
    fill(volume)
    volume.discard()
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.growing"]
    with create(uri, work=work) as volume:
        assert [int(level.read().min()) for level in volume.levels] == [1, 2, 3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["em"]
    with open_volume(uri) as volume:
        assert [int(level.read().min()) for level in volume.levels] == [1, 2, 3]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "other", [{"offset": (0, 0, 0)}, {"levels": ()}, {"kind": Kind.IMAGE}, {"chunks": (2, 3, 5)}]
)
def test_what_grew_otherwise_is_begun_again(
    tmp_path: Path, format_: str, other: dict[str, Any]
) -> None:
    uri, work = f"{format_}://{tmp_path / 'em'}", tmp_path / "em.growing"
    volume = create(uri, work=work)
    fill(volume)
    volume.discard()
    with create(uri, work=work, **other) as volume:
        assert not volume.read().any()
    with open_volume(uri) as volume:
        assert len(volume.levels) == (1 if "levels" in other else 3)
        assert not any(level.read().any() for level in volume.levels)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_place_whose_making_was_interrupted_is_completed(tmp_path: Path, format_: str) -> None:
    uri, work = f"{format_}://{tmp_path / 'em'}", tmp_path / "em.growing"
    volume = create(uri, work=work)
    fill(volume)
    volume.discard()
    last = {"zarr": ".zattrs", "zarr3": "zarr.json", "n5": "attributes.json"}.get(format_)
    if last is not None:
        (work / last).unlink()
    with create(uri, work=work) as volume:
        assert [int(level.read().min()) for level in volume.levels] == [1, 2, 3]


# --- n5 of other programs -----------------------------------------------------------------


def n5(folder: Path, arrays: dict[str, dict[str, Any]], group: dict[str, Any]) -> Path:
    """Write levels with these attributes, half as long as the one before, into a group."""
    for at, (name, attributes) in enumerate(arrays.items()):
        dimensions = [-(-length // 2**at) for length in (8, 12, 16)]
        ts.open(
            {
                "driver": "n5",
                "kvstore": {"driver": "file", "path": f"{folder / name}/"},
                "metadata": {"dimensions": dimensions, "dataType": "uint8", **attributes},
                "create": True,
            }
        ).result().write(at + 1).result()
    (folder / "attributes.json").write_text(json.dumps({"n5": "2.0.0", **group}), encoding="utf-8")
    return folder


PIXEL = {"pixelResolution": {"dimensions": [4, 6, 30], "unit": "nm"}}


@pytest.mark.parametrize(
    ("arrays", "group"),
    [
        ({}, {**PIXEL, "scales": [[1, 1, 1], [2, 2, 1]]}),
        ({}, {"resolution": [4, 6, 30], "downsamplingFactors": [[1, 1, 1], [2, 2, 1]]}),
        (
            {"s0": {"downsamplingFactors": [1, 1, 1]}, "s1": {"downsamplingFactors": [2, 2, 1]}},
            {"resolution": [0.004, 0.006, 0.03], "units": ["um"] * 3, "multiScale": True},
        ),
        (
            {"s0": PIXEL, "s1": {**PIXEL, "downsamplingFactors": [2, 2, 1]}},
            {},
        ),
        (
            {"s0": {"resolution": [4, 6, 30]}, "s1": {"resolution": [8, 12, 30]}},
            {},
        ),
        (
            {},
            {
                "multiscales": [
                    {
                        "datasets": [
                            {
                                "path": f"s{at}",
                                "transform": {
                                    "axes": ["z", "y", "x"],
                                    "scale": [30, 6 * 2**at, 4 * 2**at],
                                    "translate": [0, 3 * at, 2 * at],
                                    "units": ["nm", "nm", "nm"],
                                },
                            }
                            for at in range(2)
                        ]
                    }
                ]
            },
        ),
    ],
    ids=["scales", "group factors", "array factors", "pixelResolution", "resolution", "transform"],
)
def test_levels_of_other_n5_programs_are_found_and_placed(
    tmp_path: Path, arrays: dict[str, Any], group: dict[str, Any]
) -> None:
    store = n5(tmp_path / "em.n5", arrays or {"s0": {}, "s1": {}}, group)
    with open_volume(store) as volume:
        assert [level.voxel_size for level in volume.levels] == [
            VoxelSize(30, 6, 4),
            VoxelSize(30, 12, 8),
        ]
        assert [level.shape for level in volume.levels] == [(16, 12, 8), (8, 6, 4)]
        assert [level.offset for level in volume.levels] == [(0, 0, 0), (0, 0, 0)]
        assert [int(level.read().max()) for level in volume.levels] == [1, 2]
    with open_volume(f"{store}@s1") as volume:
        assert volume.voxel_size == VoxelSize(30, 12, 8)


def test_cloudvolume_reads_every_level_of_an_n5_volume(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cloudvolume = pytest.importorskip("cloudvolume")
        # One byte a voxel: it takes the others, which n5 stores big-endian, for little-endian.
        with create(f"n5://{tmp_path / 'em'}", dtype="uint8", offset=(0, 0, 0)) as volume:
            for number, level in enumerate(volume.levels):
                level.write(level.box, np.full(level.shape, number + 1, np.uint8))
        for mip, factors in enumerate(((1, 1, 1), *LEVELS)):
            opened = cloudvolume.CloudVolume(f"n5://file://{tmp_path / 'em'}", mip=mip)
            assert (
                tuple(opened.resolution)
                == level_voxel_size(VoxelSize(30, 6, 4), factors).zyx_nm[::-1]
            )
            assert (np.asarray(opened[:, :, :]) == mip + 1).all()


@pytest.mark.parametrize("ending", ["em.ome.zarr", "em.zarr3"])
def test_a_missing_level_is_named_and_the_others_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / ending
    create_volume(path, shape=(4, 16, 16), dtype="uint8", levels=((1, 2, 2), (1, 4, 4))).close()
    shutil.rmtree(path / "1")
    missing = f"level 1 of {re.escape(str(path))} is missing: .*1 is no zarr3? array; copy"
    with open_volume(path) as volume:
        assert volume.read().shape == (4, 16, 16)
        with pytest.raises(VolumeNotFoundError, match=missing):
            _ = volume.levels
    with open_volume(path, level=2) as volume:
        assert volume.shape == (4, 4, 4)
    with pytest.raises(VolumeNotFoundError, match=missing):
        open_volume(path, level=1)
    found = inspect(path)
    assert found.volume is not None
    assert [one.shape for one in found.volume.levels] == [(4, 16, 16)]
    assert re.match(missing, found.notices[-1])
