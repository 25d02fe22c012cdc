"""The historic coordinates, read by an independent slow parser: which, how often, what order."""

from __future__ import annotations

import collections
import gzip
import json
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from array_volume import ArrayVolume
from floodem.cli.sample import sample as sample_command
from floodem.errors import DestinationExistsError, GeometryError, OptionError, StorageError
from floodem.geometry import Box
from floodem.legacy.protobuf_wire import read_message
from floodem.legacy.records import balanced
from floodem.legacy.records.balanced import write_tfrecord
from floodem.legacy.records.gzip_stream import GzipStream
from floodem.legacy.records.packing import RecordWriter, masked_crc, varint
from floodem.training.coordinates.index import IndexedVolume
from floodem.training.coordinates.indexing import index_partitions
from floodem.volumes import create_volume


def frames(data):
    """The records of a TFRecord file, their checksums checked by another library."""
    at = 0
    while at < len(data):
        length, crc = data[at : at + 8], data[at + 8 : at + 12]
        assert unmasked(crc) == google_crc32c.value(length)
        size = int.from_bytes(length, "little")
        record, crc = data[at + 12 : at + 12 + size], data[at + 12 + size : at + 16 + size]
        assert unmasked(crc) == google_crc32c.value(record)
        yield record
        at += 16 + size
    assert at == len(data)


def unmasked(crc):
    rotated = (int.from_bytes(crc, "little") - 0xA282EAD8) % 2**32
    return (rotated >> 17 | rotated << 15) % 2**32


def fields(message):
    """All fields of a protobuf message, by hand."""
    at = 0
    while at < len(message):
        key, at = number(message, at)
        assert key % 8 == 2
        length, at = number(message, at)
        yield key // 8, message[at : at + length]
        at += length
    assert at == len(message)


def number(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def example(record):
    """Name and (x, y, z) of a record."""
    ((field, features),) = fields(record)
    assert field == 1
    found = {}
    for field, entry in fields(features):
        assert field == 1
        (key_field, key), (value_field, feature) = fields(entry)
        assert (key_field, value_field) == (1, 2)
        ((kind, values),) = fields(feature)
        ((one, content),) = fields(values)
        assert one == 1
        found[key.decode()] = (kind, content)
    assert set(found) == {"center", "label_volume_name"}
    kind, packed = found["center"]
    assert kind == 3
    centre, at = [], 0
    while at < len(packed):
        value, at = number(packed, at)
        centre.append(value - 2**64 if value >= 2**63 else value)
    kind, name = found["label_volume_name"]
    assert kind == 1
    return name.decode(), tuple(centre)


def read(path):
    return [example(record) for record in frames(gzip.decompress(path.read_bytes()))]


def partitions(shape, *, seed=0, values=(0, 1, 2, 3, 255)):
    random = np.random.default_rng(seed)
    array = random.choice(np.array(values, np.uint8), shape, p=[0.3, 0.05, 0.25, 0.3, 0.1])
    array[0, 0, 0] = 1
    return array


def index_of(arrays, *, margin=(0, 0, 0), offsets=None, background=False):
    volumes = []
    for n, (name, array) in enumerate(arrays.items()):
        start = offsets[n] if offsets else (0, 0, 0)
        box = Box.from_shape(array.shape, start=start)
        volumes.append((IndexedVolume(name=name, box=box), ArrayVolume(array, offset=start)))
    return index_partitions(volumes, margin=margin, background=background)


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.text(min_size=1, max_size=150), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_records_are_what_an_independent_parser_reads(names, seed, data):
    limits = [2**7, 2**14, 2**21, 2**28, 2**35, 2**62]
    near = sorted({limit + by for limit in limits for by in (-1, 0)} | {0, 1, -1, -(2**40)})
    count = data.draw(st.integers(1, 60))
    random = np.random.default_rng(seed)
    volumes = random.integers(len(names), size=count)
    centres = random.choice(np.array(near, np.int64), (3, count))
    made = RecordWriter(names).records(volumes, centres)
    found = [example(record) for record in frames(made.tobytes())]
    wanted = [
        (names[volume], tuple(centre))
        for volume, centre in zip(volumes.tolist(), centres.T.tolist(), strict=True)
    ]
    assert found == wanted


def test_a_record_has_the_bytes_that_the_encoding_asks_for():
    # tf.train.Example of center [24, 300, 7] and name "v1", written out by hand.
    made = RecordWriter(["v1"]).records(np.array([0]), np.array([[24], [300], [7]]))
    data = bytes.fromhex(
        "0a310a120a0663656e74657212081a060a0418ac0207"
        "0a1b0a116c6162656c5f766f6c756d655f6e616d6512060a040a027631"
    )
    assert made.tobytes()[12:-4] == data
    assert [field for field, _ in read_message(data)] == [1]
    assert made.tobytes()[:8] == len(data).to_bytes(8, "little")


@given(st.integers(0, 2**64 - 1))
def test_variable_length_numbers_come_back(value):
    assert number(varint(value), 0) == (value, len(varint(value)))


def test_every_partition_has_as_many_records_as_the_largest(tmp_path):
    arrays = {"left": partitions((20, 24, 28)), "right": partitions((30, 10, 12), seed=1)}
    index = index_of(arrays, margin=(1, 2, 3))
    result = write_tfrecord(index, tmp_path / "coords")
    found = read(tmp_path / "coords")
    voxels = collections.Counter()
    wanted = {}
    for name, array in arrays.items():
        inner = array[1:-1, 2:-2, 3:-3]
        for z, y, x in np.argwhere((inner > 0) & (inner < 255)).tolist():
            wanted[name, (x + 3, y + 2, z + 1)] = int(inner[z, y, x])
            voxels[int(inner[z, y, x])] += 1
    largest = max(voxels.values())
    assert result.records == len(found) == 3 * largest
    assert result.voxels == dict(sorted(voxels.items()))
    times = collections.Counter(found)
    assert set(times) == set(wanted)
    for partition, count in voxels.items():
        repeats = [times[key] for key in wanted if wanted[key] == partition]
        assert sum(repeats) == largest
        assert {largest // count} <= set(repeats) <= {largest // count, -(-largest // count)}


def test_the_order_is_shuffled_and_repeats_with_its_seed(tmp_path, monkeypatch):
    # Small buckets and batches, so that many of both take part.
    monkeypatch.setattr(balanced, "BUCKET_RECORDS", 500)
    monkeypatch.setattr(balanced, "_DEALT_RECORDS", 700)
    monkeypatch.setattr(balanced, "CHUNK_RECORDS", 100)
    array = partitions((20, 24, 28))
    index = index_of({"a": array})
    orders = []
    for seed in (0, 0, 1):
        write_tfrecord(index, tmp_path / "coords", seed=seed, overwrite=True)
        orders.append(read(tmp_path / "coords"))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) != orders[0]
    values = np.array([array[z, y, x] for _, (x, y, z) in orders[0]], float)
    places = np.array([x + 28 * (y + 24 * z) for _, (x, y, z) in orders[0]], float)
    for series in (values, places):
        centred = (series - series.mean()) / series.std()
        for lag in (1, 2, 100, 500):
            assert abs(np.mean(centred[lag:] * centred[:-lag])) < 4.5 / np.sqrt(len(series))
        thirds = [part.mean() for part in np.array_split(centred, 3)]
        assert max(map(abs, thirds)) < 4.5 / np.sqrt(len(series) / 3)


def test_a_partition_of_one_voxel_is_repeated_in_bounded_batches(monkeypatch):
    monkeypatch.setattr(balanced, "_DEALT_RECORDS", 1000)
    array = np.full((10, 30, 30), 2, np.uint8)
    array[0, 0, 0] = 1
    centres = balanced._Resampled(index_of({"a": array}))
    batches = list(centres.batches(np.random.default_rng(0)))
    assert sum(len(batch) for batch in batches) == 2 * 8999
    assert max(len(batch) for batch in batches[:-1]) <= 8999
    one = [batch for batch in batches if len(batch) and np.all(batch == 0)]
    assert max(len(batch) for batch in one) <= 1000


def test_shards_hold_everything_once(tmp_path):
    index = index_of({"a": partitions((12, 13, 14))})
    write_tfrecord(index, tmp_path / "whole")
    result = write_tfrecord(index, tmp_path / "coords.gz", shards=7)
    names = [f"coords.gz-{n:05}-of-00007" for n in range(7)]
    assert [path.name for path in result.paths] == names
    found = [read(path) for path in result.paths]
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert [one for part in found for one in part] == read(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "whole"]


def test_coordinates_of_volumes_with_an_offset_are_in_their_frame(tmp_path):
    arrays = {"a": partitions((8, 9, 10)), "b": partitions((8, 9, 10), seed=2)}
    index = index_of(arrays, offsets=[(1000, 20, -5), (0, 0, 0)])
    write_tfrecord(index, tmp_path / "coords")
    for name, (x, y, z) in set(read(tmp_path / "coords")):
        start = (1000, 20, -5) if name == "a" else (0, 0, 0)
        assert arrays[name][z - start[0], y - start[1], x - start[2]] in {1, 2, 3}


def test_background_is_one_more_partition_only_when_asked_for(tmp_path, capsys):
    array = partitions((12, 13, 14))
    uri = f"{tmp_path / 'af.h5'}@af"
    with create_volume(uri, shape=array.shape, dtype="uint8") as volume:
        volume.write(volume.box, array)
    target = str(tmp_path / "coords")
    sample_command([f"v={uri}"], target, margin="0,0,0", tfrecord=True)
    assert "--legacy-background keeps it" in capsys.readouterr().out
    assert {array[z, y, x] for _, (x, y, z) in read(tmp_path / "coords")} == {1, 2, 3}
    sample_command(
        [f"v={uri}"],
        target,
        margin="0,0,0",
        tfrecord=True,
        legacy_background=True,
        overwrite=True,
        shards=2,
    )
    assert "is kept" in capsys.readouterr().out
    found = [one for n in (0, 1) for one in read(tmp_path / f"coords-0000{n}-of-00002")]
    counts = collections.Counter(array[z, y, x] for _, (x, y, z) in found)
    assert set(counts) == {0, 1, 2, 3}
    assert len(set(counts.values())) == 1
    sample_command(
        [f"v={uri}"], target, margin="0,0,0", tfrecord=True, overwrite=True, as_json=True
    )
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 3 * max(told["voxels"].values())
    assert told["background"] is False


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path):
    index = index_of({"a": partitions((5, 5, 5))})
    (tmp_path / "coords-00001-of-00002").write_text("old", encoding="utf-8")
    with pytest.raises(DestinationExistsError):
        write_tfrecord(index, tmp_path / "coords", shards=2)
    with pytest.raises(OptionError, match="do not fill 1000 files: ask for fewer shards"):
        write_tfrecord(index, tmp_path / "coords", shards=1000)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        write_tfrecord(index, tmp_path / "folder", overwrite=True)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["coords-00001-of-00002", "folder"]
    wide = index_of({"a": partitions((5, 5, 5))})
    object.__setattr__(
        wide, "volumes", (IndexedVolume(name="a", box=Box((0, 0, 0), (2**30, 2**30, 2**30))),)
    )
    with pytest.raises(GeometryError, match="too large for one file of coordinates"):
        write_tfrecord(wide, tmp_path / "coords")


def test_a_failure_half_way_leaves_the_old_shards(tmp_path, monkeypatch):
    index = index_of({"a": partitions((12, 13, 14))})
    write_tfrecord(index, tmp_path / "coords", shards=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    made = RecordWriter.records
    calls = iter(range(100))

    def fail(self, *arguments):
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        return made(self, *arguments)

    monkeypatch.setattr(RecordWriter, "records", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_tfrecord(index, tmp_path / "coords", shards=3, seed=1, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@given(st.lists(st.binary(max_size=3000), max_size=9), st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_chunks_become_one_gzip_member(chunks, ahead):
    class Sink(list):
        def write(self, data):
            self.append(bytes(data))

    sink = Sink()
    with (
        ThreadPoolExecutor(2) as pool,
        GzipStream(sink, pool=pool, ahead=ahead) as stream,
    ):
        for chunk in chunks:
            stream.write(np.frombuffer(chunk, np.uint8))
    # Many readers know only one member.
    reader = zlib.decompressobj(31)
    assert reader.decompress(b"".join(sink)) == b"".join(chunks)
    assert reader.eof
    assert reader.unused_data == b""


def test_checksums_are_those_of_the_format():
    # RFC 3720 B.4 gives 0x8a9136aa for 32 zeros; TensorFlow then masks it.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory has other units elsewhere")
def test_millions_of_records_take_less_than_half_a_gigabyte(tmp_path):
    array = np.random.default_rng(0).integers(1, 14, (100, 300, 400), np.uint8)
    with create_volume(tmp_path / "af.h5", shape=array.shape, dtype="uint8") as volume:
        volume.write(volume.box, array)
    script = (
        "import resource, sys; from floodem.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = ["sample", f"v={tmp_path / 'af.h5'}", str(tmp_path / "coords"), "--tfrecord"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *command, "--margin", "0,0,0"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(ended.stdout.splitlines()[-1]) < 500_000
