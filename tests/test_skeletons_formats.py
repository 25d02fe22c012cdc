"""Skeletons in files: precomputed and SWC, read back by us and by CloudVolume, and damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import (
    FloodemError,
    GeometryError,
    OptionError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.shapes.precomputed import (
    LegacyMeshInfo,
    ShardingSpec,
    SkeletonInfo,
    VertexAttribute,
    write_info,
    writing_shard,
)
from floodem.shapes.skeletons.folder import SkeletonFolder
from floodem.shapes.skeletons.precomputed import decode_skeleton, encode_skeleton
from floodem.shapes.skeletons.skeleton import Skeleton, join
from floodem.shapes.skeletons.swc import parse_swc, read_swc, swc_text
from skeleton_cases import path, same

FORK = Skeleton(
    np.array(
        [[30.5, 20.25, 10], [31, 21, 11], [32, 25, 11], [33, 26, 19], [90, 80, 70]], np.float32
    ),
    np.array([[1, 0], [2, 1], [3, 1]], np.uint32),
    np.array([5, 4.125, 3, 2, 1], np.float32),
)
LARGEST_ID = 2**64 - 1


@st.composite
def forests(draw):
    count = draw(st.integers(0, 12))
    numbers = st.floats(-1e7, 1e7, width=32)
    vertices = draw(st.lists(st.tuples(*[numbers] * 3), min_size=count, max_size=count))
    radii = draw(st.lists(st.floats(0, 1e5, width=32), min_size=count, max_size=count))
    parents = [draw(st.integers(-1, row - 1)) for row in range(count)]
    edges = [(row, parent) for row, parent in enumerate(parents) if parent >= 0]
    return Skeleton(
        np.array(vertices, np.float32).reshape(-1, 3),
        np.array(edges, np.uint32).reshape(-1, 2),
        np.array(radii, np.float32),
    )


@given(forests())
def test_precomputed_gives_back_what_went_in(skeleton):
    assert same(decode_skeleton(encode_skeleton(skeleton), uri="test"), skeleton)


def test_precomputed_holds_what_the_format_says():
    data = encode_skeleton(path((3, 2, 1), (6, 5, 4), radius=7))
    assert np.frombuffer(data, "<u4", count=2).tolist() == [2, 1]
    assert np.frombuffer(data, "<f4", count=6, offset=8).tolist() == [1, 2, 3, 4, 5, 6]
    assert np.frombuffer(data, "<u4", count=2, offset=32).tolist() == [1, 0]
    assert np.frombuffer(data, "<f4", offset=40).tolist() == [7, 7]


def test_positions_of_other_programs_are_turned_into_nanometres():
    scaled = SkeletonInfo(transform=(4.0, 0, 0, 1, 0, 5.0, 0, 2, 0, 0, 6.0, 3))
    read = decode_skeleton(encode_skeleton(path((3, 2, 1))), info=scaled, uri="test")
    assert read.vertices_zyx_nm.tolist() == [[6 * 3 + 3, 5 * 2 + 2, 4 * 1 + 1]]


def test_other_attributes_are_passed_over_and_radii_may_be_missing():
    data = encode_skeleton(path((3, 2, 1), (6, 5, 4), radius=7))
    kind = VertexAttribute(name="kind", data_type="uint8")
    info = SkeletonInfo(vertex_attributes=(kind, *SkeletonInfo().vertex_attributes))
    mixed = data[:40] + b"\1\2" + data[40:]
    assert decode_skeleton(mixed, info=info, uri="test").radii_nm.tolist() == [7, 7]
    bare = decode_skeleton(data[:40], info=SkeletonInfo(vertex_attributes=()), uri="test")
    assert bare.radii_nm.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:5], "header"),
        (lambda data: data[:-1], "take"),
        (lambda data: data + b"x", "take"),
        (lambda data: b"\xff" * 8 + data[8:], "take"),
        (lambda data: data[:32] + b"\2\0\0\0" + data[36:], "names vertex 2 of 2"),
        (lambda data: data[:8] + b"\0\0\xc0\x7f" + data[12:], "not finite"),
    ],
)
def test_damaged_skeletons_are_told_in_one_sentence(change, message):
    data = encode_skeleton(path((3, 2, 1), (6, 5, 4), radius=7))
    with pytest.raises(VolumeFormatError, match=f"here.*{message}"):
        decode_skeleton(change(data), uri="here")


@settings(max_examples=200)
@given(st.binary(max_size=120), st.integers(0, 40))
def test_no_bytes_break_the_reader(data, at):
    whole = encode_skeleton(FORK)
    for tried in (data, whole[:at] + data + whole[at + len(data) :]):
        try:
            decode_skeleton(tried, uri="test")
        except VolumeFormatError:
            continue


def rows_of(skeleton):
    return np.column_stack([skeleton.vertices_zyx_nm, skeleton.radii_nm])


@given(forests())
def test_swc_gives_back_positions_radii_and_pieces(skeleton):
    read = parse_swc(swc_text(skeleton), uri="test")
    assert sorted(map(tuple, rows_of(read).tolist())) == sorted(
        map(tuple, rows_of(skeleton).tolist())
    )
    assert read.length_nm == pytest.approx(skeleton.length_nm)
    assert len(read.components()) == len(skeleton.components())


@given(forests())
def test_swc_in_micrometres_says_the_same_as_in_nanometres(skeleton):
    nm, um = (parse_swc(swc_text(skeleton, unit=unit), uri="test") for unit in ("nm", "um"))
    np.testing.assert_allclose(rows_of(um), rows_of(nm), rtol=1e-6)
    np.testing.assert_array_equal(um.edges, nm.edges)


def test_swc_says_its_source_and_unit_and_counts_parents_first():
    lines = swc_text(FORK, unit="um", source="id 7 of\nseg.zarr").splitlines()
    assert lines[:2] == ["# source: id 7 of seg.zarr", "# unit: um"]
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0] == ["1", "0", "0.01", "0.02025", "0.0305", "0.005", "-1"]
    assert [row[6] for row in rows] == ["-1", "1", "2", "2", "-1"]
    assert all(int(row[6]) < int(row[0]) for row in rows)


def test_a_loop_cannot_be_swc():
    ring = Skeleton(
        np.eye(3, dtype=np.float32),
        np.array([[0, 1], [1, 2], [2, 0]], np.uint32),
        np.ones(3, np.float32),
    )
    with pytest.raises(GeometryError, match="loop"):
        swc_text(ring)


def test_swc_of_other_programs_is_read(tmp_path):
    # Children before parents, ids with gaps, blank lines, more columns, Windows line ends.
    text = "# made elsewhere\r\n\r\n 7 3 1.5 2 3 .5 2 extra\r\n2 1 1 2 3 1e1 -1\r\n"
    file = tmp_path / "cell.swc"
    file.write_bytes(text.encode())
    with pytest.raises(OptionError, match="does not say its unit"):
        read_swc(file)
    read = read_swc(file, unit="um")
    assert read.vertices_zyx_nm.tolist() == [[3000, 2000, 1500], [3000, 2000, 1000]]
    assert read.edges.tolist() == [[0, 1]]
    assert read.radii_nm.tolist() == [500, 10000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 1 2 3 1", "line 1 has 6 numbers and not 7"),
        ("# x\n1 0 1 2 3 1 -1\n2 0 1 b 3 1 1", "line 3: could not convert"),
        ("1 0 1 nan 3 1 -1", "line 1 has a position or radius that is not finite"),
        ("1 0 1 2 3 1 -1\n1 0 1 2 3 1 -1", "two of its lines have one id"),
        ("1 0 1 2 3 1 9", "vertex 1 has the parent 9, which is not there"),
        ("1 0 1 2 3 1 2\n2 0 1 2 3 1 1", "round in a circle"),
        ("1 0 1 2 3 1 1", "round in a circle"),
        ("1 0 1e39 2 3 1 -1", "beyond what 32 bits hold"),
    ],
)
def test_damaged_swc_is_told_with_its_line(text, message):
    with pytest.raises(VolumeFormatError, match=message):
        parse_swc(text, unit="nm", uri="cell.swc")


@settings(max_examples=200)
@given(st.text(st.sampled_from("0123456789.-+e #\nnaif:unm"), max_size=80))
def test_no_text_breaks_the_swc_reader(text):
    for tried in (text, swc_text(FORK)[:90] + text):
        try:
            parse_swc(tried, uri="test")
        except (VolumeFormatError, OptionError):
            continue


def test_files_that_cannot_be_read_are_told(tmp_path, monkeypatch):
    with pytest.raises(StorageError, match=r"none\.swc"):
        read_swc(tmp_path / "none.swc")
    monkeypatch.setattr("floodem.shapes.skeletons.swc.MAX_FILE_BYTES", 10)
    (tmp_path / "1.swc").write_text(swc_text(FORK), encoding="utf-8")
    with pytest.raises(VolumeFormatError, match="more than 10 bytes"):
        read_swc(tmp_path / "1.swc")
    with pytest.raises(OptionError, match="'mm' is no unit"):
        swc_text(FORK, unit="mm")


@pytest.fixture(params=["files", "shards", "swc"])
def folder(request, tmp_path):
    """A folder of skeletons of ids 3, 7 and the largest, in one of three ways."""
    found = {3: FORK, 7: path((1, 2, 3), (4, 5, 6)), LARGEST_ID: path((9, 9, 9))}
    made = tmp_path / "skeletons"
    made.mkdir()
    if request.param == "swc":
        for number, skeleton in found.items():
            (made / f"{number}.swc").write_text(swc_text(skeleton), encoding="utf-8")
        (made / "notes.swc").write_text("no id", encoding="utf-8")
    elif request.param == "files":
        write_info(made, SkeletonInfo())
        for number, skeleton in found.items():
            (made / str(number)).write_bytes(encode_skeleton(skeleton))
        (made / "007").write_bytes(b"no id")
    else:
        spec = ShardingSpec(minishard_bits=1, shard_bits=1)
        write_info(made, SkeletonInfo(sharding=spec))
        ids = np.array(sorted(found), np.uint64)
        for shard, members in spec.group_by_shard(ids).items():
            with writing_shard(made, shard, spec=spec) as writer:
                for number in members.tolist():
                    writer.add(number, encode_skeleton(found[number]))
    return made, found


def test_a_folder_gives_ids_and_skeletons(folder):
    made, found = folder
    opened = SkeletonFolder(made)
    assert opened.ids() == sorted(found)
    for number, skeleton in found.items():
        read = opened.read(number)
        assert read.length_nm == pytest.approx(skeleton.length_nm)
        assert len(read) == len(skeleton)
    assert opened.read(5) is None


def test_folders_without_skeletons_are_refused(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="is not a folder"):
        SkeletonFolder(tmp_path / "none")
    with pytest.raises(VolumeNotFoundError, match="holds no skeletons"):
        SkeletonFolder(tmp_path)
    write_info(tmp_path, LegacyMeshInfo())
    with pytest.raises(VolumeFormatError, match="holds meshes"):
        SkeletonFolder(tmp_path)
    (tmp_path / "info").write_text("{", encoding="utf-8")
    with pytest.raises(FloodemError):
        SkeletonFolder(tmp_path)


def test_a_damaged_skeleton_in_a_folder_is_named(tmp_path, monkeypatch):
    write_info(tmp_path, SkeletonInfo())
    (tmp_path / "7").write_bytes(b"12345678901")
    with pytest.raises(VolumeFormatError, match="skeleton 7 of"):
        SkeletonFolder(tmp_path).read(7)
    monkeypatch.setattr("floodem.shapes.skeletons.folder.MAX_SKELETON_BYTES", 5)
    with pytest.raises(VolumeFormatError, match="over 5 bytes"):
        SkeletonFolder(tmp_path).read(7)


@pytest.mark.parametrize("is_sharded", [False, True])
def test_cloudvolume_reads_our_skeletons(tmp_path, is_sharded):
    cloudvolume = pytest.importorskip("cloudvolume", exc_type=ImportError)
    found = {3: FORK, 7: path((1, 2, 3), (40, 50, 60)), 2**63: join([FORK, FORK])}
    spec = ShardingSpec(minishard_bits=1, shard_bits=0) if is_sharded else None
    made = tmp_path / "skeletons"
    made.mkdir()
    write_info(made, SkeletonInfo(sharding=spec))
    if spec is None:
        for number, skeleton in found.items():
            (made / str(number)).write_bytes(encode_skeleton(skeleton))
    else:
        with writing_shard(made, 0, spec=spec) as writer:
            for number in sorted(found):
                writer.add(number, encode_skeleton(found[number]))
    scale = {
        "key": "10",
        "size": [8, 8, 8],
        "resolution": [10, 10, 10],
        "chunk_sizes": [[8, 8, 8]],
        "encoding": "raw",
        "voxel_offset": [0, 0, 0],
    }
    info = {
        "type": "segmentation",
        "data_type": "uint64",
        "num_channels": 1,
        "scales": [scale],
        "skeletons": "skeletons",
    }
    (tmp_path / "info").write_text(json.dumps(info), encoding="utf-8")
    volume = cloudvolume.CloudVolume(f"file://{tmp_path}", progress=False)
    for number, skeleton in found.items():
        theirs = volume.skeleton.get(number)
        np.testing.assert_array_equal(theirs.vertices[:, ::-1], skeleton.vertices_zyx_nm)
        np.testing.assert_array_equal(theirs.radius, skeleton.radii_nm)
        assert theirs.cable_length() == pytest.approx(skeleton.length_nm)
