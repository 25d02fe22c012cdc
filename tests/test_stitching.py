"""Blocks become one segmentation: cut, compared, joined and numbered, it equals the uncut one."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.assembly.agreement import JoinRule
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.pairs import PairTask, compare_block_task, require_zones
from floodem.assembly.writing import read_mapping
from floodem.errors import OptionError
from floodem.geometry import Box
from floodem.labels import components
from stitching_cases import (
    BlocksInMemory,
    blobs,
    cut,
    final_volume,
    plans,
    require_bijection,
    stitch,
    tubes,
    volumes,
    write_blocks,
)

BOX = Box((0, 0, 0), (1, 4, 16))
ROW = BlockPlan(box=BOX, core=(1, 4, 8), margin=(0, 0, 3))
"""Two blocks side by side; their zone is columns 5 to 11."""


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


def written(folder):
    """Return the bytes of everything that numbering wrote."""
    folder = Path(folder)
    files = [*folder.glob("joins*.csv"), *folder.glob("mapping/*")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def joins(store):
    text = (Path(store.address) / "joins.csv").read_text(encoding="ascii")
    return list(csv.DictReader(io.StringIO(text)))


def two_blocks(folder, left, right, *, carried=((), ())):
    """Write labels, given as rows of digits, of the halos of the two blocks of `ROW`."""
    store = BlocksInMemory(address=str(folder / "work"), plan=ROW)
    labels = [
        np.array([[[int(sign) if sign != "." else 0 for sign in row] for row in text]], np.uint32)
        for text in (left, right)
    ]
    floods = write_blocks(
        store,
        lambda block: labels[block.index],
        carried_of=lambda block: carried[block.index],
    )
    return store, floods


@st.composite
def cases(draw):
    truth, box = draw(volumes())
    plan, trim = draw(plans(box))
    return truth, plan, trim, draw(st.integers(0, 2**16)), draw(st.randoms(use_true_random=False))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_a_volume_cut_into_blocks_and_stitched_equals_the_uncut_segmentation(
    case, tmp_path_factory
):
    truth, plan, trim, seed, random = case
    store, floods = cut(truth, plan, folder=tmp_path_factory.mktemp("cut") / "work", seed=seed)
    order = random.sample(range(len(plan)), len(plan))
    numbering = stitch(store, floods, rule=JoinRule(min_shared=1, trim=trim), order=order)
    uncut, count = components(truth, connectivity=26)
    found = final_volume(store)
    require_bijection(found, uncut)
    assert numbering.segments == numbering.largest_id == count
    assert np.array_equal(np.unique(found[found != 0]), np.arange(1, count + 1))
    assert numbering.refused == 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases(), data=st.data())
def test_carried_objects_keep_their_ids_and_stay_one_wherever_they_come(
    case, data, tmp_path_factory
):
    truth, plan, trim, seed, _ = case
    names = np.unique(truth[truth != 0]).tolist()
    carried = set(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else set()
    # Names from outside may be as large as they like, and need not be in order.
    outside = {one: 2**40 + (one * 7919) % 1000 if one in carried else one for one in names}
    truth = np.vectorize(lambda one: outside.get(one, 0), otypes=[np.int64])(truth)
    carried = {outside[one] for one in carried}
    store, floods = cut(
        truth, plan, folder=tmp_path_factory.mktemp("cut") / "work", seed=seed, carried=carried
    )
    numbering = stitch(store, floods, rule=JoinRule(min_shared=1, trim=trim))
    found, is_carried = final_volume(store), np.isin(truth, sorted(carried))
    np.testing.assert_array_equal(found[is_carried], truth[is_carried])
    uncut, count = components(np.where(is_carried, 0, truth), connectivity=26)
    require_bijection(np.where(is_carried, 0, found), uncut)
    assert numbering.segments == count + len(carried)
    new = np.unique(found[~is_carried & (found != 0)])
    assert np.array_equal(new, max(carried, default=0) + np.arange(1, count + 1))


def test_mapping_and_table_have_the_same_bytes_in_any_order_of_tasks(tmp_path):
    truth = tubes((12, 12, 12), np.random.default_rng(3)) + 5 * blobs(
        (12, 12, 12), np.random.default_rng(4)
    )
    plan = BlockPlan(box=Box.from_shape((12, 12, 12)), core=(5, 4, 6), margin=(2, 2, 3))
    made = []
    for attempt in range(3):
        store, floods = cut(truth, plan, folder=tmp_path / str(attempt) / "work")
        order = np.random.default_rng(attempt).permutation(len(plan)).tolist()
        stitch(store, floods, order=order)
        made.append(written(store.address))
    assert made[0] == made[1] == made[2]
    assert set(made[0]) == {"joins.csv", *(f"mapping/{block.key}.npz" for block in plan)}


@pytest.mark.parametrize("carried", [(), (2, 4)])
def test_how_much_is_held_at_once_changes_nothing(tmp_path, monkeypatch, carried):
    truth = blobs((8, 8, 16), np.random.default_rng(7))
    plan = BlockPlan(box=Box.from_shape((8, 8, 16)), core=(4, 4, 4), margin=(2, 2, 2))
    store, floods = cut(truth, plan, folder=tmp_path / "work", carried=carried)
    stitch(store, floods)
    expected = written(store.address)
    for name in ("BATCH", "_NODES_AT_ONCE", "_AT_ONCE", "_AHEAD"):
        monkeypatch.setattr(f"floodem.assembly.numbering.{name}", 1)
    stitch(store, floods)
    assert written(store.address) == expected


def test_numbering_that_was_killed_is_repeated_with_the_same_bytes(tmp_path, monkeypatch):
    truth = blobs((6, 6, 24), np.random.default_rng(1))
    plan = BlockPlan(box=Box.from_shape((6, 6, 24)), core=(6, 6, 6), margin=(0, 0, 2))
    store, floods = cut(truth, plan, folder=tmp_path / "work")
    stitch(store, floods)
    expected = written(store.address)
    for block in (plan.block(1), plan.block(3)):
        (tmp_path / "work" / "mapping" / f"{block.key}.npz").unlink()
    (tmp_path / "work" / "joins.csv").write_text("half a t", encoding="ascii")
    (tmp_path / "scratch").mkdir(exist_ok=True)
    (tmp_path / "scratch" / "leads").write_bytes(b"left by a killed process")
    monkeypatch.setattr("floodem.assembly.scratch_array.IN_MEMORY_BYTES", 0)
    stitch(store, floods)
    assert written(store.address) == expected
    assert not list((tmp_path / "scratch").iterdir())


def test_one_block_keeps_the_order_of_its_segments(tmp_path):
    truth = blobs((5, 6, 7), np.random.default_rng(2))
    plan = BlockPlan(box=Box.from_shape((5, 6, 7)), core=(5, 6, 7), margin=(0, 0, 0))
    store, floods = cut(truth, plan, folder=tmp_path / "work")
    numbering = stitch(store, floods)
    count = floods[0]["segments"]
    assert read_mapping(store, plan.block(0)).tolist() == list(range(count + 1))
    assert (numbering.segments, numbering.joined, numbering.refused) == (count, 0, 0)
    assert joins(store) == []


def test_blocks_without_segments_have_nothing_to_compare(tmp_path):
    store, floods = two_blocks(
        tmp_path, ["...........", "...........", "...........", "..........."], ["...11111111"] * 4
    )
    numbering = stitch(store, floods)
    assert read_mapping(store, ROW.block(0)).tolist() == [0]
    assert read_mapping(store, ROW.block(1)).tolist() == [0, 1]
    assert (numbering.segments, numbering.joined, numbering.refused) == (1, 0, 0)


def test_a_merger_in_one_block_is_refused_and_says_why(tmp_path):
    store, floods = two_blocks(
        tmp_path,
        ["11111111111", "11111111111", "...........", "22222222222"],
        ["11111111111", "11111111111", "11111111111", "11111111111"],
    )
    numbering = stitch(store, floods)
    assert (numbering.segments, numbering.joined, numbering.refused) == (3, 0, 2)
    assert [row["verdict"] for row in joins(store)] == ["little of B", "little of B"]


def test_the_table_names_places_blocks_segments_and_ids(tmp_path):
    store, floods = two_blocks(
        tmp_path,
        ["11111111111", "22222222222", "22222222222", "22222222222"],
        ["22222222222", "11111111111", "11111111111", ".....222222"],
    )
    numbering = stitch(store, floods)
    assert (numbering.segments, numbering.joined, numbering.refused) == (2, 2, 1)
    left, right = "0000-0000-0000", "0000-0000-0001"
    assert [",".join(row.values()) for row in joins(store)] == [
        f"0,0,8,{left},{right},1,2,1,1,6,6,6,joined",
        f"0,2,8,{left},{right},2,1,2,2,12,18,12,joined",
        f"0,3,10,{left},{right},2,2,2,1,1,18,1,little of A",
    ]


def test_branches_that_meet_outside_the_zone_are_one_segment(tmp_path):
    # The left block sees two segments, which the right one sees come together.
    store, floods = two_blocks(
        tmp_path,
        ["11111111111", "...........", "...........", "22222222222"],
        ["11111111111", "..........1", "..........1", "11111111111"],
    )
    numbering = stitch(store, floods)
    assert numbering.segments == 1
    assert numbering.joined == 2


@pytest.mark.parametrize("trim", [0, 1])
def test_what_crosses_a_corner_of_eight_blocks_is_one_segment(tmp_path, trim):
    truth = np.zeros((8, 8, 8), np.int64)
    # Two voxels that touch at a corner alone, in blocks that do so too.
    truth[3, 3, 4] = truth[4, 4, 3] = 5
    plan = BlockPlan(box=Box.from_shape((8, 8, 8)), core=(4, 4, 4), margin=(2, 2, 2))
    store, floods = cut(truth, plan, folder=tmp_path / "work")
    numbering = stitch(store, floods, rule=JoinRule(min_shared=1, trim=(trim,) * 3))
    assert numbering.segments == 1
    np.testing.assert_array_equal(final_volume(store), truth // 5)


def test_what_lies_in_halos_alone_is_no_segment(tmp_path):
    # Segment 2 of the left block lies in its halo, where the right one found nothing.
    store, floods = two_blocks(
        tmp_path,
        ["11111111111", "11111111111", "...........", ".........222"[1:]],
        ["11111111111", "11111111111", "...........", "..........."],
    )
    numbering = stitch(store, floods)
    assert read_mapping(store, ROW.block(0)).tolist() == [0, 1, 0]
    assert numbering.segments == numbering.largest_id == 1


def test_what_lies_in_one_halo_counts_when_the_neighbour_has_it_in_its_core(tmp_path):
    store, floods = two_blocks(
        tmp_path,
        ["11111......", "...........", "...........", "........222"],
        ["...........", "...........", "...........", "...11111111"],
    )
    numbering = stitch(store, floods)
    assert read_mapping(store, ROW.block(0)).tolist() == [0, 1, 2]
    assert read_mapping(store, ROW.block(1)).tolist() == [0, 2]
    assert numbering.segments == 2


def test_a_new_segment_takes_the_smallest_carried_id_that_it_is_joined_with(tmp_path):
    rows = ["11111111111", "...........", "22222222222", "33333333333"]
    store, floods = two_blocks(
        tmp_path,
        rows,
        ["22222222222", "...........", "11111111111", "33333333333"],
        carried=((70, 9), (70,)),
    )
    # Left: 70, 9, new. Right: 70 lies on 9, and a new one on 70.
    numbering = stitch(store, floods)
    assert read_mapping(store, ROW.block(0)).tolist() == [0, 9, 9, 71]
    assert read_mapping(store, ROW.block(1)).tolist() == [0, 9, 9, 71]
    assert (numbering.segments, numbering.largest_id) == (2, 71)


def test_equal_carried_ids_are_no_rows(tmp_path):
    rows = ["11111111111", "...........", "...........", "..........."]
    store, floods = two_blocks(tmp_path, rows, rows, carried=((5,), (5,)))
    numbering = stitch(store, floods)
    assert joins(store) == []
    assert (numbering.segments, numbering.largest_id, numbering.joined) == (1, 5, 0)


def test_a_halo_that_the_trim_takes_away_is_refused():
    with pytest.raises(OptionError, match=r"halo \(0, 0, 3\) .* on x, where 3 voxels"):
        require_zones(ROW, trim=(9, 9, 3))
    require_zones(ROW, trim=(9, 9, 2))


def test_each_block_is_read_in_its_zones_alone(tmp_path):
    plan = BlockPlan(box=Box.from_shape((12, 12, 12)), core=(6, 6, 6), margin=(2, 2, 2))
    store, _ = cut(np.ones((12, 12, 12), np.int64), plan, folder=tmp_path / "work")
    read = []

    class Watched(BlocksInMemory):
        __slots__ = ()

        def open_labels(self, block):
            volume = super().open_labels(block)
            volume.reads = read
            return volume

    watched = Watched(address=store.address, plan=plan)
    rule = JoinRule(trim=(1, 1, 1))
    result = compare_block_task(PairTask(store=watched, block=plan.block(0), rule=rule))
    # 3 slabs of its own, and the zone of each of the 7 neighbours.
    assert len(read) == 10
    slab, edge, corner = 7 * 7 * 2, 7 * 2 * 2, 2 * 2 * 2
    assert sum(box.size for box in read) == 6 * slab + 3 * edge + corner
    assert result == {
        "neighbours": 7,
        "voxels": 3 * slab + 3 * edge + corner,
        "joined": 6,
        "refused": 1,
    }
    # Too few to tell: the corner's.
    assert corner < rule.min_shared
