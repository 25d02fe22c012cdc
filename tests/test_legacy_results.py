"""Results of the older programs: what is written is what their readers read, and back."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections import Counter, deque, namedtuple
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bright import MEAN, STDDEV, bright_model, bright_tubes
from floodem.errors import (
    DestinationExistsError,
    LabelError,
    RunConflictError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.flooding.block import BlockFlooder, SeedOutcome
from floodem.flooding.canvas import Canvas
from floodem.flooding.options import FloodOptions
from floodem.flooding.predictor import Predictor
from floodem.flooding.run_folder import RunFolder, RunStatus
from floodem.flooding.segment import segment
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.legacy import results
from floodem.legacy.results import (
    Checkpoint,
    OriginInfo,
    corner_of,
    existing_path,
    find_subvolumes,
    read_counters,
    read_cpoint,
    read_probabilities,
    read_subvolume,
    results_of_run,
    subvolume_path,
    write_counters,
    write_cpoint,
    write_probabilities,
    write_subvolume,
)
from floodem.legacy.results.counters import OLD_NAMES, old_counters, our_counters
from floodem.legacy.results.probabilities import dequantise, quantise
from floodem.legacy.results.resuming import checkpoint_of, restore
from floodem.volumes import create_volume, open_volume
from floodem.volumes.volume import Kind

LABELS = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
ORIGIN = OriginInfo((1, 2, 3), 4, 0.5)
NOTHING: dict[str, Any] = {"origins": {}, "overlaps": {}, "request": b"", "counters": {}}

IDS = st.integers(1, 2**32 - 1)
POSITIONS = st.tuples(*[st.integers(-(2**31), 2**31)] * 3)
ORIGINS = st.dictionaries(
    IDS, st.builds(OriginInfo, POSITIONS, st.integers(0, 2**40), st.floats(0, 1e9)), max_size=4
)
OVERLAPS = st.dictionaries(IDS, st.dictionaries(IDS, st.integers(1, 2**40), max_size=3), max_size=4)
COUNTERS = st.dictionaries(
    st.text("abcz-_ 9", min_size=1, max_size=12), st.integers(-(2**60), 2**60), max_size=4
)
LABEL_ARRAYS = hnp.arrays(
    st.sampled_from(["u1", "i2", "<u4", ">u4", "u8", "i8"]),
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
    elements=st.integers(0, 127) | st.just(0),
    fill=st.just(0),
)
SHAPED = settings(deadline=None, max_examples=40)


@pytest.fixture
def old_program(monkeypatch):
    """The class that its readers import, so that numpy unpickles as it does there."""
    for name in ("ffn", "ffn.inference", "ffn.inference.storage"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    record = namedtuple("OriginInfo", ["start_zyx", "iters", "walltime_sec"])  # noqa: PYI024
    record.__module__ = "ffn.inference.storage"
    sys.modules[record.__module__].OriginInfo = record
    return record


def as_it_is(value: Any, path: Path) -> Any:
    """Nothing is executed in these tests but what they wrote themselves."""
    with np.load(path, allow_pickle=True) as archive:
        return archive[value]


def save(path: Path, **members: Any) -> None:
    """Write an archive with numpy, whatever the file's name ends in."""
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=True, **members)


# --- paths ---------------------------------------------------------------------------------------


def test_names_have_x_y_z_and_folders_x_and_y(tmp_path):
    assert subvolume_path(tmp_path, (7, 8, 9)) == tmp_path / "9" / "8" / "seg-9_8_7.npz"
    assert subvolume_path(tmp_path, (7, 8, 9), suffix=".prob", flat=True) == (
        tmp_path / "seg-9_8_7.prob"
    )


@given(corner=st.tuples(*[st.integers(-(10**6), 2**50)] * 3), flat=st.booleans())
def test_the_corner_comes_back_from_the_name(corner, flat):
    for suffix in (".npz", ".prob", ".cpoint"):
        assert corner_of(subvolume_path(Path("r"), corner, suffix=suffix, flat=flat)) == corner


@pytest.mark.parametrize(
    "name",
    [
        *("sample.npz", "seg-1_2.npz", "seg-1_2_3_4.npz", "seg-1_2_3.npy", "seg-1_2_x.npz"),
        *("xseg-1_2_3.npz", "seg-9999999999999999_0_0.npz", "seg-1_2_3.npz.tmp"),
    ],
)
def test_other_names_tell_no_corner(name):
    assert corner_of(Path(name)) is None


def test_both_layouts_are_found_in_the_order_of_their_corners(tmp_path):
    corners: list[tuple[Zyx, bool]] = [((0, 0, 5), True), ((0, 3, 0), False), ((0, 0, 0), False)]
    for corner, flat in corners:
        path = subvolume_path(tmp_path, corner, flat=flat)
        write_subvolume(path, segmentation=LABELS, overwrite=False, **NOTHING)
    (tmp_path / "counters.txt").write_text("a: 1\n", encoding="utf-8")
    found = find_subvolumes(tmp_path)
    assert [file.corner for file in found] == [(0, 0, 0), (0, 0, 5), (0, 3, 0)]
    assert [file.path for file in found] == [
        subvolume_path(tmp_path, (0, 0, 0)),
        subvolume_path(tmp_path, (0, 0, 5), flat=True),
        subvolume_path(tmp_path, (0, 3, 0)),
    ]
    assert existing_path(tmp_path, (0, 0, 5)) == found[1].path
    assert existing_path(tmp_path, (9, 9, 9)) is None


def test_of_two_results_at_one_corner_the_one_in_folders_counts(tmp_path):
    for flat in (True, False):
        path = subvolume_path(tmp_path, (0, 0, 0), flat=flat)
        write_subvolume(path, segmentation=LABELS, overwrite=False, **NOTHING)
    (file,) = find_subvolumes(tmp_path)
    assert file.path == subvolume_path(tmp_path, (0, 0, 0)) == existing_path(tmp_path, (0, 0, 0))
    assert file.hidden == subvolume_path(tmp_path, (0, 0, 0), flat=True)


def test_a_result_in_the_wrong_folder_is_named(tmp_path):
    write_subvolume(
        tmp_path / "1" / "2" / "seg-3_2_0.npz", segmentation=LABELS, overwrite=False, **NOTHING
    )
    with pytest.raises(VolumeFormatError, match=r"whose place is .*seg-3_2_0\.npz: move it there"):
        find_subvolumes(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="holds no seg-X_Y_Z.npz"):
        find_subvolumes(tmp_path)
    with pytest.raises(VolumeNotFoundError, match="is no folder"):
        find_subvolumes(tmp_path / "absent")


# --- subvolumes ----------------------------------------------------------------------------------


@SHAPED
@given(
    labels=LABEL_ARRAYS,
    origins=ORIGINS,
    overlaps=OVERLAPS,
    request=st.binary(max_size=40),
    counters=COUNTERS,
)
def test_a_subvolume_comes_back_as_it_was(
    tmp_path_factory, labels, origins, overlaps, request, counters
):
    path = subvolume_path(tmp_path_factory.mktemp("r"), (4, 5, 6))
    write_subvolume(
        path,
        segmentation=labels,
        origins=origins,
        overlaps=overlaps,
        request=request,
        counters=counters,
        overwrite=False,
    )
    read = read_subvolume(path)
    np.testing.assert_array_equal(read.segmentation, labels)
    assert read.origins == origins
    assert read.overlaps == overlaps
    assert read.counters == counters
    assert read.corner == (4, 5, 6)
    # One zero byte alone is how numpy keeps an empty string.
    assert read.request == (b"" if request == b"\0" else request)


def test_the_older_programs_reader_reads_what_is_written(tmp_path, old_program):
    path = tmp_path / "seg-0_0_0.npz"
    write_subvolume(
        path,
        segmentation=LABELS.astype(np.uint64),
        origins={7: ORIGIN, 2**31: ORIGIN},
        overlaps={7: {3: 11, 4: 12}, 8: {}},
        request=b"\x10\x01",
        counters={"inference-calls": 3},
        overwrite=False,
    )
    with np.load(path, allow_pickle=True) as archive:
        assert set(archive.files) == {"segmentation", "origins", "request", "counters", "overlaps"}
        origins = archive["origins"].item()
        assert type(origins[7]) is old_program
        assert origins[7]._replace(iters=5) == ((1, 2, 3), 5, 0.5)
        assert list(origins) == [7, 2**31]
        ids, counts = archive["overlaps"].item()[7]
        assert (list(ids), list(counts)) == ([3, 4], [11, 12])
        assert archive["overlaps"].item()[8].shape == (2, 0)
        assert archive["request"].item() == b"\x10\x01"
        assert json.loads(archive["counters"].item()) == {"inference-calls": 3}
        assert archive["segmentation"].dtype == np.uint8


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(255, "u1"), (256, "u2"), (65_535, "u2"), (65_536, "u4"), (2**32 - 1, "u4"), (2**32, "u8")],
)
def test_labels_take_the_smallest_type_that_holds_them(tmp_path, largest, dtype):
    labels = np.zeros((2, 2, 2), np.uint64)
    labels[1, 0, 1] = largest
    write_subvolume(tmp_path / "a.npz", segmentation=labels, overwrite=False, **NOTHING)
    assert as_it_is("segmentation", tmp_path / "a.npz").dtype == dtype
    np.testing.assert_array_equal(read_subvolume(tmp_path / "a.npz").segmentation, labels)


@SHAPED
@given(labels=LABEL_ARRAYS, is_packed=st.booleans(), is_fortran=st.booleans())
def test_what_numpy_saves_is_read_as_numpy_loads_it(
    tmp_path_factory, labels, is_packed, is_fortran
):
    path = tmp_path_factory.mktemp("r") / "seg-0_0_0.npz"
    numpy_save = np.savez_compressed if is_packed else np.savez
    numpy_save(
        path, segmentation=np.asfortranarray(labels) if is_fortran else labels, other=np.arange(3)
    )
    read = read_subvolume(path)
    loaded = as_it_is("segmentation", path)
    np.testing.assert_array_equal(read.segmentation, loaded)
    assert read.segmentation.dtype.kind == "u"
    assert read.segmentation.flags.c_contiguous
    assert (read.origins, read.overlaps, read.counters, read.request) == ({}, {}, {}, b"")


def test_what_the_older_program_saves_is_read(tmp_path, old_program):
    path = tmp_path / "seg-0_0_0.npz"
    np.savez_compressed(
        path,
        segmentation=LABELS,
        origins={1: old_program((np.int64(1), np.int64(2), np.int64(3)), 4, 0.5)},
        request=b"\x10\x01",
        counters=json.dumps({"a": 1}),
        overlaps={1: np.array([[2, 3], [20, 30]]), 2: np.array([[], []])},
    )
    read = read_subvolume(path)
    assert read.origins == {1: ORIGIN}
    assert all(type(number) is int for number in read.origins[1].start_zyx)
    assert read.overlaps == {1: {2: 20, 3: 30}, 2: {}}
    assert (read.request, read.counters) == (b"\x10\x01", {"a": 1})


def test_the_published_sample_opens_with_its_origins(shared_data):
    read = read_subvolume(shared_data / "fib25" / "sample-training2.npz")
    assert read.segmentation.shape == (250, 250, 250)
    assert len(read.origins) == 254
    assert read.origins[1] == OriginInfo((16, 18, 109), 1884, 26.242855072021484)
    assert read.counters["predict-calls"] == 25_799
    assert b'"fov_size": [33, 33, 33]' in read.request
    assert read.overlaps == {}
    assert read.corner is None
    for label, info in read.origins.items():
        assert read.segmentation[info.start_zyx] == label


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "seg-0_0_0.npz"
    write_subvolume(path, segmentation=LABELS, overwrite=False, **NOTHING)
    before = path.read_bytes()
    with pytest.raises(DestinationExistsError, match="left as it is"):
        write_subvolume(path, segmentation=LABELS + 1, overwrite=False, **NOTHING)
    with pytest.raises(LabelError, match=r"from -1"):
        write_subvolume(path, segmentation=LABELS.astype(int) - 1, overwrite=True, **NOTHING)
    assert path.read_bytes() == before
    write_subvolume(path, segmentation=LABELS + 1, overwrite=True, **NOTHING)
    np.testing.assert_array_equal(read_subvolume(path).segmentation, LABELS + 1)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_negative_label_is_named(tmp_path):
    np.savez(tmp_path / "seg-0_0_0.npz", segmentation=LABELS.astype(np.int32) - 1)
    with pytest.raises(LabelError, match="holds the label -1"):
        read_subvolume(tmp_path / "seg-0_0_0.npz")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("origins", {1: (1, 2)}),
        ("origins", {1: ((1, 2), 3, 4.0)}),
        ("origins", {1: ((1, 2, 2.5), 3, 4.0)}),
        ("origins", {1: ((1, 2, 2**60), 3, 4.0)}),
        ("origins", {1: ((1, 2, 3), "3", 4.0)}),
        ("origins", {1: ((1, 2, 3), 3, float("nan"))}),
        ("origins", {-1: ((1, 2, 3), 3, 4.0)}),
        ("origins", {"1": ((1, 2, 3), 3, 4.0)}),
        ("origins", [1, 2]),
        ("overlaps", {1: 2}),
        ("overlaps", {1: np.array(2)}),
        ("overlaps", {1: [[1, 2], [3]]}),
        ("overlaps", {1: [1, 2]}),
        ("overlaps", {1: [[-5], [3]]}),
        ("counters", {"a": 1}),
        ("counters", json.dumps([1])),
        ("counters", json.dumps({"a": "b"})),
        ("counters", "{"),
        ("counters", "[" * 100_000),
        ("request", np.zeros(3)),
        ("segmentation", np.zeros((2, 2))),
        ("segmentation", np.zeros((2, 2, 2))),
        ("segmentation", np.zeros((0, 2, 2), np.uint8)),
        ("segmentation", "labels"),
    ],
    ids=str,
)
def test_members_that_hold_something_else_are_named(tmp_path, key, value):
    path = tmp_path / "seg-0_0_0.npz"
    members = {"segmentation": LABELS, key: value}
    np.savez(path, allow_pickle=True, **members)
    with pytest.raises(VolumeFormatError, match=str(path)):
        read_subvolume(path)


def test_a_missing_member_is_named_with_what_is_near(tmp_path):
    np.savez(tmp_path / "seg-0_0_0.npz", segmentatoin=LABELS)
    with pytest.raises(VolumeFormatError, match="no member 'segmentation' .nearest: segmentatoin"):
        read_subvolume(tmp_path / "seg-0_0_0.npz")


# --- probabilities and counters ------------------------------------------------------------------


def test_probabilities_come_back_and_stand_for_what_the_older_program_says(tmp_path):
    probabilities = np.array([[[0.0, 0.25, 0.6, 1.0, np.nan]]], np.float32)
    quantised = quantise(probabilities)
    assert quantised.tolist() == [[[1, 64, 153, 255, 0]]]
    path = subvolume_path(tmp_path, (1, 2, 3), suffix=".prob")
    write_probabilities(path, quantised=quantised, overwrite=False)
    np.testing.assert_array_equal(as_it_is("qprob", path), quantised)
    np.testing.assert_array_equal(read_probabilities(path), quantised)
    np.testing.assert_allclose(dequantise(quantised), probabilities, atol=0.5 / 255)
    with pytest.raises(DestinationExistsError):
        write_probabilities(path, quantised=quantised, overwrite=False)
    np.savez(tmp_path / "a.npz", qprob=np.zeros((2, 2, 2)))
    with pytest.raises(VolumeFormatError, match="expected uint8, z, y, x"):
        read_probabilities(tmp_path / "a.npz")


@given(probability=st.floats(0, 1, width=32))
def test_a_quantised_probability_stands_for_one_that_is_near(probability):
    quantised = quantise(np.array([probability], np.float32))
    assert 1 <= quantised[0] <= 255
    assert abs(float(dequantise(quantised)[0]) - probability) < 1.6 / 254


@settings(deadline=None)
@given(counters=COUNTERS)
def test_counters_come_back_sorted_by_name(tmp_path_factory, counters):
    path = tmp_path_factory.mktemp("r") / "sub" / "counters.txt"
    write_counters(path, counters=counters, overwrite=False)
    assert read_counters(path) == counters
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == [f"{name}: {counters[name]}" for name in sorted(counters)]


def test_counters_that_are_none_are_refused(tmp_path):
    path = tmp_path / "counters.txt"
    with pytest.raises(VolumeNotFoundError):
        read_counters(path)
    for text in ("a 1", "a: 1.5", "a: ", ": 1", "a: 1\n\n", "\x00: x"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(VolumeFormatError, match="line [12] is not a name"):
            read_counters(path)
    path.write_bytes(b"\xff\xfe: 1\n")
    with pytest.raises(VolumeFormatError, match="no text"):
        read_counters(path)
    path.write_bytes(b"a: 1\n" * 300_000)
    with pytest.raises(VolumeFormatError, match="1500000 bytes"):
        read_counters(path)
    with pytest.raises(VolumeFormatError, match="no colon"):
        write_counters(tmp_path / "new.txt", counters={"a: b\n": 1}, overwrite=False)
    assert not (tmp_path / "new.txt").exists()


def test_real_numbers_are_cut_as_the_older_program_does(tmp_path):
    write_counters(tmp_path / "c.txt", counters={"a": 2.9}, overwrite=False)
    assert read_counters(tmp_path / "c.txt") == {"a": 2}


def test_counters_have_the_older_names():
    ours = dict.fromkeys(OLD_NAMES, 5) | {"seeds": 9, "unknown": 3}
    theirs = old_counters(ours)
    assert theirs["seed-policy-calls"] == 10
    assert theirs["skip_restriced_pos"] == theirs["segment_at-loop-calls"] == 5
    assert our_counters(theirs) == dict.fromkeys(OLD_NAMES, 5)


# --- checkpoints ---------------------------------------------------------------------------------

SHAPE = (3, 4, 5)


@st.composite
def checkpoints(draw) -> Checkpoint:
    def array(dtype: str, shape: tuple[int, ...], elements: Any) -> np.ndarray:
        return draw(hnp.arrays(dtype, shape, elements=elements))

    seeds = draw(st.none() | st.integers(0, 4))
    steps = draw(st.integers(0, 3))
    return Checkpoint(
        segmentation=array("i4", SHAPE, st.integers(-1, 2**31 - 1)),
        logits=array("f4", SHAPE, st.floats(-10, 10, width=32) | st.just(np.nan)),
        probability=array("u1", SHAPE, st.integers(0, 255)),
        origins=draw(ORIGINS),
        overlaps=draw(OVERLAPS),
        waiting=tuple(draw(st.lists(st.tuples(st.floats(-9, 9), POSITIONS), max_size=3))),
        visited=frozenset(draw(st.sets(POSITIONS, max_size=3))),
        low=draw(POSITIONS),
        high=draw(POSITIONS),
        history=array("i8", (steps, 3), st.integers(0, 99)),
        deleted=array("i8", (steps,), st.integers(0, 99)),
        seeds=None if seeds is None else array("i8", (seeds, 3), st.integers(-9, 99)),
        next_seed=0 if seeds is None else draw(st.integers(0, seeds)),
        calls=draw(st.none() | st.integers(0, 50)),
        counters=draw(COUNTERS),
        hosts=tuple(draw(st.lists(st.text("abc.é", min_size=1, max_size=9), max_size=2))),
    )


@SHAPED
@given(checkpoint=checkpoints())
def test_a_checkpoint_comes_back_as_it_was(tmp_path_factory, checkpoint):
    path = tmp_path_factory.mktemp("r") / "seg-0_0_0.cpoint"
    write_cpoint(path, checkpoint, overwrite=False)
    read = read_cpoint(path)
    for field in dataclasses.fields(Checkpoint):
        one, other = getattr(read, field.name), getattr(checkpoint, field.name)
        if isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other, strict=True)
        else:
            assert one == other


def test_the_older_programs_own_restoring_takes_a_checkpoint(tmp_path, old_program):
    """Each line here is what its restore_checkpoint and restore_state do with the file."""
    checkpoint = Checkpoint(
        segmentation=np.full(SHAPE, -1, np.int32),
        logits=np.full(SHAPE, np.nan, np.float32),
        probability=np.zeros(SHAPE, np.uint8),
        origins={1: ORIGIN},
        overlaps={1: {2: 3}},
        waiting=((1.5, (1, 2, 3)), (0.5, (3, 2, 1))),
        visited=frozenset({(0, 0, 0), (0, 0, -1)}),
        seeds=np.arange(6).reshape(2, 3),
        next_seed=1,
        calls=2,
        counters={"predict-calls": 4},
    )
    path = tmp_path / "seg-0_0_0.cpoint"
    write_cpoint(path, checkpoint, overwrite=False)
    with np.load(path, allow_pickle=True) as data:
        assert set(data.files) == {
            *("movement_policy", "segmentation", "seed", "seg_qprob", "origins", "overlaps"),
            *("min_pos", "max_pos", "history", "history_deleted", "seed_policy_state"),
            *("counters", "partial_segment_iters", "hosts"),
        }
        waiting, visited = data["movement_policy"][0]
        assert waiting.popleft() == (1.5, [1, 2, 3])
        assert visited == {(0, 0, 0), (0, 0, -1)}
        coordinates, index = data["seed_policy_state"]
        assert coordinates[index].tolist() == [3, 4, 5]
        assert data["origins"].item() == {1: old_program((1, 2, 3), 4, 0.5)}
        assert list(data["history"]) == list(data["history_deleted"]) == []
        assert json.loads(data["counters"].item()) == {"predict-calls": 4}
        assert int(data["partial_segment_iters"]) == 2


def test_a_checkpoint_of_the_older_program_is_read(tmp_path, old_program):
    path = tmp_path / "seg-0_0_0.cpoint"
    movement: np.ndarray = np.empty((1, 2), object)
    movement[0, 0] = deque([(np.float32(1.5), [np.int64(1), np.int64(2), np.int64(3)])])
    movement[0, 1] = {(np.int64(0), np.int64(0), np.int64(1))}
    state: np.ndarray = np.empty(2, object)
    state[0], state[1] = np.arange(6).reshape(2, 3), 2
    save(
        path,
        movement_policy=movement,
        segmentation=np.zeros(SHAPE, np.int32),
        seed=np.zeros(SHAPE, np.float32),
        seg_qprob=np.zeros(SHAPE, np.uint8),
        origins={1: old_program((1, 2, 3), 4, 0.5)},
        overlaps={1: np.array([[2], [3]])},
        history=np.array([(1, 2, 3)]),
        history_deleted=np.array([]),
        seed_policy_state=state,
        counters=json.dumps({"a": 1}),
    )
    read = read_cpoint(path)
    assert read.waiting == ((1.5, (1, 2, 3)),)
    assert read.visited == {(0, 0, 1)}
    assert (read.next_seed, read.calls, read.low) == (2, None, None)
    assert read.seeds is not None
    assert read.seeds.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.history.tolist() == [[1, 2, 3]]


def test_a_canvas_that_was_not_used_yet_has_no_seeds(tmp_path):
    path = tmp_path / "seg-0_0_0.cpoint"
    save(
        path,
        movement_policy=np.array([[deque(), set()]], dtype=object),
        segmentation=np.zeros(SHAPE, np.int32),
        seed=np.zeros(SHAPE, np.float32),
        seg_qprob=np.zeros(SHAPE, np.uint8),
        origins={},
        seed_policy_state=None,
    )
    read = read_cpoint(path)
    assert (read.seeds, read.next_seed, read.waiting) == (None, 0, ())


SOUND_CPOINT: dict[str, Any] = {
    "movement_policy": [(deque(), set())],
    "segmentation": np.zeros(SHAPE, np.int32),
    "seed": np.zeros(SHAPE, np.float32),
    "seg_qprob": np.zeros(SHAPE, np.uint8),
    "origins": {},
    "seed_policy_state": (np.zeros((2, 3), np.int64), 1),
}


def boxed(value: Any) -> np.ndarray:
    array: np.ndarray = np.empty((), object)
    array[()] = value
    return array


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("movement_policy", [(deque(), [])], "another movement policy"),
        ("movement_policy", {}, "another movement policy"),
        ("movement_policy", [(deque([(1, 2, 3)]), set())], "a queue of something other"),
        ("movement_policy", [(deque([(1, (2, 3))]), set())], "not three numbers"),
        ("movement_policy", [(deque([("a", (1, 2, 3))]), set())], "where a number belongs"),
        ("movement_policy", [(deque([(1, (1, 2, 1e300))]), set())], "beyond any position"),
        ("segmentation", np.zeros(SHAPE, np.int64), "arrays of types"),
        ("seed", np.zeros((1, 2, 3), np.float32), "arrays of shapes"),
        ("seed_policy_state", (np.zeros((2, 3)), 1), "seeds that are no whole numbers"),
        ("seed_policy_state", (np.zeros((2, 2), np.int64), 1), "seeds of shape"),
        ("seed_policy_state", (np.zeros((2, 3), np.int64), 5), "seed 5 of 2"),
        ("seed_policy_state", 3, "a seed policy that keeps other things"),
        ("partial_segment_iters", np.array(-1), "-1 network calls"),
        ("min_pos", np.zeros(2), "not three numbers"),
        ("history", np.zeros((2, 2)), "history of something other"),
        ("history", np.full((1, 3), np.nan), "beyond any position"),
        ("hosts", np.zeros(2), "hosts that are no names"),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused(tmp_path, key, value, sentence):
    path = tmp_path / "seg-0_0_0.cpoint"
    members = SOUND_CPOINT | {key: value}
    save(
        path,
        **{
            name: one if isinstance(one, np.ndarray) else boxed(one)
            for name, one in members.items()
        },
    )
    with pytest.raises(VolumeFormatError, match=sentence):
        read_cpoint(path)


OPTIONS = FloodOptions(min_segment_size=100).completed(pad_value=0.05, move_threshold=0.9)


def new_flooder() -> BlockFlooder:
    model = bright_model()
    image, _ = bright_tubes()
    predictor = Predictor(model, device=torch.device("cpu"), dtype=torch.float32)
    normalised = ((image - MEAN) / STDDEV).astype(np.float32)
    canvas = Canvas(normalised, predictor, options=OPTIONS, deltas=model.description.deltas)
    return BlockFlooder(canvas, OPTIONS)


SEEDS = np.array([[5, 6, 8], [5, 6, 30], [5, 10, 30], [5, 20, 32], [18, 6, 40], [18, 20, 8]])


def flood_all(flooder: BlockFlooder) -> BlockFlooder:
    while flooder.advance():
        pass
    return flooder


@pytest.mark.parametrize("steps", [0, 3, 25, 60])
def test_a_block_goes_on_from_its_checkpoint_and_ends_alike(tmp_path, steps):
    whole = new_flooder()
    whole.add_seeds(SEEDS)
    flood_all(whole)
    assert len(whole.origins) == 4
    begun = new_flooder()
    begun.add_seeds(SEEDS)
    for _ in range(steps):
        assert begun.advance()
    path = tmp_path / "seg-0_0_0.cpoint"
    write_cpoint(path, checkpoint_of(begun), overwrite=False)
    resumed = new_flooder()
    restore(resumed, read_cpoint(path))
    assert resumed.next_seed == begun.seeds_done
    flood_all(resumed)
    np.testing.assert_array_equal(resumed.canvas.segmentation, whole.canvas.segmentation)
    np.testing.assert_array_equal(resumed.canvas.probability, whole.canvas.probability)
    assert resumed.overlaps == whole.overlaps
    assert {i: (o.start, o.calls, o.voxels) for i, o in resumed.origins.items()} == {
        i: (o.start, o.calls, o.voxels) for i, o in whole.origins.items()
    }
    accepted = resumed.outcomes == SeedOutcome.ACCEPTED
    np.testing.assert_array_equal(accepted, whole.outcomes == SeedOutcome.ACCEPTED)


def test_before_2020_the_seed_under_way_is_the_one_before_the_next():
    begun = new_flooder()
    begun.add_seeds(SEEDS)
    for _ in range(5):
        begun.advance()
    state = checkpoint_of(begun)
    assert (state.next_seed, state.calls) == (0, 5)
    old = dataclasses.replace(state, next_seed=1, calls=None)
    resumed = new_flooder()
    restore(resumed, old)
    assert resumed.next_seed == 0


def test_a_checkpoint_of_another_block_is_refused():
    state = checkpoint_of(new_flooder())
    other = dataclasses.replace(
        state,
        segmentation=np.zeros(SHAPE, np.int32),
        logits=np.zeros(SHAPE, np.float32),
        probability=np.zeros(SHAPE, np.uint8),
    )
    with pytest.raises(RunConflictError, match=r"a block of \(3, 4, 5\) voxels"):
        restore(new_flooder(), other)
    with pytest.raises(RunConflictError, match="with no seeds"):
        restore(new_flooder(), dataclasses.replace(state, seeds=None))


def test_rejected_seeds_are_marked_as_the_older_program_marks_them():
    flooder = new_flooder()
    flooder.add_seeds(np.array([[5, 6, 8], [12, 13, 30]]))
    flood_all(flooder)
    assert flooder.outcomes.tolist() == [SeedOutcome.ACCEPTED, SeedOutcome.WEAK_SEED]
    marked = checkpoint_of(flooder).segmentation
    assert Counter(marked.ravel().tolist())[-1] == 1
    assert marked[12, 13, 30] == -1


# --- from our runs -------------------------------------------------------------------------------


def test_a_run_of_ours_becomes_a_subvolume_of_the_older_program(tmp_path):
    image, _ = bright_tubes()
    uri = tmp_path / "em.h5@raw"
    with create_volume(
        uri,
        shape=image.shape,
        dtype="uint8",
        offset=(100, 200, 300),
        voxel_size=VoxelSize(30, 6, 6),
    ) as volume:
        volume.write(volume.box, image)
    request = results_request(tmp_path)
    made = segment(uri, tmp_path / "labels.zarr", model=bright_model(), request=request)
    found = results_of_run(made.folder, corner=(100, 200, 300))
    with open_volume(made.uri) as volume:
        labels = volume.read()
    assert {labels[info.start_zyx] for info in found.origins.values()} == set(found.origins)
    assert found.counters["segment_at-loop-calls"] > 0
    assert found.counters["seed-policy-calls"] == made.summary["counters"]["seeds"] + 1
    path = subvolume_path(tmp_path / "old", (100, 200, 300))
    write_subvolume(
        path,
        segmentation=labels,
        origins=found.origins,
        overlaps=found.overlaps,
        request=b"",
        counters=found.counters,
        overwrite=False,
    )
    read = read_subvolume(path)
    assert read.origins == found.origins
    assert read.counters == found.counters
    with open_volume(path) as again:
        assert again.box.start == (100, 200, 300)
        np.testing.assert_array_equal(again.read(), labels)


def results_request(folder: Path) -> Any:
    from floodem.flooding.request import SegmentRequest

    return SegmentRequest(options=FloodOptions(min_segment_size=100), device="cpu")


def test_a_run_that_is_not_finished_has_no_results(tmp_path):
    folder = RunFolder(tmp_path, destination="labels.zarr")
    folder.write_run({"identity": {}}, status=RunStatus.BEGUN)
    (tmp_path / "origins.json").write_text('{"origins": {}}', encoding="utf-8")
    (tmp_path / "overlaps.json").write_text('{"overlaps": {}}', encoding="utf-8")
    with pytest.raises(RunConflictError, match="not the record of a finished run"):
        results_of_run(tmp_path, corner=(0, 0, 0))


# --- as volumes ----------------------------------------------------------------------------------


def test_a_subvolume_opens_as_labels_at_its_corner(tmp_path):
    path = subvolume_path(tmp_path, (7, 8, 9))
    write_subvolume(path, segmentation=LABELS, overwrite=False, **NOTHING)
    with open_volume(path) as volume:
        assert volume.box == Box((7, 8, 9), (10, 12, 14))
        assert volume.kind is Kind.LABELS
        np.testing.assert_array_equal(volume.read(), LABELS)
        np.testing.assert_array_equal(
            volume.read(Box((8, 9, 10), (9, 10, 12))), LABELS[1:2, 1:2, 1:3]
        )


def test_a_volume_of_ours_keeps_its_own_offset_whatever_its_name(tmp_path):
    uri = tmp_path / "seg-9_8_7.npz"
    with create_volume(uri, shape=(3, 4, 5), dtype="uint8", offset=(1, 1, 1)) as volume:
        volume.write(volume.box, LABELS)
    with open_volume(uri) as volume:
        assert volume.box.start == (1, 1, 1)


def test_probabilities_and_checkpoints_open_at_their_corner(tmp_path):
    quantised = LABELS + 100
    path = subvolume_path(tmp_path, (7, 8, 9), suffix=".prob")
    write_probabilities(path, quantised=quantised, overwrite=False)
    with open_volume(path) as volume:
        assert (volume.box.start, volume.kind) == ((7, 8, 9), Kind.IMAGE)
        np.testing.assert_array_equal(volume.read(), quantised)
    flooder = new_flooder()
    flooder.add_seeds(np.array([[5, 6, 8], [12, 13, 30]]))
    flood_all(flooder)
    path = subvolume_path(tmp_path, (7, 8, 9), suffix=".cpoint")
    write_cpoint(path, checkpoint_of(flooder), overwrite=False)
    with open_volume(path) as volume:
        assert (volume.box.start, volume.kind, volume.dtype) == ((7, 8, 9), Kind.LABELS, "uint32")
        np.testing.assert_array_equal(volume.read(), flooder.canvas.segmentation)


def test_a_checkpoint_of_something_else_does_not_open(tmp_path):
    np.savez(tmp_path / "a", segmentation=LABELS)
    (tmp_path / "a.npz").rename(tmp_path / "seg-0_0_0.cpoint")
    with pytest.raises(VolumeFormatError, match="has int32"):
        open_volume(tmp_path / "seg-0_0_0.cpoint")


def test_public_names_are_all_there():
    for name in results.__all__:
        assert getattr(results, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        results.absent  # noqa: B018 - that looking is refused
    assert UnsafeFileError.exit_code == VolumeFormatError.exit_code
