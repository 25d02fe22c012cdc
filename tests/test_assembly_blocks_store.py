"""What blocks leave behind: labels and tables come back as they were, or are refused."""

from __future__ import annotations

import io
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.columns import pack_columns
from floodem.errors import FloodemError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Box
from floodem.volumes import create_volume, open_volume
from floodem.volumes.servers.transport import open_store

PLAN = BlockPlan(box=Box((-5, 10, 3), (15, 40, 90)), core=(20, 30, 50), margin=(4, 4, 8))
FIRST, SECOND = PLAN


def table(carried=0, new=0, *, seed=0, block=FIRST):
    """Return a possible table of a block."""
    random = np.random.default_rng(seed)
    core = random.integers(0, 5, carried + new)
    return SegmentTable(
        carried=np.sort(random.choice(2**62, carried, replace=False)).astype(np.uint64) + 1,
        voxels=core + random.integers(1, 5, carried + new),
        core_voxels=core,
        starts=random.integers(block.halo.start, block.halo.stop, (new, 3)),
        calls=random.integers(1, 2**40, new),
        is_cut_short=random.random(new) < 0.5,
    )


def labels_of(block, *, seed=0):
    return np.random.default_rng(seed).integers(0, 7, block.halo.shape).astype(np.uint32)


def assert_same(one: SegmentTable, other: SegmentTable):
    for field in fields(SegmentTable):
        before, after = getattr(one, field.name), getattr(other, field.name)
        assert before.dtype == after.dtype, field.name
        np.testing.assert_array_equal(before, after, err_msg=field.name)


def written(path, *, seed=0) -> BlockStore:
    store = BlockStore(address=str(path), plan=PLAN)
    store.write(FIRST, labels_of(FIRST, seed=seed), table=table(2, 3))
    return store


@given(carried=st.integers(0, 9), new=st.integers(0, 9), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_a_table_comes_back_as_it_was(tmp_path_factory, carried, new, seed):
    store = BlockStore(address=str(tmp_path_factory.mktemp("blocks")), plan=PLAN)
    before = table(carried, new, seed=seed)
    store.write(FIRST, labels_of(FIRST), table=before)
    assert_same(before, store.read_table(FIRST))
    assert len(before) == carried + new


@pytest.mark.parametrize("name", ["plain", "seg.h5@labels.floodem", "a b:c.zarr.floodem", "é#?"])
def test_labels_come_back_whatever_the_folder_is_called(tmp_path, name):
    store = written(tmp_path / name)
    with store.open_labels(FIRST) as volume:
        assert volume.box == FIRST.halo
        assert volume.dtype == np.uint32
        np.testing.assert_array_equal(volume.read(), labels_of(FIRST))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.usefixtures("no_servers")
def test_blocks_can_lie_on_servers(bucket):
    store = BlockStore(address=f"{bucket.root}/seg.zarr.floodem", plan=PLAN)
    for block in PLAN:
        kept = table(1, block.index, block=block)
        store.write(block, labels_of(block, seed=block.index), table=kept)
    for block in PLAN:
        with store.open_labels(block) as volume:
            np.testing.assert_array_equal(volume.read(), labels_of(block, seed=block.index))
        assert_same(store.read_table(block), table(1, block.index, block=block))
    assert all(name.startswith("seg.zarr.floodem/blocks/") for name in bucket.objects)


def test_a_block_without_segments_has_a_table_and_no_labels(tmp_path):
    store = BlockStore(address=str(tmp_path), plan=PLAN)
    store.write(FIRST, np.zeros(FIRST.halo.shape, np.uint32), table=table())
    assert_same(store.read_table(FIRST), table())
    with pytest.raises(VolumeNotFoundError):
        store.open_labels(FIRST)


def test_the_same_block_leaves_the_same_bytes(tmp_path):
    first, again = written(tmp_path / "a"), written(tmp_path / "b")
    files = [open_store(store.address) for store in (first, again)]
    names = files[0].names()
    assert names == files[1].names()
    assert [files[0].read(name) for name in names] == [files[1].read(name) for name in names]


def test_a_block_that_is_written_again_replaces_what_was_there(tmp_path):
    written(tmp_path, seed=1)
    with written(tmp_path, seed=2).open_labels(FIRST) as volume:
        np.testing.assert_array_equal(volume.read(), labels_of(FIRST, seed=2))


@pytest.mark.parametrize("left", ["nothing in it", "half of it"])
def test_what_a_killed_process_left_of_the_labels_is_replaced(tmp_path, left):
    written(tmp_path, seed=1)
    labels = tmp_path / "blocks" / f"{FIRST.key}.zarr"
    if left == "half of it":
        for path in labels.rglob("c*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:10])
    else:
        for path in sorted(labels.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    with written(tmp_path, seed=2).open_labels(FIRST) as volume:
        np.testing.assert_array_equal(volume.read(), labels_of(FIRST, seed=2))


def test_the_table_comes_after_the_labels(tmp_path, monkeypatch):
    store = BlockStore(address=str(tmp_path), plan=PLAN)
    monkeypatch.setattr(
        "floodem.assembly.block_store.create_volume",
        lambda *args, **kwargs: pytest.fail("the disk is full"),
    )
    with pytest.raises(pytest.fail.Exception):
        store.write(FIRST, labels_of(FIRST), table=table(0, 3))
    with pytest.raises(VolumeFormatError, match="not there"):
        store.read_table(FIRST)


def test_labels_of_another_run_are_refused(tmp_path):
    store = BlockStore(address=str(tmp_path), plan=PLAN)
    address = f"zarr3://{tmp_path}/blocks/{FIRST.key}.zarr"
    with create_volume(address, shape=(20, 30, 58), dtype=np.uint32, offset=(0, 0, 0)):
        pass
    with pytest.raises(VolumeFormatError, match="not of this run"):
        store.open_labels(FIRST)
    with create_volume(
        address, shape=FIRST.halo.shape, dtype=np.uint64, offset=FIRST.halo.start, overwrite=True
    ):
        pass
    with pytest.raises(VolumeFormatError, match="uint64 in .*, not uint32"):
        store.open_labels(FIRST)


def test_a_missing_table_is_named(tmp_path):
    store = BlockStore(address=str(tmp_path), plan=PLAN)
    with pytest.raises(VolumeFormatError, match=f"blocks/{FIRST.key}.npz.*not there"):
        store.read_table(FIRST)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_tables_are_refused_or_read_as_they_were(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("blocks")
    store = written(folder)
    path = folder / "blocks" / f"{FIRST.key}.npz"
    whole = path.read_bytes()
    damage = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damage:
            damage[data.draw(st.integers(0, len(damage) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damage))
    try:
        found = store.read_table(FIRST)
    except FloodemError as error:
        assert str(path) in str(error)  # noqa: PT017 - the property is of either outcome
    else:
        assert_same(found, table(2, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {"carried": t.carried[::-1].copy()}, "ascend"),
        (lambda t: {"carried": np.array([7, 7], np.uint64)}, "ascend"),
        (lambda t: {"voxels": t.voxels + FIRST.halo.size}, "other voxels"),
        (lambda t: {"voxels": np.full(5, 2**62)}, "other voxels"),
        (lambda t: {"voxels": t.voxels * 0 + FIRST.halo.size // 2}, "other voxels"),
        (lambda t: {"core_voxels": t.core_voxels - 9}, "other voxels"),
        (lambda t: {"core_voxels": t.voxels + 1}, "a core has more voxels"),
        (lambda t: {"starts": t.starts + 1000}, "begins outside"),
        (lambda t: {"starts": t.starts - 1000}, "begins outside"),
    ],
)
def test_tables_that_cannot_be_of_the_block_are_refused(tmp_path, change, says):
    store = BlockStore(address=str(tmp_path), plan=PLAN)
    good = table(2, 3)
    store.write(FIRST, labels_of(FIRST), table=replace(good, **change(good)))
    with pytest.raises(VolumeFormatError, match=says):
        store.read_table(FIRST)


def test_another_version_is_refused_by_its_number(tmp_path):
    store = written(tmp_path)
    columns = {
        "carried": np.ones(1, np.uint64),
        "voxels": np.ones(1, np.int64),
        "core_voxels": np.ones(1, np.int64),
        "starts": np.zeros((1, 3), np.int64),
        "calls": np.zeros(1, np.int64),
        "is_cut_short": np.zeros(1, bool),
    }
    path = tmp_path / "blocks" / f"{FIRST.key}.npz"
    path.write_bytes(pack_columns(columns, version=1))
    assert len(store.read_table(FIRST)) == 1
    path.write_bytes(pack_columns(columns, version=2))
    with pytest.raises(VolumeFormatError, match="not of version 1"):
        store.read_table(FIRST)


def test_a_table_that_declares_more_than_it_holds_takes_no_memory(tmp_path):
    store = written(tmp_path)
    path = tmp_path / "blocks" / f"{FIRST.key}.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (2**50,)}
    )
    told = io.BytesIO()
    with zipfile.ZipFile(path) as there, zipfile.ZipFile(told, "w") as bomb:
        for name in there.namelist():
            bomb.writestr(name, header.getvalue() if "voxels" in name else there.read(name))
    Path(path).write_bytes(told.getvalue())
    with pytest.raises(FloodemError):
        store.read_table(FIRST)


def test_nothing_in_a_table_is_executed(tmp_path):
    store = written(tmp_path)
    path = tmp_path / "blocks" / f"{FIRST.key}.npz"
    with zipfile.ZipFile(path) as there:
        members = {name: there.read(name) for name in there.namelist()}
    pickled = io.BytesIO()
    np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
    members["carried.npy"] = pickled.getvalue()
    with zipfile.ZipFile(path, "w") as changed:
        for name, data in members.items():
            changed.writestr(name, data)
    with pytest.raises(VolumeFormatError):
        store.read_table(FIRST)


def test_labels_are_ordinary_volumes(tmp_path):
    written(tmp_path)
    with open_volume(tmp_path / "blocks" / f"{FIRST.key}.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), labels_of(FIRST))
