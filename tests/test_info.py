"""What is at an address: shape, place, layout, size and ids, for every format."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import threading

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from array_volume import ArrayVolume
from floodem.errors import (
    LabelError,
    OptionError,
    StoppedError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import convert, create_volume
from floodem.volumes.inspection import ids, storage
from floodem.volumes.inspection import info as inspection
from floodem.volumes.inspection.contents import StoredArray
from floodem.volumes.inspection.ids import count_ids
from floodem.volumes.inspection.info import inspect, require_together
from floodem.volumes.inspection.storage import size_on_disk
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Kind

SHAPE = (20, 30, 40)
SIZE = VoxelSize(30, 6, 5)


def make(uri, *, dtype="uint8", offset=(1, 2, 3), **options):
    array = np.random.default_rng(0).integers(0, 7, SHAPE).astype(dtype)
    with create_volume(
        uri, shape=SHAPE, dtype=dtype, voxel_size=SIZE, offset=offset, **options
    ) as volume:
        for level in volume.levels:
            level.write(level.box, array[tuple(slice(0, size) for size in level.shape)])
    return array


@pytest.mark.parametrize(
    ("place", "format_", "axes", "chunks", "encoding"),
    [
        ("em.zarr", "zarr", "zyx", (8, 16, 16), "zstd"),
        ("zarr3://em3", "zarr3", "zyx", (8, 16, 16), "zstd"),
        ("em.n5", "n5", "xyz", (8, 16, 16), "gzip"),
        ("precomputed://pre", "precomputed", "xyzc", (8, 16, 16), "raw"),
        ("em.h5", "hdf5", "zyx", (8, 16, 16), "gzip"),
        ("em.npz", "npz", "zyx", None, "deflate"),
        ("em.npy", "npy", None, None, "uncompressed"),
        ("png://pngs", "png", None, None, "deflate"),
        ("tiff://tiffs", "tiff", None, None, "deflate"),
        ("em.tif", "tiff", None, None, "uncompressed"),
    ],
)
def test_every_format_says_how_it_is_kept(tmp_path, place, format_, axes, chunks, encoding):
    prefix, _, name = place.rpartition("://")
    uri = f"{prefix}://{tmp_path / name}" if prefix else str(tmp_path / name)
    make(uri, chunks=(8, 16, 16))
    found = inspect(uri)
    volume = found.volume
    assert found.format == format_
    assert volume.box.shape == SHAPE
    assert volume.dtype == np.uint8
    assert (volume.storage.axes, volume.storage.chunks) == (axes, chunks)
    assert volume.storage.encoding == encoding
    assert 0 < volume.storage.bytes_on_disk < 5 * np.prod(SHAPE)
    if format_ != "npy":
        assert volume.box == Box.from_shape(SHAPE, start=(1, 2, 3))
        assert volume.voxel_size == SIZE
    assert volume.ids is None
    json.loads(found.to_json())


def test_shards_are_told_from_chunks(tmp_path):
    uri = f"zarr3://{tmp_path / 'em'}"
    make(uri, chunks=(4, 8, 8), shards=(20, 32, 40))
    volume = inspect(uri).volume
    assert volume.storage.chunks == (4, 8, 8)
    assert volume.storage.shards == (20, 32, 40)


@pytest.mark.parametrize("place", ["em.zarr", "precomputed://em", "zarr3://em"])
def test_levels_are_listed_with_their_voxel_sizes(tmp_path, place):
    prefix, _, name = place.rpartition("://")
    uri = f"{prefix}://{tmp_path / name}" if prefix else str(tmp_path / name)
    make(uri, levels=((1, 2, 2), (2, 4, 4)))
    volume = inspect(uri).volume
    assert [level.voxel_size for level in volume.levels] == [
        SIZE,
        VoxelSize(30, 12, 10),
        VoxelSize(60, 24, 20),
    ]
    coarse = inspect(uri, level=1).volume
    assert coarse.box.shape == volume.levels[1].shape
    assert coarse.storage.bytes_on_disk < volume.storage.bytes_on_disk


def test_a_file_with_several_datasets_is_listed_and_not_refused(tmp_path):
    path = tmp_path / "em.h5"
    make(f"{path}@raw")
    make(f"{path}@labels/seg", dtype="uint32")
    found = inspect(path)
    assert found.volume is None
    assert [(a.name, a.shape, a.dtype) for a in found.arrays] == [
        ("labels/seg", SHAPE, "uint32"),
        ("raw", SHAPE, "uint8"),
    ]
    assert inspect(f"{path}@raw").volume.dtype == np.uint8
    with pytest.raises(OptionError, match="holds 2 arrays: name one, as in .*@labels/seg"):
        inspect(path, ids=True)


@pytest.mark.parametrize("ending", ["zarr", "n5"])
def test_a_group_with_several_arrays_is_listed(tmp_path, ending):
    group = tmp_path / f"em.{ending}"
    if ending == "n5":
        group.mkdir()
        (group / "attributes.json").write_text('{"n5": "2.0.0"}', encoding="utf-8")
    make(f"{group}@raw")
    make(f"{group}@seg", dtype="uint64")
    found = inspect(group)
    shape = SHAPE if ending == "zarr" else SHAPE[::-1]
    assert found.arrays == (
        StoredArray(name="raw", shape=shape, dtype="uint8"),
        StoredArray(name="seg", shape=shape, dtype="uint64"),
    )
    assert found.volume is None


def test_an_archive_shows_its_segmentation_and_lists_the_rest(tmp_path):
    path = tmp_path / "seg-0_0_0.npz"
    labels = np.zeros((3, 4, 5), np.uint64)
    labels[0, 0] = 9
    np.savez(path, segmentation=labels, qprob=np.zeros((3, 4, 5), np.uint8))
    found = inspect(path)
    assert [array.name for array in found.arrays] == ["segmentation", "qprob"]
    assert found.volume.ids.number == 1
    np.savez(tmp_path / "two.npz", a=labels, b=labels)
    assert inspect(tmp_path / "two.npz").volume is None


def test_other_datasets_of_a_file_with_one_volume_are_listed_beside_it(tmp_path):
    path = tmp_path / "em.h5"
    make(f"{path}@raw")
    with h5py.File(path, "a") as file:
        file["table"] = np.zeros(5)
    found = inspect(path)
    assert found.volume.box.shape == SHAPE
    assert {array.name for array in found.arrays} == {"raw", "table"}


def test_links_of_a_file_are_not_followed(tmp_path):
    make(f"{tmp_path / 'other.h5'}@secret")
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = np.zeros((2, 3, 4), np.uint8)
        file["linked"] = h5py.ExternalLink("other.h5", "secret")
    assert [array.name for array in inspect(tmp_path / "em.h5").arrays] == ["raw"]


def test_the_first_of_several_channels_is_shown_with_a_notice(tmp_path):
    with h5py.File(tmp_path / "em.h5", "w") as file:
        file["raw"] = np.zeros((2, 3, 4, 5), np.float32)
    found = inspect(tmp_path / "em.h5")
    assert found.volume.box.shape == (3, 4, 5)
    assert found.volume.bytes_unpacked == 2 * 3 * 4 * 5 * 4
    assert found.volume.storage.axes == "czyx"
    assert "has 2 channels" in found.notices[0]
    assert inspect(tmp_path / "em.h5", channel=1).notices == ()
    with pytest.raises(OptionError, match="has no channel 2"):
        inspect(tmp_path / "em.h5", channel=2)


def test_axes_that_the_user_names_turn_everything(tmp_path):
    make(tmp_path / "em.zarr", chunks=(4, 8, 16))
    volume = inspect(tmp_path / "em.zarr", axes="xyz").volume
    assert volume.box.shape == SHAPE[::-1]
    assert volume.storage.axes == "xyz"
    assert volume.storage.chunks == (16, 8, 4)


def test_ids_are_counted_of_small_labels_and_on_demand(tmp_path, monkeypatch):
    make(tmp_path / "seg.zarr", dtype="uint32")
    assert inspect(tmp_path / "seg.zarr").volume.ids.number == 6
    assert inspect(tmp_path / "seg.zarr", ids=False).volume.ids is None
    monkeypatch.setattr(inspection, "SMALL_VOXELS", 100)
    assert inspect(tmp_path / "seg.zarr").volume.ids is None
    assert inspect(tmp_path / "seg.zarr", ids=True).volume.ids.number == 6
    make(tmp_path / "small.zarr", dtype="uint8", kind=Kind.LABELS)
    monkeypatch.setattr(inspection, "SMALL_VOXELS", 10**6)
    assert inspect(tmp_path / "small.zarr").volume.ids.number == 6


def test_ids_of_real_or_negative_numbers_are_refused(tmp_path):
    make(tmp_path / "em.zarr", dtype="float32")
    with pytest.raises(LabelError, match="holds float32 values, which are no labels"):
        inspect(tmp_path / "em.zarr", ids=True)
    with pytest.raises(LabelError, match="negative label -1"):
        count_ids(ArrayVolume(np.full((2, 2, 2), -1, np.int32)))


label_arrays = npst.arrays(
    "uint64",
    npst.array_shapes(min_dims=3, max_dims=3, max_side=6),
    elements=st.sampled_from((0, 1, 2, 3, 7, 2**53 + 1, 2**63, 2**64 - 1)),
)


@given(label_arrays, st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 3))
@settings(deadline=None)
def test_ids_are_counted_in_any_blocks_as_in_the_whole(array, chunks, threads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("floodem.volumes.conversion.block_plan.BLOCK_BYTES", 1)
        patch.setattr(ids, "_MERGED_AT", 3)
        found = count_ids(ArrayVolume(array, chunks=chunks), threads=threads)
    values, counts = np.unique(array[array > 0], return_counts=True)
    assert found.number == len(values)
    assert found.background == np.count_nonzero(array == 0)
    assert found.voxels == array.size
    assert found.background_fraction == found.background / array.size
    if len(values):
        assert (found.smallest, found.largest) == (values[0], values[-1])
        assert found.largest_object == values[counts.argmax()]
        assert found.largest_object_voxels == counts.max()
    else:
        assert (found.smallest, found.largest, found.largest_object) == (None, None, None)


def test_folders_with_very_many_files_are_not_added_up(tmp_path, monkeypatch):
    make(tmp_path / "em.zarr", chunks=(4, 4, 4))
    assert size_on_disk(tmp_path / "em.zarr") > 0
    monkeypatch.setattr(storage, "MAX_FILES_COUNTED", 10)
    assert size_on_disk(tmp_path / "em.zarr") is None
    assert inspect(tmp_path / "em.zarr").volume.storage.bytes_on_disk is None


def test_metadata_of_another_shape_than_expected_leave_facts_unknown(tmp_path):
    (tmp_path / ".zarray").write_text('{"shape": "many", "compressor": []}', encoding="utf-8")
    location = parse_location(f"zarr://{tmp_path}")
    found = storage.storage_of(location, ArrayVolume(np.zeros(SHAPE)))
    assert (found.encoding, found.chunks, found.axes) == (None, None, None)
    assert found.bytes_on_disk == size_on_disk(tmp_path)


def test_nothing_at_the_address_is_said_in_a_sentence(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="there is no"):
        inspect(tmp_path / "em.zarr")


def test_damaged_files_are_refused_as_they_are_opened(tmp_path):
    (tmp_path / "em.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(Exception, match="em.h5") as raised:
        inspect(tmp_path / "em.h5")
    assert raised.value.exit_code == 3
    (tmp_path / "em.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(Exception, match="em.npz") as raised:
        inspect(tmp_path / "em.npz")
    assert raised.value.exit_code == 3


def test_an_image_and_its_labels_are_held_against_each_other(tmp_path):
    make(tmp_path / "em.zarr")
    make(tmp_path / "seg.zarr", dtype="uint32")
    require_together([tmp_path / "em.zarr", tmp_path / "seg.zarr"])
    with create_volume(tmp_path / "few.zarr", shape=(3, 30, 40), dtype="uint32") as volume:
        volume.write(volume.box, np.zeros((3, 30, 40), np.uint32))
    with pytest.raises(VolumeFormatError, match="has 20 sections and labels .*few.zarr 3"):
        require_together([tmp_path / name for name in ("em.zarr", "seg.zarr", "few.zarr")])


def test_two_images_or_two_label_volumes_are_held_against_each_other(tmp_path):
    for name, dtype in (("em", "uint8"), ("even", "uint8"), ("a", "uint64"), ("b", "uint32")):
        make(tmp_path / f"{name}.zarr", dtype=dtype)
    require_together([tmp_path / "em.zarr", tmp_path / "even.zarr"])
    require_together([tmp_path / "a.zarr", tmp_path / "b.zarr"])
    make(tmp_path / "far.zarr", dtype="uint8", offset=(9, 0, 0))
    with pytest.raises(VolumeFormatError, match=r"far.zarr at \(9, 0, 0\)") as raised:
        require_together([tmp_path / "em.zarr", tmp_path / "far.zarr"])
    assert "labels" not in str(raised.value)
    with pytest.raises(VolumeFormatError, match="give the image first, then its labels"):
        require_together([tmp_path / "a.zarr", tmp_path / "em.zarr"])


def test_the_only_array_of_a_file_is_named(tmp_path):
    make(f"{tmp_path / 'em.h5'}@volumes/raw")
    assert inspect(tmp_path / "em.h5").volume.dataset == "volumes/raw"
    np.savez(tmp_path / "em.npz", raw=np.zeros((2, 3, 4), np.uint8))
    assert inspect(tmp_path / "em.npz").volume.dataset == "raw"
    make(tmp_path / "em.tif")
    assert inspect(tmp_path / "em.tif").volume.dataset is None


def test_a_stopped_conversion_is_told_from_nothing(tmp_path):
    make(tmp_path / "em.zarr")
    questions = itertools.count()
    with pytest.raises(StoppedError):
        convert(
            tmp_path / "em.zarr",
            tmp_path / "big.zarr",
            chunks=(1, 8, 8),
            threads=1,
            should_stop=lambda: next(questions) == 2,
        )
    with pytest.raises(VolumeNotFoundError, match=r"a conversion to it was stopped .*floodem"):
        inspect(tmp_path / "big.zarr")


def test_ids_of_volumes_on_servers_are_counted_only_when_asked(tmp_path):
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    make(tmp_path / "seg.zarr", dtype="uint32")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"zarr://http://127.0.0.1:{server.server_port}/seg.zarr"
        assert inspect(uri).volume.ids is None
        assert inspect(uri, ids=True).volume.ids.number == 6
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
