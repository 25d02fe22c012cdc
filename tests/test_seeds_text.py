"""Seeds from text, tables and earlier results."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from floodem.errors import FloodemError, OptionError, VolumeFormatError, VolumeNotFoundError
from floodem.flooding.seeds import (
    SeedContext,
    SeedPolicySpec,
    explicit_seeds,
    make_policy,
    parse_seeds,
    policy_spec,
    read_seed_positions,
    seed_positions,
)


def block(*, shape=(10, 10, 10), corner=(0, 0, 0), margin=(0, 0, 0)):
    return SeedContext(
        image=np.zeros(shape, np.float32),
        segmentation=np.zeros(shape, np.uint32),
        excluded=None,
        margin=margin,
        corner=corner,
    )


def rows(spec, **where):
    return [tuple(row) for row in seed_positions(spec, block(**where)).tolist()]


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("PolicyPeaks", "PolicyPeaks", {}),
        ("  PolicyPeaks \n", "PolicyPeaks", {}),
        ('PolicyGrid3d {"step": 8, "offsets": [0]}', "PolicyGrid3d", {"step": 8, "offsets": [0]}),
        ('PolicyGrid3d{"step":8}', "PolicyGrid3d", {"step": 8}),
        (
            'SequentialPolicies {"policies": [["PolicyPeaks", {}]]}',
            "SequentialPolicies",
            {"policies": [["PolicyPeaks", {}]]},
        ),
    ],
)
def test_a_policy_is_read_from_text(text, name, args):
    spec = parse_seeds(text)
    assert (spec.name, spec.args) == (name, args)
    assert json.loads(json.dumps(spec.to_json())) == {"name": name, "args": args}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no seed policy ''"),
        ("PolicyPeak", "did you mean PolicyPeaks?"),
        ("PolicyGrid3d {step: 8}", "not JSON"),
        ('PolicyGrid3d {"step": 8} more', "not JSON"),
        ('PolicyGrid3d {"steps": 8}', "did you mean step?"),
        ("PolicyGrid3d " + '{"a":' * 100_000, "not JSON"),
    ],
)
def test_text_that_names_no_policy_is_refused(text, says):
    with pytest.raises(OptionError) as refused:
        parse_seeds(text)
    assert says in str(refused.value)


def test_arguments_that_are_no_object_are_refused():
    with pytest.raises(OptionError, match="no JSON object"):
        policy_spec("PolicyGrid3d", "[8]")


@given(st.text(max_size=60))
@example("\0")
@example("\ud800")
def test_any_text_is_read_or_refused(text):
    for kind in ("", ".csv"):
        with contextlib.suppress(FloodemError):
            parse_seeds(text + kind)


def test_explicit_seeds_keep_their_order_and_move_with_the_block():
    spec = explicit_seeds(np.array([[104, 5, 5], [103, 6, 7], [3, 3, 3]]))
    assert rows(spec, corner=(100, 0, 0)) == [(4, 5, 5), (3, 6, 7)]
    assert rows(spec, corner=(100, 0, 0), margin=(4, 4, 4)) == [(4, 5, 5)]
    assert rows(explicit_seeds(np.empty((0, 3), np.int64))) == []
    assert json.loads(json.dumps(spec.to_json()))["args"]["positions"][0] == [104, 5, 5]


@pytest.mark.parametrize(
    "positions",
    [[[1, 2]], [[1.0, 2.0, 3.0]], [1, 2, 3], 5, "zyx", [[1, 2, 3], [4]], [[2**70, 0, 0]]],
)
def test_explicit_seeds_that_are_no_positions_are_refused(positions):
    with pytest.raises(OptionError, match="explicit seeds"):
        make_policy(SeedPolicySpec("ExplicitSeeds", {"positions": positions}))


def test_explicit_seeds_beyond_any_volume_are_refused():
    with pytest.raises(OptionError, match="give voxels of the volume"):
        explicit_seeds(np.array([[2**63 + 5, 0, 0]], dtype=np.uint64))


def test_a_table_gives_seeds_by_the_names_of_its_columns(tmp_path):
    table = tmp_path / "種 points.CSV"
    table.write_bytes(b"\xef\xbb\xbfreason, z ,y,x\r\n" + "古い,1,2,3\r\n\r\n,4,5,6\r\n".encode())
    spec = parse_seeds(str(table))
    assert spec.name == "ExplicitSeeds"
    assert rows(spec) == [(1, 2, 3), (4, 5, 6)]
    np.testing.assert_array_equal(read_seed_positions(table), [[1, 2, 3], [4, 5, 6]])


def test_a_table_that_changed_since_the_run_began_is_refused(tmp_path):
    table = tmp_path / "points.csv"
    table.write_text("z,y,x\n1,2,3\n", encoding="utf-8")
    spec = parse_seeds(str(table))
    table.write_text("z,y,x\n1,2,4\n", encoding="utf-8")
    with pytest.raises(OptionError, match="not those this run began with"):
        rows(spec)
    assert parse_seeds(str(table)) != spec


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "columns z,y,x"),
        (b"x,y\n1,2\n", "columns z,y,x"),
        (b"z,y,x,x\n1,2,3,4\n", "columns z,y,x"),
        (b"1,2,3\n", "columns z,y,x"),
        (b"z,y,x\n1,2,3\n1,2\n", "line 3"),
        (b"z,y,x\n1,2,3.5\n", "line 2"),
        (b"z,y,x\n1,2," + b"9" * 5000 + b"\n", "line 2"),
        (b"\xff\xfe\x00", "not text"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(tmp_path, content, says):
    table = tmp_path / "points.csv"
    table.write_bytes(content)
    with pytest.raises(VolumeFormatError) as refused:
        parse_seeds(str(table))
    assert says in str(refused.value)
    assert "points.csv" in str(refused.value)


def test_a_missing_table_is_not_found(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="give a CSV file"):
        parse_seeds(str(tmp_path / "none.csv"))


def test_explicit_seeds_need_one_source():
    for args in ({}, {"positions": [], "path": "a.csv"}):
        with pytest.raises(OptionError, match="either positions or path"):
            make_policy(SeedPolicySpec("ExplicitSeeds", args))


@pytest.fixture
def earlier(tmp_path):
    """An earlier segmentation `seg.zarr` with the folder beside it."""
    folder = tmp_path / "seg.zarr.floodem"
    folder.mkdir()
    (tmp_path / "seg.zarr").mkdir()
    starts = {"2": [5, 6, 7], "10": [8, 8, 8], "1": [2, 3, 4]}
    record = {
        "version": 1,
        "origins": {name: {"start_zyx": at, "iters": 3} for name, at in starts.items()},
    }
    (folder / "origins.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path / "seg.zarr"


@pytest.mark.parametrize("name", ["PolicyInvertOrigins", "PolicyInverseOrigins"])
def test_origins_of_an_earlier_result_come_with_the_highest_id_first(earlier, name):
    folder = earlier.with_name("seg.zarr.floodem")
    for path in (earlier, folder, folder / "origins.json"):
        spec = SeedPolicySpec(name, {"segmentation_dir": str(path)})
        assert rows(spec) == [(8, 8, 8), (5, 6, 7), (2, 3, 4)]
        assert rows(spec, corner=(2, 2, 2), margin=(1, 1, 1)) == [(6, 6, 6), (3, 4, 5)]


def test_a_result_without_segments_has_no_origins(earlier):
    origins = earlier.with_name("seg.zarr.floodem") / "origins.json"
    origins.write_text('{"version": 1, "origins": {}}', encoding="utf-8")
    assert rows(SeedPolicySpec("PolicyInvertOrigins", {"segmentation_dir": str(earlier)})) == []


@pytest.mark.parametrize("layout", ["seg-0_0_0.npz", "0/0/seg-0_0_0.npz"])
def test_results_of_the_older_program_are_refused_by_name(tmp_path, layout):
    (tmp_path / layout).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / layout).write_bytes(b"")
    spec = SeedPolicySpec("PolicyInvertOrigins", {"segmentation_dir": str(tmp_path)})
    with pytest.raises(OptionError, match="older program"):
        rows(spec)


def test_a_folder_without_origins_is_not_found(tmp_path):
    spec = SeedPolicySpec("PolicyInvertOrigins", {"segmentation_dir": str(tmp_path / "no")})
    with pytest.raises(VolumeNotFoundError, match=r"origins\.json"):
        rows(spec)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("[]", "no origins of version 1"),
        ('{"version": 2, "origins": {}}', "no origins of version 1"),
        ('{"version": 1, "origins": {"1": {"start_zyx": [1, 2]}}}', "segment '1'"),
        ('{"version": 1, "origins": {"a": {"start_zyx": [1, 2, 3]}}}', "segment 'a'"),
        ('{"version": 1, "origins": {"1": {"start_zyx": [1, 2, 3.5]}}}', "three integers"),
        (f'{{"version": 1, "origins": {{"1": {{"start_zyx": [1, 2, {2**63}]}}}}}}', "three"),
    ],
)
def test_damaged_origins_are_refused(earlier, content, says):
    origins = earlier.with_name("seg.zarr.floodem") / "origins.json"
    origins.write_text(content, encoding="utf-8")
    with pytest.raises(VolumeFormatError) as refused:
        rows(SeedPolicySpec("PolicyInvertOrigins", {"segmentation_dir": str(earlier)}))
    assert says in str(refused.value)
    assert "origins.json" in str(refused.value)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"segmentation_dir": ""}, "give the path"),
        ({"segmentation_dir": 3}, "give the path"),
        ({"segmentation_dir": "seg", "corner": [0, 0, 0]}, "leave it out"),
        ({}, "segmentation_dir"),
    ],
)
def test_impossible_arguments_for_origins_are_refused(args, says):
    with pytest.raises(OptionError, match=says):
        make_policy(SeedPolicySpec("PolicyInvertOrigins", args))
