"""Shards: what goes in comes out, here, in tensorstore, in CloudVolume and by the specification."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import FloodemError, LabelError, OptionError, VolumeFormatError
from floodem.shapes.precomputed import (
    ShardingSpec,
    ShardReader,
    choose_sharding,
    sharding,
    shards,
    writing_shard,
)
from reference import sharding as twin

IDS = st.integers(0, 2**64 - 1)
SPECS = st.builds(
    ShardingSpec,
    preshift_bits=st.integers(0, 12),
    hash=st.sampled_from(["identity", "murmurhash3_x86_128"]),
    minishard_bits=st.integers(0, 4),
    shard_bits=st.integers(0, 6),
    minishard_index_encoding=st.sampled_from(["raw", "gzip"]),
    data_encoding=st.sampled_from(["raw", "gzip"]),
)
OBJECTS = st.dictionaries(IDS, st.binary(max_size=40), max_size=20)


def write_all(folder: Path, objects: dict[int, bytes], *, spec: ShardingSpec) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shard, ids in spec.group_by_shard(np.array(list(objects), np.uint64)).items():
        with writing_shard(folder, shard, spec=spec) as writer:
            for one in ids.tolist():
                writer.add(one, objects[one])


@settings(deadline=None)
@given(keys=st.lists(IDS, max_size=20))
def test_the_hash_is_that_of_its_definition(keys: list[int]) -> None:
    hashes = sharding.murmurhash3(np.array(keys, np.uint64))

    assert hashes.tolist() == [twin.murmurhash3_x86_128_low64(key) for key in keys]


@settings(deadline=None)
@given(spec=SPECS, keys=st.lists(IDS, max_size=20))
def test_ids_lie_where_the_specification_says(spec: ShardingSpec, keys: list[int]) -> None:
    ids = np.array(keys, np.uint64)
    pairs = list(zip(spec.shard_of(ids).tolist(), spec.minishard_of(ids).tolist(), strict=True))

    assert pairs == [twin.location(spec.to_json(), key) for key in keys]


@settings(deadline=None)
@given(spec=SPECS, keys=st.lists(IDS, max_size=20))
def test_every_id_is_in_one_group_and_groups_ascend(spec: ShardingSpec, keys: list[int]) -> None:
    groups = spec.group_by_shard(np.array(keys, np.uint64))

    assert sorted(one for group in groups.values() for one in group.tolist()) == sorted(set(keys))
    for shard, group in groups.items():
        assert (spec.shard_of(group) == shard).all()
        assert group.tolist() == sorted(group.tolist())


@settings(deadline=None, max_examples=60)
@given(spec=SPECS, objects=OBJECTS)
def test_what_goes_in_comes_out_here_and_by_the_specification(
    spec: ShardingSpec, objects: dict[int, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_all(folder, objects, spec=spec)
    reader = ShardReader(folder, spec=spec)

    assert {one: reader.read(one) for one in objects} == objects
    assert sorted(reader.ids()) == sorted(objects)
    for one, data in objects.items():
        shard = (folder / spec.file_name(twin.location(spec.to_json(), one)[0])).read_bytes()
        assert twin.read(spec.to_json(), shard, one) == data


@settings(deadline=None, max_examples=25)
@given(spec=SPECS, objects=OBJECTS, absent=IDS)
def test_tensorstore_reads_shards(
    spec: ShardingSpec,
    objects: dict[int, bytes],
    absent: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tensorstore = pytest.importorskip("tensorstore")
    folder = tmp_path_factory.mktemp("shards")
    write_all(folder, objects, spec=spec)

    store = tensorstore.KvStore.open(
        {
            "driver": "neuroglancer_uint64_sharded",
            "metadata": spec.to_json(),
            "base": {"driver": "file", "path": f"{folder}/"},
        }
    ).result()

    for one in {*objects, absent}:
        found = store.read(one.to_bytes(8, "big")).result()
        assert (found.value if found.state == "value" else None) == objects.get(one)


@settings(deadline=None, max_examples=15)
@given(spec=SPECS, objects=OBJECTS)
def test_cloudvolume_looks_into_the_same_shards(
    spec: ShardingSpec, objects: dict[int, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("cloudvolume")
    from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

    folder = tmp_path_factory.mktemp("shards")
    write_all(folder, objects, spec=spec)
    theirs = ShardingSpecification.from_dict(spec.to_json())

    for one in objects:
        name = f"{theirs.compute_shard_location(one).shard_number}.shard"
        assert (folder / name).is_file()


def test_the_same_objects_make_the_same_file_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ShardingSpec(minishard_bits=2, shard_bits=1)
    objects = {one: bytes([one]) * one for one in range(1, 60)}
    for seconds, name in enumerate(("a", "b")):
        monkeypatch.setattr("time.time", lambda seconds=seconds: 1e9 + seconds)
        write_all(tmp_path / name, objects, spec=spec)

    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_fragments_stand_as_they_are_right_before_the_manifest(tmp_path: Path) -> None:
    spec = ShardingSpec(minishard_bits=0, shard_bits=0)
    with writing_shard(tmp_path, 0, spec=spec) as writer:
        writer.add(3, b"manifest of 3", fragments=b"pieces of 3")
        writer.add(4, b"manifest of 4", fragments=b"pieces of 4")
    reader = ShardReader(tmp_path, spec=spec)

    for one in (3, 4):
        place = reader.find(one)
        assert place is not None
        start = place.start - len(b"pieces of 3")
        assert shards.read_range(place.path, start, size=11) == f"pieces of {one}".encode()
        assert reader.read(one) == f"manifest of {one}".encode()


@pytest.mark.parametrize("ids", [[5, 5], [5, 4], [2**64], [-1]])
def test_ids_that_do_not_ascend_or_fit_are_refused(ids: list[int], tmp_path: Path) -> None:
    spec = ShardingSpec(minishard_bits=0, shard_bits=0)

    def write() -> None:
        with writing_shard(tmp_path, 0, spec=spec) as writer:
            for one in ids:
                writer.add(one, b"data")

    with pytest.raises(LabelError, match=f"id {ids[-1]}"):
        write()

    assert list(tmp_path.iterdir()) == []


def test_an_id_of_another_shard_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    spec = ShardingSpec(minishard_bits=0, shard_bits=1, hash="identity")
    (tmp_path / "0.shard").write_bytes(b"old")
    with (
        pytest.raises(LabelError, match="id 1 belongs to shard 1"),
        writing_shard(tmp_path, 0, spec=spec) as writer,
    ):
        writer.add(1, b"data")

    assert (tmp_path / "0.shard").read_bytes() == b"old"


def test_ids_that_are_not_there_give_none(tmp_path: Path) -> None:
    spec = ShardingSpec(minishard_bits=1, shard_bits=1, hash="identity")
    write_all(tmp_path, {4: b"four"}, spec=spec)
    reader = ShardReader(tmp_path, spec=spec)

    # In its minishard, in an empty minishard, in a shard that is not there, and no id at all.
    assert [reader.read(one) for one in (8, 5, 6, -1, 2**64)] == [None] * 5


@settings(deadline=None)
@given(count=st.integers(0, 10**10), total_bytes=st.integers(0, 10**15))
def test_chosen_shards_are_of_bearable_size(count: int, total_bytes: int) -> None:
    spec = choose_sharding(count, total_bytes)
    parts = 2 ** (spec.shard_bits + spec.minishard_bits)

    assert total_bytes / 2**spec.shard_bits <= 256 * 2**20
    assert count / parts <= 512
    assert spec.minishard_bits <= 9
    # And there are no more shards than either asks for.
    least = max(count / 512 / 512, total_bytes / 2**28)
    assert 2**spec.shard_bits <= max(2 * math.ceil(least), 1)


def test_a_few_objects_make_one_shard() -> None:
    assert choose_sharding(254, 10**6) == ShardingSpec(minishard_bits=0, shard_bits=0)


@settings(deadline=None)
@given(spec=SPECS)
def test_a_specification_survives_json(spec: ShardingSpec) -> None:
    again = ShardingSpec.from_json(json.loads(json.dumps(spec.to_json())), uri="info")

    assert again == spec


@pytest.mark.parametrize(
    "changed",
    [
        {"@type": "neuroglancer_uint64_sharded_v2"},
        {"hash": "sha256"},
        {"minishard_bits": 40},
        {"shard_bits": -1},
        {"shard_bits": "3"},
        {"shard_bits": None},
        {"preshift_bits": 64},
        {"minishard_bits": True},
        {"data_encoding": ["gzip"]},
        {"hash": {}},
    ],
)
def test_impossible_specifications_are_refused(changed: dict) -> None:
    values = ShardingSpec(minishard_bits=1, shard_bits=1).to_json() | changed

    with pytest.raises(VolumeFormatError, match="sharding specification"):
        ShardingSpec.from_json(values, uri="info")


def test_impossible_options_are_refused() -> None:
    with pytest.raises(OptionError, match="minishard_bits"):
        ShardingSpec(minishard_bits=99, shard_bits=0)
    with pytest.raises(OptionError, match="-1 objects"):
        choose_sharding(-1, 0)


@settings(deadline=None, max_examples=300)
@given(
    spec=SPECS,
    objects=st.dictionaries(IDS, st.binary(max_size=40), min_size=1, max_size=6),
    data=st.data(),
)
def test_damaged_shards_give_one_clear_error_or_what_was_there(
    spec: ShardingSpec,
    objects: dict[int, bytes],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_all(folder, objects, spec=spec)
    one = data.draw(st.sampled_from(sorted(objects)))
    path = folder / spec.file_name(twin.location(spec.to_json(), one)[0])
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.sampled_from([len(damaged), len(damaged) // 2]))])

    reader = ShardReader(folder, spec=spec, max_object_bytes=2**16)
    with contextlib.suppress(FloodemError):
        found = reader.read(one)
        assert found is None or len(found) <= 2**16
        assert len(list(reader.ids())) <= len(damaged)


def test_a_shard_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    spec = ShardingSpec(minishard_bits=0, shard_bits=0)
    packing = zlib.compressobj(wbits=31)
    bomb = packing.compress(bytes(2**26)) + packing.flush()
    with writing_shard(tmp_path, 0, spec=spec) as writer:
        writer.add(1, b"", fragments=b"")
    path = tmp_path / "0.shard"
    path.write_bytes(struct.pack("<QQ", 0, len(bomb)) + bomb)

    reader = ShardReader(tmp_path, spec=spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MAX_MINISHARD_INDEX_BYTES", 2**20)
        with pytest.raises(VolumeFormatError, match="unpacks to more than"):
            reader.read(1)
