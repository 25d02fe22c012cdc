"""TFRecord files of coordinates: both schemas come back as written, and damage is found."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.cli.sample import sample as sample_command
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    GeometryError,
    OptionError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box
from floodem.legacy.records import framing, reading, stream
from floodem.legacy.records.listing import list_centres, list_of
from floodem.legacy.records.names import record_files
from floodem.legacy.records.reading import CoordinateRecords, RecordReader, read_records
from floodem.legacy.records.writing import write_records
from floodem.training.coordinates.centre_list import CentreList, CentreListWriter
from floodem.training.coordinates.loading import load_coordinates
from floodem.training.coordinates.samplers import make_sampler
from reference import tfrecord

NUMBERS = st.one_of(
    st.integers(0, 600),
    st.sampled_from([2**k + by for k in (7, 14, 21, 28, 35, 62) for by in (-1, 0)]),
    st.integers(-(2**63), 2**63 - 1),
)
CENTRES = st.tuples(NUMBERS, NUMBERS, NUMBERS)
NAMES = st.sampled_from([b"a", b"validation1", "Gewebe-Ä".encode(), b"x" * 300])
RADII = st.floats(width=32, allow_nan=False)


def historic_message(draw):
    name, centre = draw(NAMES), draw(CENTRES)
    packed = draw(st.booleans())
    return tfrecord.historic(name, centre, packed=packed), (name.decode(), centre, None)


def newer_message(draw):
    name, centre = draw(NAMES), draw(CENTRES)
    more = {
        "label": draw(st.none() | NUMBERS),
        "segment_id": draw(st.none() | NUMBERS),
        "radius": draw(st.none() | RADII),
    }
    message = tfrecord.newer(name, centre, packed=draw(st.booleans()), **more)
    return message, (name.decode(), centre, tuple(value or 0 for value in more.values()))


@st.composite
def some_messages(draw):
    """Messages, mostly historic and newer ones by turns, and what each of them says."""
    kinds = draw(st.lists(st.sampled_from([newer_message, historic_message]), max_size=40))
    return [kind(draw) for kind in kinds]


def told(batches):
    """What batches say, record by record."""
    found = []
    for batch in batches:
        for row in range(len(batch)):
            more = None
            if batch.labels is not None:
                more = (
                    int(batch.labels[row]),
                    int(batch.segment_ids[row]),
                    float(batch.radii[row]),
                )
            name = batch.names[batch.volumes[row]]
            found.append((name, tuple(batch.centres_xyz[row].tolist()), more))
    return found


def stored(folder, messages, *, members=0, name="coords"):
    path = folder / name
    path.write_bytes(tfrecord.file_bytes(messages, members=members))
    return str(path)


def many(count, *, name=b"v1", seed=0):
    random = np.random.default_rng(seed)
    return [tfrecord.historic(name, row) for row in random.integers(0, 500, (count, 3)).tolist()]


@settings(deadline=None, max_examples=60)
@given(some_messages(), st.integers(0, 3), st.sampled_from([1, 70, 2**22]))
def test_what_an_independent_writer_wrote_is_read_in_order(
    tmp_path_factory, made, members, chunk_bytes
):
    path = stored(tmp_path_factory.mktemp("r"), [message for message, _ in made], members=members)
    with pytest.MonkeyPatch.context() as patch:
        # Records then lie across the ends of chunks.
        patch.setattr(stream, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(framing, "CHUNK_BYTES", chunk_bytes)
        assert told(read_records(path)) == [what for _, what in made]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 2), CENTRES, NUMBERS, NUMBERS, RADII), max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_both_schemas_come_back_as_written(tmp_path_factory, rows, is_newer, compressed):
    path = tmp_path_factory.mktemp("w") / "coords"
    names = ("left", "right", "Mitte ö")
    more = {}
    if is_newer:
        more = {
            "labels": np.array([row[2] for row in rows], np.int64),
            "segment_ids": np.array([row[3] for row in rows], np.int64),
            "radii": np.array([row[4] for row in rows], np.float32),
        }
    batch = CoordinateRecords(
        names=names,
        volumes=np.array([row[0] for row in rows], np.int64),
        centres_xyz=np.array([row[1] for row in rows], np.int64).reshape(-1, 3),
        **more,
    )
    assert write_records([batch, batch], path, compressed=compressed) == 2 * len(rows)
    assert told(read_records(str(path))) == 2 * told([batch])
    data = path.read_bytes()
    messages, _ = tfrecord.unframe(gzip.decompress(data) if compressed else data)
    assert len(messages) == 2 * len(rows)
    for row, message in zip(2 * rows, messages, strict=True):
        values = tfrecord.parse(message)
        if is_newer:
            assert values == {
                b"coord": row[1],
                b"volname": names[row[0]].encode(),
                b"label": (row[2],),
                b"segment_id": (row[3],),
                b"radius": (np.float32(row[4]),),
            }
        else:
            assert values == {b"center": row[1], b"label_volume_name": names[row[0]].encode()}


def test_features_come_in_any_order_and_unknown_ones_are_left_alone(tmp_path):
    other = (b"weight", tfrecord.floats([0.5]))
    centre, name = (b"center", tfrecord.int64s([1, 2, 3])), tfrecord.texts([b"v"])
    messages = [
        tfrecord.example([(b"label_volume_name", name), other, centre]),
        tfrecord.example([other, centre, (b"label_volume_name", name)]),
        tfrecord.example([centre, (b"label_volume_name", name), (b"ids", tfrecord.int64s([]))]),
    ]
    assert told(read_records(stored(tmp_path, messages))) == 3 * [("v", (1, 2, 3), None)]


def test_more_kinds_of_records_than_templates_are_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MOST_TEMPLATES", 5)
    made = [(f"v{n % 60}", (n, 2 * n, 7)) for n in range(300)]
    messages = [tfrecord.historic(name.encode(), centre) for name, centre in made]
    found = told(read_records(stored(tmp_path, messages)))
    assert found == [(name, centre, None) for name, centre in made]


def test_a_reader_knows_the_names_of_all_its_files(tmp_path):
    files = [
        stored(tmp_path, [tfrecord.historic(name, (1, 2, 3))], name=name.decode())
        for name in (b"one", b"two", b"one again")
    ]
    reader = RecordReader()
    for file in files:
        list(reader.read(file))
    assert reader.names == ("one", "two", "one again")


@pytest.mark.parametrize("members", [0, 1])
def test_every_single_flipped_bit_is_found_and_named(tmp_path, members):
    messages = many(3)
    whole = tfrecord.file_bytes(messages)
    ends = np.cumsum([16 + len(message) for message in messages])
    for at in range(len(whole)):
        for bit in (0, 3, 7):
            broken = bytearray(whole)
            broken[at] ^= 1 << bit
            data = gzip.compress(bytes(broken), 1) if members else bytes(broken)
            path = tmp_path / "coords"
            path.write_bytes(data)
            with pytest.raises(VolumeFormatError, match=r"record \d+ ") as found:
                list(read_records(str(path)))
            record = int(np.searchsorted(ends, at, side="right"))
            begin = int(ends[record] - 16 - len(messages[record]))
            assert f"record {record} " in str(found.value)
            assert f"at byte {begin}" in str(found.value)


def test_the_first_damaged_record_of_a_long_file_is_named(tmp_path):
    messages = many(3000)
    whole = bytearray(tfrecord.file_bytes(messages))
    starts = np.cumsum([0] + [16 + len(message) for message in messages])
    for record in (2900, 1234, 1235):
        whole[starts[record] + 40] ^= 1
    (tmp_path / "coords").write_bytes(whole)
    with pytest.raises(VolumeFormatError) as found:
        list(read_records(str(tmp_path / "coords")))
    assert f"record 1,234 of {tmp_path / 'coords'}, at byte {starts[1234]:,}" in str(found.value)
    assert "does not fit its checksum" in str(found.value)


@pytest.mark.parametrize("members", [0, 1, 3])
def test_a_file_cut_short_anywhere_gives_an_error_that_names_where(tmp_path, members):
    messages = many(12)
    data = tfrecord.file_bytes(messages, members=members)
    ends = {0, *np.cumsum([16 + len(message) for message in messages]).tolist()}
    path = tmp_path / "coords"
    for cut in range(1, len(data), 1 if members else 3):
        path.write_bytes(data[:cut])
        if not members and cut in ends:
            assert len(told(read_records(str(path)))) == sorted(ends).index(cut)
            continue
        with pytest.raises(VolumeFormatError, match="record") as found:
            list(read_records(str(path)))
        if not members:
            after = [end for end in sorted(ends) if end < cut]
            assert f"record {len(after) - 1} " in str(found.value)
            assert f"at byte {after[-1]}" in str(found.value)


@settings(deadline=None, max_examples=120)
@given(st.binary(max_size=400), st.integers(0, 2))
def test_any_bytes_give_records_or_one_sentence(tmp_path_factory, data, how):
    path = tmp_path_factory.mktemp("f") / "coords"
    good = tfrecord.file_bytes(many(2))
    path.write_bytes([data, good + data, tfrecord.frame(data)][how])
    expected, _ = tfrecord.unframe(path.read_bytes())
    sentence = None
    try:
        assert len(told(read_records(str(path)))) == len(expected)
    except VolumeFormatError as error:
        sentence = str(error)
    assert sentence is None or str(path) in sentence


def test_declared_lengths_and_bombs_take_no_memory(tmp_path):
    huge = (2**60).to_bytes(8, "little")
    path = tmp_path / "coords"
    crc = tfrecord.mask(tfrecord.crc32c(huge)).to_bytes(4, "little")
    path.write_bytes(huge + crc + bytes(100))
    with pytest.raises(VolumeFormatError, match="has 1,152,921,504,606,846,976 bytes, more than"):
        list(read_records(str(path)))
    path.write_bytes(gzip.compress(bytes(2**28), 9))
    tracemalloc.start()
    try:
        with pytest.raises(VolumeFormatError, match="no TFRecord file"):
            list(read_records(str(path)))
        assert tracemalloc.get_traced_memory()[1] < 6 * stream.CHUNK_BYTES
    finally:
        tracemalloc.stop()


def test_other_files_and_other_records_are_refused_by_what_they_hold(tmp_path):
    path = tmp_path / "coords"
    path.write_bytes(b"z,y,x\n1,2,3\n" * 20)
    with pytest.raises(VolumeFormatError, match="is no TFRecord file of coordinates, or a damaged"):
        list(read_records(str(path)))
    image = tfrecord.example([(b"image/encoded", tfrecord.texts([b"png"]))])
    with pytest.raises(VolumeFormatError, match="no coordinates among its features.*image/enc"):
        list(read_records(stored(tmp_path, [image])))
    flat = tfrecord.example([(b"center", tfrecord.int64s([1, 2])), (b"label_volume_name", b"")])
    with pytest.raises(VolumeFormatError, match=r"record 2 of .* a center of 2 numbers"):
        list(read_records(stored(tmp_path, [*many(2), flat])))
    with pytest.raises(FloodemError, match="No such file"):
        list(read_records(str(tmp_path / "nothing")))


def test_zeros_behind_gzip_are_padding_and_anything_else_is_not(tmp_path):
    path = tmp_path / "coords"
    path.write_bytes(tfrecord.file_bytes(many(5), members=2) + bytes(700))
    assert len(told(read_records(str(path)))) == 5
    path.write_bytes(tfrecord.file_bytes(many(5), members=2) + bytes(7) + b"more")
    with pytest.raises(VolumeFormatError, match="compressed bytes are damaged"):
        list(read_records(str(path)))


def test_writing_refuses_half_a_schema_and_leaves_what_is_there(tmp_path):
    path = tmp_path / "coords"
    path.write_text("old", encoding="utf-8")
    zeros = np.zeros(2, np.int64)
    batch = CoordinateRecords(
        names=("a",), volumes=zeros, centres_xyz=np.zeros((2, 3), np.int64), labels=zeros
    )
    with pytest.raises(DestinationExistsError):
        write_records([batch], path)
    with pytest.raises(OptionError, match="labels, segment_ids and radii"):
        write_records([batch], path, overwrite=True)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def shards(folder, count, *, name="coords", after="", left_out=()):
    files = []
    for n in range(count):
        file = folder / f"{name}-{n:05}-of-{count:05}{after}"
        if n not in left_out:
            file.write_bytes(
                tfrecord.file_bytes([tfrecord.historic(b"v", (n, 0, 0))], members=n % 2)
            )
        files.append(str(file))
    return files


@pytest.mark.parametrize(
    "pattern",
    ["coords@4.gz", "coords-*-of-00004.gz", "coords-?????-of-00004.gz", "coords-of-00004.gz"],
)
def test_all_ways_to_name_shards_mean_them_in_order(tmp_path, pattern):
    files = shards(tmp_path, 4, after=".gz")
    (tmp_path / "coords-00000-of-00009.gz").write_bytes(b"")
    assert record_files(str(tmp_path / pattern)) == files
    (tmp_path / "coords-00002-of-00004.gz").unlink()
    with pytest.raises(VolumeNotFoundError, match=r"of the 4 files of .*, coords-00002-of-00004"):
        record_files(str(tmp_path / pattern))
    with pytest.raises(VolumeNotFoundError, match="none of the 4 files"):
        record_files(str(tmp_path / f"other{pattern[6:]}"))


def test_globs_and_lists_of_names(tmp_path):
    files = shards(tmp_path, 3) + shards(tmp_path, 2, name="more")
    assert record_files(str(tmp_path / "*-of-*")) == files
    assert record_files(str(tmp_path / "*-*-of-*")) == files
    assert record_files(f"{tmp_path / 'more@2'},{tmp_path / 'coords-0000[02]*'}") == [
        *files[3:],
        files[0],
        files[2],
    ]
    (tmp_path / "a@2,b*").write_bytes(b"")
    assert record_files(str(tmp_path / "a@2,b*")) == [str(tmp_path / "a@2,b*")]
    (tmp_path / "coords-00001-of-00003").unlink()
    assert len(record_files(str(tmp_path / "*-of-00003"))) == 2
    with pytest.raises(VolumeNotFoundError, match="coords-00001-of-00003 are missing"):
        record_files(str(tmp_path / "coords-*-of-*"))
    with pytest.raises(VolumeNotFoundError, match="no file is called"):
        record_files(str(tmp_path / "nothing*"))
    for wrong in ("", "a,,b", "coords@0", "coords@123456"):
        with pytest.raises(UsageError):
            record_files(wrong)
    assert record_files(str(tmp_path / "single")) == [str(tmp_path / "single")]


def all_centres(files):
    return [told(read_records(file))[0][1] for file in files]


def test_shards_on_a_web_server_are_counted_and_read_by_ranges(tmp_path, no_servers, web):
    shards(tmp_path, 5, after=".gz")
    for pattern in ("coords-*-of-00005.gz", "coords@5.gz"):
        files = record_files(f"{web.address}/{pattern}")
        assert files == [f"{web.address}/coords-{n:05}-of-00005.gz" for n in range(5)]
    web.asked.clear()
    assert all_centres(files) == [(n, 0, 0) for n in range(5)]
    assert all("range" in asked.headers for asked in web.asked if asked.method == "GET")
    (tmp_path / "coords-00003-of-00005.gz").unlink()
    with pytest.raises(VolumeNotFoundError, match=r"files of http.*coords-00003-of-00005\.gz are"):
        record_files(f"{web.address}/coords@5.gz")
    with pytest.raises(UsageError, match="http has no lists"):
        record_files(f"{web.address}/coords*")


def test_shards_in_buckets_are_listed_or_counted(tmp_path, no_servers, bucket):
    for file in map(Path, shards(tmp_path, 3)):
        bucket.put(f"deep/er/{file.name}", file.read_bytes())
    root = f"{bucket.root}/deep"
    wanted = [f"{root}/er/coords-{n:05}-of-00003" for n in range(3)]
    for pattern in (
        "er/coords-*-of-00003",
        "er/coords@3",
        "er/co*",
        "*/coords*",
        "e?/coords-*-of-*",
    ):
        assert record_files(f"{root}/{pattern}") == wanted
    assert all_centres(wanted) == [(n, 0, 0) for n in range(3)]
    del bucket.objects["deep/er/coords-00001-of-00003"]
    with pytest.raises(VolumeNotFoundError, match="coords-00001-of-00003 are missing"):
        record_files(f"{root}/er/coords@3")
    with pytest.raises(VolumeNotFoundError, match="no file is called"):
        record_files(f"{root}/*/nothing*")


def listed(centres):
    return [centres.draw(number) for number in range(len(centres))]


def test_a_list_holds_the_centres_of_all_files_in_their_order(tmp_path):
    made = [("left", (3, 2, 1)), ("right", (-5, 0, 400)), ("left", (9, 9, 9)), ("third", (1, 1, 1))]
    for shard, part in enumerate((made[:1], made[1:3], made[3:])):
        messages = [
            tfrecord.newer(name.encode(), centre, label=1)
            if shard == 1
            else tfrecord.historic(name.encode(), centre)
            for name, centre in part
        ]
        stored(tmp_path, messages, members=shard, name=f"coords-{shard:05}-of-00003")
    found = list_centres(str(tmp_path / "coords@3"), tmp_path / "list.npz")
    assert listed(found) == [(name, centre[::-1]) for name, centre in made]
    assert found.draw(4 * 1000 + 2) == found.draw(2)
    assert [(one.name, one.count, one.box) for one in found.volumes] == [
        ("left", 2, Box((1, 2, 3), (10, 10, 10))),
        ("right", 1, Box((400, 0, -5), (401, 1, -4))),
        ("third", 1, Box((1, 1, 1), (2, 2, 2))),
    ]
    with pytest.raises(DestinationExistsError):
        list_centres(str(tmp_path / "coords@3"), tmp_path / "list.npz")
    again = load_coordinates(tmp_path / "list.npz")
    assert isinstance(again, CentreList)
    assert listed(again) == listed(found)


def test_a_list_is_known_again_until_its_files_change(tmp_path):
    path, made = stored(tmp_path, many(4)), tmp_path / "list.npz"
    assert list_of(path, made) is None
    list_centres(path, made)
    assert len(list_of(path, made)) == 4
    stored(tmp_path, many(5))
    assert list_of(path, made) is None
    made.write_bytes(b"something else")
    assert list_of(path, made) is None


def test_what_no_list_can_hold_is_refused_and_the_old_list_stays(tmp_path):
    made = tmp_path / "list.npz"
    list_centres(stored(tmp_path, many(4)), made)
    before = made.read_bytes()
    far = stored(tmp_path, [tfrecord.historic(b"v", (1, 2, 2**31))], name="far")
    with pytest.raises(GeometryError, match="far: a centre lies beyond 2147483647 voxels"):
        list_centres(far, made, overwrite=True)
    with pytest.raises(UsageError, match="holds no record"):
        list_centres(stored(tmp_path, [], name="empty"), made, overwrite=True)
    broken = tmp_path / "broken"
    broken.write_bytes(tfrecord.file_bytes(many(3))[:-1])
    with pytest.raises(VolumeFormatError, match="record 2 of .* is cut short"):
        list_centres(str(broken), made, overwrite=True)
    assert made.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 5


def test_lists_and_indices_have_samplers_of_their_own(tmp_path):
    found = list_centres(stored(tmp_path, many(4)), tmp_path / "list.npz")
    sampler = make_sampler("listed", found, seed=9, weights={"v1": 1.0}, background=False)
    assert [(draw.volume, draw.centre) for draw in map(sampler, range(4))] == listed(found)
    with pytest.raises(OptionError, match=r"set sampling\.sampler to listed"):
        make_sampler("balanced", found, seed=0, weights={}, background=False)
    with pytest.raises(OptionError, match=r"leave out volume\.weight"):
        make_sampler("listed", found, seed=0, weights={"v1": 1, "v2": 2}, background=False)


def test_a_list_is_held_against_the_volumes_of_its_run(tmp_path):
    with CentreListWriter(tmp_path / "list.npz", origin={}) as writer:
        centres = np.array([[2, 3, 4], [7, 6, 5]])
        writer.add(("a", "b"), np.zeros(2, np.int64), centres=centres)
    found = CentreList.load(tmp_path / "list.npz")
    assert found.volume_names == ("a",)
    box = Box((0, 0, 0), (10, 10, 10))
    found.require_volumes({"a": box, "unused": box}, margin=(2, 3, 4))
    with pytest.raises(UsageError, match="'a', which is not among"):
        found.require_volumes({"b": box}, margin=(0, 0, 0))
    with pytest.raises(GeometryError, match=r"patches reach 3,3,4 voxels .*out_of_volume to pad"):
        found.require_volumes({"a": box}, margin=(3, 3, 4))
    with pytest.raises(GeometryError, match="which lies at 3:10,0:10,0:10"):
        found.require_volumes({"a": Box((3, 0, 0), (10, 10, 10))}, margin=(0, 0, 0))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32), st.integers(0, 7), st.integers(0, 2))
def test_a_damaged_list_gives_its_draws_or_one_sentence(tmp_path_factory, at, bit, how):
    folder = tmp_path_factory.mktemp("l")
    found = list_centres(stored(folder, many(6)), folder / "list.npz")
    wanted, data = listed(found), bytearray((folder / "list.npz").read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    path = folder / "damaged.npz"
    path.write_bytes([data, data[:at], data[:at] + data[at + 1 :]][how])
    try:
        given_back = listed(load_coordinates(path))
    except VolumeFormatError as error:
        assert str(path) in str(error)  # noqa: PT017 - most damage is noticed, not all
    else:
        assert len(given_back) == len(wanted)


def test_the_command_makes_a_list_and_says_what_it_holds(tmp_path, capsys):
    path, made = stored(tmp_path, many(9)), str(tmp_path / "list.npz")
    sample_command([path], made, from_tfrecord=True, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["centres"], list(told["volumes"])) == (9, ["v1"])
    sample_command([path, path], made, from_tfrecord=True, overwrite=True)
    assert "9 centres; train with --sampling.sampler listed" in capsys.readouterr().out
    with pytest.raises(OptionError, match="only --overwrite and --json"):
        sample_command([path], made, from_tfrecord=True, margin="1,1,1")
    with pytest.raises(UsageError, match="--margin is missing"):
        sample_command(["a=b"], made)
