"""What stitching writes and reads back: tables as bytes, joins.csv, damage, servers."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.assembly.block_store import BlockStore
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.columns import pack_columns, unpack_columns
from floodem.assembly.joins_table import COLUMNS, JoinsTable, read_pairs, write_pairs
from floodem.assembly.numbering import number_segments
from floodem.assembly.pairs import PairTask, compare_block_task
from floodem.errors import (
    LabelError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
)
from floodem.geometry import Box
from floodem.labels import components
from floodem.volumes.servers.transport import LocalStore, open_store
from stitching_cases import (
    EXACT,
    BlocksInMemory,
    blobs,
    cut,
    final_volume,
    require_bijection,
    stitch,
    write_blocks,
)

LIKE = {"ids": np.zeros(0, np.uint64), "place": np.zeros((0, 3), np.int64), "is": np.zeros(0, bool)}
SOME = {
    "ids": np.array([1, 2**64 - 1], np.uint64),
    "place": np.arange(6).reshape(2, 3),
    "is": np.array([True, False]),
}
PLAN = BlockPlan(box=Box.from_shape((6, 6, 12)), core=(6, 6, 6), margin=(0, 0, 2))


@pytest.fixture
def cut_in_two(tmp_path):
    truth = blobs((6, 6, 12), np.random.default_rng(5))
    return (*cut(truth, PLAN, folder=tmp_path / "work"), truth)


def unpacked(packed, **options):
    return unpack_columns(
        packed, **{"like": LIKE, "version": 1, "what": "a table", "uri": "x.npz", **options}
    )


def with_member(name, data):
    """Return a packed table in which one array has other bytes."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(pack_columns(SOME, version=1))) as old,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, data if member == name else old.read(member))
    return made.getvalue()


def array_bytes(array):
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


def test_columns_come_back_as_they_were_and_in_the_same_bytes():
    packed = pack_columns(SOME, version=1)
    assert packed == pack_columns({name: column.copy() for name, column in SOME.items()}, version=1)
    found = unpacked(packed)
    assert list(found) == list(SOME)
    for name, column in SOME.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype
    turned = pack_columns(SOME | {"place": np.asfortranarray(SOME["place"])}, version=1)
    np.testing.assert_array_equal(unpacked(turned)["place"], SOME["place"])


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (None, "it is not there"),
        (b"", "not a zip file"),
        (pack_columns(SOME, version=1)[:-30], "not a zip file"),
        (pack_columns(SOME, version=2), "not of version 1"),
        (pack_columns({"ids": SOME["ids"]}, version=1), "other columns"),
        (pack_columns(SOME | {"ids": SOME["ids"][:1]}, version=1), "do not fit each other"),
        (pack_columns(SOME | {"place": SOME["place"][:, :2]}, version=1), "do not fit each other"),
        (pack_columns(SOME | {"ids": SOME["ids"].astype(float)}, version=1), "not of uint64"),
        (with_member("ids.npy", array_bytes(np.array([{}], object))), "not of uint64"),
        (
            with_member("ids.npy", array_bytes(np.zeros(2, np.uint64))[:-1]),
            "not as long as it says",
        ),
        (with_member("ids.npy", b"\x93NUMPY\x01\x00"), "damaged"),
        (with_member("ids.npy", b"something else"), "is no array"),
        (with_member("version.npy", array_bytes(np.ones(1, np.int64))), "not of version 1"),
    ],
)
def test_damaged_tables_are_named(packed, reason):
    with pytest.raises(VolumeFormatError, match=rf"x\.npz cannot be .*{reason}"):
        unpacked(packed)


def test_a_table_that_declares_more_than_it_holds_is_refused():
    header = array_bytes(np.zeros(2, np.uint64)).replace(b"(2,)", b"(9999999999,)")
    header = header.replace(b", }         ", b", }")
    with pytest.raises(UnsafeFileError, match="declares 79999999992 bytes"):
        unpacked(with_member("ids.npy", header))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changed_bytes_of_a_table_give_a_table_or_one_sentence(data):
    packed = bytearray(pack_columns(SOME, version=1))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unpacked(bytes(packed))
    except (VolumeFormatError, UnsafeFileError) as error:
        assert "x.npz" in str(error)  # noqa: PT017 - both outcomes are allowed
    else:
        assert set(found) == set(SOME)


def test_many_threads_read_tables_at_once():
    packed = pack_columns(SOME, version=1)
    failed = []

    def read():
        try:
            for _ in range(300):
                unpacked(packed)
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("rows_per_file", [1, 2, 3, 100])
def test_a_long_table_goes_on_in_further_files(tmp_path, cut_in_two, rows_per_file):
    store, floods, _ = cut_in_two
    stitch(store, floods)
    block = PLAN.block(0)
    pairs = read_pairs(store, block, objects=open_store(store.address))
    assert len(pairs) >= 4
    table = JoinsTable(LocalStore(tmp_path / "out"), plan=PLAN, rows_per_file=rows_per_file)
    ids = np.arange(len(pairs), dtype=np.uint64)
    table.add(block, pairs, id_a=ids, id_b=ids)
    table.close()
    files = sorted((tmp_path / "out").iterdir(), key=lambda file: (len(file.name), file.name))
    assert len(files) == -(-len(pairs) // rows_per_file)
    assert [file.name for file in files[:2]] == ["joins.csv", "joins-2.csv"][: len(files)]
    whole = (tmp_path / "work" / "joins.csv").read_text(encoding="ascii").splitlines()
    places = [line.split(",")[:3] for line in whole[1:]]
    lines = [file.read_text(encoding="ascii").splitlines() for file in files]
    assert all(one[0] == ",".join(COLUMNS) for one in lines)
    assert [line.split(",")[:3] for one in lines for line in one[1:]] == places


def test_a_block_that_was_not_compared_is_named(cut_in_two):
    store, floods, _ = cut_in_two
    compare_block_task(PairTask(store=store, block=PLAN.block(0), rule=EXACT))
    with pytest.raises(VolumeFormatError, match=r"pairs/0000-0000-0001.npz .* it is not there"):
        number(store, floods)


def number(store, floods):
    return number_segments(store, floods=floods, scratch=Path(store.address) / "tmp")


def test_results_of_other_floods_are_refused(cut_in_two):
    store, floods, _ = cut_in_two
    stitch(store, floods)
    with pytest.raises(VolumeFormatError, match="results of 1 floods do not fit 2 blocks"):
        number(store, floods[:1])
    with pytest.raises(VolumeFormatError, match=r"has \d+ segments, of which 0 are carried"):
        number(store, [floods[0], floods[1] | {"segments": 99}])
    with pytest.raises(VolumeFormatError, match="no counts of segments"):
        number(store, [{}, {}])


def test_pairs_of_other_blocks_are_refused(cut_in_two):
    store, floods, _ = cut_in_two
    stitch(store, floods)
    folder = Path(store.address) / "pairs"
    os.replace(folder / "0000-0000-0000.npz", folder / "0000-0000-0001.npz")
    with pytest.raises(VolumeFormatError, match="no neighbours"):
        read_pairs(store, PLAN.block(1), objects=open_store(store.address))


@pytest.mark.parametrize(
    ("column", "value"), [("a", 0), ("b", 99), ("carried_a", 7), ("carried_b", 2**64 - 1)]
)
def test_pairs_of_segments_that_are_not_there_are_refused(cut_in_two, column, value):
    store, floods, _ = cut_in_two
    stitch(store, floods)
    block = PLAN.block(0)
    pairs = read_pairs(store, block, objects=open_store(store.address))
    getattr(pairs, column)[0] = value
    write_pairs(store, block, pairs=[pairs])
    with pytest.raises(VolumeFormatError, match="name segments that their blocks do not have"):
        number(store, floods)


def test_labels_beyond_the_table_are_refused(tmp_path):
    store = BlocksInMemory(address=str(tmp_path / "work"), plan=PLAN)
    write_blocks(store, lambda block: np.ones(block.halo.shape, np.uint32))
    for labels, _ in (store.kept[store.address, block.key] for block in PLAN):
        labels[:] = 2
    with pytest.raises(VolumeFormatError, match="holds label 2, and its table has 1 segments"):
        compare_block_task(PairTask(store=store, block=PLAN.block(0), rule=EXACT))


def test_ids_that_do_not_fit_64_bits_are_refused(tmp_path):
    truth = np.zeros((6, 6, 12), np.int64)
    truth[:, :2], truth[:, 3:] = 1, 2
    store = BlocksInMemory(address=str(tmp_path / "work"), plan=PLAN)
    labels = {block.key: truth[block.halo.slices()].astype(np.uint32) for block in PLAN}
    floods = write_blocks(store, lambda block: labels[block.key], carried_of=lambda _: (2**64 - 1,))
    with pytest.raises(LabelError, match=r"leave no room .* --relabel"):
        stitch(store, floods)


def test_progress_counts_the_blocks_of_every_pass(cut_in_two):
    store, floods, _ = cut_in_two
    stitch(store, floods)
    told = []
    number_segments(
        store,
        floods=floods,
        scratch=Path(store.address) / "tmp",
        progress=lambda progress: told.append((progress.done, progress.total)),
    )
    assert told == [(done, 6) for done in range(1, 7)]


def test_a_full_disk_leaves_a_sentence_and_numbering_can_be_repeated(cut_in_two, monkeypatch):
    store, floods, truth = cut_in_two
    stitch(store, floods)
    write = LocalStore.write

    def full(self, name, data, *, only_new=False):
        if name.startswith("mapping/"):
            raise StorageError(f"cannot write {name}: No space left on device")
        return write(self, name, data, only_new=only_new)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            number(store, floods)
    number(store, floods)
    require_bijection(final_volume(store), components(truth, connectivity=26)[0])


@pytest.mark.usefixtures("no_servers")
def test_blocks_on_a_server_are_stitched_as_on_a_disk(bucket, tmp_path):
    truth = blobs((6, 6, 12), np.random.default_rng(5))
    found = []
    for folder in (str(tmp_path / "work"), f"{bucket.root}/em.floodem"):
        store, floods = cut(truth, PLAN, folder=folder, store_class=BlockStore)
        stitch(store, floods, scratch=tmp_path / "scratch")
        found.append(final_volume(store))
    np.testing.assert_array_equal(*found)
    require_bijection(found[0], components(truth, connectivity=26)[0])
