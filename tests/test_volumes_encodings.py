"""Axes, kinds, encodings and shards of chunked stores: kept, or refused where they do not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunked_stores import ARRAY, FORMATS, SHAPE, attributes, opened, write
from floodem.errors import (
    FloodemError,
    LabelError,
    OptionError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize, tiles
from floodem.volumes import create_volume, open_volume
from floodem.volumes.volume import Kind

# --- axes --------------------------------------------------------------------------------


def stored(driver: str, path: Path, array: np.ndarray, **metadata: Any) -> Path:
    """Write an array as it is, axis for axis; n5 and zarr count axes alike here."""
    names = {"n5": "dimensions"}
    sizes = {names.get(driver, "shape"): list(array.shape)}
    types = {"n5": "dataType", "zarr": "dtype", "zarr3": "data_type"}
    kind = array.dtype.str if driver == "zarr" else array.dtype.name
    metadata = {**sizes, types[driver]: kind, **metadata}
    opened(driver, path, create=True, metadata=metadata).write(array).result()
    return path


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yxz", "yzx"])
@pytest.mark.parametrize("format_", FORMATS)
def test_voxel_size_and_offset_follow_axes_that_are_named_anew(
    tmp_path: Path, format_: str, axes: str
) -> None:
    """A stored axis keeps what the file says of it, whatever it is called now."""
    write(f"{format_}://{tmp_path / 'em'}")
    usual = "zyx" if format_.startswith("zarr") else "xyz"
    facts = {"z": (5, 30, 10), "y": (6, 6, 20), "x": (7, 4, 30)}
    # The stored axis that is now called z was believed to be believed[0], and so on.
    believed = [usual[axes.index(letter)] for letter in "zyx"]
    with open_volume(f"{format_}://{tmp_path / 'em'}", axes=axes) as volume:
        assert volume.shape == tuple(facts[letter][0] for letter in believed)
        assert volume.voxel_size == VoxelSize(*(facts[letter][1] for letter in believed))
        assert volume.offset == tuple(facts[letter][2] for letter in believed)
        expected = ARRAY.transpose(["zyx".index(letter) for letter in believed])
        np.testing.assert_array_equal(volume.read(), expected)
        box = Box(volume.offset, tuple(at + 2 for at in volume.offset))
        np.testing.assert_array_equal(volume.read(box), expected[:2, :2, :2])


def test_names_of_axes_in_zarr_metadata_are_believed(tmp_path: Path) -> None:
    xyz = np.ascontiguousarray(ARRAY.T)
    stored("zarr3", tmp_path / "three", xyz, dimension_names=["x", "y", "z"])
    stored("zarr", tmp_path / "two", xyz, chunks=[7, 6, 5])
    (tmp_path / "two" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["X", "Y", "Z"]}', "utf-8")
    for name in ("three", "two"):
        with open_volume(tmp_path / name) as volume:
            np.testing.assert_array_equal(volume.read(), ARRAY)


@pytest.mark.parametrize("names", [["a", "b", "c"], [None, "y", "x"], ["row", "column", "z"]])
def test_names_of_axes_that_say_nothing_are_left_aside(tmp_path: Path, names: list[Any]) -> None:
    stored("zarr3", tmp_path / "em", ARRAY, dimension_names=names)
    with open_volume(tmp_path / "em") as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)


def test_a_time_axis_is_not_taken_for_z(tmp_path: Path) -> None:
    stored("zarr3", tmp_path / "em", ARRAY, dimension_names=["t", "y", "x"])
    with pytest.raises(VolumeFormatError, match="has the axes t, y, x, and a volume needs z"):
        open_volume(tmp_path / "em")


def test_channel_axes_can_be_named_where_the_file_is_silent(tmp_path: Path) -> None:
    zyxc = np.ascontiguousarray(np.stack([ARRAY, ARRAY + 1000], axis=-1))
    stored("zarr3", tmp_path / "em", zyxc)
    with open_volume(tmp_path / "em", axes="zyxc", channel=1) as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY + 1000)
    with pytest.raises(VolumeFormatError, match="is 4-D"):
        open_volume(tmp_path / "em", axes="zyx")


def test_truth_values_are_read_as_numbers_and_hold_no_others(tmp_path: Path) -> None:
    is_odd = ARRAY % 2 == 1
    opened(
        "zarr3",
        tmp_path / "em",
        create=True,
        metadata={"shape": list(SHAPE), "data_type": "bool"},
    ).write(is_odd).result()
    with open_volume(tmp_path / "em", writable=True) as volume:
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume.read(), is_odd)
        volume.write(volume.box, (~is_odd).astype(np.uint8))
        np.testing.assert_array_equal(volume.read(), ~is_odd)
        with pytest.raises(LabelError, match="holds 0 and 1 only, not 2"):
            volume.write(volume.box, np.full(SHAPE, 2, np.uint8))


# --- kinds, encodings and shards ---------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.LABELS])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int16"])
def test_a_store_keeps_what_its_values_mean(
    tmp_path: Path, format_: str, kind: Kind, dtype: str
) -> None:
    uri = f"{format_}://{tmp_path / 'em'}"
    write(uri, ARRAY.astype(dtype), kind=kind)
    with open_volume(uri) as volume:
        assert volume.kind is kind
        np.testing.assert_array_equal(volume.read(), ARRAY.astype(dtype))
    if format_ == "precomputed":
        info = attributes(tmp_path / "em" / "info")
        assert info["type"] == {"image": "image", "labels": "segmentation"}[kind]


SMOOTH = np.add.outer(np.add.outer(np.arange(20), np.arange(30)), np.arange(40)).astype(np.uint8)


@pytest.mark.parametrize(
    ("encoding", "dtype", "error"),
    [
        ("raw", "float32", 0),
        ("compressed_segmentation", "uint64", 0),
        ("png", "uint8", 0),
        ("png", "uint16", 0),
        ("jpeg", "uint8", 8),
    ],
)
@pytest.mark.parametrize("shards", [None, (32, 32, 32)])
def test_every_encoding_of_precomputed_is_written_and_read(
    tmp_path: Path, encoding: str, dtype: str, error: int, shards: Any
) -> None:
    uri, array = f"precomputed://{tmp_path / 'em'}", SMOOTH.astype(dtype)
    write(uri, array, encoding=encoding, chunks=(16, 16, 16), shards=shards)
    (scale,) = attributes(tmp_path / "em" / "info")["scales"]
    assert scale["encoding"] == encoding
    with open_volume(uri) as volume:
        difference = volume.read().astype(int) - array.astype(int)
        assert np.abs(difference).max() <= error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cloudvolume = pytest.importorskip("cloudvolume")
        if encoding == "png":
            pytest.importorskip("pyspng", reason="cloud-volume reads png with pyspng")
        read = cloudvolume.CloudVolume(f"file://{tmp_path / 'em'}", progress=False)[:, :, :]
    difference = np.asarray(read)[..., 0].T.astype(int) - array.astype(int)
    assert np.abs(difference).max() <= error


@pytest.mark.parametrize(
    ("encoding", "dtype", "kind", "said"),
    [
        ("jpeg", "uint16", None, "jpeg holds uint8, not uint16"),
        ("png", "float32", None, "png holds uint8 and uint16, not float32"),
        ("compressed_segmentation", "uint16", Kind.LABELS, "holds uint32 and uint64, not uint16"),
        ("jpeg", "uint8", Kind.LABELS, "jpeg changes values"),
        ("zip", "uint8", None, "no encoding 'zip': choose one of raw"),
        (None, "float32", Kind.LABELS, "segmentations hold whole numbers, not float32"),
    ],
)
def test_an_encoding_that_does_not_fit_is_refused(
    tmp_path: Path, encoding: str | None, dtype: str, kind: Kind | None, said: str
) -> None:
    with pytest.raises(FloodemError, match=said):
        write(f"precomputed://{tmp_path / 'em'}", ARRAY.astype(dtype), encoding=encoding, kind=kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", ["zarr3", "precomputed"])
def test_a_shard_is_what_is_written_alone_and_a_chunk_what_is_read(
    tmp_path: Path, format_: str
) -> None:
    uri = f"{format_}://{tmp_path / 'em'}"
    array = np.random.default_rng(0).integers(0, 255, (40, 50, 60), np.uint8)
    facts = {"shape": array.shape, "dtype": "uint8", "voxel_size": VoxelSize(30, 6, 4)}
    with create_volume(
        uri, **facts, offset=(3, 5, 7), chunks=(8, 8, 8), shards=(16, 16, 16)
    ) as volume:
        assert volume.chunks == (16, 16, 16)
        for tile in tiles(volume.box, core=(16, 32, 16)):
            volume.write(tile.core, array[tile.core.slices(origin=volume.offset)])
    with open_volume(uri, writable=True) as volume:
        assert volume.chunks == (16, 16, 16)
        np.testing.assert_array_equal(volume.read(), array)
    with open_volume(uri) as volume:
        assert volume.chunks == (8, 8, 8)
    stored_files = [path for path in (tmp_path / "em").rglob("*") if path.is_file()]
    # Shards of 2 x 2 x 2 chunks: 3 x 4 x 4 of them, and one file of metadata.
    assert len(stored_files) <= 49


def test_a_sharded_store_is_written_by_whole_shards(tmp_path: Path) -> None:
    codec = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [2, 2, 2],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        },
    }
    metadata = {
        "shape": [8, 8, 8],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4, 4]}},
        "codecs": [codec],
    }
    opened("zarr3", tmp_path / "em", create=True, metadata=metadata)
    with open_volume(tmp_path / "em", writable=True) as volume:
        assert volume.chunks == (4, 4, 4)
        volume.write(Box((1, 1, 1), (7, 7, 7)), np.ones((6, 6, 6), np.uint8))
    with open_volume(tmp_path / "em") as volume:
        assert volume.read().sum() == 216


def test_shards_of_precomputed_are_near_to_what_was_asked(tmp_path: Path) -> None:
    """They hold a power of two of chunks, in the order of a Morton curve."""
    uri = f"precomputed://{tmp_path / 'em'}"
    facts = {"shape": (64, 256, 256), "dtype": "uint8", "voxel_size": VoxelSize(30, 6, 4)}
    volume = create_volume(uri, **facts, chunks=(16, 16, 16), shards=(64, 64, 64))
    assert volume.chunks == (64, 64, 64)
    volume.discard()
    volume = create_volume(uri, **facts, chunks=(16, 16, 16), shards=(16, 128, 128))
    assert volume.chunks == (64, 64, 64)
    volume.discard()
    volume = create_volume(uri, **facts, chunks=(16, 16, 16), shards=(1024, 1024, 1024))
    assert volume.chunks == facts["shape"]
    volume.discard()


@pytest.mark.parametrize("format_", ["zarr3", "precomputed"])
def test_shards_that_are_not_whole_chunks_are_refused(tmp_path: Path, format_: str) -> None:
    with pytest.raises(OptionError, match=r"not whole chunks of \(2, 3, 4\)"):
        write(f"{format_}://{tmp_path / 'em'}", shards=(4, 6, 9))
    with pytest.raises(OptionError, match=r"not whole chunks of \(64, 64, 64\)"):
        write(f"{format_}://{tmp_path / 'em'}", chunks=None, shards=(32, 32, 32))
    assert not list(tmp_path.iterdir())


def test_zarr2_and_n5_have_no_shards(tmp_path: Path) -> None:
    for format_ in ("zarr", "n5"):
        with pytest.raises(VolumeFormatError, match="have no shards"):
            write(f"{format_}://{tmp_path / 'em'}", shards=(4, 6, 8))


@pytest.mark.parametrize("key", ["../elsewhere", "/etc", "a/../../b"])
def test_a_scale_outside_the_volume_is_refused(tmp_path: Path, key: str) -> None:
    write(f"precomputed://{tmp_path / 'em'}")
    info = attributes(tmp_path / "em" / "info")
    info["scales"][0]["key"] = key
    (tmp_path / "em" / "info").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(UnsafeFileError, match="not inside it"):
        open_volume(f"precomputed://{tmp_path / 'em'}")


def test_shards_larger_than_memory_are_no_reason_not_to_read(tmp_path: Path) -> None:
    uri, shape = f"precomputed://{tmp_path / 'em'}", (2**16, 2**16, 2**16)
    facts = {"dtype": "uint64", "voxel_size": VoxelSize(8, 8, 8)}
    create_volume(uri, shape=shape, **facts, chunks=(64, 64, 64)).close()
    info = attributes(tmp_path / "em" / "info")
    info["scales"][0]["sharding"] = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": 9,
        "minishard_bits": 15,
        "shard_bits": 6,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
    (tmp_path / "em" / "info").write_text(json.dumps(info), encoding="utf-8")
    with open_volume(uri) as volume:
        assert volume.chunks == (64, 64, 64)
        assert not volume.read(Box((0, 0, 0), (64, 64, 64))).any()
    with pytest.raises(UnsafeFileError, match="declares chunks of"):
        open_volume(uri, writable=True)


def test_http_addresses_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="http addresses are for reading only: write to"):
        create_volume("zarr://http://127.0.0.1:9/em", shape=SHAPE, dtype="uint8")
