"""Kept floods: what is on disk after keeping, going on, taking back, and a kill in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kept_cases
from floodem.errors import (
    DestinationExistsError,
    RunConflictError,
    StorageError,
    UsageError,
    VolumeFormatError,
)
from floodem.flooding.kept import KeptFloods, default_destination
from floodem.flooding.kept_record import RECORD
from floodem.flooding.seeds.origins import find_origins, read_origins
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.chunked.volume import ChunkedVolume
from kept_cases import ACROSS_CHUNKS, BESIDE, OFFSET, SHAPE, flooded, image, keep, work

ON_WINDOWS = sys.platform == "win32"


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "floods.zarr"


def on_disk(destination):
    with open_volume(destination) as volume:
        return volume.read()


def expected(**objects):
    labels = np.zeros(SHAPE, np.uint64)
    for label, where in objects.items():
        part = labels[where]
        part[part == 0] = int(label.removeprefix("id"))
    return labels


@pytest.mark.parametrize("name", ["f.zarr", "f.zarr3", "f.n5", "precomputed://{}/f", "f.zarr@ids"])
def test_a_kept_flood_is_a_new_id_in_a_volume_that_says_where_it_lies(tmp_path, name):
    address = name.format(tmp_path) if "{}" in name else str(tmp_path / name)
    with KeptFloods(address, image=image()) as kept:
        first = keep(kept, flooded(*ACROSS_CHUNKS))
        second = keep(kept, flooded(*BESIDE))
        assert (first.label, second.label) == (1, 2) == kept.labels
        assert kept.label_at((OFFSET[0] + 60, OFFSET[1] + 5, OFFSET[2] + 50)) == 1
        assert kept.label_at(OFFSET) == 0
    with open_volume(address) as volume:
        assert (volume.box.start, volume.dtype) == (OFFSET, np.uint64)
        assert volume.voxel_size == VoxelSize(30, 6, 6)
    np.testing.assert_array_equal(on_disk(address), expected(id1=ACROSS_CHUNKS, id2=BESIDE))


def test_what_was_kept_earlier_is_never_overwritten(destination):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*ACROSS_CHUNKS))
        second = keep(kept, flooded(*BESIDE))
        overlap = np.count_nonzero(expected(id1=ACROSS_CHUNKS)[BESIDE])
        assert second.voxels == np.count_nonzero(flooded(*BESIDE).mask) - overlap
        assert keep(kept, flooded(*BESIDE)) is None
        assert len(kept.floods) == 2


def test_floods_are_taken_back_in_turn_also_after_the_program_has_ended(destination):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*ACROSS_CHUNKS))
        keep(kept, flooded(*BESIDE))
    with KeptFloods(destination, image=image()) as kept:
        assert kept.undo().label == 2
        np.testing.assert_array_equal(on_disk(destination), expected(id1=ACROSS_CHUNKS))
        assert keep(kept, flooded(slice(0, 3))).label == 2
        kept.undo()
        assert kept.undo().label == 1
        assert kept.undo() is None
        assert kept.next_label == 1
    assert not on_disk(destination).any()


def test_an_object_that_is_gone_on_with_keeps_its_id_and_gives_back_the_last_part_only(
    destination,
):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*ACROSS_CHUNKS))
        more = keep(kept, flooded(*BESIDE), label=1)
        assert (more.label, kept.labels) == (1, (1,))
        assert kept.box_of(1) == Box((70, 25, 70), (78, 50, 110))
        np.testing.assert_array_equal(
            on_disk(destination), expected(id1=ACROSS_CHUNKS) | expected(id1=BESIDE)
        )
        kept.undo()
        np.testing.assert_array_equal(on_disk(destination), expected(id1=ACROSS_CHUNKS))


def test_the_record_tells_where_each_object_came_from(destination):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*ACROSS_CHUNKS))
        keep(kept, flooded(*BESIDE), label=1)
        keep(kept, flooded(slice(0, 2)))
    assert read_origins(find_origins(destination)) == {1: (40, 40, 80), 2: (40, 40, 80)}
    origins = json.loads((Path(f"{destination}.floodem") / "origins.json").read_text())["origins"]
    assert origins["1"]["iters"] == 24
    assert origins["1"]["voxels"] == np.count_nonzero(on_disk(destination) == 1)
    with KeptFloods(destination, image=image()) as kept:
        first = kept.floods[0]
    assert (first.seed, first.calls, first.end) == ((40, 40, 80), 12, "exhausted")
    assert first.box == Box((70, 25, 80), (78, 40, 110))
    assert first.model == "a" * 64
    assert first.options == {"segment_threshold": 0.6}
    assert first.image == "array"


def test_nothing_is_left_where_nothing_was_kept(tmp_path):
    with KeptFloods(tmp_path / "deep" / "floods.zarr", image=image()) as kept:
        assert kept.labels == ()
        assert kept.undo() is None
        assert not kept.read(kept.box).any()
        assert keep(kept, flooded(slice(0, 0))) is None
    assert list(tmp_path.iterdir()) == []


@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(0, 30)] * 3))
@settings(max_examples=30, deadline=None)
def test_from_afar_every_nth_voxel_is_seen(three_floods, step, shift):
    box = Box(tuple(a + b for a, b in zip(OFFSET, shift, strict=True)), three_floods.box.stop)
    dz, dy, dx = step
    seen = three_floods.read(box, step=step)
    np.testing.assert_array_equal(seen, three_floods.read(box)[::dz, ::dy, ::dx])


@pytest.fixture(scope="module")
def three_floods(tmp_path_factory):
    with KeptFloods(tmp_path_factory.mktemp("kept") / "f.zarr", image=image()) as kept:
        keep(kept, flooded(*ACROSS_CHUNKS))
        keep(kept, flooded(*BESIDE))
        keep(kept, flooded(slice(30, 60)), label=1)
        yield kept


@pytest.mark.skipif(ON_WINDOWS, reason="there a process holds its own locks")
def test_two_at_one_destination_refuse_each_other(destination):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(slice(0, 2)))
        with pytest.raises(RunConflictError, match="another process is working on .*floods.zarr"):
            KeptFloods(destination, image=image())
    KeptFloods(destination, image=image()).close()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"shape": (70, 40, 90)}, r"with box = 10:80,20:60,30:130, and array has 10:80,20:60,30:1"),
        ({"offset": (0, 0, 0)}, "with box = .* choose another destination"),
        ({"voxel_size": VoxelSize(8, 8, 8)}, r"voxel_size_nm_zyx = \[30, 6, 6\]"),
        ({"voxel_size": None}, "voxel_size_nm_zyx"),
    ],
)
def test_floods_of_another_image_are_not_gone_on_with(destination, other, says):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*BESIDE))
    before = on_disk(destination)
    with pytest.raises(RunConflictError, match=says):
        KeptFloods(destination, image=image(**other))
    np.testing.assert_array_equal(on_disk(destination), before)


def test_a_volume_that_is_not_ours_is_left_as_it_is(destination):
    with create_volume(destination, shape=SHAPE, dtype=np.uint64, offset=OFFSET) as volume:
        volume.write(volume.box, np.full(SHAPE, 9, np.uint64))
    with pytest.raises(DestinationExistsError, match="is no volume of kept floods and was left"):
        KeptFloods(destination, image=image())
    assert (on_disk(destination) == 9).all()
    assert not Path(f"{destination}.floodem").exists()


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("gs://bucket/f.zarr", UsageError, "is remote"),
        ("f.h5@labels", VolumeFormatError, "no format that is written piece by piece"),
        ("f", VolumeFormatError, "give one of zarr, zarr3, n5, precomputed"),
    ],
)
def test_addresses_where_nothing_can_be_kept_are_refused(
    tmp_path, monkeypatch, address, error, says
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        KeptFloods(address, image=image())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"label": 1', '"label": -1'),
        lambda text: text.replace('"label": 1', '"label": "../1"'),
        lambda text: text.replace('"box": "70', '"box": "7x'),
        lambda text: text.replace('"step": null', '"step": {"action": "format"}'),
    ],
)
def test_a_damaged_record_is_said_to_be_and_stays(destination, damage):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*BESIDE))
    record = Path(f"{destination}.floodem") / RECORD
    damaged = damage(record.read_text())
    record.write_text(damaged)
    with pytest.raises(RunConflictError, match="is damaged|version 2"):
        KeptFloods(destination, image=image())
    assert record.read_text() == damaged


def test_voxels_that_are_not_those_of_the_record_are_not_taken_back(destination):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*BESIDE))
        before = on_disk(destination)
        bits = Path(f"{destination}.floodem") / "voxels" / "1.bits"
        bits.write_bytes(bits.read_bytes()[:-1] + b"\0")
        with pytest.raises(RunConflictError, match="1.bits is not the file it names"):
            kept.undo()
    np.testing.assert_array_equal(on_disk(destination), before)


def test_a_record_without_its_volume_is_not_believed(destination, tmp_path):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(*BESIDE))
    destination.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(RunConflictError, match="is gone, and its record"):
        KeptFloods(destination, image=image())


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(["keep", "undo", "reopen", "continue"]), max_size=12), st.data())
def test_undo_gives_back_exactly_what_was_there_before(tmp_path_factory, actions, data):
    destination = tmp_path_factory.mktemp("kept") / "f.zarr"
    history = [np.zeros(SHAPE, np.uint64)]
    kept = KeptFloods(destination, image=image())
    for action in actions:
        if action == "reopen":
            kept.close()
            kept = KeptFloods(destination, image=image())
        elif action == "undo":
            assert (kept.undo() is None) == (len(history) == 1)
            del history[max(1, len(history) - 1) :]
        else:
            corner = [data.draw(st.integers(0, edge - 12)) for edge in SHAPE]
            where = tuple(slice(at, at + data.draw(st.integers(1, 12))) for at in corner)
            label = kept.labels[0] if action == "continue" and kept.labels else None
            flood = keep(kept, flooded(*where), label=label)
            if flood is not None:
                labels = history[-1].copy()
                part = labels[where]
                part[part == 0] = flood.label
                history.append(labels)
    np.testing.assert_array_equal(kept.read(kept.box), history[-1])
    kept.close()


def states(destination):
    """What is on disk after each step of `work`, when nobody kills it."""
    return [kept.read(kept.box) for kept in work(destination)]


@pytest.mark.skipif(ON_WINDOWS, reason="there is no SIGKILL")
def test_a_kill_at_any_step_leaves_what_was_before_or_after(tmp_path):
    all_states = states(tmp_path / "whole.zarr")
    (tmp_path / "killed").mkdir()
    script = [sys.executable, kept_cases.__file__, str(tmp_path / "killed")]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    steps_done = [int(steps) for steps in ended.stdout.split()]
    went_on = set()
    for call, done in enumerate(steps_done):
        destination = tmp_path / "killed" / str(call) / "f.zarr"
        with KeptFloods(destination, image=image()) as kept:
            found = kept.read(kept.box)
            assert kept.labels == tuple(int(label) for label in np.unique(found) if label)
        fits = [n for n in (done - 1, done) if np.array_equal(found, all_states[max(n, 0)])]
        assert fits, f"killed before call {call}, after step {done}"
        went_on.add(fits[0] - done)
        assert not [path for path in destination.parent.iterdir() if "partial" in path.name]
    assert len(steps_done) > 20
    assert went_on == {-1, 0}


@pytest.mark.parametrize("goes_on_from", [None, 1])
def test_a_disk_that_refuses_in_the_middle_leaves_what_was_before(
    destination, monkeypatch, goes_on_from
):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(slice(0, 3)))
        before = kept.read(kept.box)
        write, calls = ChunkedVolume.write, []

        def refuse_once(volume, box, array):
            calls.append(box)
            if len(calls) == 2:
                raise StorageError("the disk is full: free some space")
            write(volume, box, array)

        monkeypatch.setattr(ChunkedVolume, "write", refuse_once)
        with pytest.raises(StorageError, match="disk is full"):
            keep(kept, flooded(*ACROSS_CHUNKS), label=goes_on_from)
        assert len(calls) > 2
        np.testing.assert_array_equal(kept.read(kept.box), before)
        assert len(kept.floods) == 1
        # There is room again.
        assert keep(kept, flooded(*ACROSS_CHUNKS), label=goes_on_from) is not None
        assert len(kept.floods) == 2
        kept.undo()
        np.testing.assert_array_equal(kept.read(kept.box), before)


def test_a_disk_that_refuses_everything_leaves_the_step_to_the_next_program(
    destination, monkeypatch
):
    with KeptFloods(destination, image=image()) as kept:
        keep(kept, flooded(slice(0, 3)))
        with monkeypatch.context() as patch:

            def refuse(*_):
                raise StorageError("the disk is full: free some space")

            patch.setattr(ChunkedVolume, "write", refuse)
            with pytest.raises(StorageError, match="disk is full"):
                keep(kept, flooded(*ACROSS_CHUNKS))
    with KeptFloods(destination, image=image()) as kept:
        assert kept.labels == (1, 2)
        assert (kept.read(kept.box)[ACROSS_CHUNKS] == 2).all()


@pytest.mark.parametrize(
    ("image_uri", "name"),
    [
        ("/data/em.h5@raw", "em-floods.zarr"),
        (r"C:\data\em.h5:raw", "em-floods.zarr"),
        ("precomputed://https://host/a/em?token=1", "em-floods.zarr"),
        ("sections/", "sections-floods.zarr"),
        ("..", "image-floods.zarr"),
    ],
)
def test_floods_are_kept_here_under_the_name_of_the_image(image_uri, name):
    assert default_destination(image_uri) == Path(name)
