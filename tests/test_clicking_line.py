"""Wishes in line: floods that are shown, stopped, kept, taken back, gone on with, undone."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

import floodem
from array_volume import ArrayVolume
from bright import bright_model
from clicking_cases import (
    DARK,
    OFFSET,
    ON_CPU,
    SECOND_TUBE,
    TUBE,
    FakeScreen,
    Gate,
    line_of,
    painted,
    tubes,
    until,
)
from floodem.errors import StorageError
from floodem.flooding.kept import KeptFloods
from floodem.viewer.clicking.flood_line import MOST_WAITING, Obstacle, Wish
from floodem.volumes import open_volume


@pytest.fixture
def volume():
    return tubes()


@pytest.fixture
def running(tmp_path, volume):
    @contextmanager
    def run(**options):
        screen = FakeScreen()
        with KeptFloods(tmp_path / "k.zarr", image=volume) as kept:
            line = line_of(volume, kept=kept, screen=screen, **options)
            line.start()
            try:
                yield line, screen, kept
            finally:
                line.close()

    return run


def alone(volume, seed):
    return floodem.flood_at(volume, seed, model=bright_model(), request=ON_CPU)


def test_a_click_shows_the_object_that_the_python_call_gives(running, volume):
    with running() as (line, screen, kept):
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        made = alone(volume, TUBE)
        np.testing.assert_array_equal(painted(volume, screen.shown[-1]), made.mask)
        assert f"{made.voxels:,} voxels, {made.calls} network calls" in screen.now
        assert "Enter keeps it as 1, Backspace takes it back" in screen.now
        assert kept.labels == ()


def test_what_grows_is_shown_from_the_first_call_on(running, volume, monkeypatch):
    monkeypatch.setattr("floodem.viewer.clicking.pace.SHOW_EVERY_S", 0)
    with running() as (line, screen, _):
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        sizes = [painted(volume, one).sum() for one in screen.shown if one is not None]
        calls = alone(volume, TUBE).calls
        assert len(sizes) == calls + 1
        assert sizes[0] < sizes[len(sizes) // 2] < sizes[-1]
        assert screen.has_said("flooding from 105,206,320 (z,y,x): ")
        assert screen.has_said("1 network call, ")


def test_growth_is_shown_several_times_a_second_and_not_more_often(running):
    gate = Gate()
    with running(gate=gate) as (line, screen, _):
        gate.open()
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        # Two dozen calls take a few milliseconds here: the first, perhaps one more, and the end.
        assert 2 <= len([one for one in screen.shown if one is not None]) <= 4


def test_the_first_picture_gets_a_pause_to_be_seen_in(running):
    with running() as (line, screen, _):
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        assert screen.pauses == 1


def test_enter_keeps_the_object_on_disk_and_nothing_is_pending_then(running, volume, tmp_path):
    with running() as (line, screen, kept):
        line.wish(TUBE)
        line.wish(Wish.KEEP)
        until(lambda: screen.kept)
        until(lambda: "kept as 1" in screen.now)
        assert screen.shown[-1] is None
        assert screen.asked[-1] is False
        assert kept.floods[0].seed == TUBE
        assert kept.floods[0].model == "d" * 64
    with open_volume(tmp_path / "k.zarr") as labels:
        found = labels.read()
    assert set(np.unique(found)) == {0, 1}


def test_an_object_that_was_kept_when_done_is_the_one_of_the_python_call(running, volume, tmp_path):
    with running() as (line, screen, _):
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        line.wish(Wish.KEEP)
        until(lambda: "kept as 1" in screen.now)
    with open_volume(tmp_path / "k.zarr") as labels:
        np.testing.assert_array_equal(labels.read() == 1, alone(volume, TUBE).mask)


def test_backspace_leaves_nothing_behind(running, tmp_path):
    with running() as (line, screen, kept):
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        line.wish(Wish.TAKE_BACK)
        until(lambda: screen.now.startswith("taken back"))
        assert screen.shown[-1] is None
        assert kept.floods == ()
    assert not (tmp_path / "k.zarr").exists()


@pytest.mark.parametrize(
    ("wish", "says", "objects"),
    [
        (Wish.STOP, "stopped: ", 0),
        (Wish.KEEP, "kept as 1", 1),
        (Wish.TAKE_BACK, "taken back", 0),
    ],
)
def test_a_growing_flood_ends_after_the_call_under_way(running, volume, wish, says, objects):
    gate = Gate()
    with running(gate=gate) as (line, screen, kept):
        line.wish(TUBE)
        gate.open(3)
        until(lambda: screen.has_said("flooding from"))
        line.wish(wish)
        gate.open()
        until(lambda: screen.now.startswith(says))
        assert len(kept.floods) == objects
        whole = alone(volume, TUBE)
        if wish is Wish.STOP:
            assert 0 < painted(volume, screen.shown[-1]).sum() < whole.voxels
            line.wish(Wish.KEEP)
            until(lambda: "kept as 1" in screen.now)
            assert kept.floods[0].end is None


def test_the_keys_that_decide_are_asked_for_only_while_there_is_a_flood(running):
    with running() as (line, screen, _):
        assert screen.asked == []
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        assert screen.asked == [True]
        line.wish(Wish.TAKE_BACK)
        until(lambda: screen.now.startswith("taken back"))
        assert screen.asked == [True, False]
        line.wish(DARK)
        until(lambda: "sees no object" in screen.now)
        assert screen.asked == [True, False, True, False]


def test_places_wait_in_line_until_the_flood_before_is_decided(running, volume):
    with running() as (line, screen, kept):
        for seed in (TUBE, SECOND_TUBE, DARK):
            line.wish(seed)
        until(lambda: screen.now.startswith("done") and "2 more waiting" in screen.now)
        assert painted(volume, screen.shown[-1])[5, 6, 20]
        line.wish(Wish.KEEP)
        until(lambda: screen.now.startswith("done") and "1 more waiting" in screen.now)
        assert painted(volume, screen.shown[-1])[5, 20, 40]
        line.wish(Wish.KEEP)
        until(lambda: "sees no object" in screen.now)
        assert kept.labels == (1, 2)
        assert [flood.seed for flood in kept.floods] == [TUBE, SECOND_TUBE]


def test_the_line_has_an_end(running):
    gate = Gate()
    with running(gate=gate) as (line, screen, _):
        for _ in range(MOST_WAITING + 2):
            line.wish(TUBE)
        gate.open(3)
        until(lambda: screen.has_said(f"{MOST_WAITING} places wait already"))
        line.wish(Wish.END)
        gate.open()


def test_undo_takes_back_one_flood_after_the_other(running, volume, tmp_path):
    with running() as (line, screen, kept):
        for seed in (TUBE, SECOND_TUBE):
            line.wish(seed)
            until(lambda: screen.now.startswith("done"))
            line.wish(Wish.KEEP)
            until(lambda: screen.now.startswith("kept"))
        line.wish(Wish.UNDO)
        until(lambda: screen.now.startswith("took back the last flood of 2"))
        np.testing.assert_array_equal(kept.read(kept.box), alone(volume, TUBE).mask)
        line.wish(Wish.UNDO)
        until(lambda: screen.now.startswith("took back the last flood of 1"))
        assert not kept.read(kept.box).any()
        line.wish(Wish.UNDO)
        until(lambda: screen.now.startswith("there is nothing to take back"))


def test_undo_waits_for_the_decision_about_a_pending_flood(running):
    with running() as (line, screen, kept):
        line.wish(TUBE)
        line.wish(Wish.KEEP)
        until(lambda: "kept as 1" in screen.now)
        line.wish(SECOND_TUBE)
        until(lambda: screen.now.startswith("done"))
        line.wish(Wish.UNDO)
        until(lambda: screen.now.startswith("decide about this flood first"))
        assert len(kept.floods) == 1


def test_undo_while_a_flood_grows_is_answered_and_the_answer_can_be_read(running, monkeypatch):
    monkeypatch.setattr("floodem.viewer.clicking.pace.SHOW_EVERY_S", 0)
    gate = Gate()
    with running(gate=gate) as (line, screen, kept):
        line.wish(TUBE)
        gate.open(3)
        until(lambda: screen.has_said("flooding from"))
        line.wish(Wish.UNDO)
        gate.open(2)
        until(lambda: screen.now.startswith("decide about this flood first"))
        shown = len(screen.shown)
        gate.open(3)
        until(lambda: len(screen.shown) >= shown + 3)
        assert screen.now.startswith("decide about this flood first")
        gate.open()
        until(lambda: screen.now.startswith("done"))
        assert kept.floods == ()


def test_a_kept_object_is_gone_on_with_where_it_is_clicked(running, volume, tmp_path):
    gate = Gate()
    with running(gate=gate) as (line, screen, kept):
        line.wish(TUBE)
        gate.open(3)
        until(lambda: screen.has_said("flooding from"))
        line.wish(Wish.KEEP)
        gate.open()
        until(lambda: "kept as 1" in screen.now)
        first = kept.read(kept.box) == 1
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        assert "Enter keeps it as 1" in screen.now
        new = painted(volume, screen.shown[-1])
        assert not (new & first).any()
        line.wish(Wish.KEEP)
        until(lambda: len(kept.floods) == 2 and screen.now.startswith("kept as 1"))
        np.testing.assert_array_equal(kept.read(kept.box) == 1, alone(volume, TUBE).mask | first)
        assert kept.labels == (1,)
        line.wish(Wish.UNDO)
        until(lambda: screen.now.startswith("took back"))
        np.testing.assert_array_equal(kept.read(kept.box) == 1, first)


def test_what_was_kept_is_gone_around(running, volume):
    gate = Gate()
    with running(gate=gate) as (line, screen, kept):
        line.wish(TUBE)
        gate.open(3)
        until(lambda: screen.has_said("flooding from"))
        line.wish(Wish.KEEP)
        gate.open()
        until(lambda: "kept as 1" in screen.now)
        first = kept.read(kept.box) == 1
        beyond = np.argwhere(alone(volume, TUBE).mask & ~first)
        inside = [
            tuple(int(at) for at in voxel + OFFSET)
            for voxel in beyond
            if all(m <= v < e - m for v, m, e in zip(voxel, (3, 4, 4), volume.shape, strict=True))
        ]
        line.wish(inside[-1])
        until(lambda: screen.now.startswith("done"))
        assert not (painted(volume, screen.shown[-1]) & first).any()
        assert "Enter keeps it as 2" in screen.now


def test_a_click_in_somebody_elses_object_says_whose_it_is(running, volume):
    labels = np.zeros(volume.shape, np.uint32)
    labels[:, :, 40:] = 17
    obstacle = Obstacle(name="seg.h5", volume=ArrayVolume(labels, offset=OFFSET))
    with running(obstacles=[obstacle]) as (line, screen, _):
        line.wish((105, 206, 350))
        until(lambda: "105,206,350 (z,y,x) is in object 17 of seg.h5" in screen.now)
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))
        assert not (painted(volume, screen.shown[-1]) & (labels == 17)).any()


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (DARK, "the network sees no object at 112,213,320"),
        (OFFSET, "100,200,300 (z,y,x) is nearer to the image's border than half the field of view"),
        ((105, 206, 303), "field of view, 3,4,4 voxels: point further inside"),
        ((0, 0, 0), "is outside of array"),
    ],
)
def test_a_place_from_which_nothing_can_begin_is_said_and_the_line_goes_on(running, seed, says):
    with running() as (line, screen, _):
        line.wish(seed)
        until(lambda: says in screen.now)
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))


def test_an_object_that_goes_on_beyond_the_box_is_said_to(tmp_path):
    volume, screen = tubes((12, 14, 300)), FakeScreen()
    with KeptFloods(tmp_path / "k.zarr", image=volume) as kept:
        line = line_of(volume, kept=kept, screen=screen, reach=30)
        line.start()
        line.wish((105, 206, 450))
        until(lambda: screen.now.startswith("done"))
        assert "reached the edge of its box: keep it and press f there to go on" in screen.now
        line.wish((105, 206, 474))
        line.wish(Wish.KEEP)
        until(lambda: len(kept.floods) == 1 and screen.now.startswith("done"))
        assert "Enter keeps it as 1" in screen.now
        line.wish(Wish.KEEP)
        until(lambda: len(kept.floods) == 2)
        assert kept.labels == (1,)
        assert kept.box_of(1).shape[2] > 80
        line.close()


def test_a_disk_that_refuses_leaves_the_flood_to_be_decided_about(running, monkeypatch):
    with running() as (line, screen, kept):
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))

        def refuse(*_, **__):
            raise StorageError("the disk is full: free some space")

        with monkeypatch.context() as patch:
            patch.setattr(kept, "keep", refuse)
            line.wish(Wish.KEEP)
            until(lambda: screen.now.startswith("the disk is full"))
        line.wish(Wish.KEEP)
        until(lambda: "kept as 1" in screen.now)


def test_a_bug_is_said_and_does_not_end_the_line(running, monkeypatch, caplog):
    with running() as (line, screen, _):
        with monkeypatch.context() as patch:
            patch.setattr(line._flooder, "flood", lambda *_, **__: 1 / 0)
            line.wish(TUBE)
            until(lambda: "went wrong in floodem itself" in screen.now)
        assert "ZeroDivisionError" in caplog.text
        line.wish(TUBE)
        until(lambda: screen.now.startswith("done"))


def test_closing_stops_a_flood_that_grows_and_keeps_nothing(running):
    gate = Gate()
    with running(gate=gate) as (line, screen, kept):
        line.wish(TUBE)
        gate.open(3)
        until(lambda: screen.has_said("flooding from"))
        gate.open()
        line.close()
        assert not line._thread.is_alive()
        assert kept.floods == ()
