"""Partitions: equal to the reference's, whatever the type, the block and what is left out."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from array_volume import ArrayVolume
from floodem.cli.partition import parse_ids, parse_thresholds
from floodem.cli.partition import partition as partition_command
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    GeometryError,
    LabelError,
    OptionError,
    StorageError,
    UsageError,
    VolumeFormatError,
)
from floodem.flooding.masks import parse_mask
from floodem.geometry import Box, VoxelSize
from floodem.labels.partitions import BlockRuns, partition_block, partition_table
from floodem.training.configuration.options import DEFAULT_THRESHOLDS
from floodem.training.coordinates import partitioning
from floodem.training.coordinates.partition_volume import partition
from floodem.training.coordinates.partitioning import PartitionedLabels, Partitioning, Sphere
from floodem.volumes import create_volume, open_volume
from reference import partitions as twin

TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def whole(labels, by, *, box=None, chunks=(1, 1, 1), threads=1):
    """All blocks put together."""
    made = PartitionedLabels(labels, by=by, box=box, chunks=chunks, threads=threads)
    found = np.full(made.box.shape, 77, np.uint8)
    blocks = 0
    for place, values in made.blocks():
        found[place.slices(origin=made.box.start)] = values
        blocks += 1
    return found, blocks


def written(path, array, *, dataset="raw", offset=(0, 0, 0), voxel_size=None, attributes=()):
    uri = f"{path}@{dataset}"
    with create_volume(
        uri, shape=array.shape, dtype=array.dtype, offset=offset, voxel_size=voxel_size
    ) as volume:
        volume.write(volume.box, array)
    with h5py.File(path, "a") as file:
        for name, value in dict(attributes).items():
            file[dataset].attrs[name] = value
    return uri


def halves(shape=(12, 14, 16)):
    """Two objects side by side, 0 in a corner."""
    labels = np.ones(shape, np.uint16)
    labels[:, :, shape[2] // 2 :] = 300
    labels[:3, :3, :3] = 0
    return labels


BY = Partitioning(thresholds=(0.2, 0.5, 0.8), radius=(2, 3, 3), min_size=50)


@pytest.mark.parametrize(
    ("name", "radius"), [("24-24-24", (24, 24, 24)), ("24-24-12", (12, 24, 24))]
)
def test_golden_partitions_are_equal_in_every_voxel_and_attribute(
    shared_data, tmp_path, name, radius
):
    golden = shared_data / "golden"
    by = Partitioning(thresholds=DEFAULT_THRESHOLDS, radius=radius, min_size=10_000)
    partition(f"{golden / 'partitions-labels.h5'}@raw", f"{tmp_path / 'af.h5'}@af", by=by)
    with (
        h5py.File(tmp_path / "af.h5") as ours,
        h5py.File(golden / f"partitions-{name}.h5") as theirs,
    ):
        made, wanted = ours["af"], theirs["af"]
        assert np.array_equal(made[...], wanted[...])
        assert made.dtype == wanted.dtype
        assert made.fillvalue == wanted.fillvalue == 255
        assert made.compression == wanted.compression == "gzip"
        assert set(made.attrs) == set(wanted.attrs)
        for key in wanted.attrs:
            assert np.array_equal(made.attrs[key], wanted.attrs[key])
            assert made.attrs[key].dtype == wanted.attrs[key].dtype
            assert made.attrs[key].shape == wanted.attrs[key].shape


@pytest.mark.parametrize("threads", [1, 3])
def test_golden_partitions_do_not_depend_on_blocks_and_threads(shared_data, monkeypatch, threads):
    monkeypatch.setattr(partitioning, "BLOCK_BYTES", 6 * 2**20)
    by = Partitioning(thresholds=DEFAULT_THRESHOLDS, radius=(12, 24, 24), min_size=10_000)
    with open_volume(shared_data / "golden" / "partitions-labels.h5") as labels:
        found, blocks = whole(labels, by, chunks=(64, 64, 64), threads=threads)
    assert blocks > 4
    with h5py.File(shared_data / "golden" / "partitions-24-24-12.h5") as theirs:
        assert np.array_equal(found, theirs["af"][...])


@st.composite
def cases(draw):
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    top = int(np.iinfo(dtype).max)
    ids = draw(
        st.lists(st.sampled_from([1, 2, 3, top, top - 1, top // 2]), min_size=1, unique=True)
    )
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    labels = draw(arrays.arrays(dtype, shape, elements=st.sampled_from([0, *ids])))
    radius = draw(st.tuples(*[st.integers(0, (size - 1) // 2) for size in shape]))
    thresholds = draw(
        st.lists(
            st.one_of(st.floats(0.01, 1), st.sampled_from([1 / 27, 1 / 9, 1 / 3, 0.5, 1.0])),
            min_size=1,
            max_size=6,
            unique=True,
        )
    )
    return labels, radius, tuple(sorted(thresholds)), ids


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    case=cases(),
    min_size=st.integers(1, 12),
    offset=st.tuples(*[st.integers(-50, 50)] * 3),
    block_bytes=st.integers(1, 3000),
    chunks=st.tuples(*[st.integers(1, 4)] * 3),
    threads=st.integers(1, 2),
    data=st.data(),
)
def test_partitions_equal_the_obvious_twin(
    case, min_size, offset, block_bytes, chunks, threads, data
):
    labels, radius, thresholds, ids = case
    some = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(ids), min_size=1, unique=True)))
    spheres = data.draw(
        st.lists(
            st.tuples(*[st.integers(at - 2, at + 9) for at in offset], st.integers(0, 3)),
            max_size=2,
        )
    )
    by = Partitioning(
        thresholds=thresholds,
        radius=radius,
        min_size=min_size,
        ids=None if some is None else tuple(some),
        spheres=tuple(Sphere(centre=(z, y, x), radius=r) for z, y, x, r in spheres),
    )
    volume = ArrayVolume(labels, offset=offset)
    before = partitioning.BLOCK_BYTES
    partitioning.BLOCK_BYTES = block_bytes
    try:
        found, _ = whole(volume, by, chunks=chunks, threads=threads)
    except LabelError:
        present, counts = np.unique(labels, return_counts=True)
        large = set(present[(counts >= min_size) & (present != 0)].tolist())
        assert not (large if some is None else large & set(some))
        return
    finally:
        partitioning.BLOCK_BYTES = before
    wanted = twin.partitions(
        labels,
        thresholds=thresholds,
        radius=radius,
        min_size=min_size,
        ids=some,
        spheres=spheres,
        origin=offset,
    )
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("radius", [(140, 0, 0), (130, 140, 1), (0, 135, 2), (1, 1, 140)])
def test_counts_do_not_overflow_the_narrow_sums(radius):
    shape = tuple(2 * r + 7 for r in radius)
    random = np.random.default_rng(0)
    labels = (random.random(shape) < 0.9).astype(np.uint8)
    thresholds = (0.88, 0.89, 0.9, 0.91, 0.92)
    sums = labels.astype(np.int64)
    for axis, r in enumerate(radius):
        sums = np.pad(sums.cumsum(axis), [(int(other == axis), 0) for other in range(3)])
        last = sums.shape[axis]
        sums = sums.take(range(2 * r + 1, last), axis) - sums.take(range(last - 2 * r - 1), axis)
    size = np.prod([2 * r + 1 for r in radius])
    core = Box.from_shape(shape).grow(tuple(-r for r in radius))
    inner = labels[core.slices()]
    wanted = np.where(inner > 0, np.searchsorted(thresholds, sums / size, side="right") + 1, 0)
    found = partition_block(
        BlockRuns(labels),
        core=core,
        objects=np.array([1], np.uint64),
        radius=radius,
        table=partition_table(thresholds, radius=radius),
    )
    assert np.array_equal(found, wanted)


@settings(deadline=None)
@given(
    radius=st.tuples(*[st.integers(0, 6)] * 3),
    picks=st.lists(st.integers(1, 2197), min_size=1, max_size=8, unique=True),
)
def test_a_fraction_at_a_threshold_reaches_it(radius, picks):
    size = int(np.prod([2 * r + 1 for r in radius]))
    thresholds = sorted({pick / size for pick in picks if pick <= size} or {0.5})
    table = partition_table(thresholds, radius=radius)
    for count in range(size + 1):
        above = [n for n, one in enumerate(thresholds) if count / size < one]
        assert table[count] == (above[0] if above else len(thresholds)) + 1


def test_a_masked_voxel_excludes_all_whose_surroundings_hold_it(tmp_path, monkeypatch):
    labels = halves()
    mask = np.zeros(labels.shape, np.uint8)
    mask[6, 7, 8] = mask[0, 0, 0] = 1
    where = written(tmp_path / "mask.h5", mask)
    by = Partitioning(
        thresholds=BY.thresholds, radius=BY.radius, min_size=50, masks=(parse_mask(where),)
    )
    wanted = twin.partitions(
        labels, thresholds=BY.thresholds, radius=BY.radius, min_size=50, mask=mask
    )
    assert np.count_nonzero(wanted == 255) > np.count_nonzero(
        twin.partitions(labels, thresholds=BY.thresholds, radius=BY.radius, min_size=50) == 255
    )
    for block_bytes in (partitioning.BLOCK_BYTES, 5000):
        monkeypatch.setattr(partitioning, "BLOCK_BYTES", block_bytes)
        assert np.array_equal(whole(ArrayVolume(labels), by)[0], wanted)


def test_a_box_is_sorted_as_if_nothing_lay_outside(tmp_path):
    labels = halves((20, 20, 24))
    uri = written(tmp_path / "seg.h5", labels, offset=(5, 6, 7), voxel_size=VoxelSize(30, 6, 6))
    box = Box((8, 9, 10), (20, 22, 28))
    result = partition(uri, f"{tmp_path / 'af.h5'}@af", by=BY, box=box)
    crop = labels[box.slices(origin=(5, 6, 7))]
    wanted = twin.partitions(crop, thresholds=BY.thresholds, radius=BY.radius, min_size=50)
    with open_volume(f"{tmp_path / 'af.h5'}@af") as made:
        assert made.box == box
        assert made.voxel_size == VoxelSize(30, 6, 6)
        assert np.array_equal(made.read(), wanted)
    # x, y, z from the first voxel of the array, less the radius.
    assert result.bounding_boxes_xyz.tolist() == [[[3, 3, 2], [12, 7, 8]]]


def test_bounding_boxes_of_the_labels_are_shrunk_by_the_radius(tmp_path):
    labels = halves()
    attributes = {
        "bounding_boxes": np.array([[[0, 0, 0], [16, 14, 12]], [[1, 2, 3], [6, 12, 9]]]),
        "bounding_boxes_more": np.array([[[2, 1, 0], [9, 8, 7]]], np.uint8),
        "something": 3,
    }
    uri = written(tmp_path / "seg.h5", labels, attributes=attributes)
    partition(uri, f"{tmp_path / 'af.h5'}@af", by=BY)
    with h5py.File(tmp_path / "af.h5") as file:
        boxes = file["af"].attrs["bounding_boxes"]
        assert set(file["af"].attrs) == {"bounding_boxes", "partition_counts"}
    # The second is as thin along x as twice the radius, and vanishes.
    assert boxes.tolist() == [[[3, 3, 2], [10, 8, 8]], [[5, 4, 2], [3, 2, 3]]]


def test_partition_counts_are_of_the_valid_region_with_what_is_excluded_in_it(tmp_path):
    by = Partitioning(
        thresholds=BY.thresholds,
        radius=BY.radius,
        min_size=50,
        spheres=(Sphere.parse("6,7,8,2"),),
    )
    uri = written(tmp_path / "seg.h5", halves())
    result = partition(uri, f"{tmp_path / 'af.h5'}@af", by=by)
    with h5py.File(tmp_path / "af.h5") as file:
        values, counts = np.unique(file["af"][2:-2, 3:-3, 3:-3], return_counts=True)
        assert np.array_equal(file["af"].attrs["partition_counts"], [values, counts])
    assert result.counts[255] == 33  # voxels of a ball of radius 2


def test_other_formats_keep_the_numbers_beside_them(tmp_path):
    labels = halves()
    uri = written(tmp_path / "seg.h5", labels)
    wanted = twin.partitions(labels, thresholds=BY.thresholds, radius=BY.radius, min_size=50)
    partition(uri, f"{tmp_path / 'af.h5'}@af", by=BY)
    for name in ("af.zarr", "af.npz", "n5://af-n5", "png://sections"):
        address = name.replace("//", f"//{tmp_path}/") if "//" in name else str(tmp_path / name)
        result = partition(uri, address, by=BY)
        with open_volume(address) as made:
            assert np.array_equal(made.read(), wanted)
        folder = tmp_path / f"{name.partition('//')[2] or name}.floodem"
        told = json.loads((folder / "partitions.json").read_text(encoding="utf-8"))
        assert told["partition_counts"] == {str(v): n for v, n in result.counts.items()}
        assert told["bounding_boxes_xyz"] == [[[3, 3, 2], [10, 8, 8]]]


def test_partitions_are_added_to_the_file_of_the_labels(tmp_path):
    labels = halves()
    uri = written(tmp_path / "seg.h5", labels)
    partition(uri, f"{tmp_path / 'seg.h5'}@af", by=BY)
    with h5py.File(tmp_path / "seg.h5") as file:
        assert np.array_equal(file["raw"][...], labels)
        assert file["af"].shape == labels.shape


def test_memory_is_that_of_a_block(monkeypatch):
    volume = ArrayVolume(np.ones((40, 40, 40), np.uint64), chunks=(8, 8, 8))
    monkeypatch.setattr(partitioning, "BLOCK_BYTES", 200_000)
    by = Partitioning(thresholds=(0.5,), radius=(2, 2, 2), min_size=1)
    _, blocks = whole(volume, by, chunks=(8, 8, 8))
    assert blocks > 3
    # The first reads count the sizes; those of the blocks are bounded with their surroundings.
    assert max(box.size for box in volume.reads[-blocks:]) * 12 <= 200_000


def negative():
    labels = halves().astype(np.int16)
    labels[5, 5, 5] = -4
    return labels


@pytest.mark.parametrize(
    ("labels", "changes", "error", "sentence"),
    [
        (halves(), {"min_size": 5000}, LabelError, "no object of 5000 voxels or more, the largest"),
        (halves() * 0, {}, LabelError, "the largest has 0"),
        (halves(), {"ids": (7, 9)}, LabelError, "none of the 2 ids is an object of 50 voxels"),
        (halves(), {"ids": (7,)}, LabelError, "^id 7 is no object of 50 voxels"),
        (halves(), {"radius": (6, 3, 3)}, GeometryError, "radius 6,3,3 leaves nothing of"),
        (halves(), {"radius": (-1, 3, 3)}, OptionError, "is negative"),
        (halves(), {"radius": (400, 400, 400)}, OptionError, "give a smaller one"),
        (halves(), {"thresholds": ()}, OptionError, "0 thresholds are not 1 to 253"),
        (halves(), {"thresholds": (0.5, 0.2)}, OptionError, "do not ascend"),
        (halves(), {"thresholds": (0.5, 1.2)}, OptionError, "not fractions"),
        (halves(), {"thresholds": (0.5, float("nan"))}, OptionError, "not fractions"),
        (halves(), {"masks": (parse_mask("image:max=3"),)}, OptionError, "looks at an image"),
        (halves().astype(np.float32), {}, LabelError, "holds float32 values, which are no labels"),
        (negative(), {}, LabelError, "holds the negative label -4"),
    ],
)
def test_what_cannot_be_sorted_is_refused_and_the_destination_stays(
    tmp_path, labels, changes, error, sentence
):
    uri = written(tmp_path / "seg.h5", labels)
    old = written(tmp_path / "af.h5", np.zeros((3, 3, 3), np.uint8), dataset="af")
    before = (tmp_path / "af.h5").read_bytes()
    values = {"thresholds": BY.thresholds, "radius": BY.radius, "min_size": 50, **changes}
    with pytest.raises(error, match=sentence):
        partition(uri, old, by=Partitioning(**values), overwrite=True)
    assert (tmp_path / "af.h5").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["af.h5", "seg.h5"]


def test_negative_labels_in_a_later_block_are_refused(monkeypatch):
    monkeypatch.setattr(partitioning, "BLOCK_BYTES", 4000)
    with pytest.raises(LabelError, match="holds the negative label -4"):
        whole(ArrayVolume(negative()), BY)


def test_impossible_settings_are_refused():
    with pytest.raises(OptionError, match="smallest size 0"):
        Partitioning(thresholds=(0.5,), radius=(1, 1, 1), min_size=0)
    with pytest.raises(OptionError, match="id 0 is no object's"):
        Partitioning(thresholds=(0.5,), radius=(1, 1, 1), min_size=1, ids=(3, 0))
    for text in ("1,2,3", "a,b,c,d", "1,2,3,-1", "1,2,nan,4"):
        with pytest.raises(OptionError, match="sphere"):
            Sphere.parse(text)


def test_existing_and_own_destinations_are_refused(tmp_path):
    uri = written(tmp_path / "seg.h5", halves())
    partition(uri, f"{tmp_path / 'af.h5'}@af", by=BY)
    before = (tmp_path / "af.h5").read_bytes()
    with pytest.raises(DestinationExistsError):
        partition(uri, f"{tmp_path / 'af.h5'}@af", by=BY)
    assert (tmp_path / "af.h5").read_bytes() == before
    for destination in (uri, tmp_path / "seg.h5", f"hdf5://{tmp_path}/../{tmp_path.name}/seg.h5"):
        with pytest.raises(UsageError, match="holds the labels"):
            partition(uri, destination, by=BY, overwrite=True)


def test_bounding_boxes_of_another_shape_are_refused(tmp_path):
    uri = written(tmp_path / "seg.h5", halves(), attributes={"bounding_boxes": np.arange(6)})
    with pytest.raises(VolumeFormatError, match="attribute 'bounding_boxes'"):
        partition(uri, f"{tmp_path / 'af.h5'}@af", by=BY)


def test_the_command_says_what_is_in_each_partition(tmp_path, capsys):
    uri = written(tmp_path / "seg.h5", halves())
    ids = tmp_path / "ids.txt"
    ids.write_text("300  # right\n\n7,9\n", encoding="utf-8")
    spheres = tmp_path / "spheres.txt"
    spheres.write_text("6,7,8,2\n", encoding="utf-8")
    arguments = {
        "thresholds": "0.2,0.5,0.8",
        "lom_radius": "2,3,3",
        "min_size": 50,
        "ids": str(ids),
        "exclude": [str(spheres), "0,0,0,1"],
    }
    partition_command(uri, f"{tmp_path / 'af.h5'}@af", **arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("af.h5@af: 1 of 2 objects, in 0:12,0:14,0:16")
    assert lines[1] == "2 ids are no objects or too small: 7, 9"
    assert lines[2].split()[::2] == ["0", "background"]
    assert lines[-1].split() == ["255", "33", "excluded"]
    partition_command(uri, f"{tmp_path / 'b.h5'}@af", **arguments, as_json=True)
    assert json.loads(capsys.readouterr().out)["unused_ids"] == [7, 9]


def test_lists_that_are_none_are_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\xff")
    for text in ("3,x", "1.5", str(empty)):
        with pytest.raises(OptionError, match="is not an id|is empty"):
            parse_ids(text)
    with pytest.raises(StorageError, match="no text file"):
        parse_ids(str(binary))
    with pytest.raises(OptionError, match="are not numbers"):
        parse_thresholds("0.1,b")
    assert issubclass(OptionError, FloodemError)
