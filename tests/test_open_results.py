"""``floodem open-results``: folders of old results become one volume with its origins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    StoppedError,
    VolumeNotFoundError,
)
from floodem.evaluation import evaluate
from floodem.flooding.seeds.origins import find_origins, read_origins
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.legacy.results import (
    OriginInfo,
    merged,
    open_results,
    paths,
    subvolume_path,
    write_subvolume,
)
from floodem.legacy.results.placement import NOWHERE, Places, uncovered
from floodem.progress import Progress
from floodem.volumes import open_volume
from floodem.volumes.volume import Kind
from reference.merged_results import merged as slowly_merged
from refusals import INPUT_REFUSED, USAGE, everything_in, floodem

SHAPE = (4, 5, 6)


def write_results(
    folder: Path, subvolumes: Mapping[Zyx, np.ndarray], *, flat: bool = False
) -> None:
    """Write results whose segments begin at their first voxel."""
    for corner, labels in subvolumes.items():
        ids = [int(label) for label in np.unique(labels) if label]
        starts = {label: np.argwhere(labels == label)[0].tolist() for label in ids}
        write_subvolume(
            subvolume_path(folder, corner, flat=flat),
            segmentation=labels,
            origins={label: OriginInfo(tuple(starts[label]), label, 0.25) for label in ids},
            overlaps={label: {ids[0]: 7} for label in ids[1:]},
            request=b"",
            counters={},
            overwrite=True,
        )


def some_labels(seed: int, *, shape: Zyx = SHAPE, largest: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, largest + 1, shape).astype(np.uint32)


OVERLAPPING: dict[Zyx, np.ndarray] = {
    corner: some_labels(number)
    for number, corner in enumerate([(0, 0, 0), (0, 0, 4), (0, 3, 0), (2, 3, 4)])
}


def read_whole(uri: str | Path) -> np.ndarray:
    with open_volume(uri) as volume:
        return volume.read()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    "name", ["all.zarr", "all.h5@labels", "all.npz", "n5://all", "precomputed://all"]
)
def test_overlapping_subvolumes_become_one_volume(tmp_path, monkeypatch, flat, name):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "r", OVERLAPPING, flat=flat)
    made = open_results("r", name, voxel_size=VoxelSize(30, 6, 6))
    labels, corner = slowly_merged(OVERLAPPING)
    with open_volume(name) as volume:
        assert volume.box == Box.from_shape(labels.shape, start=corner)
        assert volume.dtype == np.uint64
        assert volume.voxel_size == VoxelSize(30, 6, 6)
        np.testing.assert_array_equal(volume.read(), labels)
    assert (made.subvolumes, made.segments) == (4, len(np.unique(labels)) - 1)
    assert made.box == Box.from_shape(labels.shape, start=corner)


@settings(deadline=None, max_examples=25)
@given(
    corners=st.lists(
        st.tuples(st.integers(-3, 5), st.integers(0, 6), st.integers(0, 6)),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    data=st.data(),
)
def test_any_subvolumes_are_put_together_as_voxel_by_voxel(tmp_path_factory, corners, data):
    shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)
    subvolumes = {
        corner: data.draw(hnp.arrays("u2", shapes, elements=st.integers(0, 300)))
        for corner in corners
    }
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, subvolumes)
    made = open_results(folder, folder / "all.npz")
    labels, corner = slowly_merged(subvolumes)
    with open_volume(made.uri) as volume:
        assert volume.offset == corner
        np.testing.assert_array_equal(volume.read(), labels)
    record = json.loads((folder / "all.npz.floodem" / "origins.json").read_text(encoding="utf-8"))
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert {int(i): one["voxels"] for i, one in record["origins"].items()} == dict(
        zip(ids.tolist(), counts.tolist(), strict=True)
    )


def test_a_single_subvolume_keeps_its_ids_and_its_place(tmp_path):
    labels = some_labels(3, largest=200)
    write_results(tmp_path / "r", {(7, 8, 9): labels})
    made = open_results(tmp_path / "r", tmp_path / "all.zarr")
    np.testing.assert_array_equal(read_whole(made.uri), labels)
    assert made.box.start == (7, 8, 9)
    assert made.notices == ("old results do not say their voxel size: give it with --voxel-size",)


def test_ids_count_on_in_the_order_of_the_corners_whatever_the_box(tmp_path):
    write_results(tmp_path / "r", OVERLAPPING)
    whole = read_whole(open_results(tmp_path / "r", tmp_path / "all.zarr").uri)
    box = Box((1, 2, 3), (5, 8, 10))
    part = open_results(tmp_path / "r", tmp_path / "part.zarr", box=box)
    np.testing.assert_array_equal(read_whole(part.uri), whole[box.slices()])
    alone = Box((0, 0, 0), (1, 1, 1))
    assert open_results(tmp_path / "r", tmp_path / "voxel.zarr", box=alone).subvolumes == 1
    subvolumes = json.loads(
        (tmp_path / "all.zarr.floodem" / "subvolumes.json").read_text(encoding="utf-8")
    )
    added = [one["added_to_ids"] for one in subvolumes["subvolumes"]]
    assert added == [0, 4, 8, 12]
    assert [one["box"] for one in subvolumes["subvolumes"]] == [
        str(Box.from_shape(SHAPE, start=corner)) for corner in OVERLAPPING
    ]


def test_origins_and_overlaps_are_those_that_segment_writes(tmp_path):
    write_results(tmp_path / "r", OVERLAPPING)
    made = open_results(tmp_path / "r", tmp_path / "all.zarr")
    record = tmp_path / "all.zarr.floodem"
    origins = json.loads((record / "origins.json").read_text(encoding="utf-8"))
    assert origins["version"] == 1
    first = origins["origins"]["1"]
    assert set(first) == {"start_zyx", "iters", "seconds", "voxels", "end"}
    assert (first["iters"], first["seconds"], first["end"]) == (1, 0.25, "unknown")
    assert made.origins == len(origins["origins"]) == made.segments
    labels = read_whole(made.uri)
    starts = read_origins(find_origins(tmp_path / "all.zarr"))
    ids = {int(i) for i in np.unique(labels)} - {0}
    assert set(starts) == ids
    # Where nothing lies above a subvolume, its segments begin in themselves.
    assert labels[starts[1]] == 1
    overlaps = json.loads((record / "overlaps.json").read_text(encoding="utf-8"))["overlaps"]
    assert overlaps["2"] == {"1": 7}
    assert overlaps["6"] == {"5": 7}


def test_segments_that_lost_all_voxels_have_no_origin(tmp_path):
    first, second = np.ones((1, 1, 9), np.uint8), np.ones((1, 1, 9), np.uint8)
    second[0, 0, 0] = 2  # nearer to the centre of the first
    write_results(tmp_path / "r", {(0, 0, 0): first, (0, 0, 4): second})
    made = open_results(tmp_path / "r", tmp_path / "all.zarr")
    assert read_whole(made.uri).ravel().tolist() == [1] * 7 + [2] * 6
    assert (made.segments, made.origins) == (2, 2)


def test_segments_without_an_origin_are_counted(tmp_path):
    write_subvolume(
        subvolume_path(tmp_path / "r", (0, 0, 0)),
        segmentation=some_labels(1),
        origins={2: OriginInfo((0, 0, 0), 1, 1.0), 99: OriginInfo((0, 0, 0), 1, 1.0)},
        overlaps={},
        request=b"",
        counters={},
        overwrite=False,
    )
    made = open_results(tmp_path / "r", tmp_path / "all.zarr", voxel_size=VoxelSize(1, 1, 1))
    assert (made.segments, made.origins) == (4, 1)
    assert made.notices == ("3 segments have no origin in the files",)


def test_what_is_not_covered_is_said(tmp_path):
    ones = np.ones((2, 2, 2), np.uint8)
    write_results(tmp_path / "r", {(0, 0, 0): ones, (0, 0, 4): ones})
    made = open_results(tmp_path / "r", tmp_path / "all.zarr")
    assert any("8 voxels of 0:2,0:2,0:6 lie in no subvolume and are 0" in n for n in made.notices)
    assert any("2 subvolumes were put together by the nearest centre" in n for n in made.notices)
    assert read_whole(made.uri)[0, 0].tolist() == [1, 1, 0, 0, 2, 2]


def test_what_is_all_but_empty_is_refused(tmp_path):
    ones = np.ones((2, 2, 2), np.uint8)
    write_results(tmp_path / "r", {(0, 0, 0): ones, (0, 0, 2**40): ones})
    with pytest.raises(GeometryError, match="would be all but empty: 2 subvolumes in it"):
        open_results(tmp_path / "r", tmp_path / "all.zarr")
    far = Box((0, 0, 2**40), (2, 2, 2**40 + 2))
    made = open_results(tmp_path / "r", tmp_path / "all.zarr", box=far)
    assert read_whole(made.uri).tolist() == np.full((2, 2, 2), 2).tolist()


def test_a_box_outside_is_refused_with_where_they_lie(tmp_path):
    write_results(tmp_path / "r", OVERLAPPING)
    for box in (Box((9, 0, 0), (10, 1, 1)), Box((0, 0, 0), (7, 1, 1))):
        with pytest.raises(GeometryError, match="0:6,0:8,0:10"):
            open_results(tmp_path / "r", tmp_path / "all.zarr", box=box)
    assert not (tmp_path / "all.zarr").exists()


def test_one_file_opens_and_where_it_lies_is_said(tmp_path):
    labels = some_labels(5)
    np.savez_compressed(tmp_path / "sample.npz", segmentation=labels)
    made = open_results(tmp_path / "sample.npz", tmp_path / "all.zarr")
    np.testing.assert_array_equal(read_whole(made.uri), labels)
    assert made.notices[0].endswith("sample.npz tells no corner: it was put at 0,0,0")
    with pytest.raises(VolumeNotFoundError, match="there is no .*absent: give the folder"):
        open_results(tmp_path / "absent", tmp_path / "other.zarr")


def test_a_second_file_of_a_corner_is_mentioned(tmp_path):
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(1)})
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(2)}, flat=True)
    made = open_results(tmp_path / "r", tmp_path / "all.zarr")
    np.testing.assert_array_equal(read_whole(made.uri), some_labels(1))
    assert "1 result of the flat layout" in made.notices[0]


def test_what_is_there_stays_unless_it_may_be_replaced(tmp_path):
    write_results(tmp_path / "r", OVERLAPPING)
    open_results(tmp_path / "r", tmp_path / "all.zarr")
    before = everything_in(tmp_path)
    box = Box((0, 0, 0), (2, 2, 2))
    with pytest.raises(DestinationExistsError, match="exists already"):
        open_results(tmp_path / "r", tmp_path / "all.zarr", box=box)
    assert everything_in(tmp_path) == before
    again = open_results(tmp_path / "r", tmp_path / "all.zarr")
    assert again.was_finished
    assert not open_results(
        tmp_path / "r", tmp_path / "all.zarr", box=box, overwrite=True
    ).was_finished
    assert read_whole(tmp_path / "all.zarr").shape == (2, 2, 2)


def test_changed_results_are_not_taken_for_the_finished_ones(tmp_path):
    write_results(tmp_path / "r", OVERLAPPING)
    open_results(tmp_path / "r", tmp_path / "r" / "all.zarr")
    assert open_results(tmp_path / "r", tmp_path / "r" / "all.zarr").was_finished
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(77, largest=9)})
    with pytest.raises(DestinationExistsError):
        open_results(tmp_path / "r", tmp_path / "r" / "all.zarr")


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_stopped_opening_goes_on_to_the_same_volume(tmp_path, after):
    write_results(tmp_path / "r", OVERLAPPING)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    wanted: dict[str, Any] = {"chunks": (2, 2, 2), "threads": 1}
    with pytest.raises(StoppedError, match="same command"):
        open_results(tmp_path / "r", tmp_path / "all.zarr", should_stop=should_stop, **wanted)
    assert not (tmp_path / "all.zarr").exists()
    open_results(tmp_path / "r", tmp_path / "all.zarr", **wanted)
    np.testing.assert_array_equal(read_whole(tmp_path / "all.zarr"), slowly_merged(OVERLAPPING)[0])


def test_progress_counts_the_voxels_of_all_files(tmp_path):
    write_results(tmp_path / "r", OVERLAPPING)
    told: list[Progress] = []
    open_results(tmp_path / "r", tmp_path / "all.zarr", progress=told.append)
    counting = [one.done for one in told if one.stage == "counting ids"]
    assert counting == [120, 240, 360, 480]
    assert any(one.stage != "counting ids" for one in told)


def test_only_what_fits_stays_unpacked(tmp_path, monkeypatch):
    write_results(tmp_path / "r", OVERLAPPING)
    monkeypatch.setattr(merged, "_CACHE_BYTES", 1)
    held: list[int] = []
    make_room = merged.MergedResults._make_room

    def watch(self: merged.MergedResults, needed: int) -> None:
        make_room(self, needed)
        held.append(len(self._unpacked))

    monkeypatch.setattr(merged.MergedResults, "_make_room", watch)
    made = open_results(tmp_path / "r", tmp_path / "all.zarr", threads=4)
    np.testing.assert_array_equal(read_whole(made.uri), slowly_merged(OVERLAPPING)[0])
    assert len(held) >= 4
    assert set(held) == {0}


def test_ids_beyond_64_bits_are_refused(tmp_path):
    labels = np.full((1, 1, 1), 2**63, np.uint64)
    write_results(tmp_path / "r", {(0, 0, 0): labels, (0, 0, 1): labels})
    with pytest.raises(LabelError, match="does not fit 64 bits"):
        open_results(tmp_path / "r", tmp_path / "all.zarr")
    assert not (tmp_path / "all.zarr").exists()


def test_coarser_levels_are_of_labels(tmp_path):
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(1, shape=(16, 16, 16))})
    made = open_results(tmp_path / "r", tmp_path / "all.zarr", pyramid=1)
    with open_volume(made.uri) as volume:
        assert len(volume.levels) == 2
        assert volume.kind is Kind.LABELS
        assert volume.levels[1].read().max() <= 4


def test_pieces_of_a_result_score_as_the_whole(tmp_path, shared_data):
    """The published sample, cut into overlapping subvolumes, covers the same voxels."""
    with np.load(shared_data / "fib25" / "sample-training2.npz") as archive:
        whole = archive["segmentation"][:100, :100, :120]
    write_results(
        tmp_path / "r",
        {
            (z, y, x): whole[z : z + 60, y : y + 60, x : x + 70]
            for z in (0, 40)
            for y in (0, 40)
            for x in (0, 50)
        },
    )
    made = open_results(tmp_path / "r", tmp_path / "all.zarr")
    pieces = read_whole(made.uri)
    np.testing.assert_array_equal(pieces > 0, whole > 0)
    np.savez(tmp_path / "truth.npz", segmentation=whole)
    with open_volume(made.uri) as labels, open_volume(tmp_path / "truth.npz") as truth:
        scores = evaluate(labels, truth)
    assert scores.all_truth.voi_merge_bits == 0
    assert scores.all_truth.voi_split_bits > 0


@pytest.mark.parametrize("member", ["origins", "overlaps"])
def test_refused_records_leave_nothing_and_the_labels_can_be_had_alone(
    tmp_path, monkeypatch, member
):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(1), (0, 0, 6): some_labels(2)})
    path = subvolume_path(Path("r"), (0, 0, 6))
    with np.load(path) as archive:
        labels = archive["segmentation"]
    np.savez_compressed(path, segmentation=labels, **{member: np.array(print, dtype=object)})
    before = everything_in(tmp_path)
    ended = floodem("open-results", "r", "all.zarr")
    assert (ended.code, ended.out) == (INPUT_REFUSED, "")
    assert ended.err.count("\n") == 1
    assert f"`floodem convert {path} DST` takes the labels alone" in ended.err
    assert everything_in(tmp_path) == before
    assert floodem("convert", str(path), "alone.zarr").code == 0
    np.testing.assert_array_equal(read_whole("alone.zarr"), labels)


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_above_results_is_refused_with_where_they_are(tmp_path, flat):
    wanted = tmp_path / "results" / "fib25" / "training2"
    write_results(wanted, {(7, 8, 9): some_labels(1)}, flat=flat)
    write_results(wanted / "a" / "b" / "deeper", {(0, 0, 0): some_labels(1)}, flat=True)
    for above in (tmp_path, tmp_path / "results", wanted.parent):
        with pytest.raises(VolumeNotFoundError) as caught:
            open_results(above, tmp_path / "all.zarr")
        assert f"folders X/Y: {wanted} holds some, give that" in str(caught.value)
    assert not (tmp_path / "all.zarr").exists()


def test_the_search_below_a_folder_without_results_ends(tmp_path, monkeypatch):
    write_results(tmp_path / "a" / "b", {(0, 0, 0): some_labels(1)}, flat=True)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(VolumeNotFoundError, match="b holds some"):
        open_results(tmp_path, tmp_path / "all.zarr")
    monkeypatch.setattr(paths, "_MOST_FOLDERS", 2)
    with pytest.raises(VolumeNotFoundError, match="give the folder that the older program"):
        open_results(tmp_path, tmp_path / "all.zarr")


# --- which subvolume a voxel comes from ---


def test_the_nearest_centre_wins_and_the_first_on_a_tie():
    places = Places([Box((0, 0, 0), (1, 1, 8)), Box((0, 0, 5), (1, 1, 14))])
    # Centres at 3.5 and 9; half-way is 6.25.
    assert places.owners(Box((0, 0, 0), (1, 1, 16))).ravel().tolist() == (
        [0] * 7 + [1] * 7 + [NOWHERE] * 2
    )
    same = Places([Box((0, 0, 0), (1, 1, 4)), Box((0, 0, 0), (1, 1, 4))])
    assert same.owners(Box((0, 0, 0), (1, 1, 4))).ravel().tolist() == [0] * 4
    odd = Places([Box((0, 0, 0), (1, 1, 5)), Box((0, 0, 2), (1, 1, 7))])
    assert odd.owners(Box((0, 0, 0), (1, 1, 7))).ravel().tolist() == [0, 0, 0, 0, 1, 1, 1]


BOXES = st.builds(
    lambda start, shape: Box.from_shape(shape, start=start),
    st.tuples(*[st.integers(-4, 6)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
)


@given(box=BOXES, boxes=st.lists(BOXES, min_size=1, max_size=5))
def test_uncovered_voxels_are_those_without_an_owner(box, boxes):
    owners = Places(boxes).owners(box)
    assert uncovered(box, boxes) == np.count_nonzero(owners == NOWHERE)


@given(box=BOXES, boxes=st.lists(BOXES, min_size=1, max_size=5), part=BOXES)
def test_owners_do_not_depend_on_the_box_they_are_asked_for(box, boxes, part):
    places = Places(boxes)
    inner = box.intersection(part)
    if inner is not None:
        whole = places.owners(box)[inner.slices(origin=box.start)]
        np.testing.assert_array_equal(places.owners(inner), whole)


# --- the command ---


def test_the_command_says_what_it_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "r", OVERLAPPING)
    options = ("--voxel-size", "30,6,6", "--box", "0:4,0:8,0:10")
    ended = floodem("open-results", "r", "all.zarr", *options)
    assert ended.code == 0
    assert "all.zarr: 4 x 8 x 10 uint64 at 0,0,0 (z,y,x), 30,6,6 nm a voxel" in ended.out
    assert "16 segments of 4 subvolumes; where 16 segments began is in" in ended.out
    assert "their segments are not joined" in ended.err
    again = floodem("open-results", "r", "all.zarr", *options)
    assert "finished by an earlier run" in again.out
    assert floodem("verify", "all.zarr").code == 0


def test_the_command_gives_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(1)})
    ended = floodem("open-results", "r", "all.h5@labels", "--json")
    told = json.loads(ended.out)
    assert told["box"] == "0:4,0:5,0:6"
    assert (told["subvolumes"], told["segments"], told["origins"]) == (1, 4, 4)
    assert told["was_finished"] is False
    assert told["record"].endswith("all.h5@labels.floodem")


def test_mistakes_in_the_command_are_sentences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "r", {(0, 0, 0): some_labels(1)})
    (tmp_path / "empty").mkdir()
    before = everything_in(tmp_path)
    for arguments, code, sentence in (
        (("empty", "all.zarr"), INPUT_REFUSED, "holds no seg-X_Y_Z.npz"),
        (("r", "all"), INPUT_REFUSED, "cannot tell the format"),
        (("r", "all.zarr", "--box", "1:2"), USAGE, "--box"),
        (("r", "all.zarr", "--voxel-size", "x"), USAGE, "--voxel-size"),
        (("r", "all.zarr", "--chunks", "1"), USAGE, "--chunks"),
    ):
        ended = floodem("open-results", *arguments)
        assert (ended.code, ended.out) == (code, "")
        assert sentence in ended.err
        assert ended.err.count("\n") == 1
    assert everything_in(tmp_path) == before
